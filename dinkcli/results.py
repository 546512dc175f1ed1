"""What functions give back: results that show themselves, and tables for people.

A table is made where its meaning is known; a notebook shows it as HTML, the command line as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Field:
    """A column of a table."""

    heading: str = ""
    justify: Literal["left", "right"] = "left"
    drop: int = 0  # 0 stays; of others the highest go first where a terminal is narrow
    text: bool = False  # its cells may be shortened, and an empty one is a dash
    bar: int = 0  # its cells are shares from 0 to 1, shown as bars of so many characters


NAME = Field("name", text=True)  # of clusters or groups


class Sheet:
    """A table before it is known where, and how wide, it will be shown.

    Args:
        columns: a heading alone is one of numbers.
        title: above it; without columns it is a sentence.
        notes: below it; empty ones are left out.
    """

    def __init__(self, *columns: Field | str, title: str = "", notes: Sequence[str] = ()):
        self.fields = [Field(each, "right") if isinstance(each, str) else each for each in columns]
        self.title = title
        self.notes = [note for note in notes if note]
        self.rows: list[tuple[Any, ...]] = []  # the cells of each

    def add(self, *cells: object) -> None:
        """A row."""
        self.rows.append(cells)

    def columns(self) -> Iterator[tuple[Field, list[Any]]]:
        """The columns that say something in some row, with their cells."""
        for field, *cells in zip(self.fields, *self.rows, strict=True):
            if any(map(str, cells)):
                yield field, ["-" if field.text and cell == "" else cell for cell in cells]

    def html(self) -> str:
        """As HTML; nothing of what the cells hold is markup."""
        lines = [f"<p><b>{escape(self.title)}</b></p>"] if self.title else []
        kept = [(field.heading, cells) for field, cells in self.columns() if not field.bar]
        if kept:
            heads = "".join(f"<th>{escape(heading)}</th>" for heading, _ in kept)
            rows = [heads] if any(heading for heading, _ in kept) else []
            for cells in zip(*(cells for _, cells in kept), strict=True):
                rows.append("".join(f"<td>{escape(str(cell))}</td>" for cell in cells))
            lines.append(f"<table><tr>{'</tr><tr>'.join(rows)}</tr></table>")
        return "".join([*lines, *(f"<p>{escape(note)}</p>" for note in self.notes)])


def shortened(text: str, most: int) -> str:
    """The text in at most ``most`` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def duration(seconds: float) -> str:
    """``0.5 s``, ``12 s``, ``3.2 min`` or ``2.5 h``."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 5970 else f"{seconds / 3600:.3g} h"


class Result:
    """What a function gives back. In a notebook it shows itself."""

    _records: ClassVar[str | None] = None  # the list in to_dict that to_arrow makes a table of
    indent: ClassVar[int] = 0  # of what a line says, where there are lines and no tables

    def to_dict(self) -> Any:
        """Plain JSON, as ``--json`` of the command gives it."""
        raise NotImplementedError

    def to_arrow(self) -> pa.Table:
        """As a table of Arrow, which pandas and polars take: the rows of the main list, or one."""
        import pyarrow as pa

        document = self.to_dict()
        return pa.Table.from_pylist(document.get(self._records, [document]))

    def lines(self) -> list[tuple[str, str]]:
        """As lines for people: what each is about, and what is said."""
        return []

    def sheets(self) -> list[Sheet]:
        """As small tables for people."""
        sheet = Sheet(Field(), Field())
        for line in self.lines():
            sheet.add(*line)
        return [sheet]

    def _repr_html_(self) -> str:
        return "".join(sheet.html() for sheet in self.sheets())
