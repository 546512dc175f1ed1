"""``dink plan``: counts as training has them, fields, warnings. Seconds are not tested."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dinkcli
from dinkcli.data.inputs import open_data
from dinkcli.options import TrainOptions
from dinkcli.planning.plan import plan, size_option
from dinkcli.planning.work import Range, Work

pytestmark = pytest.mark.usefixtures("one_thread")
PHASES = ("start", "read", "sample", "seed", "anneal", "refine", "passes")
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
    assert document["exchanged"] == dict.fromkeys(RANGE, 0)
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
    work = Work.of(found, TrainOptions(k, **options), 1 << 30)
    history = dinkcli.train(found, k, device="cpu", **options).training["history"]
    by_phase = {phase: [s for s in history if s["phase"] == phase] for phase in ("anneal", "pass")}
    refining = [step for step in history if step["phase"] == "refine"]
    anneal = by_phase["anneal"]
    assert history[-1]["start"] == work.starts
    assert {step["total"] for step in anneal} == {work.updates}
    assert len(anneal) == work.reports * work.starts
    assert {step["rows"] for step in anneal} == {work.updates // work.reports * work.batch}
    assert {step["rows"] for step in refining} <= {work.sample, work.breathing}
    assert {step["rows"] for step in by_phase["pass"]} == {work.rows}
    rounds = (work.swaps + work.breaths) * work.starts
    assert rounds.low <= len(refining) <= rounds.high
    assert len(by_phase["pass"]) <= work.passes.high


def test_breaths_are_counted_from_the_schedule(data):
    """None when a pass is dear, else at least ``patience`` for each number of moves."""
    from dinkcli.training.schedule import effort

    found = open_data([str(data / "x.npy")])
    how = effort(4000, 100, 16)
    moves, least = how.moves, 0
    while moves:
        moves, least = moves // 2, least + how.patience
    assert Work.of(found, TrainOptions(100), 1 << 30).breaths.low == least
    assert Work.of(found, TrainOptions(1), 1 << 30).breaths == Range.exactly(0)


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


def test_processes_share_rows_and_exchange_sums(data):
    """Sums of K x D that all processes add up, by hand from the schedule."""
    found = open_data([str(data / "x.npy")])
    options = TrainOptions(8, refine=False, epochs=2, n_init=1)
    shared = plan(found, options, device="cpu", memory=1 << 30, processes=4)
    centers = 4 * 8 * 16
    updates = 240 * (centers + 4 * 8)
    passes = 2 * (2 * centers + 16 * 8)
    seeding = shared.exchanged.typical / (2 * 3 / 4) - updates - passes
    assert 0 < seeding < 0.4e6
    alone = plan(found, options, device="cpu", memory=1 << 30)
    assert alone.exchanged == Range.exactly(0)
    assert Work.of(found, options, 1 << 30).shared(4).rows == 1000
    with pytest.raises(dinkcli.errors.UsageError, match="`processes` 0: expected at least 1"):
        plan(found, options, processes=0)


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
