"""The documentation builds as a site without a warning: no broken link, no page out of the tree."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "-b", "html"]
    result = subprocess.run(
        [*command, "-d", tmp_path / "cache", ROOT / "docs", tmp_path / "site"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    shown = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    assert "dinkcli.train" in shown and "n_clusters" in shown
