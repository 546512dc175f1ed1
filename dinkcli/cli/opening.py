"""Inputs as the commands that look at clusters open them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dinkcli.errors import UsageError

if TYPE_CHECKING:
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model


def columns_of(column: str | None, columns: str | None = None, **options: Any) -> Columns:
    """The columns to read, from options as they stand on the command line.

    Args:
        columns: those to carry along, separated by commas.
        options: the other fields of ``Columns``; of files for each row, None where none are named.
    """
    from dinkcli.data.base import Columns

    named = {name: options.pop(name, None) or () for name in ("ids", "labels", "texts")}
    files: dict[str, Any] = {name: tuple(paths) for name, paths in named.items()}
    others = tuple(name.strip() for name in columns.split(",")) if columns else ()
    return Columns(column, others=others, **files, **options)


def levels_of(text: str | None) -> tuple[int, ...]:
    """The numbers of ``--levels``."""
    try:
        found = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--levels {text}: expected numbers such as 10,100") from None
    if len(set(found)) < len(found):
        raise UsageError(f"--levels {text}: one of them is given twice")
    return found


def open_twice(inputs: list[str], wanted: Columns, bad_rows: str) -> DataSet:
    """Inputs that can be read more than once; a stream is spooled."""
    from dinkcli.data.inputs import open_inputs
    from dinkcli.data.spool import repeatable

    return repeatable(open_inputs(inputs, wanted, bad_rows))


def open_for(model: Model, inputs: list[str], wanted: Columns, bad_rows: str) -> DataSet:
    """The same, of the dimensions that a model was trained on."""
    data = open_twice(inputs, model.as_trained(wanted), bad_rows)
    model.check_features(data.n_features, data.name)
    return data
