"""``dink report``: a page about a model and its rows, in one file that needs no network.

``gather`` looks at the rows, ``page`` makes HTML of what it saw, with ``colours`` and ``svg``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from dinkcli.data.atomic import atomic_path, by_suffix
from dinkcli.data.derived import repeatable
from dinkcli.data.inputs import open_inputs
from dinkcli.insight.report.gather import Material, gather
from dinkcli.insight.report.page import cluster_names, page, picture
from dinkcli.models.file import as_model
from dinkcli.models.model import Model
from dinkcli.results import Result

__all__ = ["Material", "Report", "gather", "page", "picture", "report"]
_FORMATS = {"html": "page", "svg": "picture"}


@dataclass(frozen=True)
class Report(Result):
    """A page about a model and its rows; in a notebook its map.

    Attributes:
        model: the model.
        material: what the rows say.
        title: of the page, or None for the name of the data.
    """

    model: Model
    material: Material
    title: str | None = None

    @cached_property
    def page(self) -> str:
        """The page as HTML text."""
        return page(self.model, self.material, self.title)

    @cached_property
    def picture(self) -> str:
        """The map alone as SVG text."""
        return picture(self.model, self.material, self.title)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page (.html) or the map alone (.svg), whole or not at all.

        Raises:
            UsageError: another suffix.
            OutputError: it could not be written.
        """
        text = getattr(self, by_suffix(os.fspath(path), _FORMATS))
        with (
            atomic_path(os.fspath(path)) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            file.write(text)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: the data, how good the clusters are, and number, name and size of each."""
        quality, names = self.material.quality, cluster_names(self.model, self.material)
        sizes = enumerate(quality.sizes.tolist())
        return {
            "name": self.material.name,
            "rows": quality.rows,
            "bad_rows": quality.bad_rows,
            "inertia": quality.inertia,
            "simplified_silhouette": quality.simplified_silhouette,
            "projection": self.material.projection,
            "clusters": [{"cluster": j, "name": names[j], "size": size} for j, size in sizes],
        }

    def to_arrow(self) -> pa.Table:
        """The rows of the map: number, cluster, distance to its centre, and place."""
        seen = self.material
        columns = {"row": seen.rows, "cluster": seen.labels, "distance": seen.distances}
        places = {name: seen.points[:, i].copy() for i, name in enumerate("xy")}
        return pa.table({name: pa.array(values) for name, values in (columns | places).items()})

    def _repr_html_(self) -> str:
        return self.picture


def report(
    model: Model | str | os.PathLike[str],
    inputs: Any,
    *,
    ids: Any = None,
    texts: Any = None,
    labels: Any = None,
    columns: Sequence[str] = (),
    points: int = 50_000,
    exemplars: int = 6,
    projection: str = "neighbours",
    title: str | None = None,
    seed: int = 0,
    column: str | None = None,
    bad_rows: str = "stop",
    device: str = "auto",
    on_rows: Callable[[str, int], None] = lambda phase, done: None,
    on_map: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """A page to look at the clusters, from two passes over N rows; ``save`` writes it.

    Args:
        model: a model or the path of one.
        inputs: as for ``train``.
        ids, texts, labels: what the rows are called, stand for, and are: a column, a file, or (N,)
            values.
        columns: of the inputs, by which the map may be coloured: classes, numbers or dates.
        points: most rows on the map.
        exemplars: how many rows to show of each cluster.
        projection: "neighbours", "pca", or "umap", which needs umap-learn.
        title: of the page.
        seed: by which rows are drawn for the map.
        column, bad_rows, device: as for ``assign``.
        on_rows: called with the pass's name and the rows seen so far.
        on_map: called with the steps of the map that are done, and their number.

    Raises:
        UsageError: no such projection, or a package for it is missing.
        InputError: rows that the model cannot take.
    """
    model = as_model(model)
    beside = {"ids": ids, "texts": texts, "labels": labels, "others": tuple(columns)}
    data = repeatable(open_inputs(inputs, column, bad_rows, model=model, **beside))
    material = gather(
        model,
        data,
        device,
        n_points=points,
        n_exemplars=exemplars,
        projection=projection,
        seed=seed,
        on_rows=on_rows,
        on_map=on_map,
    )
    return Report(model, material, title)
