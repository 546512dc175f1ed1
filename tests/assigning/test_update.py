"""New rows for a model without the old ones, against sums over all rows in float64."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import environment, python

import dinkcli
from dinkcli import join, update

K, D = 8, 6
MIDDLES = np.random.default_rng(1).normal(size=(K + 1, D)) * 5


def rows_of(clusters, number, seed):
    generator = np.random.default_rng(seed)
    return (
        MIDDLES[generator.choice(clusters, number)] + generator.normal(size=(number, D))
    ).astype("f4")


@pytest.fixture(scope="module")
def case():
    old = rows_of(range(K), 2000, 0)
    return old, dinkcli.train(old, K, seed=0)


def nearest(rows, centers):
    return ((rows[:, None].astype(float) - centers) ** 2).sum(2).argmin(1)


def test_centres_are_means_of_all_rows_ever_assigned(case):
    old, model = case
    labels, seen = nearest(old, model.cluster_centers), old
    for week in range(4):
        new = rows_of(range(K), 300, week + 10)
        labels = np.append(labels, nearest(new, model.cluster_centers))
        seen = np.concatenate([seen, new])
        model = update(model, new).model
        assert model.n_clusters == K
        for j in range(K):
            inside = seen[labels == j].astype(float)
            assert model.cluster_sizes[j] == len(inside)
            assert np.allclose(model.cluster_centers[j], inside.mean(0), atol=1e-5)
            inertia = ((inside - inside.mean(0)) ** 2).sum()
            assert model.training["metrics"]["cluster_inertia"][j] == pytest.approx(
                inertia, rel=1e-4
            )


def test_a_new_topic_is_born_in_its_week_and_noise_is_not(case):
    _, model = case
    for week in range(10):
        assert not update(model, rows_of(range(K), 300, week + 50)).born
    topic = rows_of([K], 30, 7)
    new = np.concatenate([rows_of(range(K), 300, 99), topic])
    found = update(model, new)
    assert found.born == [K]
    assert np.allclose(found.model.cluster_centers[K], topic.astype(float).mean(0), atol=0.5)
    assert found.model.cluster_sizes[K] == pytest.approx(30, abs=3)
    assert found.far == pytest.approx(30 / 330, abs=0.03)
    frozen = update(model, new, freeze=True).model
    assert (frozen.cluster_centers == model.cluster_centers).all()
    assert frozen.cluster_sizes.sum() == 2330


def test_weights_count_as_often(case):
    _, model = case
    new = rows_of(range(K), 200, 5)
    weights = np.random.default_rng(2).integers(0, 4, 200)
    one = update(model, np.repeat(new, weights, axis=0)).model
    other = update(model, new, sample_weight=weights.astype(float)).model
    assert np.allclose(one.cluster_centers, other.cluster_centers, atol=1e-6)
    assert np.allclose(one.cluster_sizes, other.cluster_sizes)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_file_of_bad_rows_alone(case, tmp_path, device):
    _, model = case
    new = rows_of(range(K), 300, 40)
    np.save(tmp_path / "bad.npy", np.full((50, D), np.nan))
    np.save(tmp_path / "new.npy", new)
    paths = [str(tmp_path / name) for name in ("bad.npy", "new.npy")]
    found = update(model, paths, bad_rows="skip", device=device)
    assert (found.rows, found.bad_rows) == (300, 50)
    sizes = np.bincount(nearest(new, model.cluster_centers), minlength=K)
    assert found.counts.tolist() == sizes.tolist()
    with pytest.raises(dinkcli.DinkError, match="no usable rows"):
        update(model, paths[:1], bad_rows="skip", device=device)


def test_nothing_comes_to_a_cluster_that_retires(case):
    _, model = case
    for week in range(3):
        rows = rows_of(range(1, K), 500, week + 30)
        model = update(model, rows, half_life=0.25, birth_price=np.inf).model
    gone = nearest(MIDDLES[:1], case[1].cluster_centers)[0]
    assert gone not in model.present and len(model.present) == K - 1
    again = update(model, np.concatenate([rows_of(range(1, K), 300, 1), rows_of([0], 40, 2)]))
    assert again.born == [K]


def test_the_same_rows_twice_change_nothing(dink, case, tmp_path):
    case[1].save(tmp_path / "a.st")
    np.save(tmp_path / "new.npy", rows_of(range(K), 100, 3))
    dink("update", tmp_path / "a.st", tmp_path / "new.npy", "-o", tmp_path / "b.st", "-q")
    dink("update", tmp_path / "b.st", tmp_path / "new.npy", "-o", tmp_path / "c.st", "-q")
    assert (tmp_path / "b.st").read_bytes() == (tmp_path / "c.st").read_bytes()
    again = dinkcli.load(tmp_path / "b.st")
    assert again.cluster_sizes.sum() == 2100


def test_the_drift_report(dink, case, tmp_path):
    case[1].save(tmp_path / "a.st")
    before = (tmp_path / "a.st").read_bytes()
    far = rows_of(range(K), 100, 3) + np.float32(8)
    np.save(tmp_path / "new.npy", np.concatenate([rows_of(range(K), 300, 4), far]))
    command = ["update", tmp_path / "a.st", tmp_path / "new.npy", "--dry-run", "--json"]
    result = dink(*command, "--alarm", "0.1", code=3)
    report = json.loads(result.stdout)
    assert report["rows"] == 400 and report["far"] > 0.15 and report["born"]
    assert sum(cluster["rows"] for cluster in report["clusters"]) == 400
    assert json.loads(dink(*command, "--alarm", "0.9").stdout) == report
    assert (tmp_path / "a.st").read_bytes() == before


def test_two_models_are_joined(case):
    old, model = case
    other_rows = np.concatenate([rows_of(range(4), 1000, 8), rows_of([K], 200, 9)])
    other = dinkcli.train(other_rows, 5, seed=0)
    joined = join(model, other)
    assert joined.n_clusters == K + 1 and joined.cluster_sizes.sum() == 3200
    everything = np.concatenate([old, other_rows])
    labels = nearest(everything, joined.cluster_centers)
    for j in range(K + 1):
        assert np.allclose(joined.cluster_centers[j], everything[labels == j].mean(0), atol=0.05)
    assert join(joined, other) is joined


@pytest.mark.parametrize("metric", ["cosine", "learned"])
def test_other_metrics(metric):
    rows = rows_of(range(K), 1500, 0)
    model = dinkcli.train(rows, K, metric=metric, seed=0)
    found = update(model, rows_of(range(K), 500, 1))
    assert found.model.n_clusters == K and found.model.cluster_sizes.sum() == 2000
    if metric == "cosine":
        assert np.allclose(np.linalg.norm(found.model.cluster_centers, axis=1), 1, atol=1e-6)
    else:
        assert (found.model.map == model.map).all()
    assert (dinkcli.assign(found.model, rows) == dinkcli.assign(model, rows)).mean() > 0.97


def test_what_cannot_be_taken_is_refused(dink, case, tmp_path):
    case[1].save(tmp_path / "a.st")
    np.save(tmp_path / "wide.npy", np.zeros((5, D + 1), "f4"))
    result = dink(
        "update", tmp_path / "a.st", tmp_path / "wide.npy", "-o", tmp_path / "b.st", code=2
    )
    assert "features per row" in result.stderr and not (tmp_path / "b.st").exists()
    result = dink("update", tmp_path / "a.st", tmp_path / "wide.npy", code=2)
    assert "--dry-run" in result.stderr
    cosine = dinkcli.train(rows_of(range(K), 100, 0), 3, metric="cosine")
    with pytest.raises(dinkcli.DinkError, match="cannot be joined"):
        join(case[1], cosine)


@pytest.mark.slow
def test_a_killed_update_leaves_a_sound_model(case, tmp_path):
    """Killed at fifty moments, the model in place is the old or the new one, whole."""
    model = tmp_path / "a.st"
    np.save(tmp_path / "new.npy", rows_of(range(K), 400, 3))
    command = [python(), "-m", "dinkcli", "update", str(model), str(tmp_path / "new.npy")]
    command += ["-o", str(model), "-q"]
    case[1].save(model)
    started = time.monotonic()
    subprocess.run(command, env=environment(), check=True)
    took = time.monotonic() - started
    new = dinkcli.load(model).fingerprint
    for i in range(50):
        case[1].save(model)
        process = subprocess.Popen(command, env=environment())
        time.sleep(took * i / 50)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert dinkcli.load(model).fingerprint in (case[1].fingerprint, new)


def test_assign_says_how_far_rows_are(dink, case, tmp_path):
    case[1].save(tmp_path / "a.st")
    rows = np.concatenate([rows_of(range(K), 300, 4), rows_of([K], 100, 5)])
    np.save(tmp_path / "new.npy", rows)
    command = ["assign", tmp_path / "a.st", tmp_path / "new.npy", "--distance", "--json"]
    summary = json.loads(dink(*command, "-o", tmp_path / "out.csv").stdout)
    squares = ((rows[:, None].astype(float) - case[1].cluster_centers) ** 2).sum(2)
    assert summary["mean_distance"] == pytest.approx(np.sqrt(squares.min(1)).mean(), rel=1e-6)
    assert summary["far"] == pytest.approx(0.25, abs=0.03)
