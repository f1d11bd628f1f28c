"""Judged pairs, some with votes, from files: what a run, an audit or another program wrote.

Columns of the judge, one of:

    probability            Pr[B preferred]; with `order` (ab or ba), as in a run's predictions.jsonl, Pr[the response
                           shown second is better], and the two rows of an id are one pair; with `valid`, the
                           probability that an answer parses
    probabilities          the same of several methods, by name, as in the predictions of `autorater evaluate`
    p_ab, p_ba             Pr[the response shown second is better] in both orders
    verdict_ab, … and the others of `autorater.judges.recorded`

Columns of the votes, empty or null where there are none: `votes_a, votes_b[, votes_tie]`, or `label`, their share for
B; both must agree, as in `load_pairs`. Votes may be in a second file, with the same ids. Other columns, such as
`model_a`, `model_b`, `prompt`, are kept; rows of the same texts may have equal values of `cluster`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from autorater.data.columns import check_ties
from autorater.data.errors import DataError, UserError, counted, located
from autorater.data.fields import Row, bad_value, count_in, decoded, given_in, name_in, number_of, probability_in
from autorater.data.gathering import clusters, texts_key
from autorater.data.messages import plain_text, text_or_messages
from autorater.data.pairs import Pair
from autorater.data.row_values import share_beside
from autorater.judges.recorded import COLUMN_SETS, JudgedPair, iter_recorded, recorded_rows
from autorater.metrics.validation import DECIMALS

logger = logging.getLogger(__name__)
_VOTES = ("votes_a", "votes_b", "votes_tie", "label")


def read_judged(
    path: str | os.PathLike[str],
    votes: str | os.PathLike[str] | None = None,
    *,
    unanswered: bool = False,
    both_orders: bool = False,
    methods: Sequence[str] = (),
) -> list[JudgedPair]:
    """The judged pairs of a file, in its order.

    Args:
        path: A file with the columns described above.
        votes: A file with the columns `id` and of the votes; those of `path` are then ignored.
        unanswered: Allow pairs without an answer of the judge; else they are an error.
        both_orders: A pair of which the file has no row in one of the orders is an error.
        methods: Names in `probabilities`; the first that the file has is read. Required for such a file only.

    Raises:
        DataError: If a file cannot be read, a value is wrong, or an id is repeated, half judged or unknown.
    """
    first = _first_row(path, with_votes=votes is None)
    recorded = _has_verdicts(first)
    method = _method_of(path, first, methods) if not recorded and "probabilities" in first else None
    if not recorded and "probability" not in first and method is None:
        expected = " or ".join(", ".join(columns) for columns in (("probability",), *COLUMN_SETS))
        raise DataError(f"{os.fspath(path)}: expected the columns {expected} among {list(first)}")
    pairs = _recorded_pairs(path, unanswered) if recorded else _predicted_pairs(path, unanswered, both_orders, method)
    return pairs if votes is None else _with_votes(pairs, votes)


def judged_in_both_orders(path: str | os.PathLike[str]) -> Callable[[], Iterable[JudgedPair]]:
    """A function that returns the judged pairs of a file, each time from the first.

    Predictions, of which a pair has two rows, are in memory; files with a row a pair are read again with every call.

    Raises:
        DataError: As `read_judged`; pairs without an answer are none.
    """
    if _has_verdicts(_first_row(path)):
        return partial(_with_shares, path)
    pairs = read_judged(path, unanswered=True, both_orders=True)
    return lambda: pairs


def check_method(methods: Sequence[str], pairs: Iterable[JudgedPair]) -> None:
    """Raises a UserError if a method is named, and no file of these pairs has methods."""
    if methods and not any("probabilities" in pair.row for pair in pairs):
        raise UserError("--method: no effect, because the judged pairs have no column probabilities")


def labels_of(pairs: Sequence[JudgedPair]) -> np.ndarray:
    """Labels, shape (N,), NaN without votes.

    Raises:
        UserError: If no pair has votes.
    """
    labels = np.array([pair.label for pair in pairs])
    if np.isnan(labels).all():
        raise UserError(
            f"none of {len(pairs):,} pairs has votes; expected votes_a, votes_b or label on some, or --votes"
        )
    warn_of_weights(pairs)
    return labels


def warn_of_weights(pairs: Iterable[Pair | JudgedPair]) -> None:
    """Audits and decisions do not use a column `weight`, and this says so."""
    weights = (pair.weight if isinstance(pair, Pair) else given_in(pair.row, "weight") for pair in pairs)
    if any(weight is not None for weight in weights):
        logger.warning("the column weight is not used: every pair counts as one")


def column_of(pairs: Sequence[JudgedPair], column: str) -> list[str] | None:
    """A column of all pairs as text; None if a pair lacks it."""
    values = [given_in(pair.row, column) for pair in pairs]
    return None if any(value is None for value in values) else [str(value) for value in values]


def clusters_of(pairs: Sequence[JudgedPair], column: str | None = None) -> list[str] | None:
    """Dependent pairs have equal values; None if it is not known which they are.

    Args:
        column: That says so; by default `prompt`, or `cluster` (rows that show the same texts), if all pairs have it.

    Raises:
        UserError: If a pair has no value in a named column.
    """
    if column is None:
        return column_of(pairs, "prompt") or column_of(pairs, "cluster")
    found = column_of(pairs, column)
    if found is None:
        raise UserError(f"--cluster_by: a pair has no {column!r}; expected a value in every pair")
    return found


def texts_in(row: Row) -> tuple[str, str, str]:
    """Prompt, response A and response B of a row, chat messages as plain text; empty where there is none."""
    prompt, response_a, response_b = (_text(row, name) for name in ("prompt", "response_a", "response_b"))
    return prompt, response_a, response_b


def one_a_pair(pairs: Sequence[JudgedPair]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of the pairs that N rows are about, each shape (M,): the means over the rows of a pair.

    Every vote counts alike in a label. Rows are about one pair if they show the same texts, in either order, for the
    same criteria, reference and group; rows without texts if they have the same `cluster`, where the judge prefers one
    response in all of them.
    """
    keys: list[Hashable] = []
    sides: list[Hashable] = []  # equal for rows of a pair in the same order
    for number, pair in enumerate(pairs):
        texts, cluster = texts_in(pair.row), given_in(pair.row, "cluster")
        if all(texts):
            asked = (str(given_in(pair.row, column)) for column in ("criteria", "reference", "group"))
            keys.append((texts_key(*texts), *asked))
            sides.append(texts[1].strip())
        else:
            keys.append(("row", number) if cluster is None else ("cluster", str(cluster)))
            sides.append(pair.probability > 0.5)
    columns = np.array([pair.probability for pair in pairs]), np.array([pair.label for pair in pairs])
    numbers = clusters(keys)
    if numbers is None:
        return columns
    _, first = np.unique(numbers, return_index=True)
    swapped = np.array([side != sides[first[number]] for number, side in zip(numbers, sides, strict=True)])

    def means(column: np.ndarray, weights: np.ndarray) -> np.ndarray:
        sums = np.bincount(numbers, weights * np.where(swapped, 1 - column, column))
        return (sums / np.bincount(numbers, weights)).round(DECIMALS)  # so that split votes are 0.5

    probabilities, labels = columns
    return means(probabilities, np.ones(len(pairs))), means(labels, np.array([pair.n_votes for pair in pairs]))


