"""Datasets of ratings and benchmarks of judges, each with a prompt, two responses and a verdict of its own kind."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from autorater.data.fields import Row, bad_value, decoded, given_in, mappings_in, number_of, with_messages
from autorater.data.layouts.layout import Layout
from autorater.data.layouts.votes import VOTES, counts, signs, summed, winner_of
from autorater.data.messages import Conversation, Message

_OWN = "columns that name prompt, response_a and response_b if it is Pr[B preferred]"
_NEITHER = -100  # HelpSteer: neither response can be rated
_TURN = re.compile(r"<extra_id_1>(User|Assistant)\n")
_ANNOTATOR = re.compile(r"annotator_?\d+")


def helpsteer_3(row: Row) -> Iterator[Row]:
    """Votes: the signs of the annotators' scores (−3 to 3, above 0 response2 is better), else of the overall one."""
    scores = []
    if given_in(row, "individual_preference") is not None:
        scores = [part.get("score") for part in mappings_in(row, "individual_preference")]
    vote = _strengths(scores, "individual_preference", given_in(row, "overall_preference"), "overall_preference")
    yield {"prompt": with_messages(row["context"])} | vote


def helpsteer_2(row: Row) -> Iterator[Row]:
    """The same for HelpSteer2; −100 says that neither response could be rated, and is no vote."""
    strengths = []
    if isinstance(decoded(row.get("all_preferences_unprocessed")), list):
        strengths = [part.get("strength") for part in mappings_in(row, "all_preferences_unprocessed")]
    vote = _strengths(strengths, "all_preferences_unprocessed", row.get("preference_strength"), "preference_strength")
    prompt = row.get("prompt")
    yield {"prompt": _multi_turn(prompt) if isinstance(prompt, str) else prompt} | vote


def shp(row: Row) -> Iterator[Row]:
    """`labels` is 1 where A has the higher score: one vote. Scores on Reddit do not count votes between the two."""
    label = number_of(row["labels"])
    if label not in (0, 1):
        raise bad_value("labels", row["labels"], "1 (A is preferred) or 0 (B is preferred)")
    yield counts(*VOTES["A" if label else "B"])


def gold(row: Row) -> Iterator[Row]:
    """`label` says which response is objectively right: a label of 0 or 1, not a vote."""
    value = given_in(row, "label")
    number = number_of(value)
    if not math.isnan(number) and number not in (1, 2):
        raise bad_value("label", value, f"1 (the first response is right), 2 or A>B, …, or {_OWN}")
    winner = None if value is None else winner_of(value, "label")
    if winner is None:
        yield {"no_vote": f"label is {'null' if value is None else repr(value)}"}
        return
    yield {"label": {"A": 0.0, "B": 1.0, "tie": 0.5}[winner]}


def alpaca_eval(row: Row) -> Iterator[Row]:
    """`preference`: 1 or 2 is a vote, 0 and 1.5 a tie, a number between them 1 + Pr[output_2 is preferred]."""
    value = given_in(row, "preference")
    number = number_of(value)
    if value is None:
        found = {"no_vote": "preference is null"}
    elif number in (0, 1, 1.5, 2):
        found = counts(*VOTES[{1: "A", 2: "B"}.get(number, "tie")])
    elif 1 < number < 2:
        found = {"label": number - 1}
    else:
        raise bad_value("preference", value, "a number in [1, 2], 0 for a tie, or null")
    yield {"prompt": instruction_in(row), **found}


def auto_j(row: Row) -> Iterator[Row]:
    """`label`: 0 is the first response, 1 the second, 2 a tie."""
    value = given_in(row, "label")
    winner = {0: "A", 1: "B", 2: "tie"}.get(number_of(value))
    if value is not None and winner is None:
        raise bad_value("label", value, "0 (the first response), 1 (the second), 2 (a tie), or null")
    yield summed([winner] if winner else [], "label is null")


def judgelm(row: Row) -> Iterator[Row]:
    """`score` has a judge's ratings of both answers; the higher one is preferred. A rating of −1 was not parsed."""
    scores = decoded(given_in(row, "score"))
    if scores is None:
        yield {"no_vote": "score is null"}
        return
    ratings = [number_of(score) for score in scores] if isinstance(scores, list) else []
    if len(ratings) != 2 or any(map(math.isnan, ratings)):
        raise bad_value("score", row["score"], "two numbers, the ratings of both answers")
    first, second = ratings
    yield summed([] if -1 in ratings else signs([second - first]), "score is -1, not parsed")


