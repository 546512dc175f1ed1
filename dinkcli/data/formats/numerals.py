"""Vectors written as text in one cell: numbers between brackets, or base64 of float32.

All cells of a batch are split and parsed at once. Shapes: B cells, D features.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TEXT, INTEGERS, BASE64 = "text", "integers in text", "base64"
ELIDED, SPARSE = "elided", "sparse"  # refused by name
NULLS = ["", "null", "NULL", "None", "NaN", "nan", "NA", "N/A", "n/a", "\\N", "<NA>", "-nan"]
_AROUND = '[](){} \t\r\n"'
_WRAPPED = re.compile(r"\s*(?:np\.|numpy\.|torch\.)?(?:array|tensor)\(", re.I)
_SCALAR = r"np\.\w+\(([^()]*)\)"  # how NumPy 2 shows one number
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|infinity|nan)"
_FEW = 4  # fewer numbers without brackets may be anything: a date, a size
_PLAUSIBLE = (1e-12, 1e6)  # magnitudes of embeddings; random bits are mostly outside


@dataclass(frozen=True)
class Parsed:
    """Cells as lists of float32; at fault are cells that hold something else.

    Attributes:
        lists: null where a cell is null, or at fault.
        wrong: (B,) bool, or None.
        problem: what is wrong with a cell of that number.
    """

    lists: pa.Array
    wrong: np.ndarray | None = None
    problem: Callable[[int], str] = str


def text_kind(cell: str, named: bool) -> str | None:
    """What sort of vector a text is: one of the kinds above, or None.

    Args:
        named: the user says that it is one.
    """
    text = re.sub(_SCALAR, r"\1", _unwrapped(cell.strip()))
    if re.fullmatch(r"\{(\d+:[^,:{}]+(,|(?=\})))*\}/\d+", text):
        return SPARSE
    bracketed = text[:1] in ("[", "{", "(") and text[-1:] in ("]", "}", ")")
    inner = text.strip(_AROUND)
    if not inner:
        return None
    tokens = [token for token in re.split(r"[,;\s]+", inner) if token]
    if "..." in tokens:
        numbers = [token for token in tokens if token != "..."]
        return ELIDED if bracketed and all(map(_is_number, numbers)) else None
    if all(_is_number(token) or token in NULLS for token in tokens):
        whole = not any(re.search("[.eEnN]", token) for token in tokens)
        if named or bracketed or (len(tokens) >= _FEW and not whole):
            return INTEGERS if whole else TEXT
        return None
    return BASE64 if _is_base64(text, 1 if named else 2 * _FEW) else None


def type_of_most(cells: list[str]) -> pa.DataType | None:
    """int64 or float64 when at least half of the texts are numbers; None for other texts."""
    numbers = [cell for cell in cells if _is_number(cell)]
    if not cells or 2 * len(numbers) < len(cells):
        return None
    return pa.float64() if any(re.search("[.eEnN]", cell) for cell in numbers) else pa.int64()


def numbers_of(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Texts as float64, null where a text is none, and (B,) bool: it is neither number nor null."""
    cells = pc.utf8_trim_whitespace(_plain(cells))
    fine = pc.fill_null(pc.match_substring_regex(cells, f"^({_NUMBER})$", ignore_case=True), False)
    null = pc.fill_null(pc.is_in(cells, value_set=pa.array(NULLS, cells.type)), True)
    null = pc.or_(null, pc.is_null(cells))
    numbers = pc.if_else(pc.and_not(fine, null), cells, pa.scalar(None, cells.type))
    wrong = pc.invert(pc.or_(fine, null)).to_numpy(zero_copy_only=False)
    return numbers.cast(pa.float64()), wrong


def parse_numbers(cells: pa.Array) -> Parsed:
    """Numbers between commas, semicolons or blanks, with or without brackets around them."""
    cells = _plain(cells)
    first = next((cell for cell in cells.drop_null()[:1].to_pylist()), "")
    if _WRAPPED.match(first):
        cells = pc.replace_substring_regex(cells, _WRAPPED.pattern, "")
        cells = pc.replace_substring_regex(cells, r",?\s*(dtype|device)=[^\]]*\)$", "")
    if "np." in first:
        cells = pc.replace_substring_regex(cells, _SCALAR, r"\1")
    bare = pc.utf8_trim(cells, _AROUND)
    if pa.types.is_large_string(bare.type) and bare.nbytes < 1 << 31:
        bare = bare.cast(pa.string())
    # The separator of the first cell is that of all others, or the careful way finds out.
    separator = next((each for each in (", ", ",", ";") if each in first), None)
    if separator is None:
        lists = pc.ascii_split_whitespace(bare)
    else:
        lists = pc.split_pattern(bare, separator)
    lists = _without_empty(lists, bare)
    try:
        return Parsed(_with_values(lists, lists.values.cast(pa.float32())))
    except pa.ArrowInvalid:
        return parse_tokens(_without_empty(pc.split_pattern_regex(bare, r"\s*[,;]\s*|\s+"), bare))


