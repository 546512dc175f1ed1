"""Which columns of a table hold the vectors, and how they are reached: ``doc.embedding`` is a field
of a struct, ``data.0.embedding`` goes through a list; without the number, through its only element.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.base import Columns
from dinkcli.data.formats import numerals
from dinkcli.data.formats.types import (
    is_any_vector,
    is_bytes,
    is_fraction,
    is_list,
    is_number,
    is_spark_vector,
    is_text,
    is_vector,
    storage,
)
from dinkcli.errors import InputError, TextsError, UsageError

LIST, BYTES, SPARK, NUMBERS = "list", "bytes", "spark", "numbers"
TEXT, BASE64 = numerals.TEXT, numerals.BASE64
ONLY = -1  # the step into a list that has one element
_DEPTH = 8
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})((?:\.0)?[^\w.]*)", re.DOTALL)
_FEW = 8  # cells that say what a column of texts holds
_REFUSED = {
    numerals.ELIDED: "arrays as NumPy prints them, with '...' in place of most numbers, which are "
    "lost; write the vectors again with [row.tolist() for row in vectors]",
    numerals.SPARSE: "sparse vectors, {!r}; write all of their numbers (in PostgreSQL: SELECT "
    "embedding::vector)",
}
Step = str | int


@dataclass(frozen=True)
class Place:
    """One column."""

    path: str  # what the user calls it
    steps: tuple[Step, ...]  # names of fields and numbers of elements, from the top
    type: pa.DataType  # of its values, or of the numbers in its texts

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
        """(B,) values, null where something on the way is, and the numbers of elements of lists
        that should have one, if any has more."""
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


def _element(lists: pa.Array, index: int) -> tuple[pa.Array, np.ndarray]:
    """(B,) the elements of that number, null where there is none, and the lengths of the lists."""
    lengths = list_lengths(lists)
    if pa.types.is_fixed_size_list(lists.type):
        starts = (lists.offset + np.arange(len(lists))) * lists.type.list_size
    else:
        starts = lists.offsets.to_numpy()[:-1]
    where = pa.array(starts + index, pa.int64(), mask=lengths <= index)
    return lists.values.take(where), lengths


def list_lengths(lists: pa.Array) -> np.ndarray:
    """(B,) numbers of elements; 0 for null."""
    return pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)


def place_of(schema: pa.Schema, path: str) -> Place | None:
    """The column of that name, or what the path leads to."""
    if path in schema.names:
        return Place(path, (path,), schema.types[schema.names.index(path)])
    walked = _walk(pa.struct(list(schema)), path.split("."))
    return None if walked is None else Place(path, *walked)


def _walk(
    type_: pa.DataType, parts: list[str], steps: tuple[Step, ...] = ()
) -> tuple[tuple[Step, ...], pa.DataType] | None:
    type_ = storage(type_)
    if not parts:
        return steps, type_
    if pa.types.is_struct(type_):
        for n_parts in range(len(parts), 0, -1):  # a name may have points in it
            name = ".".join(parts[:n_parts])
            index = type_.get_field_index(name)
            if index >= 0:
                walked = _walk(type_.field(index).type, parts[n_parts:], (*steps, name))
                if walked is not None:
                    return walked
    elif is_list(type_):
        numbered = parts[0].isdecimal() and parts[0].isascii() and len(parts[0]) < 9
        step = int(parts[0]) if numbered else ONLY
        return _walk(type_.value_type, parts[numbered:], (*steps, step))
    return None


def places_in(schema: pa.Schema) -> Iterator[Place]:
    """Every column, also inside of structs and lists, without the numbers of elements."""
    left = [Place(field.name, (field.name,), field.type) for field in schema][::-1]
    while left:
        place = left.pop()
        yield place
        type_, inner = storage(place.type), []
        if pa.types.is_struct(type_) and not is_spark_vector(type_):
            inner = [(f"{place.path}.{field.name}", field.name, field.type) for field in type_]
        elif is_list(type_):
            value = storage(type_.value_type)
            inner = [(place.path, ONLY, value)] * (pa.types.is_struct(value) or is_list(value))
        if len(place.steps) <= _DEPTH:
            left += [Place(path, (*place.steps, step), of) for path, step, of in inner[::-1]]


def pruned(places: list[Place], types: list[pa.DataType]) -> pa.Schema:
    """A schema of these places alone, which have these types."""
    return pa.schema(
        list(_grown([(p.steps, type_) for p, type_ in zip(places, types, strict=True)]))
    )


def _grown(leaves: list[tuple[tuple[Step, ...], pa.DataType]]) -> pa.DataType:
    below: dict[str, list[tuple[tuple[Step, ...], pa.DataType]]] = {}
    for steps, type_ in leaves:
        if not steps:
            return type_
        name = "" if isinstance(steps[0], int) else steps[0]
        below.setdefault(name, []).append((steps[1:], type_))
    if "" in below:
        return pa.list_(_grown(below[""]))
    return pa.struct([(name, _grown(inner)) for name, inner in below.items()])


Peek = Callable[[Place], list[str]]  # the first texts of a column, without spelled nulls


@dataclass(frozen=True)
class VectorColumns:
    """One column of vectors, or D columns of numbers in order of dimension."""

    places: list[Place]
    kind: str  # LIST, BYTES, SPARK, TEXT or BASE64 for one column, NUMBERS for D
    why: str  # they were chosen, as it follows "column e:" in a sentence
    column: str | None = None  # would choose them again
    note: str = ""  # what the user should know of the choice


def names_of(names: list[str]) -> str:
    """The names as a message shows them."""
    shown = ", ".join(repr(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def vector_columns(path: str, schema: pa.Schema, wanted: Columns, peek: Peek) -> VectorColumns:
    """The columns that hold the vectors; UsageError for none of that name and for several that may,
    InputError for none. Ids, and numbers and texts that travel along, only where they are named.
    """
    if wanted.alone:
        return VectorColumns([], NUMBERS, "none are looked for")
    search = _Search(path, schema, wanted, peek)
    chosen = search.by_features() if wanted.features else search.by_column()
    for place in chosen.places:
        refuse_twice(path, schema, place.top)
    return chosen


def refuse_twice(path: str, schema: pa.Schema, name: str) -> None:
    """Raises UsageError where several columns have this name."""
    if (times := len(schema.get_all_field_indices(name))) > 1:
        raise UsageError(f"{path}: {times} columns are named {name!r}; give each a name of its own")


def bytes_dim(field: pa.Field) -> int | None:
    """The dimension that the metadata of a column of bytes give, as ``dim``."""
    text = (field.metadata or {}).get(b"dim", b"")
    return int(text) if text.isdigit() else None


_LISTS, _BYTES, _TEXTS = "list of floats", "column of bytes with a dimension", "text of numbers"
_BASE64, _GROUPS, _FLOATS = "text of float32 in base64", "numbered columns", "columns of floats"
_INTEGERS = ("list of integers", "text of integers")
# What may hold the vectors, best first, and whether inside of others. Integers may be tokens.
_SORTS = [
    *((_LISTS, False), (_BYTES, False), (_TEXTS, False), (_GROUPS, False)),
    *((_LISTS, True), (_TEXTS, True), (_GROUPS, True), (_FLOATS, False)),
    *((sort, nested) for nested in (False, True) for sort in _INTEGERS),
]


class _Search:
    """Looks for the vectors among the columns of one schema; arguments as of ``vector_columns``."""

    def __init__(self, path: str, schema: pa.Schema, wanted: Columns, peek: Peek):
        self.path, self.schema, self.wanted = path, schema, wanted
        self.peek = functools.cache(peek)

    def by_column(self) -> VectorColumns:
        """What is named, or else the only candidate."""
        column, usual = self.wanted.vectors, self.wanted.usual
        if column is None:
            chosen = None if usual is None else self._named(usual, "as in training")
            return chosen or self._automatic()
        chosen = self._named(column, "named by `column`")
        if chosen is None:
            known = names_of(list(dict.fromkeys(self.schema.names)))
            raise UsageError(f"{self.path}: no column {column!r}; it has {known}")
        return chosen

    def by_features(self) -> VectorColumns:
        """The columns ``wanted.features``, in this order; without these names, a column of vectors,
        or what ``wanted.vectors`` names, goes by position."""
        path, wanted, known = self.path, self.wanted, self.schema.names
        names, why = wanted.features, f"as in {wanted.features_of}"
        types = dict(zip(known, self.schema.types, strict=True))
        missing = [name for name in names if name not in types]
        if wanted.vectors is not None:
            chosen = self.by_column()
            others = sorted(set(names) - {place.path for place in chosen.places})
            if chosen.kind != NUMBERS:
                return chosen
            if others:
                note = f"{path}: no column {others[0]!r}, {why}: columns go by their position"
                return replace(chosen, note=note)
        elif missing:
            with contextlib.suppress(UsageError, InputError):
                chosen = self.by_column()
                if chosen.kind != NUMBERS:
                    return chosen
            raise UsageError(
                f"{path}: {len(missing)} of the {len(names)} columns of {wanted.features_of} "
                f"are missing: {names_of(missing)}; it has {names_of(known)}; rename them, or "
                "choose columns that stand in the same order by `column`"
            )
        places = []
        for name in names:
            place = self._numeric(Place(name, (name,), types[name]), surely=True)
            if place is None:
                raise UsageError(f"{path}: column {name!r} is {types[name]}, not numbers, {why}")
            places.append(place)
        return VectorColumns(places, NUMBERS, why)

    def _named(self, column: str, why: str) -> VectorColumns | None:
        place = place_of(self.schema, column)
        if place is None:
            names = (column, column.replace("[", "[[]"))  # such as x[10]
            places = list(places_in(self.schema))
            matches = [[p for p in places if fnmatchcase(p.path, n)] for n in names]
            matching = [p for p in matches[0] or matches[1] if ONLY not in p.steps]
            chosen = self._dimensions(matching, why, column)
            return chosen if chosen.places else None
        kind, type_ = _kind(place.type), storage(place.type)
        is_object = kind is None and pa.types.is_struct(type_)
        if is_object and (numbered := self._named(f"{column}.*", why)):  # by index
            return numbered
        if kind is None and is_list(type_) and is_any_vector(storage(type_.value_type)):
            place, kind = Place(column, (*place.steps, ONLY), storage(type_.value_type)), LIST
        kind = kind or self._kind_of_text(place, named=True)
        if kind is None:
            raise UsageError(
                f"{self.path}: column {column!r} is {place.type}, expected a list of floats or a "
                "number" + (", or a text of numbers" if is_text(place.type) else "")
            )
        kind = TEXT if kind == numerals.INTEGERS else kind
        return VectorColumns([place], kind, why, column)

    def _automatic(self) -> VectorColumns:
        """The only candidate of the first sort that has any."""
        wanted, times = self.wanted, Counter(self.schema.names)
        aside, carried = {wanted.id, wanted.label, wanted.weight}, wanted.carried
        places = [
            place
            for place in places_in(self.schema)
            if not aside & {place.top, place.path}
            and (times[place.top] == 1 or not (place.nested or is_text(place.type)))
            and (place.nested or place.path not in carried or is_any_vector(place.type))
        ]
        for sort, nested in _SORTS:
            found = self._of_sort(sort, [place for place in places if place.nested == nested])
            if sort == _TEXTS and not nested and found and found[0].kind == TEXT:
                # A text of no more numbers than there are numbered columns may be about these.
                n_numbers = len(self.peek(found[0].places[0])[0].split(","))
                groups = self._groups(places)
                found += [group for group in groups if len(group.places) >= n_numbers]
            if len(found) == 1:
                return found[0]
            if found:
                names = [str(each.column) for each in found]
                raise UsageError(
                    f"{self.path}: {len(names)} columns could hold the embeddings: "
                    f"{names_of(names)}; choose one with `column` {shlex.quote(names[0])}"
                )
        tops = [place for place in places if not place.nested]
        message = (
            f"{self.path}: no column of vectors: expected a list column of floats, a text of "
            "numbers, one float column per dimension, or a column of bytes with `dim`; it has "
            + names_of([f"{place.path}: {place.type}" for place in tops])
        )
        texts = [place.path for place in tops if is_text(place.type)]
        if not texts:
            raise InputError(message)
        usual = next((text for text in texts if "text" in text.lower()), texts[-1])
        raise TextsError(message, self.path, usual)

    def _of_sort(self, sort: str, places: list[Place]) -> list[VectorColumns]:
        """Each choice of that sort."""
        if sort == _GROUPS:
            return self._groups([place for place in places if ONLY not in place.steps])
        if sort == _FLOATS:
            floats = [place for place in places if pa.types.is_floating(place.type)]
            if floats:
                self._refuse_odd([place for place in places if is_text(place.type)])
            why = "all columns of floats" if len(floats) > 1 else "the only column of floats"
            return [VectorColumns(floats, NUMBERS, why)] if floats else []
        chosen = []
        for place in places:  # to look into texts is to read them
            is_sought = _holds_text(place.type) == sort.startswith("text")
            own, kind = self._sort_of(place) if is_sought else ("", "")
            if own == sort or (own == _BASE64 and sort == _TEXTS):
                why = f"the only {own}" + ", inside of others" * place.nested
                why += ", and nothing else can be" * (sort in _INTEGERS)
                note = _about_integers(place) if sort in _INTEGERS else ""
                chosen.append(VectorColumns([place], kind, why, place.path, note))
        return chosen

    def _sort_of(self, place: Place) -> tuple[str, str]:
        """What a column holds, as ``_SORTS`` has it, and its kind."""
        kind = _kind(place.type) or self._kind_of_text(place) or ""
        if kind == BYTES and not (self.wanted.dim or self.wanted.bits):
            kind = BYTES if bytes_dim(self.schema.field(place.top)) else ""
        if kind in (LIST, SPARK):
            return _LISTS if is_vector(place.type, is_fraction) else _INTEGERS[0], kind
        if kind == numerals.INTEGERS:
            return _INTEGERS[1], TEXT
        return {BYTES: _BYTES, TEXT: _TEXTS, BASE64: _BASE64}.get(kind, ""), kind

    def _kind_of_text(self, place: Place, named: bool = False) -> str | None:
        """What most of the first texts are, or lists of them."""
        if not _holds_text(place.type):
            return None
        cells = self.peek(place)[:_FEW]
        kinds = Counter(kind for kind in (numerals.text_kind(c, named) for c in cells) if kind)
        kind = kinds.most_common(1)[0][0] if 2 * kinds.total() > len(cells) else None
        if kind in _REFUSED:
            what = _REFUSED[kind].format(cells[0][:40])
            raise InputError(f"{self.path}: column {place.path!r} holds {what}")
        return kind

    def _numeric(self, place: Place, surely: bool = False) -> Place | None:
        """The place as a column of numbers, if it is one (``surely``: it was one before); its cells
        that are none make bad rows."""
        type_: pa.DataType | None = None
        if is_number(place.type):
            return place
        if is_text(place.type):
            type_ = numerals.type_of_most(self.peek(place)) or (pa.float64() if surely else None)
        elif pa.types.is_boolean(place.type) or (surely and pa.types.is_null(place.type)):
            type_ = pa.int8()
        return replace(place, type=type_) if type_ is not None else None

    def _groups(self, places: list[Place]) -> list[VectorColumns]:
        """Sets of numbered columns that may be dimensions. Integers may stand among them, for texts
        show no point in a column of zeros, and texts of which most are numbers."""
        sets: dict[tuple[str, str], list[Place]] = {}
        for place in places:
            if match := _NUMBERED.fullmatch(place.path):
                sets.setdefault((match[1], match[3]), []).append(place)
        groups = []
        for (prefix, suffix), numbered in sets.items():
            group = self._dimensions(numbered, "", f"{prefix}*{suffix}")
            if len(group.places) > 1 and any(is_number(place.type) for place in numbered):
                why = f"numbered columns, {group.places[0].path} to {group.places[-1].path}"
                groups.append(replace(group, why=why))
        mixed = [g for g in groups if any(pa.types.is_floating(place.type) for place in g.places)]
        return mixed or ([] if any(pa.types.is_floating(p.type) for p in places) else groups)

    def _dimensions(self, places: list[Place], why: str, column: str) -> VectorColumns:
        """Those that are columns of numbers, or of nulls between them, in the order of the numbers
        in their names, and a note on texts."""
        places = sorted(places, key=lambda place: _natural(place.path))
        sure = [is_number(place.type) for place in places]
        typed = [
            self._numeric(p, surely=pa.types.is_null(p.type) and any(sure[:i]) and any(sure[i:]))
            for i, p in enumerate(places)
        ]
        left = [p for p, one in zip(places, typed, strict=True) if one is None and is_text(p.type)]
        note = ""
        if left:
            self._refuse_odd(left)
            cell, names = next(iter(self.peek(left[0])), ""), names_of([p.path for p in left])
            note = f"{self.path}: left out of the vectors: {names}, with text such as {cell[:40]!r}"
        return VectorColumns([one for one in typed if one], NUMBERS, why, column, note)

    def _refuse_odd(self, texts: list[Place]) -> None:
        """Raises InputError for texts that are numbers as people write them, beside columns of
        numbers: left out, they would be missed, and nobody told."""
        for place in texts:
            odd = [cell for cell in self.peek(place) if not numerals.NUMBER.fullmatch(cell)]
            if odd and all(map(numerals.is_odd_number, odd)):
                raise InputError(
                    f"{self.path}: column {place.path!r} holds numbers such as {odd[0][:40]!r}, "
                    "which would be left out of the vectors; write plain numbers, such as -1234.5, "
                    "or choose the columns by `column`"
                )


def _natural(name: str) -> list[tuple[int, str | int]]:
    """Sorts dim_2 before dim_10."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(1, int(part)) if number % 2 else (0, part) for number, part in enumerate(parts)]


_KINDS = {NUMBERS: is_number, BYTES: is_bytes, SPARK: is_spark_vector, LIST: is_any_vector}


def _kind(type_: pa.DataType) -> str | None:
    return next((kind for kind, is_kind in _KINDS.items() if is_kind(storage(type_))), None)


def _holds_text(type_: pa.DataType) -> bool:
    """Texts, or lists of them."""
    type_ = storage(type_)
    return is_text(type_.value_type if is_list(type_) else type_)


def _about_integers(place: Place) -> str:
    """A note on them, unless they are bits or bytes."""
    value = getattr(storage(place.type), "value_type", None)
    if value in (pa.bool_(), pa.int8(), pa.uint8()):
        return ""
    return (
        f"column {place.path!r} holds integers, which may be tokens or counts; it is read as "
        "the embeddings since nothing else can be"
    )
