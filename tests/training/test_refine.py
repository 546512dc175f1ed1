"""Splits and removals against brute force, and what the searches do with them."""

import numpy as np
import pytest
import torch

from dinkcli.training.refine import Refining, State, refine, removal_costs, split
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import Effort, effort


def sample_of(z, weights=None):
    weights = None if weights is None else torch.from_numpy(weights.astype(np.float32))
    return Sample(torch.from_numpy(z.astype(np.float32)), weights, lambda centers: centers)


def sse(rows, weights):
    mean = np.average(rows, axis=0, weights=weights)
    return (weights * ((rows - mean) ** 2).sum(1)).sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_split_gain_is_what_the_split_saves(weighted):
    rng = np.random.default_rng(0)
    groups = [np.concatenate([rng.normal(m, 1, (40, 3)) for m in (c - 9, c + 9)]) for c in (0, 100)]
    z = np.concatenate(groups)
    z -= z.mean(0)
    weights = rng.uniform(0.5, 2, len(z)) if weighted else np.ones(len(z))
    sample = sample_of(z, weights if weighted else None)
    centers = torch.from_numpy(np.stack([z[:80].mean(0), z[80:].mean(0)])).float()
    generator = torch.Generator().manual_seed(0)
    found = split(sample, State.of(sample, centers), torch.tensor([1, 0]), generator)
    for position, start in ((0, 80), (1, 0)):
        whole = slice(start, start + 80)
        halves = (slice(start, start + 40), slice(start + 40, start + 80))
        saved = sse(z[whole], weights[whole]) - sum(sse(z[h], weights[h]) for h in halves)
        assert found.gain[position].item() == pytest.approx(saved, rel=1e-4)
        means = {tuple(np.round(np.average(z[h], axis=0, weights=weights[h]), 2)) for h in halves}
        ends = np.stack([found.low[position], found.high[position]])
        assert {tuple(np.round(end, 2)) for end in ends.astype(float)} == means


def test_split_sees_a_few_far_rows_among_many():
    rng = np.random.default_rng(1)
    z = np.concatenate([rng.normal(0, 1, (20_000, 8)), rng.normal(25, 1, (10, 8))])
    sample = sample_of(z - z.mean(0))
    generator = torch.Generator().manual_seed(0)
    found = split(sample, State.of(sample, torch.zeros(1, 8)), torch.tensor([0]), generator)
    assert found.gain.item() == pytest.approx(10 * 8 * 25**2, rel=0.2)


def test_removal_cost_is_close_to_the_real_rise():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(4000, 2))
    sample = sample_of(z)
    centers = sample.z[:12].clone()
    for _ in range(30):
        centers = sample.means(centers, sample.labels(centers))
    state = State.of(sample, centers)
    cost, receiver = removal_costs(sample, state)
    for j in range(12):
        rest = torch.cat([centers[:j], centers[j + 1 :]])
        labels = sample.labels(rest)
        rise = State.of(sample, sample.means(rest, labels)).inertia - state.inertia
        assert rise <= cost[j].item() * 1.05
        assert cost[j].item() <= 2.5 * rise
        moved = state.near.second_labels[state.near.labels == j]
        assert receiver[j] == torch.bincount(moved).argmax()


def test_refining_never_raises_the_inertia_and_leaves_a_bad_start():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(20, 6)) * 12
    z = (truth[:, None] + rng.normal(size=(20, 50, 6))).reshape(-1, 6)
    sample = sample_of(z - z.mean(0))
    bad = sample.z[:20].clone()  # twenty rows of one cluster
    inertia = State.of(sample, bad).inertia
    generator = torch.Generator().manual_seed(0)
    at = Refining.begin(bad)
    for moved, best in refine(sample, at, generator, effort(1000, 20, 6)):
        assert best.inertia <= inertia
        assert moved >= 0
        inertia = best.inertia
    assert inertia == pytest.approx(
        sum(sse(g, np.ones(50)) for g in z.reshape(20, 50, 6)), rel=0.01
    )


@pytest.mark.parametrize("k", [1, 2, 3])
def test_refining_takes_the_smallest_numbers_of_clusters(k):
    sample = sample_of(np.random.default_rng(4).normal(size=(50, 2)))
    how = Effort(1, 10, 256, breathing_rows=50, moves=k, tol=1e-4, patience=1)
    at = Refining.begin(sample.z[:k].clone())
    states = list(refine(sample, at, torch.Generator().manual_seed(0), how))
    assert (len(states) > 0) == (k > 1)
    for _, best in states:
        assert best.centers.shape == (k, 2)
