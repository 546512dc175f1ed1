"""Outputs go where they are sent, and never over what the run reads."""

import os
import shutil

import numpy as np
import pytest

import dinkcli

READ = ("x.npy", "w.npy", "m.safetensors", "q.json", "t.txt", "names.txt", "folder/y.npy")


@pytest.fixture
def files(tmp_path):
    """A model, its rows, and a file of each kind that a command reads beside them."""
    z = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    os.mkdir(tmp_path / "folder")
    for name, rows in (("x.npy", z), ("folder/y.npy", z), ("w.npy", np.ones(60))):
        np.save(tmp_path / name, rows)
    dinkcli.Model(z[:2].copy(), np.ones(2)).save(tmp_path / "m.safetensors")
    (tmp_path / "q.json").write_text('{"0": 3}')
    (tmp_path / "t.txt").write_text("".join(f"text {i}\n" for i in range(60)))
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    return tmp_path


WRITERS = {
    "train": ["x.npy", "-k", 2],
    "assign": ["m.safetensors", "x.npy", "--format", "csv"],
    "dedup": ["m.safetensors", "x.npy", "--format", "csv"],
    "sample": ["m.safetensors", "x.npy", "-n", 5, "--format", "csv"],
    "export": ["m.safetensors", "--format", "json"],
    "name": ["m.safetensors", "--names", "names.txt"],
    "report": ["m.safetensors", "x.npy"],
}


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(invoke, files, command, there):
    os.makedirs("shared/deep")
    suffix = "html" if command == "report" else "safetensors"
    if there:
        (files / f"shared/deep/file.{suffix}").write_text("old")
    os.symlink(f"deep/file.{suffix}", f"shared/link.{suffix}")
    os.symlink(f"shared/link.{suffix}", f"out.{suffix}")
    invoke(command, *WRITERS[command], "-q", "-o", f"out.{suffix}")
    assert os.path.islink(f"out.{suffix}") and os.path.islink(f"shared/link.{suffix}")
    assert os.listdir("shared/deep") == [f"file.{suffix}"]
    invoke(command, *WRITERS[command], "-q", "-o", f"plain.{suffix}")
    if command != "report":  # a page says when it was made
        written = (files / f"shared/deep/file.{suffix}").read_bytes()
        assert written == (files / f"plain.{suffix}").read_bytes()


def test_links_that_lead_nowhere(invoke, files):
    os.symlink("b.csv", "a.csv")
    os.symlink("a.csv", "b.csv")
    os.symlink("gone/c.csv", "c.csv")
    line = ("assign", "m.safetensors", "x.npy", "-o")
    assert "leads back to itself" in invoke(*line, "a.csv", code=2).stderr
    assert "c.csv: no such folder: " in invoke(*line, "c.csv", code=2).stderr


def test_a_summary_behind_a_link(invoke, files):
    (files / "old.json").write_text("old")
    os.symlink("old.json", "s.json")
    invoke("assign", "m.safetensors", "x.npy", "-o", "a.csv", "--json-file", "s.json")
    assert os.path.islink("s.json") and (files / "old.json").read_text().startswith("{")


@pytest.mark.parametrize(
    "line",
    [
        "train x.npy -k 2 --init m.safetensors -o m.safetensors",
        "train x.npy -k 2 --match m.safetensors -o m.safetensors",
        "train x.npy -k 2 --match x.dink.safetensors",
        "train folder -k 2 -o folder/y.npy",
        "train fold*/y.npy -k 2 -o folder/y.npy",
        "train x.npy -k 2 --sample-weight w.npy -o w.npy",
        "train x.npy -k 2 --texts t.txt -o t.txt",
        "assign m.safetensors x.npy --ids t.txt -o t.txt --format csv",
        "assign m.safetensors x.npy --ids t.txt --json-file t.txt",
        "assign m.safetensors x.npy --json-file m.safetensors",
        "assign m.safetensors x.npy --match m.safetensors --format csv -o m.safetensors",
        "assign m.safetensors folder -o folder/../folder/y.npy",
        "assign m.safetensors x.npy --format csv -o link",
        "assign m.safetensors x.npy -o o.csv --json-file o.csv",
        "assign m.safetensors x.npy -o o.csv --json-file folder/../o.csv",
        "assign m.safetensors x.npy -o parts --rows-per-file 9 --json-file parts",
        "dedup m.safetensors x.npy --against folder/y.npy -o folder/y.npy",
        "sample m.safetensors x.npy -n 9 --sample-weight w.npy -o w.npy",
        "sample m.safetensors x.npy --quota q.json --format jsonl -o q.json",
        "sample m.safetensors x.npy --quota q.json --json-file q.json",
        "name m.safetensors --names names.txt -o names.txt",
        "name m.safetensors x.npy --texts t.txt -o t.txt",
        "export m.safetensors --format safetensors -o m.safetensors",
        "report m.safetensors x.npy --texts t.txt -o t.txt",
    ],
)
def test_what_a_run_reads_stays(invoke, files, line):
    os.symlink("x.npy", "link")
    shutil.copy("m.safetensors", "x.dink.safetensors")
    before = {name: (files / name).read_bytes() for name in (*READ, "x.dink.safetensors")}
    there = set(os.listdir())
    error = invoke(*line.split(), "-q", code=2).stderr
    assert "is an input of this run" in error or "name two files" in error
    assert {name: (files / name).read_bytes() for name in before} == before
    assert set(os.listdir()) == there


def test_what_may_be_replaced(invoke, files):
    """The model that gets names, a stopped training, and files that only look like inputs."""
    invoke("name", "m.safetensors", "--names", "names.txt", "-o", "m.safetensors")
    for word in ("auto", "euclidean", "random", "kmeans++"):
        for _ in range(2):
            line = ["train", "x.npy", "-k", "auto", "--metric", "euclidean", "-o", word, "-q"]
            invoke(*line, "--init", word if word[0] in "rk" else "kmeans++")
    (files / "id").write_text("not the column")
    invoke("train", "x.npy", "-k", 2, "-o", "m.safetensors")
    os.makedirs("out")
    for _ in range(2):  # beside the inputs, but not read
        invoke("assign", "m.safetensors", "folder", "-o", "folder/labels.csv")
