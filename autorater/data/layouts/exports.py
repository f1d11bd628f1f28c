"""Exports of annotation tools: Argilla, Label Studio and Mechanical Turk.

Their fields have the names that a project gave them: the prompt and the two responses are looked for among usual names
(`prompt`, `instruction`, …; `response_1`, `answer2`, `text1`, …); others are named by `columns`. With several
questions, `columns={"vote": "preference"}` names the one to read. Only submitted answers are votes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from math import nan
from typing import Any

from autorater.data.errors import DataError
from autorater.data.fields import Row, bad_value, decoded, given_in, mappings_in, number_of
from autorater.data.layouts.benchmarks import instruction_in
from autorater.data.layouts.layout import PROMPTS, Layout, unread_in
from autorater.data.layouts.votes import bare_word, preferred_in, signs, summed, votes_in, winner_of

_STEMS = ("response", "answer", "output", "completion", "generation", "candidate", "option", "text")
_END = re.compile(r"(first|second|left|right|\d+|[a-z])$")  # in what the names of responses differ
_RESULTS = ".results"
_CHOICES = ("vote", "pairwise", "pw", "choice", "preference", "winner")
_ENDINGS = [*product(("_", "-", "", " "), (("a", "b"), ("1", "2"), ("A", "B")))]


def lifted(row: Row) -> Row:
    """The row with the project's fields beside the tool's own: `data` of Label Studio, `fields` of Argilla."""
    for column in ("data", "fields"):
        if column in row and ("annotations" in row or "responses" in row):
            inner = decoded(row[column])
            row = {**row, **inner} if isinstance(inner, Mapping) else row
    if isinstance(responses := decoded(row.get("responses")), Mapping):
        row = {**row, **{f"{name}.responses": given for name, given in responses.items()}}
    if "annotations" in row and "data" in row:
        row = {**row, **_results(row)}
    return row


def _results(row: Row) -> Row:
    """Choices in Label Studio's annotations by the name of their question, in columns that end in `.results`.

    Types of results that are no choice are in the column `unread_types`.
    """
    found: Row = {}
    others: set[str] = set()
    for annotation in mappings_in(row, "annotations"):
        is_empty = annotation.get("was_cancelled") or given_in(annotation, "result") is None
        for result in () if is_empty else mappings_in(annotation, "result"):
            choice = _selected(result.get("value"))
            if result.get("type") not in ("pairwise", "choices"):
                others.add(str(result.get("type")))
            elif choice is not None:
                found.setdefault(f"{result.get('from_name', 'choice')}{_RESULTS}", []).append(choice)
    return found | {"unread_types": sorted(others)}


def _selected(value: object) -> object:
    """The choice in the value of a result; None if there is none."""
    if not isinstance(value, Mapping):
        return None
    return value.get("selected") or _single(value.get("choices"))


def _single(choices: object) -> object:
    """The only one of a list, None of an empty one; several stay a list, which is no word for a winner."""
    choices = decoded(choices)
    return choices if not isinstance(choices, list) or len(choices) > 1 else next(iter(choices), None)


def argilla(row: Row) -> Iterator[Row]:
    """Answers to one question, a label (A, B, tie) or a ranking of the two responses."""
    texts = _texts(row)
    values, statuses, question = _answers(row)
    answered = [value for value, status in zip(values, statuses, strict=True) if status in ("submitted", None)]
    winners = [_argilla_winner(row, _single(value), question, texts) for value in answered]
    yield _filled(row, texts) | summed([w for w in winners if w], f"{question} has no submitted answer")


def label_studio(row: Row) -> Iterator[Row]:
    """Results of `<Pairwise>` (left or right) or `<Choices>` in `annotations`; cancelled annotations are no votes."""
    questions = [name for name in row if name.endswith(_RESULTS)]
    if (named := f"vote{_RESULTS}") in questions:
        questions = [named]
    if len(questions) > 1:
        raise _several([name.removesuffix(_RESULTS) for name in questions])
    texts = _texts(row)
    winners = [_side(choice, "annotations", row, texts) for name in questions for choice in row[name]]
    others = ", ".join(row["unread_types"])
    why_none = f"annotated with {others}, not <Pairwise> or <Choices>" if others else "no completed annotation"
    yield _filled(row, texts) | summed([w for w in winners if w], why_none)


def label_studio_min(row: Row) -> Iterator[Row]:
    """JSON_MIN and CSV: one row an annotation, the choice in a column of the project's name (`pairwise`, …)."""
    names = [name for name in _CHOICES if name in row]
    if not names:
        raise DataError(f"no column with the choice; expected columns={{'vote': …}} with one of {list(row)}")
    if "vote" not in row and len(names) > 1:
        raise _several(names)
    value = decoded(given_in(row, names[0]))
    value = _selected(value) if isinstance(value, Mapping) else _single(value)
    texts = _texts(row)
    winner = None if value is None else _side(value, names[0], row, texts)
    yield _filled(row, texts) | summed([winner] if winner else [], f"{names[0]} is {value!r}")


