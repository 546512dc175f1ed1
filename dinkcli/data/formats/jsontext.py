"""The elements of JSON as lines: of objects one a line, of one array, or of objects one after the
other over several lines."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import numpy as np

LINES, ARRAYS, ELEMENTS, OBJECTS = "lines", "arrays", "elements", "objects"
MIXED = "mixed"  # an array a line, of a text and numbers, or of a text and an array of numbers
_OPEN, _CLOSE, _QUOTE = 1, 2, 3
_KINDS = np.zeros(256, np.uint8)
_KINDS[[ord("["), ord("{")]] = _OPEN
_KINDS[[ord("]"), ord("}")]] = _CLOSE
_KINDS[ord('"')] = _QUOTE
_COMMA, _NEWLINE, _SPACE, _BACKSLASH = b",\n \\"
_BLANKS = b" \t\r\n"
_FEW = 20  # lines that say what all are


def layout_of(head: bytes) -> str | None:
    """How a text that may be JSON is laid out, by its beginning; None when it is something else."""
    text = head.lstrip()
    start, inner = text[:1], text[1:].lstrip()[:1]
    if start == b"[":
        if inner in (b"[", b"{"):
            return ELEMENTS
        return _arrays_layout(text, inner)
    if start != b"{" or inner not in (b'"', b"}"):
        return None
    first = text.split(b"\n", 1)[0]
    return LINES if Splitter(0).depth_after(first) <= 0 or b"\n" not in text else OBJECTS


def _arrays_layout(text: bytes, inner: bytes) -> str | None:
    """MIXED where the first arrays hold more than numbers, or count the rows before them."""
    rows: list[Any] = []
    with contextlib.suppress(ValueError, RecursionError):
        for line in text.split(b"\n")[:_FEW]:
            rows.append(json.loads(line))
    rows = [row for row in rows if isinstance(row, list) and row]
    if inner == b'"' or any(isinstance(each, list) for row in rows for each in row):
        values = rows[0][1:] if rows else []
        numbers = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        is_vector = bool(numbers) and all(isinstance(n, (int, float)) for n in numbers)
        return MIXED if is_vector else None
    first = [row[0] for row in rows]
    counted = (
        len(first) > 2 and first[0] in (0, 1) and first == [*range(first[0], first[0] + len(first))]
    )
    if (
        counted
        and all(isinstance(n, int) for n in first)
        and any(isinstance(n, float) for row in rows for n in row[1:])
    ):
        return MIXED
    return ARRAYS if inner and inner in b"-+.0123456789NI]n" else None


def as_object(line: bytes) -> bytes:
    """An array of one name and numbers, or an array of numbers, as an object."""
    name, *values = json.loads(line)
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    return json.dumps({"id": name, "vector": values}).encode()


class Splitter:
    """Puts each element of a JSON text on a line of its own, block by block.

    Args:
        level: how deep the elements are: 1 in an array, 0 for values one after the other.
    """

    def __init__(self, level: int):
        self._level = level
        self._depth = 0
        self._in_string = False
        self._slash = b""  # at the end of the last block, where it speaks of the next one
        self._wants_comma = False

    def depth_after(self, block: bytes) -> int:
        """How many brackets are open after it."""
        self.split(block)
        return self._depth

    @property
    def is_between(self) -> bool:
        """Whether the last block ended with an element."""
        return self._wants_comma

    def split(self, block: bytes) -> bytes:
        """The block with line breaks between elements, and nowhere else."""
        data = np.frombuffer(block, np.uint8).copy()
        where, kinds, depths = self._brackets(data)
        data[(data == _NEWLINE) | (data == 13)] = _SPACE  # none is inside of a string
        if self._level:
            # The brackets around all of them.
            data[where[(kinds == _OPEN) & (depths == 1)]] = _SPACE
            data[where[(kinds == _CLOSE) & (depths == 0)]] = _SPACE
        ends = where[(kinds == _CLOSE) & (depths == self._level)]
        if self._wants_comma:
            ends = np.concatenate([[-1], ends])
        self._wants_comma = False
        return self._broken(data, ends)

    def _broken(self, data: np.ndarray, ends: np.ndarray) -> bytes:
        after = ends + 1
        if len(after) and after[-1] == len(data):
            self._wants_comma, after = True, after[:-1]
        if not self._level:
            fresh = after[~np.isin(data[after], list(_BLANKS))]
            data[np.setdiff1d(after, fresh)] = _NEWLINE
            return np.insert(data, fresh, _NEWLINE).tobytes()
        commas = data[after] == _COMMA
        data[after[commas]] = _NEWLINE
        for start in after[~commas].tolist():  # blanks before the comma: rare
            while start < len(data) and data[start] in _BLANKS:
                start += 1
            if start == len(data):
                self._wants_comma = True
            elif data[start] == _COMMA:
                data[start] = _NEWLINE
        return data.tobytes()

    def _brackets(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions of brackets outside of strings, their kinds, and the depths after them."""
        data = self._without_escapes(data)
        where = np.flatnonzero(_KINDS[data])
        kinds = _KINDS[data[where]]
        quotes = kinds == _QUOTE
        inside = (np.cumsum(quotes) + self._in_string) % 2 == 1
        self._in_string = bool(inside[-1]) if len(inside) else self._in_string
        kept = ~inside & ~quotes
        where, kinds = where[kept], kinds[kept]
        depths = self._depth + np.cumsum(np.where(kinds == _OPEN, 1, -1))
        self._depth = int(depths[-1]) if len(depths) else self._depth
        return where, kinds, depths

    def _without_escapes(self, data: np.ndarray) -> np.ndarray:
        """The text with blanks for backslashes and what follows each."""
        if not self._slash and not (data == _BACKSLASH).any():
            return data
        text = self._slash + data.tobytes()
        blank = re.sub(rb"\\.", b"  ", text, flags=re.DOTALL)
        found = np.frombuffer(blank, np.uint8)[len(self._slash) :]
        self._slash = b"\\" if blank.endswith(b"\\") else b""
        return found


def is_one_object(file: Any) -> bool:
    """Whether nothing comes after the first element of a text; reads no further than needed."""
    splitter, ended = Splitter(0), False
    while block := file.read(1 << 20):
        if ended and block.strip():
            return False
        text = splitter.split(block).lstrip()
        _, end, rest = text.partition(b"\n")
        if rest.strip():
            return False
        ended = ended or bool(end) or splitter.is_between
    return True
