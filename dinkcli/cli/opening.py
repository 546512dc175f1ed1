"""Inputs as the commands that look at clusters open them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model


def columns_of(
    column: str | None,
    *,
    ids: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    columns: str | None = None,
    **more: Any,
) -> Columns:
    """The columns to read, from options as they stand on the command line.

    Args:
        column, ids, labels, texts, columns: the options of these names.
        more: the other fields of ``Columns``.

    Raises:
        UsageError: a column and files for the same.
    """
    from dinkcli.data.base import Columns

    return Columns(
        column,
        ids=tuple(ids or ()),
        labels=tuple(labels or ()),
        texts=tuple(texts or ()),
        others=tuple(name.strip() for name in columns.split(",")) if columns else (),
        **more,
    )


def open_twice(inputs: list[str], wanted: Columns, bad_rows: str) -> DataSet:
    """Inputs that can be read more than once; a stream is spooled.

    Raises:
        DinkError: no such input, or none that can be read.
    """
    from dinkcli.data.inputs import open_inputs
    from dinkcli.data.spool import repeatable

    return repeatable(open_inputs(inputs, wanted, bad_rows))


def open_for(model: Model, inputs: list[str], wanted: Columns, bad_rows: str) -> DataSet:
    """The same, of the dimensions that a model was trained on.

    Raises:
        DinkError: also when the dimensions differ.
    """
    data = open_twice(inputs, model.as_trained(wanted), bad_rows)
    model.check_features(data.n_features, data.name)
    return data
