"""``dink plan``: counts as training has them, fields, warnings. Seconds are not tested."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dinkcli
from dinkcli.data.inputs import open_data
from dinkcli.options import TrainOptions
from dinkcli.planning import plan, size_option

pytestmark = pytest.mark.usefixtures("one_thread")
PHASES = ("start", "read", "sample", "seed", "anneal", "refine", "passes")
TRAINED = ("anneal", "refine", "pass")
RANGE = {"low", "typical", "high"}


@pytest.fixture
def data(tmp_path):
    """x.npy, 4000 rows of 16 features, and the same rows in x.parquet."""
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(8, 16))[rng.integers(0, 8, 4000)] * 4).astype(np.float32)
    z += rng.normal(size=z.shape).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    column = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 16)
    pq.write_table(pa.table({"v": column}), tmp_path / "x.parquet", row_group_size=500)
    return tmp_path


def phases(document):
    return {phase["name"]: phase for phase in document["phases"]}


def test_shows_phases_time_and_memory(dink, data):
    result = dink("plan", data / "x.npy", "-k", 8)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert "x.npy: 4000 rows x 16 features" in lines[0]
    assert lines[1] == "rows     256 kB of float32, held in memory"
    assert lines[2] == "sample   4000 rows, 256 kB"
    shown = [line.split(" ")[0] for line in lines[4:]]
    assert shown == [*PHASES, "", "train", "assign"]
    assert "updates on 256 rows each" in lines[8]


def test_json(invoke, data):
    document = json.loads(invoke("plan", data / "x.parquet", "-k", 8, "--json").stdout)
    assert (document["rows"], document["features"], document["clusters"]) == (4000, 16, 8)
    assert document["n_bytes"] == (data / "x.parquet").stat().st_size
    assert document["held"] and document["held_bytes"] == 4000 * 16 * 4
    assert document["device"] == "cpu" and document["device_memory"] is None
    assert document["warnings"] == []
    total = dict.fromkeys(RANGE, 0.0)
    for phase in document["phases"]:
        assert set(phase) == {"name", "rounds", "rows", "seconds"}
        for name in RANGE:
            assert phase["seconds"][name] >= 0
            total[name] += phase["seconds"][name]
    assert document["seconds"]["typical"] == pytest.approx(total["typical"])
    assert document["seconds"]["low"] < document["seconds"]["typical"] < document["seconds"]["high"]
    assert 50e6 < document["memory"] < document["machine"]


@pytest.mark.parametrize(
    ("k", "options"),
    [(8, {}), (3, {"n_init": 2}), (100, {"refine": False}), (20, {"batch_size": 300, "epochs": 1})],
)
def test_counts_are_those_of_training(data, k, options):
    found = open_data([str(data / "x.npy")])
    planned = plan(found, TrainOptions(k, **options), device="cpu")
    history = dinkcli.train(found, k, device="cpu", **options).training["history"]
    by_phase = {name: [s for s in history if s["phase"] == name] for name in TRAINED}
    anneal, refining, passes = by_phase.values()
    expected = {phase.name: phase for phase in planned.phases}
    assert {step["total"] for step in anneal} == {expected["anneal"].rounds.typical}
    assert {step["rows"] for step in anneal} == {20 * planned.batch}
    assert {step["rows"] for step in refining} <= {expected["refine"].rows}
    assert {step["rows"] for step in passes} == {planned.rows} == {expected["passes"].rows}
    starts, rounds = expected["seed"].rounds, expected["refine"].rounds
    assert starts.low <= history[-1]["start"] <= starts.high
    assert rounds.low <= len(refining) <= rounds.high
    assert len(passes) <= expected["passes"].rounds.high


def test_breaths_are_counted_from_the_schedule(data):
    """None when a pass is dear, else at least ``patience`` for each number of moves."""
    from dinkcli.training.schedule import effort

    found = open_data([str(data / "x.npy")])
    how = effort(4000, 100, 16)
    moves, least = how.moves, 0
    while moves:
        moves, least = moves // 2, least + how.patience
    refining = [plan(found, k, device="cpu").phases[-2] for k in (100, 1)]
    assert refining[0].name == "refine"
    assert refining[0].rounds.low == 1 + least and refining[1].rounds.high == 0


def test_rows_that_do_not_fit_are_read_again_and_again(invoke, data):
    for name in ("x.npy", "x.parquet"):
        result = invoke("plan", data / name, "-k", 8, "--memory", "200kB")
        assert "256 kB of float32, read 6 (3 to 17) times" in result.stdout
        assert "read     " not in result.stdout
        assert "the rows take 256 kB and may take 200 kB (--memory)" in result.stderr
        assert "--memory 260kB would hold them" in result.stderr
        assert "cuts the sample to 3125 rows of 4000" in result.stderr
    options = ("plan", data / "x.npy", "-k", 8, "--json", "--memory")
    streamed = json.loads(invoke(*options, "100kB").stdout)
    assert (streamed["held"], streamed["sample"]) == (False, 2048)
    assert streamed["readings"] == {"low": 3, "typical": 6, "high": 17}
    assert not phases(streamed)["read"]["rounds"]["high"]
    held = json.loads(invoke(*options, "260kB").stdout)
    assert held["held"] and held["readings"] == {"low": 1, "typical": 1, "high": 1}


def test_says_what_to_do_when_memory_does_not_suffice(data):
    found = open_data([str(data / "x.npy")])
    options = TrainOptions(8)
    (warning,) = plan(found, options, device="cpu", machine=10**6).warnings
    assert "a process needs about" in warning and "the machine has 1 MB" in warning
    assert "rows stored as float16 take half" in warning and "`processes`" in warning
    fits = plan(found, options, device="cpu", machine=1 << 40)
    assert fits.warnings == []


def test_processes_share_the_rows(data):
    found = open_data([str(data / "x.npy")])
    alone, shared = (plan(found, 8, device="cpu", processes=n) for n in (1, 4))
    assert [phase.rows for phase in shared.phases] == [phase.rows for phase in alone.phases]
    assert shared.batch == alone.batch and shared.memory < alone.memory + 1e6
    assert "in each of 4 processes" in dict(shared.lines())["train"]
    with pytest.raises(dinkcli.errors.UsageError, match="`processes` 0: expected at least 1"):
        plan(found, 8, processes=0)


def test_refuses_clearly(invoke, data):
    x = data / "x.npy"
    assert "more clusters than the 4000 rows" in invoke("plan", x, "-k", 5000, code=2).stderr
    assert "expected at least 1" in invoke("plan", x, "-k", 0, code=2).stderr
    assert "expected euclid" not in invoke("plan", x, "-k", 3, "--metric", "cosine").stderr
    assert "is not one of" in invoke("plan", x, "-k", 3, "--metric", "l1", code=2).stderr
    assert "--memory some" in invoke("plan", x, "-k", 3, "--memory", "some", code=2).stderr
    assert "not on this machine" in invoke("plan", x, "-k", 3, "--device", "cuda:9", code=2).stderr
    bad = np.load(x)
    bad[17, 3] = np.nan
    np.save(data / "bad.npy", bad)
    assert "row 17 holds nan" in invoke("plan", data / "bad.npy", "-k", 3, code=1).stderr
    assert "train" in invoke("plan", data / "bad.npy", "-k", 3, "--bad-rows", "skip").stdout


def test_many_clusters_and_few_rows(data):
    """As many clusters as rows, one cluster, one row: all parts can be measured."""
    x = np.load(data / "x.npy")
    for rows, k in ((40, 40), (300, 1), (1, 1), (3, 2), (700, 699)):
        found = open_data(x[:rows])
        assert plan(found, TrainOptions(k), device="cpu").seconds.typical > 0


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(1_000_000, "1MB"), (1_510_000, "1.6MB"), (999, "1kB"), (38e9, "38GB")]
)
def test_sizes_are_rounded_up(n_bytes, text):
    assert size_option(n_bytes) == text
