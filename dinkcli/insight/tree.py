"""Levels above the clusters: Ward's tree of the centres, each with the weight of its rows.

Two groups that merge raise the inertia by w_a w_b / (w_a + w_b) times the squared distance of
their means, and those that raise it least merge first (Ward 1963). scipy's linkage gives all
centres the same weight. Shapes: K clusters, D features.
"""

from __future__ import annotations

import numpy as np


def ward(cluster_centers: np.ndarray, weights: np.ndarray) -> list[tuple[int, int, float]]:
    """K - 1 merges (a, b, rise of the inertia), a < b, in order. 0 to K - 1 are the clusters, K + i
    is what merge i makes.

    Args:
        cluster_centers: (K, D).
        weights: (K,), 0 for an empty cluster.
    """
    means = cluster_centers.astype(np.float64)
    means -= means.mean(0)
    weight = weights.astype(np.float64).clip(min=1e-9)
    k = len(means)
    squares = (means**2).sum(1)
    cost = (squares[:, None] - 2 * means @ means.T + squares).clip(min=0)
    cost *= weight[:, None] * weight / (weight[:, None] + weight)
    np.fill_diagonal(cost, np.inf)
    names, merges = list(range(k)), []
    for i in range(k - 1):
        a, b = sorted(int(j) for j in divmod(int(cost.argmin()), k))
        rise = float(cost[a, b])
        first, second = sorted((names[a], names[b]))
        merges.append((first, second, rise))
        # The rule of Lance and Williams.
        total = weight + weight[a] + weight[b]
        new = (weight + weight[a]) * cost[a] + (weight + weight[b]) * cost[b] - weight * rise
        new /= total
        new[[a, b]] = np.inf
        cost[a], cost[:, a] = new, new
        cost[b], cost[:, b] = np.inf, np.inf
        weight[a] += weight[b]
        names[a] = k + i
    return merges


def drawn(merges: list[tuple[int, int, float]], labels: list[str]) -> list[str]:
    """Lines of the tree from the top, each cluster with its label."""
    k = len(labels)
    lines: list[str] = []
    todo = [(k + len(merges) - 1, "", "")]
    while todo:
        node, first, rest = todo.pop()
        if node < k:
            lines.append(first + labels[node])
            continue
        a, b, _ = merges[node - k]
        lines.append(first + "┐")
        todo.append((b, rest + "└─", rest + "  "))
        todo.append((a, rest + "├─", rest + "│ "))
    return lines


def leaves(merges: list[tuple[int, int, float]], n_clusters: int) -> list[int]:
    """The clusters in the order of the tree."""
    order, todo = [], [n_clusters + len(merges) - 1]
    while todo:
        node = todo.pop()
        if node < n_clusters:
            order.append(node)
        else:
            todo += merges[node - n_clusters][1::-1]
    return order


def children(merges: list[tuple[int, int, float]], node: int) -> list[int]:
    """What a group is made of, for a list of few levels: groups whose own merge rose by less than
    half of its, and clusters."""
    k = len(merges) + 1
    least = merges[node - k][2] / 2
    found, todo = [], list(merges[node - k][1::-1])
    while todo:
        inner = todo.pop()
        if inner >= k and merges[inner - k][2] > least:
            todo += merges[inner - k][1::-1]
        else:
            found.append(inner)
    return found
