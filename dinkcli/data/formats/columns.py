"""Which columns of a table hold the vectors, and of which kind they are.

Shapes: N rows, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pyarrow as pa

from dinkcli.data.base import Columns
from dinkcli.data.formats import numerals
from dinkcli.data.formats.places import ONLY, Place, groups_of, inner_places, natural, place_of
from dinkcli.data.formats.types import (
    is_any_vector,
    is_bytes,
    is_fraction,
    is_list,
    is_number,
    is_spark_vector,
    is_text,
    is_vector,
    is_whole,
    storage,
)
from dinkcli.errors import InputError, TextsError, UsageError

LIST, BYTES, SPARK, NUMBERS = "list", "bytes", "spark", "numbers"
TEXT, BASE64 = numerals.TEXT, numerals.BASE64

Peek = Callable[[Place], str]


@dataclass(frozen=True)
class Found:
    """The columns of the vectors.

    Attributes:
        places: one column of vectors, or D columns of numbers in order of dimension.
        kind: LIST, BYTES, SPARK, TEXT or BASE64 for one column of vectors, NUMBERS for D.
        why: they were chosen, as it follows "column e:" in a sentence.
        column: what --column would have to be to choose them again, if one can say it.
        note: what the user should know of the choice, or "".
    """

    places: list[Place]
    kind: str
    why: str
    column: str | None
    note: str = ""


def names_of(names: list[str]) -> str:
    """The names as a message shows them."""
    shown = ", ".join(repr(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def vector_columns(path: str, schema: pa.Schema, wanted: Columns, peek: Peek) -> Found:
    """The column, or the columns in order of dimension, that hold the vectors.

    Ids are no candidates, nor are numbers and texts that travel along, unless ``wanted.vectors``
    names them; carried vectors still are.

    Args:
        peek: gives the first text in a column, "" without any.

    Raises:
        UsageError: no such column, or several candidates.
        InputError: no candidate.
    """
    if wanted.alone:
        return Found([], NUMBERS, "none are looked for", None)
    if wanted.features:
        found = _by_name(path, schema, wanted, peek)
    elif wanted.vectors is not None:
        found = _named(path, schema, wanted.vectors, wanted.dim, peek, "named by --column")
        if found is None:
            known = names_of(list(dict.fromkeys(schema.names)))
            raise UsageError(f"{path}: no column {wanted.vectors!r}; it has {known}")
    else:
        found = None
        if wanted.usual is not None:
            found = _named(path, schema, wanted.usual, wanted.dim, peek, "as in training")
        if found is None:
            sized = {f.name for f in schema if is_bytes(f.type) and _is_sized(f, wanted)}
            found = _automatic(path, _candidates(schema, wanted), sized, peek)
    for place in found.places:
        if schema.names.count(place.top) > 1:
            number = schema.names.count(place.top)
            raise UsageError(
                f"{path}: {number} columns are named {place.top!r}; give each a name of its own"
            )
    return found


def _by_name(path: str, schema: pa.Schema, wanted: Columns, peek: Peek) -> Found:
    """The columns ``wanted.features``, in this order.

    Without these names, a column of vectors, or what ``wanted.vectors`` names, goes by position.
    """
    names, why = wanted.features, f"as in {wanted.features_of}"
    missing = [name for name in names if name not in schema.names]
    if missing or wanted.vectors is not None:
        try:
            found = vector_columns(path, schema, replace(wanted, features=()), peek)
        except (UsageError, InputError):
            if wanted.vectors is not None:
                raise
            found = None
        if found is not None and found.kind != NUMBERS:
            return found
        if found is None or wanted.vectors is None:
            raise UsageError(
                f"{path}: {len(missing)} of the {len(names)} columns of {wanted.features_of} are "
                f"missing: {names_of(missing)}; it has {names_of(schema.names)}; rename them, or "
                "choose columns that stand in the same order by --column"
            )
        others = sorted(set(names) - {place.path for place in found.places})
        if others:
            note = f"{path}: no column {others[0]!r}, {why}: columns go by their position"
            return replace(found, note=note)
    places = [Place(name, (name,), schema.types[schema.names.index(name)]) for name in names]
    for place in places:
        if not is_number(place.type):
            raise UsageError(f"{path}: column {place.path!r} is {place.type}, not numbers, {why}")
    return Found(places, NUMBERS, why, None)


def _is_sized(field: pa.Field, wanted: Columns) -> bool:
    return bool(wanted.dim or wanted.bits or bytes_dim(field))


def _named(
    path: str, schema: pa.Schema, column: str, dim: int | None, peek: Peek, why: str
) -> Found | None:
    place = place_of(schema, column)
    if place is None:
        fields = {f.name for f in schema if fnmatchcase(f.name, column) and is_number(f.type)}
        if not fields:
            return None
        places = [Place(name, (name,), schema.field(name).type) for name in fields]
        places.sort(key=lambda each: natural(each.path))
        return Found(places, NUMBERS, why, column)
    kind = _kind(place.type)
    if kind is None and is_list(storage(place.type)):
        inner = storage(storage(place.type).value_type)
        if is_any_vector(inner):
            place, kind = Place(column, (*place.steps, ONLY), inner), LIST
    if kind is None and is_text(place.type):
        kind = _kind_of_text(path, place, peek(place), named=True)
    if kind is None:
        raise UsageError(
            f"{path}: column {column!r} is {place.type}, expected a list of floats or a number"
            + (", or a text of numbers" if is_text(place.type) else "")
        )
    return Found([place], kind, why, column)


def _kind(type_: pa.DataType) -> str | None:
    type_ = storage(type_)
    if is_number(type_):
        return NUMBERS
    if is_bytes(type_):
        return BYTES
    if is_spark_vector(type_):
        return SPARK
    return LIST if is_any_vector(type_) else None


def _kind_of_text(path: str, place: Place, cell: str, named: bool) -> str | None:
    kind = numerals.text_kind(cell, named)
    if kind == numerals.ELIDED:
        raise InputError(
            f"{path}: column {place.path!r} holds arrays as NumPy prints them, with '...' in "
            "place of most numbers, which are lost; write the vectors again with "
            "[row.tolist() for row in vectors]"
        )
    return kind


def _candidates(schema: pa.Schema, wanted: Columns) -> list[Place]:
    """Places that may hold vectors, those inside of others last."""
    aside = {wanted.id, wanted.label, wanted.weight}
    times = Counter(schema.names)
    top = [
        Place(field.name, (field.name,), field.type)
        for field in schema
        if field.name not in aside
        and (times[field.name] == 1 or not is_text(field.type))
        and (field.name not in wanted.carried or is_any_vector(field.type))
    ]
    inside = [
        place
        for place in inner_places(schema)
        if place.path not in aside
        and place.top not in aside
        and times[place.top] == 1
        and not _in_spark(schema, place)
    ]
    return top + inside


def _in_spark(schema: pa.Schema, place: Place) -> bool:
    return is_spark_vector(storage(schema.types[schema.names.index(place.top)]))


def _automatic(path: str, places: list[Place], sized: set[str], peek: Peek) -> Found:
    """The only candidate of the first sort that has any.

    Args:
        sized: columns of bytes whose dimension is known. Bytes may be anything without it.
    """
    for found in _sorts(path, places, sized, peek):
        if len(found.places) == 1 or (found.places and found.kind == NUMBERS):
            return found
        if found.places:
            names = [place.path for place in found.places]
            raise UsageError(
                f"{path}: {len(names)} columns could hold the embeddings: {names_of(names)}; "
                f"choose one with --column {names[0]}"
            )
    known = names_of([f"{place.path}: {place.type}" for place in places if not place.nested])
    message = (
        f"{path}: no column of vectors: expected a list column of floats, a text of numbers, one "
        f"float column per dimension, or a column of bytes with --dim; it has {known}"
    )
    texts = [place.path for place in places if not place.nested and is_text(place.type)]
    if not texts:
        raise InputError(message)
    raise TextsError(message, path, next((t for t in texts if "text" in t.lower()), texts[-1]))


def _sorts(path: str, places: list[Place], sized: set[str], peek: Peek) -> Iterator[Found]:
    """What could be meant, best first. Integers come last: they may be tokens."""
    top = [place for place in places if not place.nested]
    inside = [place for place in places if place.nested]
    yield _lists(top, is_fraction, "the only list of floats")
    bytes_ = [place for place in top if place.path in sized]
    yield _one(bytes_, BYTES, "the only column of bytes with a dimension")
    texts, integers = _texts(path, top, peek)
    groups = groups_of(top)
    for place, kind in texts[:1]:
        for prefix, names in groups.items():
            if kind == TEXT and len(peek(place).split(",")) <= len(names):
                raise UsageError(
                    f"{path}: the text in {place.path!r} and the columns '{prefix}*' could hold "
                    f"the embeddings; choose with --column {place.path} or --column '{prefix}*'"
                )
    yield _of_texts(texts, "")
    yield _numbered_columns(path, top, groups)
    yield _lists(inside, is_fraction, "the only list of floats, inside of others")
    texts, more = _texts(path, inside, peek)
    yield _of_texts(texts, ", inside of others")
    floats = [place for place in top if pa.types.is_floating(place.type)]
    why = "all columns of floats" if len(floats) > 1 else "the only column of floats"
    yield Found(floats, NUMBERS, why, None)
    yield _of_integers(_lists(top, is_whole, "the only list of integers, and nothing else can be"))
    why = "the only text of integers, and nothing else can be"
    yield _of_integers(_one(integers, TEXT, why))
    why = "the only list of integers, inside of others, and nothing else can be"
    yield _of_integers(_lists(inside, is_whole, why))
    yield _of_integers(_one(more, TEXT, "the only text of integers, inside of others"))


def _one(places: list[Place], kind: str, why: str) -> Found:
    return Found(places, kind, why, places[0].path if places else None)


def _of_texts(texts: list[tuple[Place, str]], where: str) -> Found:
    kind = texts[0][1] if texts else TEXT
    what = "float32 in base64" if kind == BASE64 else "numbers"
    return _one([place for place, _ in texts], kind, f"the only text of {what}{where}")


def _lists(places: list[Place], is_value: Callable[[pa.DataType], bool], why: str) -> Found:
    found = [place for place in places if is_vector(place.type, is_value)]
    # With its elements numbered a list in a list is the same column.
    kind = SPARK if found and is_spark_vector(storage(found[0].type)) else LIST
    return _one(found, kind, why)


def _of_integers(found: Found) -> Found:
    if len(found.places) != 1:
        return found
    value = getattr(storage(found.places[0].type), "value_type", None)
    if value is not None and (pa.types.is_boolean(value) or value.bit_width == 8):
        return found
    return replace(
        found,
        note=f"column {found.column!r} holds integers, which may be tokens or counts; it is read "
        "as the embeddings since nothing else can be",
    )


def _texts(
    path: str, places: list[Place], peek: Peek
) -> tuple[list[tuple[Place, str]], list[Place]]:
    """Columns of texts that are vectors with their kinds, and those that are of integers."""
    vectors, integers = [], []
    for place in places:
        if not is_text(place.type):
            continue
        kind = _kind_of_text(path, place, peek(place), named=False)
        if kind == numerals.INTEGERS:
            integers.append(place)
        elif kind is not None:
            vectors.append((place, kind))
    return vectors, integers


def _numbered_columns(path: str, places: list[Place], groups: dict[str, list[str]]) -> Found:
    if len(groups) > 1:
        patterns = [f"{prefix}*" for prefix in groups]
        raise UsageError(
            f"{path}: {len(patterns)} sets of columns could hold the embeddings: "
            f"{names_of(patterns)}; choose one with --column '{patterns[0]}'"
        )
    for prefix, names in groups.items():
        why = f"numbered columns, {names[0]} to {names[-1]}"
        by_name = {place.path: place for place in places}
        return Found([by_name[name] for name in names], NUMBERS, why, f"{prefix}*")
    return Found([], NUMBERS, "", None)


def bytes_dim(field: pa.Field) -> int | None:
    """The dimension that the metadata of a column of bytes give, as ``dim``."""
    text = (field.metadata or {}).get(b"dim", b"")
    return int(text) if text.isdigit() else None