def mturk(row: Row) -> Iterator[Row]:
    """Batch results: `Input.` columns are the task's, `Answer.` ones the worker's. Rejected work is no vote."""
    task = {name.removeprefix("Input."): value for name, value in row.items() if name.startswith("Input.")} | row
    texts = _texts(task)
    filled = _filled(task, texts)
    if str(row["AssignmentStatus"]).lower() == "rejected":
        yield filled | {"no_vote": "AssignmentStatus is 'Rejected'"}
        return
    question, value = _worker_choice(row)
    yield filled | votes_in({question: _side(value, question, task, texts) or value}, question)


def _worker_choice(row: Row) -> tuple[str, object]:
    """The name of the question and the answer: a text, the label of a `<crowd-classifier>`, or a radio button."""
    answers: Row = {}
    for name in ["vote"] if "vote" in row else [name for name in row if name.startswith("Answer.")]:
        value, (question, _, button) = decoded(row[name]), name.rpartition(".")
        if question.startswith("Answer.") and (state := str(value).lower()) in ("true", "false"):
            answers.setdefault(question, {})[button] = state == "true"  # a column a button
            continue
        parts = value if isinstance(value, list) else [{name: value}]  # `Answer.taskAnswers` has [{question: answer}]
        answers |= {key: answer for part in parts if isinstance(part, Mapping) for key, answer in part.items()}
    choices = [name for name in answers if name.removeprefix("Answer.").removesuffix(".label") in _CHOICES]
    if len(names := choices or list(answers)) != 1:
        raise DataError(
            f"the answers {names}; expected one, or one of the name {' or '.join(_CHOICES)}, or columns={{'vote': …}}"
        )
    value = answers[names[0]]
    if isinstance(value, Mapping):
        is_on = [name for name, state in value.items() if state is True]
        value = value["label"] if "label" in value else _single(is_on)
    return names[0], value


def usual_responses(names: Collection[str]) -> tuple[str, ...] | None:
    """The columns of both responses if they have usual names, such as `response_1` and `response_2`."""
    pairs = (tuple(f"{stem}{joint}{end}" for end in ends) for stem in _STEMS for joint, ends in _ENDINGS)
    return next((pair for pair in pairs if set(pair) <= set(names)), None)


def _texts(row: Row) -> dict[str, str]:
    """Our text columns to theirs; an empty list, as in `history`, is no prompt."""
    prompt = next((name for name in PROMPTS if decoded(given_in(row, name)) not in (None, [])), None)
    responses = usual_responses(row)
    if prompt is None or responses is None:
        missing = "the prompt" if prompt is None else "the two responses"
        expected = f"columns={{'prompt': …, 'response_a': …, 'response_b': …}} with names out of {list(row)}"
        raise DataError(f"no column is known to be {missing}; expected {expected}")
    return {"prompt": prompt, "response_a": responses[0], "response_b": responses[1]}


def _filled(row: Row, texts: Mapping[str, str]) -> Row:
    """The texts; an instruction has the input below it, as in other layouts."""
    filled, read = {ours: row[theirs] for ours, theirs in texts.items()}, [texts["prompt"]]
    if read == ["instruction"]:
        filled["prompt"] = instruction_in(row)
        read += [] if filled["prompt"] is row["instruction"] else ["input"]
    return filled | {"unread": unread_in(row, filled["prompt"], read)}


def _answers(row: Row) -> tuple[list, list, str]:
    """Values and statuses of the answers to the question, and its name."""
    names = [name.removesuffix(".responses") for name in row if name.endswith(".responses")]
    names += [
        name for name, value in row.items() if name not in ("responses", *_suffixed(names)) and _is_answers(value)
    ]
    if "vote" in names:
        names = ["vote"]
    if len(names) != 1:
        raise _several(names)
    (name,) = names
    column = f"{name}.responses" if f"{name}.responses" in row else name
    flat = decoded(given_in(row, column))
    if flat is None:
        return [], [], name
    if not isinstance(flat, list | Mapping):
        raise bad_value(column, flat, "a list of answers")
    if isinstance(flat, Mapping) or (flat and isinstance(flat[0], Mapping) and "value" in flat[0]):
        answers = mappings_in({name: flat}, name)
        return [a.get("value") for a in answers], [a.get("status") for a in answers], name
    statuses = decoded(given_in(row, f"{name}.responses.status")) or [None] * len(flat)
    if not isinstance(statuses, list) or len(statuses) != len(flat):
        raise bad_value(f"{name}.responses.status", statuses, f"a list of {len(flat)}, one an answer")
    return flat, statuses, name


def _several(questions: list[str]) -> DataError:
    return DataError(f"the questions {questions}; expected one, or columns={{'vote': …}} to name it")


