"""What the text in one cell is: a number, what people write in place of one, or a vector."""

from __future__ import annotations

import base64
import functools
import re

import numpy as np
import pyarrow as pa

TEXT, INTEGERS, BASE64 = "text", "integers in text", "base64"
ELIDED, SPARSE = "elided", "sparse"  # refused by name
NULLS = ["", "null", "NULL", "None", "NaN", "nan", "NA", "N/A", "n/a", "\\N", "<NA>", "-nan"]
NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE
)
BRACKETS = '[](){} \t\r\n"'
# How NumPy and PyTorch print arrays, and NumPy 2 a number.
CALL = r"^\s*(?:np\.|numpy\.|torch\.)?(?:[Aa]rray|[Tt]ensor)\("
CALL_END = r",?\s*(?:dtype|device)=[^\]]*\)$"
SCALAR = r"np\.\w+\(([^()]*)\)"
_FRACTION = re.compile(r"[.eEnN]")
_FEW = 4  # fewer numbers without brackets may be anything: a date, a size
_PLAUSIBLE = (1e-12, 1e6)  # magnitudes of embeddings; random bits are mostly outside
_KINDS = {
    "number": NUMBER,
    "blanks": re.compile(r"[-+\u2212]?\d{1,3}([ \u00a0\u202f\u2009'_]\d{3})+([.,]\d+)?"),
    "signed": re.compile(
        r"[-+]?[\d.,]+\s*[%\u2030]|[$\u20ac\u00a3]\s*[-+]?[\d.,]+|\u2212[\d.,]+([eE]\S?\d+)?"
    ),
    "thousands": re.compile(r"[-+]?\d{1,3}((,\d{3})+(\.\d+)?|(\.\d{3})+(,\d+)|(\.\d{3}){2,})"),
    "decimal comma": re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?"),
}
_ODD = _KINDS.keys() - {"number"}
# Numbers, and something between them that would be a separator.
_UNSPLIT = re.compile(r"[-+\d.eE\s]*\d[,;|\t ][-+\d.eE,;|\t ]*")


@functools.lru_cache(1 << 15)
def kind_of(cell: str) -> str:
    """What a field of a csv is: "null", one of ``_KINDS``, "vector", "broken" (one end of a list),
    "unsplit" (numbers between other separators) or "text"."""
    cell = cell.strip()
    if cell in NULLS:
        return "null"
    for kind, pattern in _KINDS.items():
        if pattern.fullmatch(cell):
            return kind
    cell = cell.strip('"')
    if text_kind(cell, named=False) is not None:
        return "vector"
    if (cell[:1] in "[{") != (cell[-1:] in "]}"):
        return "broken" if re.search(r"\d", cell) and not re.search("[a-zA-Z]{3}", cell) else "text"
    return "unsplit" if _UNSPLIT.fullmatch(cell) else "text"


def is_odd_number(cell: str) -> bool:
    """Whether it is a number with a fraction, but not as programs write it."""
    cell = cell.strip()
    if match := re.fullmatch(r"\(([^()]+)\)", cell):  # negative, in accounts
        return bool(NUMBER.fullmatch(match[1].strip())) and "." in cell
    return kind_of(cell) in _ODD and bool(re.search(r"[.,]\d|[%\u2030]", cell))


def text_kind(cell: str, named: bool) -> str | None:
    """What sort of vector a text is: TEXT, INTEGERS, BASE64, ELIDED, SPARSE or None. ``named``: the
    user says that it is one."""
    text = re.sub(SCALAR, r"\1", cell.strip())
    if re.match(CALL, text):
        text = re.sub(CALL_END, "", re.sub(CALL, "", text))
    if re.fullmatch(r"\{(\d+:[^,:{}]+(,|(?=\})))*\}/\d+", text):
        return SPARSE
    bracketed = text[:1] in ("[", "{", "(") and text[-1:] in ("]", "}", ")")
    tokens = [token for token in re.split(r"[,;\s]+", text.strip(BRACKETS)) if token]
    if text[:1] == "(" and len(tokens) == 1 and not named:
        return None  # a negative number, in accounts
    if "..." in tokens:
        numbers = [token for token in tokens if token != "..."]
        return ELIDED if bracketed and all(map(NUMBER.fullmatch, numbers)) else None
    if tokens and all(token in NULLS or NUMBER.fullmatch(token) for token in tokens):
        whole = not any(map(_FRACTION.search, tokens))
        if named or bracketed or (len(tokens) >= _FEW and not whole):
            return INTEGERS if whole else TEXT
        return None
    return BASE64 if _is_base64(text, 1 if named else 2 * _FEW) else None


def type_of_most(cells: list[str]) -> pa.DataType | None:
    """int64 or float64 when at least half of the texts are numbers; None for other texts."""
    numbers = [cell for cell in cells if NUMBER.fullmatch(cell)]
    if not cells or 2 * len(numbers) < len(cells):
        return None
    return pa.float64() if any(map(_FRACTION.search, numbers)) else pa.int64()


def _is_base64(text: str, least: int) -> bool:
    """Whether it is ``least`` numbers or more of float32, none of an odd size."""
    if len(text) % 4 or len(text) < 4 * least or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", text):
        return False
    blob = base64.b64decode(text)
    if len(blob) % 4:
        return False
    sizes = np.abs(np.frombuffer(blob, "<f4").astype(np.float64))
    low, high = _PLAUSIBLE
    return bool((((sizes >= low) & (sizes <= high)) | (sizes == 0)).all())
