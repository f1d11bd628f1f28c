"""The command `autorater rank`: the responses to every prompt in order, from the judgments of all their pairs.

Every two responses are judged in both orders, as by `autorater judge`, whose store it uses: judgments are stored as
they come and the same command resumes a stopped run. A pointwise judge reads every response once.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import comb

import numpy as np

from autorater.audit.judge_command import judge_to_file
from autorater.audit.predictions import stored_predictions
from autorater.audit.run import Judging
from autorater.data.errors import DataError, located
from autorater.data.fields import RowIds, bad_value, decoded, name_in
from autorater.data.messages import Text, text_or_messages
from autorater.data.pairs import Pair
from autorater.data.row_values import shown_in
from autorater.data.tables import iter_rows
from autorater.judges.ranking import pairs_to_rank, ranking_of


@dataclass(frozen=True)
class _Question:
    id: str
    prompt: Text
    responses: list[Text]
    shown: dict[str, Text | None]


def run(args: argparse.Namespace) -> None:
    """Ranks the responses to every prompt, by the arguments of `parse_rank_arguments`.

    A pair without an answer counts as 1/2 and is counted in `n_unanswered`.

    Raises:
        UserError: If a row, the judge or the file is at fault, or the budget was too small.
    """

    def pairs() -> Iterator[Pair]:
        for question in _questions(args):
            yield from pairs_to_rank(f"{question.id}/", question.prompt, question.responses, **question.shown)

    def rankings(judging: Judging) -> Iterator[dict[str, object]]:
        answers = stored_predictions(judging.store, judging.plan, judging.index, "swap").answers[..., 0]
        start = 0
        for question in _questions(args):
            end = start + comb(len(question.responses), 2)
            yield _ranking(question, answers[start:end], judging.judge.is_pointwise)
            start = end

    if judge_to_file(args, rankings, pairs):
        print(f"{args.out}: {sum(1 for _ in _questions(args)):,} rankings")


def _questions(args: argparse.Namespace) -> Iterator[_Question]:
    rows, ids = iter_rows(args.dataset_name, split=args.split), RowIds()
    for index, (place, row) in enumerate(islice(rows, args.max_prompts)):
        with located(f"{args.dataset_name}: {place}"):
            if missing := [name for name in ("prompt", "responses") if name not in row]:
                raise DataError(f"column {missing[0]!r} is missing; expected prompt and responses among {list(row)}")
            responses = decoded(row["responses"])
            if not isinstance(responses, list) or not responses:
                raise bad_value("responses", row["responses"], "a list of at least one response")
            texts = [text_or_messages(text, f"responses[{i}]", blank=True) for i, text in enumerate(responses)]
            id = ids.of(name_in(row, "id"), index)
            question = _Question(id, text_or_messages(row["prompt"], "prompt"), texts, shown_in(row))
        yield question


def _ranking(question: _Question, answers: np.ndarray, is_pointwise: bool) -> dict[str, object]:
    """A line of the file, from the answers about the P pairs in both orders, (P, 2), NaN if there is none."""
    of_b = np.stack([answers[:, 0], 1 - answers[:, 1]], axis=1)
    answered = ~np.isnan(of_b)
    p_sym = np.where(answered, of_b, 0).sum(axis=1) / answered.sum(axis=1).clip(1)
    ranking = ranking_of(np.where(answered.any(axis=1), p_sym, 0.5), len(question.responses))
    line = {
        "id": question.id,
        "order": ranking.order.tolist(),
        "strengths": ranking.strengths.round(6).tolist(),
        "probabilities": ranking.probabilities.round(6).tolist(),
        "n_judgments": len(set(map(str, question.responses))) if is_pointwise else ranking.n_judgments,
    }
    n_unanswered = int((~answered).all(axis=1).sum())
    return line | ({"n_unanswered": n_unanswered} if n_unanswered else {})
