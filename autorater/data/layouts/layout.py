"""A layout: the columns of a published dataset, and how a row of it becomes rows in our columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from autorater.data.fields import Row, decoded, given_in

ReadRow = Callable[[Row], Iterable[Row]]
PROMPTS = ("prompt", "instruction", "question", "input", "context", "history", "query")
"""Usual names of the column with the prompt."""
SYSTEM = ("system", "system_prompt")
"""Usual names of the column with a system message."""


@dataclass(frozen=True)
class Layout:
    """One layout.

    Attributes:
        name: The value of `layout=`.
        columns: Columns that a file must have to be of this layout.
        source: Where the layout is published.
        read: A row to rows in our columns (`autorater.data.loading`), each with a label, with votes, or with
            `no_vote`, the reason why it has none (`no_pair`: why it has no two responses). `first_is: "chosen"` lets
            the caller draw which response is A; `unread` names columns that the user should know are not read.
        names: Our columns that are another column as it is: our name to theirs. They are copied before `read` returns,
            and errors name theirs.
        named: Our columns that `read` fills from another column, for errors: our name to theirs.
        reads_vote: Whether `read` takes a column `vote` that the caller named.
        unless: Columns that a file of this layout does not have.
        optional: Columns that `read` takes too if they are there.
    """

    name: str
    columns: tuple[str, ...]
    source: str
    read: ReadRow
    names: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    reads_vote: bool = False
    unless: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def fits(self, columns: Collection[str]) -> bool:
        """Whether a file with these columns is of this layout."""
        return set(self.columns) <= set(columns) and not set(self.unless) & set(columns)

    def rows(self, row: Row) -> Iterable[Row]:
        """The row in our columns. A column that this row of a JSONL file lacks is null."""
        row = dict.fromkeys(self.columns) | row
        copied = {ours: row.get(theirs) for ours, theirs in self.names.items()}
        for found in self.read(row):
            yield copied | found


def unread_in(row: Row, prompt: object, read: Collection[str]) -> list[str]:
    """Columns that by their names belong to the prompt, but are neither read nor equal to it."""
    given = {name: decoded(given_in(row, name)) for name in (*SYSTEM, *PROMPTS) if name not in read}
    return [name for name, value in given.items() if value and str(value) != str(decoded(prompt))]
