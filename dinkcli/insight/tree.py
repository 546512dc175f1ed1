"""A tree of clusters as text. Shapes: K clusters."""

from __future__ import annotations

from dinkcli.models.tree import Merge


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


def leaves(merges: list[Merge], n_clusters: int) -> list[int]:
    """The clusters in the order of the tree."""
    order, todo = [], [n_clusters + len(merges) - 1]
    while todo:
        node = todo.pop()
        if node < n_clusters:
            order.append(node)
        else:
            todo += merges[node - n_clusters][1::-1]
    return order


def children(merges: list[Merge], node: int) -> list[int]:
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
