"""Every command of docs/tutorial.md runs, in order, and prints what the page shows."""

import re

import pytest
from conftest import ROOT, assert_shows, shell

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n\$ (.*?)```", TUTORIAL, re.DOTALL)
# A command ends with its line, or with the quote that it opens.
PARTS = [re.match(r'((?:[^\n"]|"[^"]*")*)\n(.*)', block, re.DOTALL).groups() for block in BLOCKS]


@pytest.mark.parametrize(("command", "expected"), PARTS, ids=[c[:40] for c, _ in PARTS])
def test_command(command, expected, folder):
    result = shell(command, folder)
    assert result.returncode == 0, result.stderr
    assert_shows(result.stderr + result.stdout, expected)


def test_links_point_to_files():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TUTORIAL):
        assert (ROOT / "docs" / target).exists(), target
