"""The tree of the clusters as a list whose groups open and close."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from dinkcli.models.tree import children, ward

_MOST = 1000  # clusters; a list of more is no overview
_NAMED = 3  # clusters that a group is called by


def outline(centers: np.ndarray, sizes: np.ndarray, headings: Sequence[str]) -> str:
    """Nested lists as HTML; "" where there are too few clusters for a tree, or too many.

    Args:
        centers: (K, D).
        sizes: (K,) rows of each.
        headings: K names.
    """
    k = len(centers)
    if not 2 < k <= _MOST:
        return ""
    merges = ward(centers, sizes)
    members: list[list[int]] = [[j] for j in range(k)]
    for a, b, _ in merges:
        members.append(members[a] + members[b])
    top = 2 * k - 2
    parts: list[str] = []
    # Not by recursion: a tree of a thousand clusters may be as deep.
    todo: list[int | str] = ["</ul>", *reversed(children(merges, top))]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            parts.append(item)
        elif item < k:
            parts.append(
                f'<li><button type="button" class="leaf" data-cluster="{item}">'
                f'<span class="number">{item}</span> {escape(headings[item])} '
                f"<small>{int(sizes[item]):,}</small></button></li>"
            )
        else:
            inside = sorted(members[item], key=lambda j: -sizes[j])
            names = "; ".join(headings[j] for j in inside[:_NAMED])
            more = "; …" if len(inside) > _NAMED else ""
            rows = int(sizes[inside].sum())
            parts.append(
                f"<li><details><summary>{escape(names)}{more} "
                f"<small>{len(inside)} clusters, {rows:,} rows</small></summary><ul>"
            )
            todo += ["</ul></details></li>", *reversed(children(merges, item))]
    return '<ul class="tree">' + "".join(parts)