def parse_base64(cells: pa.Array) -> Parsed:
    """float32 in base64, as OpenAI's ``encoding_format="base64"`` gives them."""
    cells = _plain(cells)
    decoded: list[bytes | None] = []
    wrong = np.zeros(len(cells), bool)
    for number, cell in enumerate(cells.to_pylist()):
        blob = None
        if cell is not None:
            try:
                blob = base64.b64decode(cell.strip(), validate=True)
            except (binascii.Error, ValueError):
                pass
            if blob is None or len(blob) % 4:
                blob, wrong[number] = None, True
        decoded.append(blob)
    offsets = np.cumsum([0, *(len(blob) // 4 if blob else 0 for blob in decoded)])
    values = np.frombuffer(b"".join(filter(None, decoded)), "<f4").astype(np.float32)
    null = np.array([blob is None for blob in decoded], bool)
    lists = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(values), mask=pa.array(null) if len(null) else None
    )
    return Parsed(lists, wrong, lambda row: "holds no base64 of float32")


def _unwrapped(text: str) -> str:
    if match := _WRAPPED.match(text):
        return re.sub(r",?\s*(dtype|device)=[^\]]*\)$", "", text[match.end() :])
    return text


def _is_number(token: str) -> bool:
    return re.fullmatch(_NUMBER, token, re.I) is not None


def _is_base64(text: str, least: int) -> bool:
    if len(text) % 4 or len(text) < 4 * least or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", text):
        return False
    blob = base64.b64decode(text)
    if len(blob) % 4:
        return False
    sizes = np.abs(np.frombuffer(blob, "<f4").astype(np.float64))
    low, high = _PLAUSIBLE
    return bool((((sizes >= low) & (sizes <= high)) | (sizes == 0)).all())


def _plain(cells: pa.Array) -> pa.Array:
    """As a string or large string array, whatever the encoding."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
        cells = cells.cast(pa.large_string())
    return cells


def _without_empty(lists: pa.Array, bare: pa.Array) -> pa.Array:
    """A cell without numbers is a list without elements, and a spelled null is null."""
    null = pc.is_in(bare, value_set=pa.array(NULLS[1:], bare.type))
    if pc.any(null).as_py():
        lists = pc.if_else(pc.fill_null(null, False), pa.scalar(None, lists.type), lists)
    if pc.any(pc.equal(bare, pa.scalar("", bare.type))).as_py():
        empty = pa.scalar([], lists.type)
        lists = pc.if_else(pc.fill_null(pc.equal(bare, ""), False), empty, lists)
    return lists


def _with_values(lists: pa.Array, values: pa.Array) -> pa.Array:
    kind = pa.large_list if pa.types.is_large_list(lists.type) else pa.list_
    return pa.Array.from_buffers(
        kind(pa.float32()),
        len(lists),
        lists.buffers()[:2],
        lists.null_count,
        lists.offset,
        children=[values],
    )


def parse_tokens(lists: pa.Array) -> Parsed:
    """Token by token: spelled nulls are null elements, what is no number puts its row at fault."""
    tokens = pc.utf8_trim_whitespace(lists.values)
    null = pc.is_in(tokens, value_set=pa.array(NULLS, tokens.type))
    fine = pc.match_substring_regex(tokens, f"^({_NUMBER})$", ignore_case=True)
    bad = pc.and_not(pc.invert(fine), null)
    usable = pc.and_not(fine, null)
    numbers = pc.if_else(usable, tokens, pa.scalar(None, tokens.type)).cast(pa.float32())
    offsets = lists.offsets.to_numpy()
    where = np.flatnonzero(bad.to_numpy(zero_copy_only=False))
    rows = np.searchsorted(offsets, where, "right") - 1
    found = dict(zip(rows[::-1].tolist(), where[::-1].tolist(), strict=True))
    wrong = np.zeros(len(lists), bool)
    wrong[rows] = True

    def problem(row: int) -> str:
        token = tokens[found[row]].as_py()
        if "..." in token:
            return "was printed with '...' in place of numbers, which are lost"
        return f"holds {token[:40]!r}, expected numbers"

    return Parsed(_with_values(lists, numbers), wrong, problem)
