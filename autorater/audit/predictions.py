"""The predictions of a judge as arrays: from the judgment store of a run, or from a file of recorded verdicts.

A prediction is Pr[the possibly favoured side is better], see `autorater.audit.probes`. Texts stay in their files; a
pair takes about a hundred bytes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from autorater.audit.plan import Plan
from autorater.audit.probes import PROBES
from autorater.data.errors import UserError
from autorater.data.gathering import texts_key
from autorater.data.messages import plain_text
from autorater.data.pairs import Pair
from autorater.evaluation.judgment_store import JudgmentStore
from autorater.judges.endpoint import numbers_in
from autorater.judges.judged import texts_in
from autorater.judges.recorded import JudgedPair

NOT_JUDGED, ANSWERED, UNPARSED, REFUSED = range(4)
_STATUS = {"answered": ANSWERED, "unparsed": UNPARSED, "refused": REFUSED}
GROUP_COLUMNS = ("topic", "model_a", "model_b", "prompt")
_Row = tuple[float, Sequence[str], str, Hashable, int]  # label, texts (responses last), group, what it shows, own


@dataclass(frozen=True)
class PairIndex:
    """N pairs without their texts.

    Attributes:
        labels: shape (N,), Pr[B preferred]; NaN if unknown.
        lengths: shape (N, 2), characters of the responses; 0 if unknown.
        groups: shape (N,), names of the groups; all equal without grouping.
        clusters: shape (N,), equal for rows that show the same texts (without texts: that have the same id).
        own: shape (N,), 1 if response B is of a system of the judge's own family and A is not, −1 the other way round,
            else 0.
        fingerprint: Hash of all texts, in order.
    """

    labels: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray
    clusters: np.ndarray
    own: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def traits(self) -> dict[str, np.ndarray]:
        """Traits of B less those of A, as in `audit_metrics`: the binary logarithm of the lengths, the own family."""
        lengths = np.where(self.lengths > 0, self.lengths, np.nan)
        return {"length": np.log2(lengths[:, 1] / lengths[:, 0]), "self": self.own.astype(float)}


@dataclass(frozen=True)
class Predictions:
    """The predictions for both presentations of N pairs, with R repetitions.

    Attributes:
        answers: shape (N, 2, R), Pr[favoured side better]; NaN if there is no answer.
        status: shape (N, 2, R), `NOT_JUDGED`, `ANSWERED`, `UNPARSED` or `REFUSED`.
        valid: shape (N, 2, R), probability that the answer parses, if the judge states it; else 1 if it did, 0 if not.
    """

    pairs: PairIndex
    answers: np.ndarray
    status: np.ndarray
    valid: np.ndarray

    @property
    def parse_rate(self) -> float:
        """Mean probability that an answer parses; 0 if there is none."""
        replies = (self.status == ANSWERED) | (self.status == UNPARSED)
        return float(self.valid[replies].mean()) if replies.any() else 0.0

    def of_group(self, group: str) -> Predictions:
        here = self.pairs.groups == group
        columns = {
            name: getattr(self.pairs, name)[here] for name in ("labels", "lengths", "groups", "clusters", "own")
        }
        return Predictions(
            replace(self.pairs, **columns), *(getattr(self, name)[here] for name in ("answers", "status", "valid"))
        )


def index_pairs(pairs: Iterable[Pair], group_by: Sequence[str] = (), family: Collection[str] = ()) -> PairIndex:
    """Indexes one or more pairs in one pass; the values of the columns `group_by` together name a group.

    `family` are the systems, of `model_a` and `model_b`, that are of the judge's own family.

    Raises UserError if a column is not in `GROUP_COLUMNS`, or a pair has no value in it.
    """
    for column in group_by:
        if column not in GROUP_COLUMNS:
            raise UserError(f"cannot group by {column!r}; expected one of {', '.join(GROUP_COLUMNS)}")

    def rows() -> Iterator[_Row]:
        for pair in pairs:
            group = _group(pair.id, {column: getattr(pair, column) for column in group_by}, group_by)
            texts = (pair.id, *map(plain_text, (pair.prompt, pair.response_a, pair.response_b)))
            own = (pair.model_b in family) - (pair.model_a in family)
            yield math.nan if pair.label is None else pair.label, texts, group, texts_key(*texts[1:]), own

    return _index(rows())


def recorded_predictions(
    pairs: Iterable[JudgedPair], group_by: Sequence[str] = (), family: Collection[str] = ()
) -> Predictions:
    """The predictions of a recorded file, without repetitions; arguments as in `index_pairs`, with any columns.

    The systems are `model_a` and `model_b`, or FastChat's `model_1` and `model_2`.
    """
    answers, valid = array("d"), array("d")

    def rows() -> Iterator[_Row]:
        for pair in pairs:
            answers.extend(pair.answers)
            valid.extend(pair.valid)
            texts = texts_in(pair.row)
            own = sum(str(pair.row.get(name)) in family for name in ("model_b", "model_2"))
            own -= sum(str(pair.row.get(name)) in family for name in ("model_a", "model_1"))
            shown = texts_key(*texts) if all(texts) else pair.id
            yield pair.label, texts, _group(pair.id, pair.row, group_by), shown, own

    index = _index(rows())
    answers, valid = (np.array(values).reshape(-1, 2, 1) for values in (answers, valid))
    status = np.where(np.isnan(answers), UNPARSED, ANSWERED).astype(np.uint8)
    return Predictions(index, answers, status, np.where(status == ANSWERED, valid, 0.0))


def stored_predictions(store: JudgmentStore, plan: Plan, pairs: PairIndex, probe: str) -> Predictions:
    """The predictions of one probe, from the judgment store."""
    shape = (plan.n_pairs, 2, plan.n_repeats)
    answers, valid, status = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape, dtype=np.uint8)
    for record in (record for record in store.records() if record["probe"] == probe):
        place = record["pair"], PROBES[probe].orders.index(record["order"]), record["repeat"]
        status[place] = _STATUS[record["status"]]
        answers[place] = record.get("probability", np.nan)
        _, valid[place] = numbers_in(record)
    if PROBES[probe].complement:
        answers[:, 1] = 1 - answers[:, 1]
    return Predictions(pairs, answers, status, valid)


def _group(id: str, row: Mapping[str, object], group_by: Sequence[str]) -> str:
    for column in group_by:
        if row.get(column) in (None, ""):
            raise UserError(f"pair {id!r} has no {column!r} to group by; expected a value in every pair")
    return "/".join(str(row[column]) for column in group_by)


def _index(rows: Iterable[_Row]) -> PairIndex:
    labels, lengths, groups, clusters, owns = array("d"), array("q"), [], array("q"), array("b")
    numbers: dict[int, int] = {}  # by the hash of what a pair shows
    names: dict[str, str] = {}  # one string for each group, not one for each pair
    digest = blake2b(digest_size=16)
    for label, texts, group, shown, own in rows:
        labels.append(label)
        owns.append(own)
        lengths.extend(map(len, texts[-2:]))
        groups.append(names.setdefault(group, group))
        clusters.append(numbers.setdefault(hash(shown), len(numbers)))
        for text in texts:
            digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    columns = np.array(labels), np.array(lengths).reshape(-1, 2), np.array(groups, dtype=object), np.array(clusters)
    return PairIndex(*columns, np.array(owns), digest.hexdigest())
