"""Levels above the clusters: Ward's tree of the centres, each with the weight of its rows.

Two groups that merge raise the inertia by w_a w_b / (w_a + w_b) times the squared distance of
their means, and those that raise it least merge first (Ward 1963). scipy's linkage gives all
centres the same weight. Shapes: K clusters, D features.
"""

from __future__ import annotations

import numpy as np

from dinkcli.errors import UsageError

MOST_CLUSTERS = 20_000  # the tree takes their number squared, 8 bytes each
Merge = tuple[int, int, float]


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) float64, of rows (N, D) and (M, D), by products of rows around the mean of ``b``: to
    about 1e-15 of the largest."""
    shift = b.mean(0, dtype=np.float64)
    a, b = a - shift, b - shift
    squares = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("md,md->m", b, b)
    squares -= 2 * a @ b.T
    return np.maximum(squares, 0, out=squares)


def ward(cluster_centers: np.ndarray, weights: np.ndarray) -> list[Merge]:
    """K - 1 merges (a, b, rise of the inertia), a < b, in order, of centres (K, D) with ``weights``
    (K,). 0 to K - 1 are the clusters, K + i is what merge i makes. O(K^2) memory, and mostly time.
    """
    k = len(cluster_centers)
    if k > MOST_CLUSTERS:
        raise UsageError(f"a tree of {k} clusters; it is made of at most {MOST_CLUSTERS}")
    weight = weights.astype(np.float64).clip(min=1e-9)
    cost = squared_distances(cluster_centers, cluster_centers)
    cost *= weight[:, None] * weight / (weight[:, None] + weight)
    np.fill_diagonal(cost, np.inf)
    nearest = cost.argmin(1)
    least = cost[np.arange(k), nearest]
    names, merges = list(range(k)), []
    for i in range(k - 1):
        a = int(least.argmin())
        b, rise = int(nearest[a]), float(least[a])
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
        nearer = (new < least) | ((new == least) & (a < nearest))
        least[nearer], nearest[nearer] = new[nearer], a
        least[b] = np.inf
        stale = np.flatnonzero(np.isin(nearest, (a, b)) & ~nearer & np.isfinite(least))
        for row in {a, *stale.tolist()}:
            nearest[row] = cost[row].argmin()
            least[row] = cost[row, nearest[row]]
    return merges


def parents(merges: list[Merge], level: int, ids: np.ndarray | None = None) -> np.ndarray:
    """(K,) int32, the group of each cluster where the tree has ``level`` groups: the lowest of the
    ``ids`` (K,) in it, by default positions. So a group keeps its number for as long as this
    cluster stays in it, whatever the others do."""
    k = len(merges) + 1
    if not 1 <= level <= k:
        raise UsageError(f"`levels` {level}: expected 1 to {k} groups of the {k} clusters")
    groups = (np.arange(k) if ids is None else ids).astype(np.int32)
    lowest = groups.tolist()  # of each node
    for a, b, _ in merges[: k - level]:
        low, high = sorted((lowest[a], lowest[b]))
        groups[groups == high] = low
        lowest.append(low)
    return groups


def drawn(merges: list[Merge], labels: list[str]) -> list[str]:
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


def members(merges: list[Merge]) -> list[list[int]]:
    """The clusters of each node, in the order of the tree; the last node has all of them."""
    groups = [[j] for j in range(len(merges) + 1)]
    for a, b, _ in merges:
        groups.append(groups[a] + groups[b])
    return groups
