"""Datasets of K responses to one prompt with ranks or scores: every two of them are a pair, equal ones are a tie.

As in preference data, `load_pairs` draws which response of a pair is A. The pairs of one prompt share its responses.
Two answers with the same text are no pair, whatever their ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, groupby

from autorater.data.fields import Row, bad_value, given_in, mappings_in, name_in, number_of
from autorater.data.layouts.layout import Layout, ReadRow
from autorater.data.layouts.preferences import CHOSEN, prompt_in
from autorater.data.layouts.votes import counts


def ranking(answers: str, text: str, score: str, best: int = 1) -> ReadRow:
    """Reads a list of answers.

    Args:
        answers: The column with the list.
        text, score: Names of the text and the score (or rank) in an answer.
        best: 1 if the highest score is the best, −1 if the lowest is.
    """

    def read(row: Row) -> Iterator[Row]:
        prompt = prompt_in(row) if "prompt" in row else None
        for found in _every_two(mappings_in(row, answers), text, score, best):
            yield found if prompt is None else {"prompt": prompt} | found

    return read


def prism(row: Row) -> Iterator[Row]:
    """Every two responses of each turn, by the scores of the person who asked; the chosen one is answered further."""
    id, dialogue = name_in(row, "conversation_id"), []
    history = mappings_in(row, "conversation_history")
    if not history:
        yield {"no_pair": "conversation_history is empty"}
    for turn, parts in groupby(history, key=lambda part: part.get("turn")):
        messages = list(parts)
        answers = [part for part in messages if part.get("role") == "model"]
        dialogue += [_message("user", part) for part in messages if part.get("role") == "user"]
        for found in _every_two(answers, "content", "score", id=id and f"{id}/{turn}"):
            yield {"prompt": list(dialogue)} | found
        dialogue += [_message("assistant", part) for part in answers if part.get("if_chosen")][:1]


def _every_two(answers: Sequence[Row], text: str, score: str, best: int = 1, id: str | None = None) -> Iterator[Row]:
    """Pairs of answers, the better one first."""
    scores = {i: _score(answer, score) for i, answer in enumerate(answers) if given_in(answer, score) is not None}
    if len(scores) < 2:
        yield {"no_pair": f"fewer than two answers have {score}"}
    for i, j in combinations(scores, 2):
        first, second = (answers[k].get(text) for k in (i, j))
        if isinstance(first, str) and isinstance(second, str) and "" != first == second:
            yield {"no_pair": "two answers are equal"}
            continue
        tie = counts(0, 0, 1) if scores[i] == scores[j] else {}
        if best * (scores[i] - scores[j]) < 0:
            i, j = j, i
        found = CHOSEN | tie | ({"id": f"{id}/{i}-{j}"} if id else {})
        for side, answer in (("a", answers[i]), ("b", answers[j])):
            model = answer.get("model", answer.get("model_name"))
            found |= {f"response_{side}": answer.get(text), f"model_{side}": model}
        yield found


def _message(role: str, part: Row) -> Row:
    return {"role": role, "content": part.get("content")}


def _score(answer: Row, column: str) -> float:
    number = number_of(answer[column])
    if number != number:
        raise bad_value(column, answer[column], "a number")
    return number


_HUB = "https://huggingface.co/datasets"

LAYOUTS = (
    Layout(
        "nectar", ("prompt", "answers", "num_responses"), f"{_HUB}/berkeley-nest/Nectar",
        ranking("answers", "answer", "rank", best=-1), {"prompt": "prompt"},
        {"response_a": "answers", "response_b": "answers"},
    ),
    Layout(
        "stack_exchange", ("qid", "question", "answers"), f"{_HUB}/HuggingFaceH4/stack-exchange-preferences",
        ranking("answers", "text", "pm_score"), {"prompt": "question"},
        {"response_a": "answers", "response_b": "answers"},
    ),
    Layout(
        "ultrafeedback_scores", ("instruction", "completions", "models"), f"{_HUB}/openbmb/UltraFeedback",
        ranking("completions", "response", "overall_score"), {"prompt": "instruction", "topic": "source"},
        {"response_a": "completions", "response_b": "completions"},
    ),
    Layout(
        "prism", ("conversation_id", "user_id", "conversation_history"), f"{_HUB}/HannahRoseKirk/prism-alignment",
        prism, {"annotator": "user_id", "topic": "conversation_type"},
        {"prompt": "conversation_history", "response_a": "conversation_history",
         "response_b": "conversation_history"},
    ),
)  # fmt: skip
