"""Folders of parts: committed one by one, resumed to the same bytes."""

import json
import os

import duckdb
import numpy as np
import pytest
from conftest import nearest_float64

import dinkcli
import dinkcli.assigning.assigner


@pytest.fixture
def model(tmp_path, monkeypatch):
    """1000 rows in blocks of 64, so that parts and blocks cut across each other."""
    z = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    model = dinkcli.Model(z[:30], np.ones(30))
    model.save(tmp_path / "m.safetensors")
    monkeypatch.setattr("dinkcli.assigning.assigner.block_rows", lambda *_: 64)
    return model, nearest_float64(z, z[:30])


def stop_after(monkeypatch, n_blocks, error):
    """Lets ``n_blocks`` be assigned, then fails."""
    original, calls = dinkcli.assigning.assigner.Assigner.__call__, iter(range(n_blocks))

    def stopping(self, *args):
        if next(calls, None) is None:
            raise error
        return original(self, *args)

    monkeypatch.setattr("dinkcli.assigning.assigner.Assigner.__call__", stopping)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "npy", "arrow", "arrows"])
def test_parts_together_are_the_whole(invoke, model, tmp_path, suffix):
    _, truth = model
    options = ["--format", suffix]
    arguments = ["assign", "m.safetensors", "x.npy", "-o", "parts", "--rows-per-file", 300]
    result = invoke(*arguments, *options)
    assert "parts: 1000 rows assigned, 4 parts" in result.stderr
    names = [f"part-{i:05d}.{suffix}" for i in range(4)]
    assert sorted(os.listdir(tmp_path / "parts")) == ["_dink.json", *names]
    if suffix == "npy":
        found = np.concatenate([np.load(tmp_path / "parts" / name) for name in names])
    elif suffix in ("arrow", "arrows"):
        import polars as pl

        read = pl.read_ipc if suffix == "arrow" else pl.read_ipc_stream
        found = pl.concat([read(tmp_path / "parts" / name) for name in names])["cluster"]
    else:
        reader = {"jsonl": "read_json"}.get(suffix, f"read_{suffix}")
        query = f"select row, cluster from {reader}('{tmp_path}/parts/*.{suffix}') order by row"
        rows = duckdb.sql(query).fetchnumpy()
        np.testing.assert_array_equal(rows["row"], np.arange(1000))
        found = rows["cluster"]
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize("size", [64, 100, 999, 5000])
@pytest.mark.parametrize("n_blocks", [0, 1, 7, 15])
def test_a_resumed_run_gives_the_same_bytes(invoke, model, tmp_path, monkeypatch, size, n_blocks):
    options = ["--rows-per-file", size, "--soft", "--distance"]
    invoke("assign", "m.safetensors", "x.npy", "-o", "whole", *options)
    with monkeypatch.context() as patch:
        stop_after(patch, n_blocks, RuntimeError("stopped"))
        invoke("assign", "m.safetensors", "x.npy", "-o", "parts", *options, code=1)
    complete = 64 * n_blocks // size
    assert (tmp_path / "parts").exists() == (complete > 0)
    if complete:
        assert not json.loads((tmp_path / "parts" / "_dink.json").read_text())["complete"]
        assert len(os.listdir(tmp_path / "parts")) == complete + 1
        (tmp_path / "parts" / ".part-00001.parquet.abc.tmp").write_text("of a killed run")
    result = invoke(
        "assign", "m.safetensors", "x.npy", "-o", "parts", *options, "--resume", "--json"
    )
    summary = json.loads(result.stdout)
    assert (summary["rows_before"], summary["rows"]) == (complete * size, 1000 - complete * size)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    again = invoke(
        "assign", "m.safetensors", "x.npy", "-o", "parts", *options, "--resume", "--json"
    )
    assert json.loads(again.stdout)["rows"] == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_ctrl_c_keeps_the_complete_parts(invoke, model, tmp_path, monkeypatch):
    stop_after(monkeypatch, 5, KeyboardInterrupt())
    arguments = ["assign", "m.safetensors", "x.npy", "-o", "parts", "--rows-per-file", 100]
    result = invoke(*arguments, "-q", code=130)
    assert result.stderr == (
        "Interrupted; the complete parts in parts stay. Go on with the same command and --resume.\n"
    )
    assert sorted(os.listdir(tmp_path / "parts")) == [
        "_dink.json",
        *(f"part-{i:05d}.parquet" for i in range(3)),
    ]


def test_another_run_is_refused(invoke, model, tmp_path):
    arguments = ["assign", "m.safetensors", "x.npy", "-o", "parts", "--rows-per-file"]
    invoke(*arguments, 300)
    before = contents(tmp_path / "parts")
    assert "go on with it by --resume" in invoke(*arguments, 300, code=2).stderr
    for changed, message in (
        ([200], "rows_per_file was 300, now it is 200"),
        ([300, "--soft"], "soft was False, now it is True"),
        ([300, "--format", "csv"], "format was 'parquet', now it is 'csv'"),
    ):
        result = invoke(*arguments, *changed, "--resume", code=2)
        assert f"--resume parts: another run: {message}" in result.stderr
    np.save(tmp_path / "x.npy", np.zeros((999, 8), np.float32))
    assert "another run: input was" in invoke(*arguments, 300, "--resume", code=2).stderr
    other = dinkcli.Model(np.eye(8, dtype=np.float32), np.ones(8))
    other.save(tmp_path / "m.safetensors")
    result = invoke(*arguments, 300, "--resume", code=2)
    assert "another run" in result.stderr
    assert contents(tmp_path / "parts") == before


def test_folders_that_hold_something_else_are_left_alone(invoke, model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    (tmp_path / "empty").mkdir()
    arguments = ["assign", "m.safetensors", "x.npy", "--rows-per-file", 300, "-o"]
    for resume in ([], ["--resume"]):
        result = invoke(*arguments, "full", *resume, code=2)
        assert "full: not empty, and not a folder of parts; choose another" in result.stderr
    assert os.listdir(tmp_path / "full") == ["note"]
    assert "no such folder" in invoke(*arguments, "no/parts", code=2).stderr
    invoke(*arguments, "empty")
    assert len(os.listdir(tmp_path / "empty")) == 5
    (tmp_path / "empty" / "_dink.json").write_text("{")
    result = invoke(*arguments, "empty", "--resume", code=1)
    assert "_dink.json: cannot be read" in result.stderr


def test_a_failed_run_leaves_an_empty_folder_empty(invoke, model, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    stop_after(monkeypatch, 0, RuntimeError("stopped"))
    invoke("assign", "m.safetensors", "x.npy", "--rows-per-file", 300, "-o", "empty", code=1)
    assert os.listdir(tmp_path / "empty") == []