def _text(row: Row, column: str) -> str:
    value = given_in(row, column) or ""
    try:
        return plain_text(text_or_messages(value, column, blank=True))
    except DataError:  # some other list
        return str(value)


def _first_row(path: str | os.PathLike[str], with_votes: bool = True) -> Row:
    """The first row; a DataError if its votes would be read without their ties."""
    _, row = next(iter(recorded_rows(path)))
    if with_votes:
        with located(os.fspath(path)):
            check_ties(row, renames=False)
    return row


def _has_verdicts(row: Row) -> bool:
    return any(set(columns) <= set(row) for columns in COLUMN_SETS)


def _recorded_pairs(path: str | os.PathLike[str], unanswered: bool) -> list[JudgedPair]:
    pairs = list(_with_shares(path))
    silent = next((pair for pair in pairs if all(map(math.isnan, pair.answers))), None)
    if silent and not unanswered:
        raise DataError(f"{os.fspath(path)}: pair {silent.id!r} has no answer of the judge; leave it out")
    return _distinct(path, pairs)


def _with_shares(path: str | os.PathLike[str]) -> Iterator[JudgedPair]:
    """The recorded pairs; counts of votes beside the verdicts are their labels."""
    for pair in iter_recorded(path):
        with located(f"{os.fspath(path)}: pair {pair.id!r}"):
            found = replace(pair, label=_share(pair.row, pair.label), n_votes=_n_votes(pair.row))
        yield found


def _method_of(path: str | os.PathLike[str], row: Row, methods: Sequence[str]) -> str:
    names = [*decoded(row["probabilities"])]
    found = next((method for method in methods if method in names), None)
    if found is None:
        expected = (
            f"one of {', '.join(methods)}"
            if methods
            else "one of them, which --method of winrate, defer and gate names"
        )
        few = f"{', '.join(names[:3])}, …" if len(names) > 4 else ", ".join(names)
        raise DataError(f"{os.fspath(path)}: has {len(names)} methods ({few}); expected {expected}")
    return found


