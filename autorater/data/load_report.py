"""What became of the rows of a source, in words: rows left out and gathered, columns that are not read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from autorater.data.columns import CRITERIA, NOT_TEXT
from autorater.data.errors import counted
from autorater.data.layouts.layout import PROMPTS


@dataclass
class LoadReport:
    """What became of the rows of a source.

    Attributes:
        layout: Name of the layout.
        rows: Rows read.
        left_out: Rows without a vote, and repetitions of an annotator's vote, by reason.
        odd: Odd responses by kind, if they are allowed.
        gathered: Rows whose votes were added to those of an earlier row with the same texts.
        repeated: Pairs with the texts of an earlier one that are no votes and cannot be added.
        unread: Columns that are not read but look like criteria, a part of the prompt, images or tools.
    """

    layout: str = "pairs"
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    gathered: int = 0
    repeated: int = 0
    unread: list[str] = field(default_factory=list)

    def lines(self, n_pairs: int) -> list[str]:
        """What is worth saying about a source that gave this many pairs; none if a row is a pair."""
        counts = [f"{reason}: {count:,}" for reason, count in self.left_out.items()]
        reasons, left_out = ", ".join(counts if len(counts) > 1 else self.left_out), self.left_out.total()
        kept = f"{counted(n_pairs, 'pair')} kept"
        odd = ", ".join(f"{count} {kind}" for kind, count in self.odd.items())
        lines = {
            f"{counted(left_out, 'row')} left out ({reasons}); {kept}": left_out,
            f"odd responses among {counted(n_pairs, 'pair')}: {odd}": odd,
            f"{counted(self.gathered, 'row')} with the texts of an earlier pair, votes added; {kept}": self.gathered,
            f"{self.repeated:,} of {n_pairs:,} pairs repeat the texts of an earlier one; they are no new evidence and "
            "are resampled together": self.repeated,
        }
        return [*(line for line, applies in lines.items() if applies), *map(_unread, self.unread)]


def _unread(column: str) -> str:
    if column.lower() in NOT_TEXT:
        return f"column {column!r} is not read; a judge sees the texts alone"
    if column.lower() in CRITERIA:
        return f"column {column!r} is not read; columns={{'criteria': {column!r}}} reads it"
    if column.lower().startswith("system"):
        return f"column {column!r} is not read; a system message in the prompt is"
    if column.lower() in PROMPTS:
        return f"column {column!r} is not read; only the prompt is"
    return f"column {column!r} is not read; columns={{'prompt': {column!r}}} reads it, if it is the prompt"
