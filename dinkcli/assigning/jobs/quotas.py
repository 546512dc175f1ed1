"""How many rows of each cluster a sample has.

Shapes: K clusters, G groups of them.
"""

from __future__ import annotations

import csv
import json

import numpy as np

from dinkcli.errors import InputError, UsageError


def balanced(sizes: np.ndarray, number: int) -> np.ndarray:
    """(K,) int64: equal shares of ``number``, those of small clusters shared out among the others.

    Shares of clusters that have rows left differ by one at most; the first of them get one more.

    Args:
        sizes: (K,) rows there are, at least ``number`` of them in all.
    """
    shares = np.zeros(len(sizes), np.int64)
    left = number
    while left:
        roomy = np.flatnonzero(shares < sizes)
        each = min(left // len(roomy), int((sizes - shares)[roomy].min()))
        shares[roomy] += each
        left -= each * len(roomy)
        if left and left < (shares < sizes).sum():
            shares[np.flatnonzero(shares < sizes)[:left]] += 1
            left = 0
    return shares


def proportional(weights: np.ndarray, sizes: np.ndarray, number: int) -> np.ndarray:
    """(K,) int64: shares in proportion to ``weights`` (K,), by largest remainders; never more than
    there are rows."""
    shares = np.zeros(len(sizes), np.int64)
    while (left := number - int(shares.sum())) > 0:
        room = np.where(shares < sizes, weights, 0.0)
        wanted = left * room / room.sum()
        whole = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), sizes - shares)
        shares += whole
        left -= int(whole.sum())
        if not whole.any() or left < (shares < sizes).sum():
            rest = np.where((shares < sizes) & (room > 0), wanted - whole, -1.0)
            best = np.argsort(-rest, kind="stable")[:left]
            shares[best[rest[best] >= 0]] += 1
    return shares


def on_levels(sizes: np.ndarray, number: int, levels: list[np.ndarray]) -> np.ndarray:
    """(K,) int64: equal shares of the groups of the first level, of each for its groups on the
    next, and so on down to clusters.

    Args:
        levels: (K,) the group of each cluster on each level, coarse ones first.
    """
    return _shared(sizes, number, [*levels, np.arange(len(sizes))])


def _shared(sizes: np.ndarray, number: int, cuts: list[np.ndarray]) -> np.ndarray:
    names, group = np.unique(cuts[0], return_inverse=True)
    shares = balanced(np.bincount(group, sizes).astype(np.int64), number)
    if len(cuts) == 1:
        return shares[group]
    found = np.zeros(len(sizes), np.int64)
    for index in range(len(names)):
        inside = group == index
        found[inside] = _shared(
            sizes[inside], int(shares[index]), [cut[inside] for cut in cuts[1:]]
        )
    return found


def read_quotas(path: str, n_clusters: int) -> np.ndarray:
    """(K,) int64 from a file: csv with the columns cluster and rows, or a JSON object of rows by
    cluster. Clusters that are not named have 0.

    Raises:
        UsageError: no such file.
        InputError: something else in it.
    """
    found = np.zeros(n_clusters, np.int64)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            if path.lower().endswith(".json"):
                pairs = list(json.load(file).items())
            else:
                pairs = [(line["cluster"], line["rows"]) for line in csv.DictReader(file)]
        for cluster, rows in pairs:
            if not 0 <= int(cluster) < n_clusters or int(rows) < 0:
                raise ValueError(f"cluster {cluster} with {rows} rows, of {n_clusters} clusters")
            found[int(cluster)] = int(rows)
    except FileNotFoundError:
        raise UsageError(f"--quota {path}: no such file") from None
    except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"--quota {path}: expected csv with the columns cluster and rows, or a JSON object of "
            f"rows by cluster; found {error}"
        ) from error
    return found