def _predicted_pairs(
    path: str | os.PathLike[str], unanswered: bool, both_orders: bool, method: str | None
) -> list[JudgedPair]:
    pairs: dict[str, JudgedPair] = {}
    orders: dict[str, list[str]] = {}
    for index, (place, row) in enumerate(recorded_rows(path)):
        with located(f"{os.fspath(path)}: {place}"):
            id = name_in(row, "id") or str(index)
            if method is not None:
                row = {**row, "probability": decoded(row["probabilities"]).get(method)}
            probability, label, n_votes = probability_in(row, "probability"), _label(row), _n_votes(row)
            if probability is None:
                if not unanswered:
                    raise bad_value("probability", None, "a number in [0, 1]")
                probability = math.nan
            order = given_in(row, "order") or ""
            if order not in ("ab", "ba", ""):
                raise bad_value("order", order, "ab or ba")
            if order in orders.setdefault(id, []) or (orders[id] and "" in (order, *orders[id])):
                raise DataError(f"id {id!r} is repeated; expected one row a pair and order")
            earlier = pairs[id] if orders[id] else JudgedPair(id, (math.nan, math.nan), label, row)
            answers, valid = list(earlier.answers), list(earlier.valid)
            shown = int(order == "ba")
            answers[shown], valid[shown] = probability, _valid(row)
            if order == "ba":
                label, row = 1 - label, _swapped(row)
            label = _same_label(id, earlier.label, label) if orders[id] else label
            pairs[id] = JudgedPair(id, tuple(answers), label, row, tuple(valid), n_votes)
            orders[id].append(order)
    half = [id for id, found in orders.items() if len(found) < 2]
    if both_orders and half:
        raise DataError(
            f"{os.fspath(path)}: {len(half):,} of {len(pairs):,} pairs have a row in one order only, first "
            f"{half[0]!r}; expected a row with order ab and one with order ba of every pair"
        )
    return list(pairs.values())


def _same_label(id: str, earlier: float, label: float) -> float:
    """The label of a pair from its two rows, NaN where a row has none; in files it has six decimals."""
    if math.isnan(earlier) or math.isnan(label):
        return earlier if math.isnan(label) else label
    if abs(label - earlier) > 2e-6:
        raise DataError(
            f"id {id!r}: the votes of its two orders differ: {earlier:.6g} and {label:.6g} for B; in the row with "
            "order ba they are about the responses as shown there (label and counts swapped); votes by id belong into "
            "a file for --votes"
        )
    return label


def _valid(row: Row) -> float:
    valid = number_of(given_in(row, "valid"))
    return valid if 0 <= valid <= 1 else 1.0  # another program may mean something else by it


def _swapped(row: Row) -> Row:
    """A row of order ba as a row of order ab, without its label."""
    swapped = {name: value for name, value in row.items() if name not in (*_VOTES, "order", "probability")}
    for a, b in (("response_a", "response_b"), ("model_a", "model_b")):
        swapped |= {ours: row[theirs] for ours, theirs in ((a, b), (b, a)) if theirs in row}
    return swapped


def _label(row: Row) -> float:
    label = probability_in(row, "label")
    return _share(row, math.nan if label is None else label)


def _share(row: Row, label: float) -> float:
    """The share for B of the votes, which is that of a label beside them; the label if there is no vote."""
    given = {column: given_in(row, column) for column in _VOTES[:3]}
    if all(value is None for value in given.values()):
        return label
    counts = {c: 0 if c == "votes_tie" and value is None else count_in(value, c) for c, value in given.items()}
    return share_beside(label, counts, row) if any(counts.values()) else label


def _n_votes(row: Row) -> float:
    """How many votes are behind the label of a row; 1 if it does not say."""
    given = [number_of(given_in(row, column)) for column in _VOTES[:3]]
    found = sum(n for n in given if n > 0) or number_of(given_in(row, "n_votes"))
    return found if found > 0 else 1.0


def _with_votes(pairs: list[JudgedPair], path: str | os.PathLike[str]) -> list[JudgedPair]:
    _first_row(path)
    voted = {}
    for place, row in recorded_rows(path):
        with located(f"{os.fspath(path)}: {place}"):
            id = name_in(row, "id")
            if id is None or id in voted:
                raise bad_value("id", id, "the id of a judged pair that no earlier row has")
            voted[id] = {"label": _label(row), "n_votes": _n_votes(row)}
    unknown = set(voted) - {pair.id for pair in pairs}
    if unknown:
        raise DataError(
            f"{os.fspath(path)}: {len(unknown):,} ids are not among the judged pairs, first {min(unknown)!r}"
        )
    others = sum(pair.id not in voted and not math.isnan(pair.label) for pair in pairs)
    if others:
        logger.warning(f"the votes of {counted(others, 'judged pair')} are not used beside those of {os.fspath(path)}")
    return [replace(pair, **voted.get(pair.id, {"label": math.nan})) for pair in pairs]


def _distinct(path: str | os.PathLike[str], pairs: list[JudgedPair]) -> list[JudgedPair]:
    seen: set[str] = set()
    for pair in pairs:
        if pair.id in seen:
            raise DataError(f"{os.fspath(path)}: id {pair.id!r} is repeated; expected one row a pair")
        seen.add(pair.id)
    return pairs