def pandalm(row: Row) -> Iterator[Row]:
    """One column an annotator: 1, 2, or 0 for a tie. The input, if there is one, follows the instruction."""
    columns = [column for column in row if _ANNOTATOR.fullmatch(column) and given_in(row, column) is not None]
    winners = [{0: "tie", 1: "A", 2: "B"}.get(number_of(row[column])) for column in columns]
    if None in winners:
        column = columns[winners.index(None)]
        raise bad_value(column, row[column], "1, 2, or 0 for a tie")
    yield {"prompt": instruction_in(row), **summed(winners, "no annotator")}


def instruction_in(row: Row) -> object:
    """The instruction, and the input below it if there is one."""
    instruction, further = given_in(row, "instruction"), given_in(row, "input")
    both = isinstance(instruction, str) and isinstance(further, str)
    return f"{instruction}\n\n{further}" if both else instruction


def _strengths(values: list, column: str, overall: object, overall_column: str) -> Row:
    values, column = (values, column) if values else ([overall], overall_column)
    values = [value for value in values if value is not None]
    strengths = [number_of(value) for value in values]
    for value, strength in zip(values, strengths, strict=True):
        if not (-3 <= strength <= 3 or strength == _NEITHER):
            raise bad_value(column, value, "strengths from -3 to 3")
    return summed(signs([s for s in strengths if s != _NEITHER]), f"{column} has no rating of both responses")


def _multi_turn(prompt: str) -> str | Conversation:
    """HelpSteer2 marks turns after the first: "Hi.<extra_id_1>Assistant\\nHello.<extra_id_1>User\\nWho are you?"."""
    first, *turns = _TURN.split(prompt)
    if not turns:
        return prompt
    rest = [Message(role.lower(), content.strip()) for role, content in zip(turns[::2], turns[1::2], strict=True)]
    return Message("user", first.strip()), *rest


LAYOUTS = (
    Layout(
        "helpsteer3", ("context", "response1", "response2", "overall_preference"),
        "https://huggingface.co/datasets/nvidia/HelpSteer3", helpsteer_3,
        {"prompt": "context", "response_a": "response1", "response_b": "response2", "topic": "domain"},
    ),
    Layout(
        "helpsteer2", ("prompt", "response_1", "response_2", "preference_strength"),
        "https://huggingface.co/datasets/nvidia/HelpSteer2/tree/main/preference", helpsteer_2,
        {"response_a": "response_1", "response_b": "response_2"},
    ),
    Layout(
        "shp", ("history", "human_ref_A", "human_ref_B", "labels"),
        "https://huggingface.co/datasets/stanfordnlp/SHP", shp,
        {"prompt": "history", "response_a": "human_ref_A", "response_b": "human_ref_B", "topic": "domain"},
    ),
    Layout(
        "judgebench", ("pair_id", "question", "response_A", "response_B", "label"),
        "https://github.com/ScalerLab/JudgeBench", gold,
        {"id": "pair_id", "prompt": "question", "response_a": "response_A", "response_b": "response_B",
         "topic": "source"},
    ),
    Layout(
        "alpaca_eval", ("instruction", "output_1", "output_2", "preference"),
        "https://github.com/tatsu-lab/alpaca_eval", alpaca_eval,
        {"response_a": "output_1", "response_b": "output_2", "model_a": "generator_1", "model_b": "generator_2",
         "topic": "dataset", "annotator": "annotator_index"}, {"prompt": "instruction"},
    ),
    Layout(
        "auto_j", ("prompt", "response 1", "response 2", "label"), "https://github.com/GAIR-NLP/auto-j", auto_j,
        {"prompt": "prompt", "response_a": "response 1", "response_b": "response 2", "topic": "scenario"},
    ),
    Layout(
        "judgelm", ("question_body", "answer1_body", "answer2_body", "score"),
        "https://huggingface.co/datasets/BAAI/JudgeLM-100K", judgelm,
        {"prompt": "question_body", "response_a": "answer1_body", "response_b": "answer2_body",
         "model_a": "answer1_model_id", "model_b": "answer2_model_id"},
    ),
    Layout(
        "pandalm", ("instruction", "response1", "response2", "annotator1"),
        "https://github.com/WeOpenML/PandaLM/blob/main/data/testset-v1.json", pandalm,
        {"id": "idx", "response_a": "response1", "response_b": "response2", "topic": "motivation_app"},
        {"prompt": "instruction"},
    ),
)  # fmt: skip
