"""A model in the formats of other tools.

What computes labels by itself (onnx, pt2, faiss, sklearn) takes rows as they are: what the metric
does to them first is inside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dinkcli.data.atomic import atomic_path
from dinkcli.errors import UsageError
from dinkcli.models.export import index, onnx, sklearn, tables
from dinkcli.models.model import Model


def _pt2(model: Model, path: str) -> None:
    from dinkcli.models.export import program  # imports torch, which nothing else here needs

    program.write(model, path)


EXPORTERS: dict[str, Callable[[Model, str], None]] = {
    "npy": tables.npy,
    "parquet": tables.parquet,
    "csv": tables.csv,
    "json": tables.json,
    "safetensors": tables.safetensors,
    "onnx": onnx.write,
    "pt2": _pt2,
    "faiss": index.write,
    "faiss-ivf": partial(index.write, inverted=True),
    "sklearn": sklearn.write,
}
_CENTERS_ALONE = ("npy", "parquet", "csv")
_WITHOUT_SUFFIX = ("sklearn", "faiss-ivf")
SUFFIXES = {name: name for name in EXPORTERS if name not in _WITHOUT_SUFFIX} | {"skops": "sklearn"}


def export(model: Model, path: str, format: str) -> None:
    """Writes a model to ``path``, whole or not at all.

    Args:
        format: a key of ``EXPORTERS``; the functions there say what each holds.

    Raises:
        UsageError: an unknown format, or a place that cannot be written.
        ExtraError: the format needs a package that is not installed.
        OutputError: the file system refused, or the format cannot hold a model of this size.
    """
    if format not in EXPORTERS:
        raise UsageError(f"format {format!r}: expected one of {', '.join(EXPORTERS)}")
    if model.maps and format in _CENTERS_ALONE:
        raise UsageError(
            f"format {format}: holds centres alone, and the centres of a model with --metric "
            "learned go with its map; export to safetensors or json, which hold both"
        )
    with atomic_path(path) as temporary:
        EXPORTERS[format](model, temporary)
