"""A tree of clusters as text. Shapes: K clusters."""

from __future__ import annotations

from dinkcli.models.tree import Merge, ward

__all__ = ["drawn", "ward"]


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
