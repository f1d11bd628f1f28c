"""Judgments recorded by another program: a file with one row per pair and the judgments of both orders.

Its columns are one of these pairs; null or empty means no verdict:

    p_ab, p_ba                         Pr[the response shown second is better] in the given and in the swapped order:
                                       Pr[B better] and Pr[A better], in [0, 1]
    verdict_ab, verdict_ba             the preferred response: A, B or tie, in whichever slot it is shown
    slot_ab, slot_ba                   the slot of the preferred response: first, second or tie
    winner_original, winner_swapped    the preferred response: 1, 2 or tie
    g1_winner, g2_winner               the same in FastChat's pair judgments (model_1, model_2, tie, error)
    games                              the slots of both games of Arena-Hard: [{"score": "A>>B"}, {"score": "B>A"}]
    judgments                          the same of JudgeBench: [{"decision": "A>B"}, {"decision": "B>A"}]

Case does not count; other words for a verdict (`autorater.data.layouts.votes`) are understood; `error` is none.
FastChat: llm_judge/gen_judgment.py in https://github.com/lm-sys/FastChat; Arena-Hard: gen_judgment.py in
https://github.com/lmarena/arena-hard-auto; JudgeBench: https://github.com/ScalerLab/JudgeBench.

Optional: `label`, people's Pr[B preferred] in [0, 1] or a verdict (for winner_…: the preferred response, 1 or 2);
`id` or `pair_id`, or a question (`question_id`, `uid`, `prompt_id`, `idx`), of which turn and models are then part;
`prompt`, `response_a` and `response_b`, to show the pairs that flip. Any other column can be used for grouping. Rows
with the same texts, or without texts with the same id, are one unit of every interval.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from autorater.data.errors import DataError, located
from autorater.data.fields import Row, RowIds, bad_value, decoded, given_in, name_in, number_of, probability_in
from autorater.data.layouts.votes import winner_of
from autorater.data.tables import iter_rows
from autorater.data.text_files import Rows, is_text, misspelled, of_text

_FIRST = {"A": 0.0, "tie": 0.5, "B": 1.0}  # a verdict in the given order as Pr[the second slot is better]
_SWAPPED = {"A": 1.0, "tie": 0.5, "B": 0.0}
_VERDICTS = {
    ("verdict_ab", "verdict_ba"): (_FIRST, _SWAPPED),
    ("slot_ab", "slot_ba"): (_FIRST, _FIRST),
    ("winner_original", "winner_swapped"): (_FIRST, _SWAPPED),
    ("g1_winner", "g2_winner"): (_FIRST, _SWAPPED),
}
_GAMES = {"games": "score", "judgments": "decision"}  # a column with both games, and the key of the verdict in it
COLUMN_SETS = (("p_ab", "p_ba"), *_VERDICTS, *((column,) for column in _GAMES))
_COLUMNS = {*chain(*COLUMN_SETS), "id"}
_IDS = ("id", "pair_id")
_QUESTIONS = ("question_id", "uid", "prompt_id", "idx")  # `uid` in Arena-Hard 2
_OF_QUESTION = ("turn", "model_1", "model_2", "model_a", "model_b", "model")


@dataclass(frozen=True)
class JudgedPair:
    """The judgments of a pair in both orders.

    Attributes:
        id: As given, else the row's number, counted from 0 ("row 3" after rows with an id).
        answers: Pr[the response shown second is better] in order ab and in order ba; NaN where there is none.
        label: Pr[B preferred] by people, such as a share of votes; NaN if not given.
        row: Its row.
        valid: Probability that an answer parses, in both orders; 1 where the file does not say.
        n_votes: Votes behind the label; 1 where the file does not say.
    """

    id: str
    answers: tuple[float, float]
    label: float
    row: Row
    valid: tuple[float, float] = (1.0, 1.0)
    n_votes: float = 1.0

    @property
    def probability(self) -> float:
        """Pr[B preferred] by the judge, in [0, 1], orders averaged."""
        answers = [p for p in (self.answers[0], 1 - self.answers[1]) if not math.isnan(p)]
        return sum(answers) / len(answers)


def iter_recorded(path: str | os.PathLike[str]) -> Iterator[JudgedPair]:
    """Recorded judgments, one pair at a time, from a `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet` file.

    Raises:
        DataError: If the file cannot be read, has no rows, or a row is not as described above.
    """
    columns, ids = None, RowIds()
    for index, (place, row) in enumerate(recorded_rows(path)):
        with located(f"{os.fspath(path)}: {place}"):
            columns = columns or _columns_of(row)
            pair = _pair(row, columns, ids.of(_id(row), index))
        yield pair


def recorded_rows(path: str | os.PathLike[str]) -> Rows:
    """The rows of a file with its columns of judgments and its ids in lower case; errors as in `iter_rows`."""
    names, from_text = None, is_text(os.fspath(path))
    for place, row in iter_rows(path):
        names = misspelled(row, _COLUMNS) if names is None else names
        row = row | {ours: row[theirs] for ours, theirs in names.items() if theirs in row}
        yield place, of_text(row) if from_text else row


def _columns_of(row: Row) -> tuple[str, ...]:
    for columns in COLUMN_SETS:
        if set(columns) <= set(row):
            return columns
    expected = " or ".join(", ".join(columns) for columns in COLUMN_SETS)
    raise DataError(f"expected the columns {expected} among {list(row)}")


def _pair(row: Row, columns: tuple[str, ...], id: str) -> JudgedPair:
    for column in columns:
        if column not in row:
            raise DataError(f"column {column!r} is missing; expected it in every row, null for no verdict")
    if columns[0] in _GAMES:
        answers = _of_games(row, columns[0])
    elif columns in _VERDICTS:
        values = zip(columns, _VERDICTS[columns], strict=True)
        answers = tuple(_verdict(given_in(row, column), column, meaning) for column, meaning in values)
    else:
        answers = tuple(_probability(row, column) for column in columns)
    return JudgedPair(id, answers, _label(row, columns), row)


def _of_games(row: Row, column: str) -> tuple[float, float]:
    games = decoded(row[column])
    if not isinstance(games, list) or len(games) != 2 or not all(isinstance(game, dict | None) for game in games):
        raise bad_value(column, row[column], "two games, the second with the responses swapped, null for none")
    key = _GAMES[column]
    if odd := next((game for game in games if game and key not in game), None):
        raise bad_value(column, odd, f"a game with the key {key}, or null for none")
    first, second = (_verdict((game or {}).get(key), column, _FIRST) for game in games)
    return first, second


def _verdict(value: object, column: str, meaning: Mapping[str, float]) -> float:
    winner = None if value is None else winner_of(value, column)
    return math.nan if winner is None else meaning[winner]


def _probability(row: Row, column: str) -> float:
    value = probability_in(row, column)
    return math.nan if value is None else value


def _label(row: Row, columns: tuple[str, ...]) -> float:
    value = given_in(row, "label")
    number = number_of(value)
    if isinstance(value, str) and math.isnan(number):
        return _verdict(value, "label", _FIRST)
    if columns == ("winner_original", "winner_swapped") and value is not None:
        if number not in (1, 2):
            raise bad_value("label", value, "one of 1, 2, the preferred response")
        return number - 1
    return _probability(row, "label")


def _id(row: Row) -> str | None:
    """The id of the pair, in FastChat and Arena-Hard the question with turn and models; None if it has none.

    A prompt that is named by itself may have several pairs.
    """
    if name := next(filter(None, (name_in(row, column) for column in _IDS)), None):
        return name
    of_question = [*filter(None, (name_in(row, column) for column in _OF_QUESTION))]
    for column in _QUESTIONS:
        if (name := name_in(row, column)) and (of_question or column == "question_id"):
            return "/".join([name, *of_question])
    return None
