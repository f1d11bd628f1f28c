"""Datasets of K responses to one prompt with ranks or scores: every two of them are a pair, equal ones are a tie.

As in preference data, `load_pairs` draws which response of a pair is A. The pairs of one prompt share its responses.
Two answers with the same text are no pair, whatever their ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, groupby
from typing import Any

from autorater.data.fields import Row, bad_value, decoded, given_in, mappings_in, name_in, number_of
from autorater.data.layouts.layout import Layout, ReadRow
from autorater.data.layouts.preferences import CHOSEN, prompt_in
from autorater.data.layouts.votes import counts, signs, summed


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


def oasst(row: Row) -> Iterator[Row]:
    """Every two ranked answers in a tree of messages; rank 0 is the best. The ranks of questions are not read."""
    root = decoded(row["prompt"])
    if not isinstance(root, Mapping):
        raise bad_value("prompt", row["prompt"], "a message with its replies")
    found = list(_in_tree(root, (), name_in(row, "message_tree_id")))
    yield from found or [{"no_pair": "no two answers have a rank"}]


def _in_tree(message: Mapping[str, Any], earlier: tuple[Row, ...], tree: str | None) -> Iterator[Row]:
    role = "user" if message.get("role") == "prompter" else message.get("role")
    dialogue = (*earlier, {"role": role, "content": message.get("text")})
    replies = mappings_in({"replies": decoded(message.get("replies")) or []}, "replies")
    ranked = [part for part in replies if part.get("role") == "assistant" and given_in(part, "rank") is not None]
    if len(ranked) > 1:
        id = tree and f"{tree}/{message.get('message_id')}"
        for found in _every_two(ranked, "text", "rank", best=-1, id=id):
            yield {"prompt": list(dialogue)} | found
    for reply in replies:
        yield from _in_tree(reply, dialogue, tree)


def community_alignment(row: Row) -> Iterator[Row]:
    """The preferred one of up to four responses with each of the others, at every turn that has a choice."""
    dialogue: list[Row] = []
    id = name_in(row, "conversation_id")
    for turn in ("first", "second", "third", "fourth"):
        texts = {side: given_in(row, f"{turn}_turn_response_{side}") for side in "abcd"}
        column = f"{turn}_turn_preferred_response"
        preferred = given_in(row, column)
        if preferred is None:
            break
        best = str(preferred).lower().removeprefix("response_")
        if texts.get(best) is None:
            raise bad_value(column, preferred, "one of response_a to response_d, of those that are given, or null")
        dialogue.append({"role": "user", "content": row.get(f"{turn}_turn_prompt")})
        answers = [{"text": text, "best": float(side == best)} for side, text in texts.items() if text is not None]
        for found in _every_two(answers, "text", "best", id=id and f"{id}/{turn}"):
            if found.get("votes_tie") != 1:  # two others, of which the choice says nothing
                yield {"prompt": list(dialogue)} | found
        dialogue.append({"role": "assistant", "content": texts[best]})
    if not dialogue:
        yield {"no_pair": "first_turn_preferred_response is null"}


def coval(row: Row) -> Iterator[Row]:
    """The personal rankings of all annotators, such as "A>B=C>D", as counts for every two responses."""
    asked, about = decoded(row["prompt"]), decoded(row["metadata"])
    if not isinstance(asked, Mapping) or not isinstance(about, Mapping):
        column = "metadata" if isinstance(asked, Mapping) else "prompt"
        raise bad_value(column, row[column], "a mapping with messages or assessments")
    answers = {str(part.get("response_index")): part.get("messages") for part in mappings_in(row, "responses")}
    ranks = [_ranks(part, answers) for part in mappings_in(about, "assessments")]
    id = name_in(row, "prompt_id")
    for first, second in combinations(answers, 2):
        both = [rank[first] - rank[second] for rank in ranks if first in rank and second in rank]
        found = {"prompt": asked.get("messages"), "response_a": answers[first], "response_b": answers[second]}
        found |= {"id": f"{id}/{first}-{second}"} if id else {}
        yield found | summed(signs(both), f"no personal ranking of {first} and {second}")


def _ranks(assessment: Mapping[str, Any], answers: Mapping[str, object]) -> dict[str, int]:
    """Ranks in the personal ranking of an assessment, 0 the best; none if it has no such ranking."""
    blocks = decoded(assessment.get("ranking_blocks"))
    blocks = blocks if isinstance(blocks, Mapping) else {}
    rankings = mappings_in({"personal": decoded(given_in(blocks, "personal")) or []}, "personal")
    found = given_in(rankings[0], "ranking") if rankings else None
    groups = [[name.strip() for name in group.split("=")] for group in str(found).split(">")] if found else []
    ranks = {name: rank for rank, group in enumerate(groups) for name in group}
    if not set(ranks) <= set(answers) or len(ranks) < sum(map(len, groups)):
        raise bad_value("ranking", found, f"each of {', '.join(answers)} once, such as A>B=C")
    return ranks


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
    if math.isnan(number):
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
    Layout(
        "oasst", ("message_tree_id", "tree_state", "prompt"), f"{_HUB}/OpenAssistant/oasst1", oasst,
        named={"response_a": "prompt", "response_b": "prompt"},
    ),
    Layout(
        "community_alignment",
        ("first_turn_prompt", "first_turn_response_a", "first_turn_response_b", "first_turn_preferred_response"),
        f"{_HUB}/facebook/community-alignment-dataset", community_alignment,
        {"annotator": "annotator_id", "topic": "assigned_lang"},
    ),
    Layout(
        "coval", ("prompt_id", "prompt", "responses", "metadata"), f"{_HUB}/openai/coval", coval,
        named={"response_a": "responses", "response_b": "responses"},
    ),
)  # fmt: skip
