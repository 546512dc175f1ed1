"""Every recipe of docs/recipes.md runs, in order, and prints what the page shows."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import duckdb
import pytest
from conftest import ROOT, assert_shows, environment, python, shell

RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(console|python|sql)\n(.*?)```", RECIPES, re.DOTALL)

# What the engines would otherwise find out from the machine, or tell others about it.
ENGINES = {"PYSPARK_PYTHON": sys.executable, "RAY_USAGE_STATS_ENABLED": "0"}

NAMES = [block.splitlines()[0][:60] for _, block in BLOCKS]


@pytest.mark.parametrize(("kind", "block"), BLOCKS, ids=NAMES)
def test_recipe(kind, block, folder, monkeypatch):
    for tool in ("jq", "parallel"):
        if re.search(rf"(^\$|\|) {tool} ", block) and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if kind == "sql":
        monkeypatch.chdir(folder)
        assert duckdb.sql(block).fetchall()
        return
    if kind == "python":
        for package in ("pyspark", "ray"):
            if re.search(rf"^(import|from) {package}\b", block, re.MULTILINE) and not find_spec(
                package
            ):
                pytest.skip(f"{package} is not installed")
        if "pyspark" in block and shutil.which("java") is None:
            pytest.skip("there is no Java for Spark")
        command = [python(), "-c", block]
        env = environment() | ENGINES
        env["PATH"] = f"{folder / 'bin'}:{env['PATH']}"
        result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return
    first, _, expected = block.partition("\n")
    assert first.startswith("$ ")
    result = shell(first[2:], folder)
    assert result.returncode == 0, result.stderr
    assert_shows(result.stderr + result.stdout, expected)


def test_every_tool_has_a_recipe():
    for tool in (
        "DuckDB",
        "jq",
        "pandas",
        "polars",
        "xargs",
        "GNU parallel",
        "Ray Data",
        "Spark",
        "torchrun",
        "Slurm",
        "Near-duplicates",
        "Samples",
        "limited size",
        "faiss",
    ):
        assert re.search(rf"^## .*{tool}", RECIPES, re.MULTILINE), tool


def test_links_point_to_files():
    for target in re.findall(r"\]\((?!http)([^)#]+)", RECIPES):
        assert os.path.exists(ROOT / "docs" / target), target
