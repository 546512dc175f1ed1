"""What people see in terminals of 60, 80 and 120 columns, and what files get: no number is cut."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLES, environment, python

import dinkcli
from dinkcli.cli import console

pytestmark = pytest.mark.usefixtures("one_thread")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WIDTHS = (60, 80, 120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """d.npy and d.parquet, which has long texts; m: a model; y.npy: classes."""
    folder = tmp_path_factory.mktemp("terminals")
    z = np.load(SAMPLES / "digits.npy")
    np.save(folder / "d.npy", z)
    np.save(folder / "y.npy", np.load(SAMPLES / "digits_labels.npy"))
    texts = [f"the {i}th picture of a digit, which was written by hand" for i in range(len(z))]
    pq.write_table(pa.table({"text": texts, "v": list(z)}), folder / "d.parquet")
    dinkcli.train(z, 10, device="cpu").save(folder / "m.safetensors")
    return folder


def on_a_terminal(folder, columns, *arguments):
    """Every state of every line that a terminal of that width was given, as plain text."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [python(), "-m", "dinkcli", *map(str, arguments)]
    env = environment() | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    received = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when nobody writes any more
            break
        if not part:
            break
        received += part
    os.close(ours)
    assert process.wait() == 0, received
    text = ESCAPES.sub("", received.decode())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


def numbers(lines):
    """All of them but those that differ from run to run: progress, rates and times."""
    moving = re.compile(r"(ing|clusters|centres|rows|tried): [\d,]+ of|rows/s|tried")
    steady = [line for line in lines if not moving.search(line)]
    text = re.sub(r"in \d+\.\d s", "", " ".join(steady))
    return set(re.findall(r"(?<![\w.])-?\d[\d.,]*\d|\d", text))


COMMANDS = [
    ("train", "d.npy", "-k", 10, "-o", "new.safetensors"),
    ("inspect", "m.safetensors", "d.parquet", "--texts", "text"),
    ("evaluate", "m.safetensors", "d.npy", "--labels", "y.npy"),
    ("sweep", "d.npy", "-k", "2,4,8,10"),
    ("info", "d.parquet"),
    ("assign", "m.safetensors", "d.npy", "-o", "clusters.parquet"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_number_is_cut(folder, command):
    seen = {columns: on_a_terminal(folder, columns, *command) for columns in WIDTHS}
    wide = seen[120]
    for columns, lines in seen.items():
        assert max(map(len, lines)) <= columns
        assert not [line for line in lines if re.search(r"\d(…|\.\.\.)", line)]
        if columns == 80 and command[0] != "inspect":
            assert not numbers(wide) - numbers(lines)


def test_a_narrow_terminal_drops_bars_and_keeps_names_and_numbers(folder):
    document = json.loads(
        subprocess.run(
            [python(), "-m", "dinkcli", "inspect", "m.safetensors", "--json"],
            cwd=folder, env=environment(), capture_output=True, text=True,
        ).stdout
    )  # fmt: skip
    shown = on_a_terminal(folder, 60, "inspect", "m.safetensors", "d.parquet", "--texts", "text")
    rows = re.findall(
        r"^ +(\d+) +(\d+) +(\d+\.\d%) +(\d\S*) .* the \d+th", "\n".join(shown), re.MULTILINE
    )
    assert {int(j): int(size) for j, size, _, _ in rows} == {
        cluster["cluster"]: cluster["size"] for cluster in document["clusters"]
    }
    for j, _, _, spread in rows:
        assert float(spread) == pytest.approx(document["clusters"][int(j)]["spread"], abs=0.005)
    assert "█" not in "".join(line for line in shown if "picture" in line)
    wide = on_a_terminal(folder, 120, "inspect", "m.safetensors", "d.parquet", "--texts", "text")
    assert "█" in "".join(line for line in wide if "picture" in line)


def test_sweep_keeps_its_k_and_its_figures(folder):
    command = [python(), "-m", "dinkcli", "sweep", "d.npy", "-k", "2,4,8,10", "--json"]
    found = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    candidates = json.loads(found.stdout)["candidates"]
    for columns in (60, 120):
        shown = "\n".join(on_a_terminal(folder, columns, "sweep", "d.npy", "-k", "2,4,8,10", "-q"))
        for c in candidates:
            figures = [rf"{c[name]:.2f}" for name in ("stability", "modularity")]
            if columns == 120:  # what is left out first where there is no room
                figures += [rf"{c[name]:.3f}" for name in ("silhouette", "noise_silhouette")]
            figures.append(f"{c['inertia']:g}")
            row = rf"^ *[>~]? ?{c['n_clusters']} +\d\.\d{{3}} .*\b{' +'.join(figures)}\b"
            assert re.search(row, shown, re.MULTILINE), (row, shown)


def test_progress_says_what_how_far_and_how_good(folder):
    for columns in (60, 120):
        lines = on_a_terminal(folder, columns, "train", "d.npy", "-k", 10, "-o", "new.safetensors")
        steps = [line for line in lines if re.search(r"looking|moving|settling", line)]
        # Which of the steps are drawn depends on the machine: a start may end between two pictures.
        said = re.compile(
            r"start \d/\d, looking for clusters: \d+ of \d+ steps"
            r"|start \d/\d, moving centres: \d+ of at most \d+ rounds"
            r"|settling on all rows: \d+ of at most \d+ passes"
        )
        assert steps and all(map(said.search, steps))
        assert any("━" in step for step in steps) == (columns > 90)


def test_what_is_no_terminal_has_120_columns_or_those_of_the_environment(dink, folder):
    command = ("inspect", "m.safetensors", "d.parquet", "--texts", "text", "--exemplars", 9)
    for columns, env in ((120, {}), (70, {"COLUMNS": "70"}), (900, {"COLUMNS": "900"})):
        shown = dink(*command, cwd=folder, env=environment() | env).stdout
        assert max(map(len, shown.splitlines())) <= columns
        assert ("…" in shown) == (columns < 900)


@pytest.mark.parametrize("slow_from", [200, 100, 20])
def test_times_left_that_are_off_are_not_shown(monkeypatch, capsys, slow_from):
    """A step a second; from ``slow_from`` of 200 on, thirty."""
    seconds = [1.0 if step < slow_from else 30.0 for step in range(200)]
    clock, shown = 0.0, {}
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: clock))
    with console.ProgressLines(False) as lines:
        for step in range(200):
            lines.update("reading", step, 200, "rows")
            said = re.search(r"about ([\d.]+) (s|min) left", capsys.readouterr().err)
            if said:
                shown[step] = float(said[1]) * (60 if said[2] == "min" else 1)
            clock += seconds[step]
    known = {step: sum(seconds[step:]) for step in range(10, 200) if step > slow_from}
    known |= {step: float(slow_from - step) + 200 - slow_from for step in range(10, slow_from + 1)}
    assert len(shown) > 15
    for step in shown.keys() & known.keys():
        assert shown[step] == pytest.approx(known[step], rel=0.5), step
