"""Where a column is: at the top of a table, or inside of structs and lists.

``doc.embedding`` is a field of a struct, ``response.body.data.0.embedding`` goes through a list. A
path without the number takes a list's only element. Shapes: B rows in a batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.formats.types import is_list, is_number, storage

ONLY = -1  # the step into a list that has one element
_DEPTH = 8
Step = str | int


@dataclass(frozen=True)
class Place:
    """One column.

    Attributes:
        path: what the user calls it.
        steps: names of fields and numbers of elements, from the top.
        type: of its values.
    """

    path: str
    steps: tuple[Step, ...]
    type: pa.DataType

    @property
    def top(self) -> str:
        return str(self.steps[0])

    @property
    def nested(self) -> bool:
        return len(self.steps) > 1

    @property
    def first(self) -> str:
        """The path that takes the first element of lists that should have one."""
        return ".".join("0" if step == ONLY else str(step) for step in self.steps)

    def take(self, batch: pa.RecordBatch) -> tuple[pa.Array, np.ndarray | None]:
        """The B values, and the number of elements in lists that should have one, if any has more.

        Null where something on the way is null or missing.
        """
        array = batch.column(self.top)
        crowded: np.ndarray | None = None
        for step in self.steps[1:]:
            if isinstance(array, pa.ExtensionArray):
                array = array.storage
            if isinstance(step, str):
                array = pc.struct_field(array, [array.type.get_field_index(step)])
                continue
            array, lengths = _element(array, max(step, 0))
            if step == ONLY and (lengths > 1).any():
                lengths = np.where(lengths > 1, lengths, 0)
                crowded = lengths if crowded is None else np.maximum(crowded, lengths)
        return array, crowded


def place_of(schema: pa.Schema, path: str) -> Place | None:
    """The column of that name, or what the path leads to."""
    if path in schema.names:
        return Place(path, (path,), schema.types[schema.names.index(path)])
    parts = path.split(".")
    for n_parts in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:n_parts])
        if name in schema.names:
            found = _walk(schema.types[schema.names.index(name)], parts[n_parts:])
            if found is not None:
                return Place(path, (name, *found[0]), found[1])
    return None


def inner_places(schema: pa.Schema) -> Iterator[Place]:
    """Every column inside of structs and lists, without the numbers of elements."""
    for field in schema:
        yield from _inner(Place(field.name, (field.name,), field.type), _DEPTH)


def pruned(schema: pa.Schema, places: list[Place], types: list[pa.DataType]) -> pa.Schema:
    """The schema with these places alone, which have these types."""
    tree: dict[Step, object] = {}
    for place, type_ in zip(places, types, strict=True):
        node: dict[Step, object] = tree
        for step in place.steps[:-1]:
            step = "" if isinstance(step, int) else step
            below = node.setdefault(step, {})
            node = below if isinstance(below, dict) else {}
        last = place.steps[-1]
        node["" if isinstance(last, int) else last] = type_
    return pa.schema([(str(name), _grown(below)) for name, below in tree.items()])


def _grown(node: object) -> pa.DataType:
    if not isinstance(node, dict):
        return node
    if "" in node:
        return pa.list_(_grown(node[""]))
    return pa.struct([(name, _grown(below)) for name, below in node.items()])


def _walk(type_: pa.DataType, parts: list[str]) -> tuple[tuple[Step, ...], pa.DataType] | None:
    type_ = storage(type_)
    if not parts:
        return (), type_
    if pa.types.is_struct(type_):
        for n_parts in range(len(parts), 0, -1):
            name = ".".join(parts[:n_parts])
            index = type_.get_field_index(name)
            if index >= 0:
                found = _walk(type_.field(index).type, parts[n_parts:])
                if found is not None:
                    return (name, *found[0]), found[1]
    elif is_list(type_):
        numbered = parts[0].isdecimal() and parts[0].isascii() and len(parts[0]) < 9
        found = _walk(type_.value_type, parts[1:] if numbered else parts)
        if found is not None:
            return (int(parts[0]) if numbered else ONLY, *found[0]), found[1]
    return None


def _inner(place: Place, depth: int) -> Iterator[Place]:
    type_ = storage(place.type)
    if depth == 0:
        return
    if pa.types.is_struct(type_):
        for field in type_:
            path = f"{place.path}.{field.name}"
            inner = Place(path, (*place.steps, field.name), field.type)
            yield inner
            yield from _inner(inner, depth - 1)
    elif is_list(type_):
        value = storage(type_.value_type)
        if pa.types.is_struct(value) or is_list(value):
            inner = Place(place.path, (*place.steps, ONLY), value)
            yield inner
            yield from _inner(inner, depth - 1)


def list_lengths(lists: pa.Array) -> np.ndarray:
    """(B,) numbers of elements; 0 for null."""
    return pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)


def _element(lists: pa.Array, index: int) -> tuple[pa.Array, np.ndarray]:
    """(B,) the elements of that number, null where there is none, and the lengths of the lists."""
    lengths = list_lengths(lists)
    if pa.types.is_fixed_size_list(lists.type):
        starts = (lists.offset + np.arange(len(lists))) * lists.type.list_size
    else:
        starts = lists.offsets.to_numpy()[:-1]
    where = pa.array(starts + index, pa.int64(), mask=lengths <= index)
    return lists.values.take(where), lengths


def groups_of(places: list[Place]) -> dict[str, list[str]]:
    """Numbered columns that may be dimensions, by prefix.

    Integers may stand among the dimensions: text files show no point in a column of zeros.
    """
    numbered = _numbered([place.path for place in places if is_number(place.type)])
    floats = {place.path for place in places if pa.types.is_floating(place.type)}
    mixed = {prefix: names for prefix, names in numbered.items() if set(names) & floats}
    return mixed or ({} if floats else numbered)


def _numbered(names: list[str]) -> dict[str, list[str]]:
    """Columns such as dim_0, dim_1, ... by prefix, each in the order of its numbers."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=natural):
        if match := re.fullmatch(r"(.*?)\d+", name):
            groups.setdefault(match[1], []).append(name)
    return {prefix: group for prefix, group in groups.items() if len(group) > 1}


def natural(name: str) -> list[tuple[int, str | int]]:
    """Sorts dim_2 before dim_10."""
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