def _suffixed(names: list[str]) -> list[str]:
    return [f"{name}.responses" for name in names]


def _is_answers(value: Any) -> bool:
    """Whether a value has the form of Argilla 1's answers."""
    value = decoded(value)
    if isinstance(value, Mapping):
        return {"user_id", "value", "status"} <= set(value)
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) and "value" in v for v in value)


def _argilla_winner(row: Row, value: Any, question: str, texts: Mapping[str, str]) -> str | None:
    """The winner of a label or of a ranking of both responses: names of columns in order, or mappings with ranks.

    Two labels of a question with several are a list as well; words such as A and B in it are refused for that, and so
    are names of columns that hold neither response.
    """
    if not isinstance(value, list):
        return None if value is None else _side(value, question, row, texts)
    responses = [decoded(row[texts[ours]]) for ours in ("response_a", "response_b")]
    columns = {bare_word(name) for name in row if decoded(row[name]) in responses}
    parts = [
        (part.get("value"), part.get("rank")) if isinstance(part, Mapping) else (part, i)
        for i, part in enumerate(value)
        if isinstance(part, Mapping) or bare_word(part) in columns
    ]
    ranks = {_side(name, question, row, texts): number_of(rank) for name, rank in parts} if len(value) == 2 else {}
    if len(parts) == 2 and set(ranks) == {"tie"}:  # both columns have the same text
        return "tie"
    strength = ranks.get("A", nan) - ranks.get("B", nan)
    if strength != strength:
        both = f"{texts['response_a']} and {texts['response_b']}"
        raise bad_value(question, value, f"one choice, or a ranking of {both}")
    return signs([strength])[0]


def _side(name: object, question: str, row: Row, texts: Mapping[str, str]) -> str | None:
    """The side of the column that an answer names, else of its word; `columns` may have put `response_1` on side B.

    Raises:
        DataError: If the answer is for a side, but the column of its name or number has another text. Only a column
            that can hold a response counts: its name is usual for one, or begins as that of one of the two.
    """
    columns: dict[str, list[str]] = {}
    for column in row:
        columns.setdefault(bare_word(column), []).append(column)

    def sides_of(word: str) -> list[str]:
        found = [decoded(row[column]) for column in columns.get(word, ())]
        return [side for side in "AB" if decoded(row[texts[f"response_{side.lower()}"]]) in found]

    def is_response(word: str) -> bool:
        stem = _END.sub("", word)
        return stem in _STEMS or any(sides_of(other) for other in columns if _END.sub("", other) == stem)

    own = {bare_word(texts["response_a"]): "A", bare_word(texts["response_b"]): "B"}
    named = [bare := bare_word(name), preferred_in(bare)]
    for word in named:
        if len(sides := sides_of(word)) == 1:
            return sides[0]
        if sides:  # the texts are equal: only a name that `columns` did not change tells which one
            return own.get(word, "tie")
    winner = winner_of(name, question)
    number = number_of(re.sub("^[a-z]+", "", named[-1]))
    if number in (1, 2):  # it may be that of a column, if such columns are those of the two responses
        named += [f"{stem}{number:g}" for stem in _STEMS if sides_of(f"{stem}1") or sides_of(f"{stem}2")]
    others = [word for word in named if word in columns and winner not in sides_of(word) and is_response(word)]
    if winner in ("A", "B") and others:
        expected = "one of the two responses, by a name that is for no other column"
        raise bad_value(question, name, f"{expected}; {columns[others[0]][0]!r} has another text")
    return winner


_HISTORY = ("history",)  # the prompt of some projects

LAYOUTS = (
    Layout(
        "mturk", ("HITId", "WorkerId", "AssignmentStatus"),
        "https://docs.aws.amazon.com/AWSMechTurk/latest/AWSMechanicalTurkRequester/RetrievingResults.html", mturk,
        {"id": "HITId", "annotator": "WorkerId", "topic": "topic"}, reads_vote=True, optional=_HISTORY,
    ),
    Layout(
        "label_studio", ("data", "annotations"), "https://labelstud.io/guide/task_format", label_studio,
        {"id": "id", "topic": "topic"}, reads_vote=True, optional=_HISTORY,
    ),
    Layout(
        "label_studio_min", ("annotation_id", "annotator"),
        "https://labelstud.io/guide/export#JSON-MIN", label_studio_min, {"annotator": "annotator", "topic": "topic"},
        reads_vote=True, optional=_HISTORY,
    ),
    Layout(
        "argilla", ("external_id", "metadata"),  # of Argilla 1; Argilla 2 has columns that end in .responses
        "https://github.com/argilla-io/argilla/blob/develop/argilla/src/argilla/records/_io/_generic.py", argilla,
        {"id": "id", "topic": "topic"}, reads_vote=True, optional=_HISTORY,
    ),
)  # fmt: skip
