"""Inputs as the commands that look at clusters open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model


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
