"""Pairs from files, folders, the Hub and tables in memory; and pairs to JSONL.

Our columns: `prompt, response_a, response_b` and one of `label`, `votes_a, votes_b[, votes_tie]`, or, with one row an
annotator, `vote` (or `winner`, `preference`) and `annotator`; optional `id, topic, model_a, model_b, true_probability,
criteria, reference, group` and, for a label without votes, `n_votes`. Texts may be lists of chat messages. Published
layouts (`autorater.data.layouts`) are found by their columns or by name. Other columns are ignored.

An invalid row is a `DataError` that names the file, the line, the column, the value and what would be right. No row is
dropped or repaired in silence: rows without a vote are counted by reason (`LoadReport`), and `allow_odd_responses`
keeps responses that are blank or not text, and counts them.
"""

from __future__ import annotations

import gzip
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy

from autorater.data.atomic import check_writable, open_atomic
from autorater.data.columns import COLUMNS
from autorater.data.errors import DataError, DataWarning, UserError, located
from autorater.data.fields import RowIds, bad_value
from autorater.data.gathering import Gatherer, pair_key
from autorater.data.layouts import OWN
from autorater.data.load_report import LoadReport
from autorater.data.messages import as_json
from autorater.data.pairs import Pair
from autorater.data.rows import ReadPair, RowReader
from autorater.data.tables import Source, iter_rows, source_name, write_rows
from autorater.data.text_files import is_text

_OTHER = ", with other texts, models, criteria, reference, group or weight"


def load_pairs(
    source: Source,
    columns: Mapping[str, str] | None = None,
    *,
    split: str = "train",
    labelled: bool = True,
    layout: str | None = None,
    seed: int = 0,
    allow_odd_responses: bool = False,
    report: LoadReport | None = None,
) -> list[Pair]:
    """Reads pairs from a file, a folder, the Hub or a table in memory.

    The label is the given one, else the vote share (a tie vote counts one half); if a row has both they must agree
    within 1e-6. In optional columns null, NaN and the empty string mean absent. A pair without an id gets its row
    index as id ("row 3" after rows with ids). Rows that are single votes and show the same texts, in
    either order, are one pair with all their votes, at the place and in the order of the first.

    Args:
        source: A file (`.jsonl`, `.json`, `.csv`, `.tsv`, each also with `.gz`, or `.parquet`), a folder written by
            `save_to_disk`, a Hub name, also with a configuration (`org/name:config`), a `pandas.DataFrame`, a
            `datasets.Dataset` or a list of mappings.
        columns: Our names of columns to those of the source, such as `{"prompt": "instruction"}`.
        split: Split of a Hub dataset or a `DatasetDict`; ignored for sources without splits.
        labelled: Whether every pair must have a label. Without labels pairs can be judged and audited.
        layout: Name of a published layout, or `pairs` for our columns; default: the one that the columns show.
        seed: Draws which of a chosen and a rejected response is A.
        allow_odd_responses: Keep blank responses (an empty answer is an answer, and people voted on it), and read a
            JSON `true`, `false` or number in place of a response as its JSON text (a converter has changed the type)
            and a lone surrogate as U+FFFD. A null is still no response.
        report: Is filled in instead of warning.

    Returns:
        At least one pair, in the order of the source, with distinct ids, and with labels and probabilities in [0, 1].

    Raises:
        DataError: If the source does not exist, cannot be read or is empty, or a row is not a pair.
        UserError: If `columns` or `layout` has an unknown name.
        ImportError: If `datasets` is required and not installed.

    Warns:
        DataWarning: What was left out, gathered or odd, unless `report` is given.
    """
    found = report or LoadReport()
    gatherer = Gatherer(found)
    options = {"split": split, "labelled": labelled, "layout": layout, "seed": seed}
    for row in _iter(source, columns, found, allow_odd=allow_odd_responses, **options):
        gatherer.add(*row)
    if not gatherer.pairs:
        raise DataError(f"{source_name(source)}: no vote ({', '.join(found.left_out)}); expected at least one")
    if report is None:
        for line in found.lines(len(gatherer.pairs)):
            warnings.warn(f"{source_name(source)}: {line}", DataWarning, stacklevel=2)
    return gatherer.pairs


def as_pairs(source: Sequence[Pair] | Source) -> list[Pair]:
    """Pairs to judge: the given ones, or one for every row of a source as in `load_pairs`, with or without a label.

    Odd responses are kept, with a `DataWarning`.
    """
    if _are_pairs(source):
        return list(source)
    report = LoadReport()
    pairs = list(iter_pairs(source, labelled=False, layout=OWN, allow_odd_responses=True, report=report))
    for line in report.lines(len(pairs)):
        warnings.warn(f"{source_name(source)}: {line}", DataWarning, stacklevel=3)
    return pairs


