"""The table of what became of the clusters of an older model."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from dinkcli.cli.console import say

if TYPE_CHECKING:
    from dinkcli.models.matching import Drift, Matching

_MOST_LINES = 20


def show_drift(matching: Matching, old_path: str) -> None:
    """Says how many ids were kept, split, vanished and are new, and lists what moved most."""
    counts = matching.counts()
    moved = [d.moved for d in matching.drift if d.fate in ("kept", "split") and d.moved is not None]
    line = ", ".join(f"{count} {fate}" for fate, count in counts.items())
    if moved:
        line += f"; moved {median(moved):.3g} in the median, {max(moved):.3g} at most"
    say(f"ids of {old_path}: {line}")
    news = sorted((d for d in matching.drift if d.fate != "kept"), key=lambda d: (d.fate, d.id))
    kept = [d for d in matching.drift if d.fate == "kept" and d.moved]
    kept.sort(key=lambda d: -(d.relative or 0))
    shown = [*news, *kept][:_MOST_LINES]
    if not shown:
        return
    say("   id  fate         moved  of gap  continued by")
    for drift in shown:
        say(_line(drift))
    if len(news) + len(kept) > len(shown):
        say(f"and {len(news) + len(kept) - len(shown)} more; --json lists all")


def _line(drift: Drift) -> str:
    moved = "-" if drift.moved is None else f"{drift.moved:.3g}"
    relative = "-" if drift.relative is None else f"{drift.relative:.0%}"
    parts = ", ".join(map(str, drift.parts)) or "-"
    return f"{drift.id:>5}  {drift.fate:<8}  {moved:>8}  {relative:>6}  {parts}"
