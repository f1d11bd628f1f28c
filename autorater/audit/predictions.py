"""What a judge said of every pair, as arrays: from the journal of a run, or from a file of recorded verdicts.

A probability is told as that of the side that may be favoured, see `autorater.audit.probes`. Texts stay in their
files; a pair takes about a hundred bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from autorater.audit.plan import Plan
from autorater.audit.probes import PROBES
from autorater.audit.store import Journal
from autorater.data.pairs import Pair
from autorater.judges.recorded import RecordedPair

NOT_ASKED, ANSWERED, UNPARSED, REFUSED = range(4)
_STATUS = {"answered": ANSWERED, "unparsed": UNPARSED, "refused": REFUSED}
GROUP_COLUMNS = ("topic", "model_a", "model_b", "prompt")


@dataclass(frozen=True)
class Catalogue:
    """What is known of N pairs apart from their texts.

    Attributes:
        labels: shape (N,), Pr[B preferred]; NaN where it is not known.
        lengths: shape (N, 2), characters of the responses; 0 where they are not known.
        groups: shape (N,), number of each pair's group.
        group_names: Names of the groups, by number; one name without grouping.
        fingerprint: Changes with any text of any pair, and with their order.
    """

    labels: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray
    group_names: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Readings:
    """Both readings of N pairs, R times.

    Attributes:
        catalogue: The pairs.
        answers: shape (N, 2, R), Pr[favoured side better]; NaN where there is no answer.
        status: shape (N, 2, R), `NOT_ASKED`, `ANSWERED`, `UNPARSED` or `REFUSED`.
        valid: Mean probability that an answer can be read, where the judge tells; else the share that could be.
    """

    catalogue: Catalogue
    answers: np.ndarray
    status: np.ndarray
    valid: float

    def of_group(self, group: int) -> Readings:
        """The readings of the pairs of one group."""
        here = self.catalogue.groups == group
        pairs = self.catalogue
        kept = replace(pairs, labels=pairs.labels[here], lengths=pairs.lengths[here], groups=pairs.groups[here])
        status = self.status[here]
        return Readings(kept, self.answers[here], status, _share_readable(status))


class _Cataloguer:
    """Gathers a catalogue, one pair at a time."""

    def __init__(self):
        self.labels, self.lengths, self.groups = array("d"), array("q"), array("q")
        self.numbers: dict[str, int] = {}
        self.digest = blake2b(digest_size=16)

    def add(self, label: float, texts: Sequence[str], group: str) -> None:
        self.labels.append(label)
        self.lengths.extend([len(text) for text in texts[-2:]])
        self.groups.append(self.numbers.setdefault(group, len(self.numbers)))
        for text in texts:
            self.digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    def finish(self) -> Catalogue:
        lengths = np.array(self.lengths).reshape(-1, 2)
        return Catalogue(
            np.array(self.labels), lengths, np.array(self.groups), tuple(self.numbers), self.digest.hexdigest()
        )


def catalogue_pairs(pairs: Iterable[Pair], group_by: Sequence[str] = ()) -> Catalogue:
    """Goes through pairs once.

    Args:
        pairs: At least one pair.
        group_by: Columns from `GROUP_COLUMNS`; their values together name a group.

    Raises:
        ValueError: If a column is unknown, or a pair lacks it.
    """
    for column in group_by:
        if column not in GROUP_COLUMNS:
            raise ValueError(f"cannot group by {column!r}; expected one of {', '.join(GROUP_COLUMNS)}")
    gathered = _Cataloguer()
    for pair in pairs:
        values = [getattr(pair, column) for column in group_by]
        if None in values:
            column = group_by[values.index(None)]
            raise ValueError(f"pair {pair.id!r} has no {column}; expected one in every pair to group by")
        gathered.add(pair.label, (pair.id, pair.prompt, pair.response_a, pair.response_b), "/".join(values))
    return gathered.finish()


def recorded_readings(pairs: Iterable[RecordedPair], group_by: Sequence[str] = ()) -> Readings:
    """The readings of a recorded file, of which there is one repetition.

    Args:
        pairs: At least one pair.
        group_by: Columns of the file; their values together name a group.

    Raises:
        ValueError: If a row lacks a column to group by.
    """
    gathered, answers = _Cataloguer(), array("d")
    for pair in pairs:
        missing = [column for column in group_by if pair.row.get(column) in (None, "")]
        if missing:
            raise ValueError(f"pair {pair.id!r} has no {missing[0]!r} to group by; its columns are {list(pair.row)}")
        texts = [str(pair.row.get(name) or "") for name in ("prompt", "response_a", "response_b")]
        gathered.add(pair.label, texts, "/".join(str(pair.row[column]) for column in group_by))
        answers.extend(pair.answers)
    said = np.array(answers).reshape(-1, 2, 1)
    status = np.where(np.isnan(said), UNPARSED, ANSWERED).astype(np.uint8)
    return Readings(gathered.finish(), said, status, _share_readable(status))


def journal_readings(journal: Journal, plan: Plan, catalogue: Catalogue, probe: str) -> Readings:
    """The readings of one probe, from the journal."""
    shape = (plan.n_pairs, 2, plan.n_repeats)
    answers, status = np.full(shape, np.nan), np.zeros(shape, dtype=np.uint8)
    validity, n_valid = 0.0, 0
    orders = PROBES[probe].orders
    for record in journal.records():
        if record["probe"] != probe:
            continue
        side = orders.index(record["order"])
        place = record["pair"], side, record["repeat"]
        status[place] = _STATUS[record["status"]]
        if (said := record.get("probability")) is not None:
            answers[place] = said
        if (valid := record.get("valid")) is not None:
            validity, n_valid = validity + valid, n_valid + 1
    for side, turned in enumerate(turns(probe)):
        if turned:
            answers[:, side] = 1 - answers[:, side]
    return Readings(catalogue, answers, status, validity / n_valid if n_valid else _share_readable(status))


def turns(probe: str) -> tuple[bool, bool]:
    """Whether each reading of a probe is told as the complement of what the judge said."""
    nobody = Pair("", "", "", "", 0.5)
    return tuple(reading.turned for reading in PROBES[probe].readings(nobody))


def _share_readable(status: np.ndarray) -> float:
    n_answered, n_unparsed = (status == ANSWERED).sum(), (status == UNPARSED).sum()
    return float(n_answered / max(1, n_answered + n_unparsed))