def labelled_pairs(source: Sequence[Pair] | Source) -> list[Pair]:
    """Pairs to learn from: the given ones, or those of a source as in `load_pairs`.

    Raises:
        UserError: If a pair has no label, or as in `load_pairs`.
    """
    pairs = list(source) if _are_pairs(source) else load_pairs(source)
    if without := next((pair.id for pair in pairs if pair.label is None), None):
        raise UserError(f"pair {without!r} has no label; expected labels or votes to learn from")
    return pairs


def _are_pairs(source: Sequence[Pair] | Source) -> bool:
    return isinstance(source, Sequence) and all(isinstance(pair, Pair) for pair in source)


def iter_pairs(
    source: Source,
    columns: Mapping[str, str] | None = None,
    *,
    split: str = "train",
    labelled: bool = True,
    layout: str | None = None,
    seed: int = 0,
    allow_odd_responses: bool = False,
    report: LoadReport | None = None,
) -> Iterator[Pair]:
    """The pairs of a source one at a time, for files larger than memory.

    In contrast to `load_pairs` rows with the same texts are not gathered (`autorater.data.gathering.clusters` tells
    which they are), and may share an id. Only hashes are kept of earlier rows. Arguments and errors are those of
    `load_pairs`; an error is raised when its row is reached.
    """
    options = {"split": split, "labelled": labelled, "layout": layout, "seed": seed}
    for row in _iter(source, columns, report or LoadReport(), allow_odd=allow_odd_responses, **options):
        yield row.pair


def _iter(
    source: Source,
    columns: Mapping[str, str] | None,
    report: LoadReport,
    *,
    split: str,
    labelled: bool,
    layout: str | None,
    seed: int,
    allow_odd: bool,
) -> Iterator[ReadPair]:
    name = source_name(source)
    reader = RowReader(columns, layout, labelled, seed, report.odd if allow_odd else None, is_text(name))
    seen: dict[int, int] = {}  # hashes of ids to hashes of pairs
    with closing(iter_rows(source, split=split, select=reader.select)) as rows:
        for index, (place, row) in enumerate(rows):
            report.rows += 1
            with located(f"{name}: {place}"):
                found = reader.pairs(row, index)
                for pair, *_ in found:
                    key = -index - 1 if pair.votes_a is None else hash(pair_key(pair))
                    if seen.setdefault(hash(pair.id), key) != key:
                        earlier = _place_of(pair.id, index, source, split, reader)
                        if earlier:
                            other = "" if pair.votes_a is None else _OTHER
                            raise bad_value("id", pair.id, f"distinct ids; {earlier} already has this one{other}")
            report.left_out.update(reader.left_out)
            reader.left_out.clear()
            yield from found
    report.layout, report.unread = reader.layout_name, reader.unread


def _place_of(id: str, before: int, source: Source, split: str, reader: RowReader) -> str | None:
    """The place of an id in the first `before` rows; None if two ids have the same hash by chance."""
    reader = copy(reader)
    reader.ids, reader.left_out = RowIds(), Counter()  # as before the first row
    with closing(iter_rows(source, split=split, select=reader.select)) as rows:
        for index, (place, row) in zip(range(before), rows, strict=False):
            if any(found.pair.id == id for found in reader.pairs(row, index)):
                return place
    return None


def check_pairs_file(path: str | os.PathLike[str]) -> None:
    """Raises the errors of `write_pairs` for a file that cannot be written, before its pairs are read."""
    name = os.fspath(path)
    if not name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"cannot write pairs to {name!r}; expected a name that ends in .jsonl or .jsonl.gz")
    check_writable(name)


def write_pairs(pairs: Iterable[Pair], path: str | os.PathLike[str]) -> None:
    """Writes pairs as `.jsonl` or `.jsonl.gz`, which `load_pairs` reads back; the same pairs give the same bytes.

    Raises:
        UserError: If the file name ends otherwise.
        OSError: If the file cannot be written.
        ValueError: If a number is NaN or infinite.
    """
    name = os.fspath(path)
    check_pairs_file(name)
    rows = ({column: as_json(getattr(pair, column)) for column in COLUMNS} for pair in pairs)
    if not name.lower().endswith(".gz"):
        with open_atomic(name) as file:
            write_rows(rows, file)
        return
    with open_atomic(name, "wb") as raw:
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0)
        with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file:
            write_rows(rows, file)
