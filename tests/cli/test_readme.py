"""Every command and snippet of the README and of docs/start.md runs and prints what is shown."""

import re
import subprocess

import pytest
from conftest import ROOT, assert_shows, environment, python, shell

PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/start.md")}
COMMANDS = (
    "train",
    "assign",
    "name",
    "export",
    "info",
    "plan",
    "inspect",
    "evaluate",
    "sweep",
    "update",
    "edit",
    "report",
)
TEXT = "\n".join(PAGES.values())
CONSOLE = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.splitlines()[0][2:42])
def test_console_blocks(block, folder):
    first, _, expected = block.partition("\n")
    assert first.startswith("$ ")
    result = shell(first[2:], folder)
    assert result.returncode == 0, result.stderr
    assert_shows(result.stderr + result.stdout, expected)


@pytest.mark.parametrize("snippet", PYTHON)
def test_python_snippets(snippet, folder):
    result = subprocess.run(
        [python(), "-c", snippet], cwd=folder, env=environment(), capture_output=True
    )
    assert result.returncode == 0, result.stderr


def test_every_option_is_in_the_help(dink):
    """An option that the pages name exists in some command's help."""
    helps = "".join(dink(command, "--help").stdout for command in COMMANDS)
    text = re.sub(r"torchrun .* -m dinkcli|uv pip .*", "", TEXT)  # those have options of their own
    for option in set(re.findall(r"`(--[a-z-]+)", text)) | set(re.findall(r" (--[a-z-]+)", text)):
        assert option in helps


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_point_to_files(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_readme_is_short():
    assert len(PAGES["README.md"].split()) <= 800
