"""Defaults from DINK_* variables and from [tool.dink] of pyproject.toml, and what failures say."""

import json

import numpy as np
import pytest
from conftest import environment

import dinkcli


@pytest.fixture
def folder(tmp_path):
    z = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    return tmp_path


def options_of(folder):
    return dinkcli.load(folder / "x.dink.safetensors").training["options"]


def test_variables_pyproject_and_options_in_their_order(dink, folder):
    """An option wins over a variable, and that over the file."""
    (folder / "pyproject.toml").write_text(
        "[tool.dink]\nseed = 5\nepochs = 7\nmap = 'pca'\n[tool.dink.train]\nn_clusters = 3\n"
        "metric = 'cosine'\ntexts = 't.txt'\n[tool.dink.assign]\ntop = 2\n"
    )
    (folder / "t.txt").write_text("some words\n" * 60)
    env = environment() | {"DINK_EPOCHS": "8", "DINK_SEED": "6", "DINK_QUIET": "1"}
    result = dink("train", "x.npy", "--seed", 4, cwd=folder, env=env)
    found = options_of(folder)
    assert (found["seed"], found["epochs"], found["metric"]) == (4, 8, "cosine")
    assert (found["n_clusters"], result.stderr) == (3, "")
    assert dinkcli.load(folder / "x.dink.safetensors").names
    header = dink("assign", "x.dink.safetensors", "x.npy", cwd=folder).stdout.splitlines()[0]
    assert header == "row,cluster,cluster_1,cluster_2,probability_1,probability_2"
    assert "env var" not in dink("train", "--help", cwd=folder, env=env).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.dink]\nsede = 1", "pyproject.toml: [tool.dink] sede: dink has no such option"),
        (
            "[tool.dink.train]\nshard = '1/2'",
            "pyproject.toml: [tool.dink] shard: dink train has no such option",
        ),
        ("[tool.dink.trian]", "pyproject.toml: [tool.dink.trian]: dink has no such command"),
        ("[tool.dink]\nmetric = 'l1'", "(pyproject.toml)"),
        ("[tool.dink]\ntemperature = 'hot'", "--temperature (pyproject.toml) hot: expected auto"),
        ("[tool.dink]\nseed = ", "pyproject.toml: "),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line(dink, folder, text, message):
    (folder / "pyproject.toml").write_text(text)
    for as_json in ((), ("--json",)):
        said = dink("train", "x.npy", "-k", 3, *as_json, cwd=folder, code=2).stderr
        assert message in said.splitlines()[-1]
    assert json.loads(said)["exit_code"] == 2
    assert dink("train", "--help", cwd=folder).stdout


@pytest.mark.parametrize("name", ["DINK_SEED", "DINK_TEMPERATURE", "DINK_DEVICE"])
def test_what_is_wrong_in_a_variable_names_it(dink, folder, name):
    env = environment() | {name: "x"}
    said = dink("train", "x.npy", "-k", 3, cwd=folder, env=env, code=2).stderr
    assert name in said.splitlines()[-1]


COMMANDS = {
    "train": ["none.npy", "-k", 2],
    "assign": ["none", "none.npy", "-o", "y.csv"],
    "name": ["none", "--names", "none"],
    "inspect": ["none"],
    "evaluate": ["none", "none.npy"],
    "sweep": ["none.npy"],
    "update": ["none", "none.npy", "--dry-run"],
    "edit": ["none", "--drop", 1, "-o", "m.safetensors"],
    "dedup": ["none", "none.npy", "-o", "y.csv"],
    "sample": ["none", "none.npy", "-n", 3, "-o", "y.csv"],
    "info": ["none.npy"],
    "plan": ["none.npy", "-k", 2],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_failures_are_json_under_json(dink, folder, command):
    """A file that is not there, and an option that is not."""
    for more in ((), ("--nonsense",)):
        result = dink(command, *COMMANDS[command], "--json", *more, cwd=folder, code=2)
        failure = json.loads(result.stderr)
        assert (result.stdout, failure["exit_code"]) == ("", 2)
        assert ("none" if not more else "--nonsense") in failure["error"]


def test_a_recommended_k_comes_with_its_reason(dink, folder):
    centers = np.repeat(np.eye(3) * 40, 20, 0).astype(np.float32)
    np.save(folder / "x.npy", np.load(folder / "x.npy") + centers)
    said = dink("train", "x.npy", "-k", "2:6", "--verbose", cwd=folder).stderr
    assert "K = 3: two halves of the data agree" in said
    found = json.loads(dink("train", "x.npy", "-k", "2:6", "--json", cwd=folder).stdout)
    assert found["n_clusters"] == 3
    assert found["recommendation"].startswith("K = 3: two halves of the data agree")
