"""The centres are the means of the rows that ``assign`` gives them: for every kind of training, on
data that float32 finds hard. The reference is NumPy in float64."""

import numpy as np
import pytest

import dinkcli

K = 6
KINDS = {
    "auto": {},
    "starts": {"n_init": 3},
    "cold": {"temperature": 0.0},
    "random": {"temperature": 0.0, "init": "random"},
    "given": {"init": "rows"},
    "cosine": {"metric": "cosine"},
    "learned": {"metric": "learned"},
    "limited": {"max_size": "1.5x"},
    "streamed": {"memory": 2000},
    "cosine, streamed": {"metric": "cosine", "memory": 2000},
}


def usual(rng, n=400, d=5, k=K):
    return (rng.normal(size=(k, d)) * 4)[np.arange(n) % k] + rng.normal(size=(n, d))


def with_outlier(size):
    def make(rng):
        z = usual(rng)
        z[123] = size * rng.normal(size=5)
        return z

    return make


def constant_features(rng):
    z = usual(rng)
    z[:, [1, 3]] = (7.0, -1e4)
    return z


DATA = {
    **{f"outlier {size:g}": with_outlier(size) for size in (1e3, 1e4, 1e5, 1e6, 1e9, 1e12)},
    "two outliers": lambda rng: np.concatenate([usual(rng), [[1e5] * 5, [-1e9] * 5]]),
    "copies": lambda rng: np.repeat(usual(rng, 40), 10, 0),
    "constant features": constant_features,
    "offset": lambda rng: usual(rng) + 1e4,
    "tiny": lambda rng: usual(rng) * 1e-11,
    "huge": lambda rng: usual(rng) * 1e13,
    "few rows": lambda rng: usual(rng, 9),
    "one feature": lambda rng: usual(rng, d=1),
    "no clusters": lambda rng: rng.uniform(-1, 1, (400, 5)),
    "float16": lambda rng: usual(rng).astype(np.float16),
    "far float16": lambda rng: np.concatenate([usual(rng), [[6e4] * 5]]).astype(np.float16),
}


def as_compared(model, z):
    """Rows as the model compares them, in float64."""
    z = z.astype(np.float64)
    if model.metric == "cosine":
        return z / np.linalg.norm(z, axis=1, keepdims=True)
    return z if model.map is None else (z - model.origin) @ model.map.astype(np.float64)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", DATA)
def test_centres_are_the_means_of_their_rows(data, kind, weighted):
    rng = np.random.default_rng(len(data))
    z = DATA[data](rng)
    if data == "one feature" and "cosine" in kind:
        pytest.skip("there are two directions")
    z = z if z.dtype == np.float16 else z.astype(np.float32)
    options = KINDS[kind] | {"tol": 0.0, "epochs": 300}
    if kind == "given":
        options["init"] = z[:K].astype(np.float32)
    weights = rng.uniform(0.5, 2, len(z)) if weighted else np.ones(len(z))
    if weighted:
        options["sample_weight"] = weights
    model = dinkcli.train(z, K, device="cpu", **options)
    rows, centers = as_compared(model, z), model.cluster_centers.astype(np.float64)
    # All that float32 can say of the numbers that went into a mean.
    noise = 2e-6 * np.abs(rows).max(1)
    squares = ((rows[:, None] - centers) ** 2).sum(2)
    if kind == "limited":
        labels = dinkcli.assign(model, z, device="cpu", max_size="1.5x")
        assert np.bincount(labels).max() <= 1.5 * len(z) / K
    else:
        labels = dinkcli.assign(model, z, device="cpu")
        own = squares[np.arange(len(z)), labels]
        assert (own <= squares.min(1) * (1 + 1e-6)).all()
    own = squares[np.arange(len(z)), labels]
    lost = weights @ noise**2 * z.shape[1]
    assert model.training["metrics"]["inertia"] == pytest.approx(weights @ own, 1e-4, lost)
    sizes = np.bincount(labels, weights, K)
    np.testing.assert_allclose(model.cluster_sizes, sizes, rtol=1e-5)
    if kind == "limited" and weighted:
        return  # the partition within a limit counts rows alike, the means do not: no fixed point
    for j in range(K):
        here = labels == j
        mean = np.average(rows[here], 0, weights[here])
        if model.metric == "cosine":
            mean /= np.linalg.norm(mean)
        # The auction is over when the next step would raise the inertia, within a step of a price.
        near = (2e-2 if kind == "limited" else 1e-5) * np.abs(rows[here] - mean).max()
        limit = noise[here].max() + near
        assert np.abs(mean - centers[j]).max() <= limit, j
