"""docs/commands/ has a page for each command that says what its help says, and docs/index.md all
pages there are.

``python tests/cli/test_docs_commands.py`` writes the pages again.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dinkcli.cli.app import COMMANDS

DOCS = Path(__file__).parents[2] / "docs"


def page(command: str) -> str:
    env = os.environ | {"COLUMNS": "100"}
    line = [sys.executable, "-m", "dinkcli", command, "--help"]
    shown = subprocess.run(line, env=env, check=True, capture_output=True, text=True).stdout
    shown = "\n".join(line.rstrip() for line in shown.rstrip().splitlines())
    return (
        f"# dink {command}\n\nThis page is what `dink {command} --help` prints.\n\n"
        f"```text\n{shown}\n```\n\n[All commands and pages](../index.md)\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_is_what_the_help_says(command):
    shown = (DOCS / "commands" / f"{command}.md").read_text(encoding="utf-8")
    assert shown == page(command), "run python tests/cli/test_docs_commands.py"


def test_the_index_has_every_page():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w/.-]+\.md)\)", index))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} - {"index.md"}
    assert linked == pages
    assert {f"commands/{command}.md" for command in COMMANDS} <= pages
    assert all((DOCS / each).exists() for each in linked)


if __name__ == "__main__":
    for name in COMMANDS:
        (DOCS / "commands" / f"{name}.md").write_text(page(name), encoding="utf-8")
