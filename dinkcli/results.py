"""What functions give back: results that show themselves, and tables for people.

A table is made where its meaning is known; a notebook shows it as HTML, the command line as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Field:
    """A column of a table.

    Attributes:
        heading: above it, or an empty text.
        justify: of its cells.
        drop: 0 for a column that always stays; of the others those with the highest number go
            first where a terminal is narrow.
        text: its cells may be shortened.
        bar: its cells are shares from 0 to 1, shown as bars of so many characters.
    """

    heading: str = ""
    justify: Literal["left", "right"] = "left"
    drop: int = 0
    text: bool = False
    bar: int = 0


class Sheet:
    """A table before it is known where, and how wide, it will be shown.

    Args:
        columns: a heading alone is one of numbers; None is left out, with its cells.
        title: above it; without columns it is a sentence.
        notes: below it; empty ones are left out.
        headings: whether they are shown.

    Attributes:
        rows: the cells of each row.
    """

    def __init__(
        self,
        *columns: Field | str | None,
        title: str = "",
        notes: Sequence[str] = (),
        headings: bool = True,
    ):
        self._given = [column is not None for column in columns]
        self.fields = [
            Field(column, "right") if isinstance(column, str) else column
            for column in columns
            if column is not None
        ]
        self.title, self.headings = title, headings
        self.notes = [note for note in notes if note]
        self.rows: list[list[Any]] = []

    def add(self, *cells: object) -> None:
        """A row; of columns that are left out too."""
        self.rows.append(list(compress(cells, self._given)))

    def html(self) -> str:
        """As HTML; nothing of what the cells hold is markup."""
        kept = [i for i, field in enumerate(self.fields) if not field.bar]
        lines = [f"<p><b>{escape(self.title)}</b></p>"] if self.title else []
        if self.rows:
            heads = [f"<th>{escape(self.fields[i].heading)}</th>" for i in kept]
            body = ["".join(f"<td>{escape(str(row[i]))}</td>" for i in kept) for row in self.rows]
            head = f"<tr>{''.join(heads)}</tr>" if self.headings else ""
            lines.append(f"<table>{head}{''.join(f'<tr>{cells}</tr>' for cells in body)}</table>")
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
        return pa.Table.from_pylist(document[self._records] if self._records else [document])

    def lines(self) -> list[tuple[str, str]]:
        """As lines for people: what each is about, and what is said."""
        return []

    def sheets(self) -> list[Sheet]:
        """As small tables for people."""
        sheet = Sheet(Field(), Field(), headings=False)
        for line in self.lines():
            sheet.add(*line)
        return [sheet]

    def _repr_html_(self) -> str:
        return "".join(sheet.html() for sheet in self.sheets())
