"""Preference data: a chosen and a rejected response, one vote a row.

The prompt is a column, or what both conversations (or texts) share at their beginning. Which response becomes A is
drawn by `load_pairs`, so that the position tells nothing. Two responses with equal scores are a tie: which of them is
called chosen was drawn by chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product

from autorater.data.errors import DataError
from autorater.data.fields import Row, bad_value, check_unicode, decoded, given_in, name_in, number_of, with_messages
from autorater.data.layouts.arenas import is_turns
from autorater.data.layouts.benchmarks import instruction_in
from autorater.data.layouts.layout import PROMPTS, Layout, unread_in
from autorater.data.layouts.votes import counts
from autorater.data.messages import Message, Text, common_beginning, plain_text, text_or_messages, transcript

CHOSEN = {"first_is": "chosen", **counts(1, 0, 0)}


def preference(row: Row) -> Iterator[Row]:
    """`chosen` and `rejected`, with `prompt` (`conversations`) or without: texts, messages, transcripts (HH).

    Lists of texts are the right and the wrong responses (RM-Bench).
    """
    is_rm_bench = "domain" in row
    if all(_is_list_of_texts(row.get(column), is_rm_bench) for column in ("chosen", "rejected")):
        topic = {"topic": row["domain"]} if is_rm_bench else {}
        yield from (topic | found for found in every_right_with_every_wrong(row))
        return
    chosen, rejected = (_text(row, column) for column in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise bad_value("rejected", row["rejected"], "what chosen is: text or messages")
    prompt = prompt_in(row)
    shared, *rest = common_beginning(chosen, rejected)
    unread = []
    if prompt is None:
        if isinstance(chosen, str):
            _check_no_prompt(row)
            unread = _texts_beside(row)
        if not shared:
            raise bad_value("chosen", row["chosen"], "the same beginning as rejected (the prompt), or a column prompt")
        prompt, (chosen, rejected) = shared, rest
    elif not isinstance(chosen, str) and chosen[0].role != "assistant":
        if not shared:
            raise bad_value("rejected", row["rejected"], "the same beginning as chosen (the prompt)")
        asked = [message.content.strip() for message in shared if message.role == "user"]
        if isinstance(prompt, str) and prompt.strip() in (*asked[:1], shared[-1].content.strip()):
            prompt = shared if len(shared) > 1 else prompt
        elif isinstance(prompt, str) or prompt != shared[: len(prompt)]:
            column = _prompt_column(row) or "prompt"
            raise bad_value(column, row[column], f"what chosen and rejected begin with, or no column {column}")
        else:
            prompt = shared
        chosen, rejected = rest
    tie = counts(0, 0, 1) if _is_tie(row) else {}
    vote = CHOSEN | tie | _models(row)
    yield {"prompt": prompt, "response_a": chosen, "response_b": rejected, "unread": unread, **vote}


def every_right_with_every_wrong(row: Row) -> Iterator[Row]:
    """Every right completion (1, or more in the subset Ties of RewardBench 2) with every wrong one."""
    lists = {column: decoded(row[column]) for column in ("chosen", "rejected")}
    for column, texts in lists.items():
        if not isinstance(texts, list) or not texts:
            raise bad_value(column, row[column], "a list of completions")
    id = name_in(row, "id")
    for (i, chosen), (j, rejected) in product(*(enumerate(texts) for texts in lists.values())):
        found = {"prompt": row.get("prompt"), "response_a": chosen, "response_b": rejected, **CHOSEN}
        yield found | ({"id": f"{id}/{i}-{j}"} if id else {})


def orca(row: Row) -> Iterator[Row]:
    """The prompt is `question` or `input`, after `system` and the turns of `history`, if given and not blank."""
    column = "question" if "question" in row else "input"
    yield from _asked(row, given_in(row, column), column)


def llama_factory(row: Row) -> Iterator[Row]:
    """The prompt is `instruction` and the `input` below it, after `system` and the turns of `history`, if given."""
    yield from _asked(row, instruction_in(row), "instruction", "input")


def _asked(row: Row, question: object, column: str, *further: str) -> Iterator[Row]:
    """Preference data with a question in these columns, after `system` and earlier questions and answers.

    Conversations that do not begin with an answer have the prompt in them, and so has a prompt that the caller named:
    they are read as elsewhere, and `system` and `history` are reported as unread.
    """
    is_named, chosen = _prompt_column(row) is not None, _text(row, "chosen")
    if is_named or not (isinstance(chosen, str) or chosen[0].role == "assistant"):
        unread = [name for name in BEFORE if decoded(given_in(row, name))]
        for found in preference(row):
            asked = None if is_named else prompt_in({"prompt": given_in(row, column)})
            if asked is not None and plain_text(asked).strip() not in plain_text(found["prompt"]):
                expected = f"what chosen and rejected begin with; layout='preference' leaves {column} out"
                raise bad_value(column, row[column], expected)
            yield found | {"unread": unread}
        return
    if question is None:
        raise bad_value(column, row[column], "the prompt of chosen and rejected")
    unread = unread_in(row, question, (*BEFORE, column, *further))
    prompt = _after(_earlier(row), prompt_in({"prompt": question}))
    for found in preference({"prompt": prompt} | row):
        yield found | {"unread": unread}


def _earlier(row: Row) -> tuple[Message, ...]:
    """`system`, if it is not blank, and the turns of `history`: messages, or pairs of a question and its answer."""
    system = given_in(row, "system")
    if not isinstance(system, str | None):
        raise bad_value("system", system, "text, or null")
    is_blank = system is None or system.isspace()
    turns = () if is_blank else (Message("system", check_unicode(system, "system")),)
    history = decoded(given_in(row, "history")) or []
    history = [decoded(turn) for turn in history] if isinstance(history, list) else [history]
    if history and all(isinstance(turn, Mapping) for turn in history):
        return turns + text_or_messages(history, "history", blank=True)
    if not all(isinstance(turn, list | tuple) and [type(text) for text in turn] == [str, str] for turn in history):
        expected = "a list of messages, or of pairs of a question and its answer; columns={'prompt': …} leaves it out"
        raise bad_value("history", row["history"], expected)
    for i, turn in enumerate(history):
        asked, answered = (check_unicode(text, f"history[{i}]") for text in turn)
        turns += (Message("user", asked), Message("assistant", answered))
    return turns


def _after(turns: tuple[Message, ...], question: Text) -> Text:
    """The question after these turns; as messages it may have them in it."""
    if not turns:
        return question
    asked = (Message("user", question),) if isinstance(question, str) else question
    return asked if asked[: len(turns)] == turns else turns + asked


def ultrainteract(row: Row) -> Iterator[Row]:
    """The prompt is the messages in `trajectory`."""
    trajectory = with_messages(decoded(row["trajectory"]))
    is_prompt = isinstance(trajectory, list) and _are_texts(row)
    yield from preference({"prompt": trajectory} | row if is_prompt else row)


def _are_texts(row: Row) -> bool:
    return all(isinstance(_text(row, column), str) for column in ("chosen", "rejected"))


def _is_list_of_texts(value: object, is_rm_bench: bool) -> bool:
    """In CSV a list is spelled, which an answer may be too; those of RM-Bench have three texts."""
    texts = decoded(value)
    return is_turns(texts) and (not isinstance(value, str) or (is_rm_bench and len(texts) == 3))


def _is_spelled_answer(value: object) -> bool:
    found = decoded(value) if isinstance(value, str) and _SPELLED.match(value) else None
    return isinstance(found, Mapping) and found.get("role", found.get("from")) in ("assistant", "gpt")


def _text(row: Row, column: str) -> Text:
    value = with_messages(row.get(column))
    if all(_is_spelled_answer(row.get(name)) for name in ("chosen", "rejected")):  # LLaMA-Factory in CSV
        value = decoded(value)
    text = text_or_messages([value] if isinstance(value, Mapping) else value, column, blank=True)
    return (transcript(text) or text) if isinstance(text, str) else text


def prompt_in(row: Row) -> Text | None:
    """The prompt if there is a column; a transcript that ends where the answer begins is messages too."""
    column = _prompt_column(row)
    if column is None:
        return None
    prompt = text_or_messages(with_messages(row[column]), column)
    turns = transcript(prompt) if isinstance(prompt, str) else None
    return prompt if turns is None else turns[:-1] if turns[-1] == ("assistant", "") else turns


def _prompt_column(row: Row) -> str | None:
    return next((name for name in _PROMPTS if given_in(row, name) is not None), None)


def _check_no_prompt(row: Row) -> None:
    """What two texts share at their beginning is not the prompt of a file that has the prompt elsewhere."""
    if "prompt" in row:
        raise bad_value("prompt", row["prompt"], "the prompt of chosen and rejected, which are texts")
    if other := next((name for name in (*PROMPTS, "messages") if given_in(row, name) is not None), None):
        raise DataError(f"column 'prompt' is missing; expected columns={{'prompt': {other!r}}}, if that is the prompt")


def _texts_beside(row: Row) -> list[str]:
    """Other columns with more than one word: one of them may be the prompt."""
    read = [name for name in row if name in KEPT or "chosen" in name or "rejected" in name]
    given = {name: value for name, value in row.items() if name not in read}
    return [name for name, value in given.items() if isinstance(value, str) and len(value.split()) > 1]


def _is_tie(row: Row) -> bool:
    scores = ([number_of(given_in(row, name)) for name in names] for names in _SCORES)
    return row.get("status") == "tie" or any(chosen == rejected for chosen, rejected in scores)


def _models(row: Row) -> Row:
    sides = (("model_a", "chosen"), ("model_b", "rejected"))
    return {ours: row.get(f"{side}_model", row.get(f"{side}-model")) for ours, side in sides}


_SCORES = [
    (form.format("chosen"), form.format("rejected"))
    for name in ("score", "rating", "avg_rating")
    for form in (f"{name}_{{}}", f"{{}}_{name}", f"{{}}-{name}")
]
KEPT = {column: column for column in ("id", "topic", "criteria", "reference", "group", "weight", "annotator")}
BEFORE = ("system", "history")
"""Columns that some layouts read into the prompt."""
_PROMPTS = ("prompt", "conversations")
_SPELLED = re.compile(r"""\{\s*["'](role|content|from|value)["']""")
_NAMED = {"response_a": "chosen", "response_b": "rejected"}
_HUB = "https://huggingface.co/datasets"
_TRL = "https://huggingface.co/docs/trl/dataset_formats#preference"
_LLAMA_FACTORY = "https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md"

LAYOUTS = (
    Layout(
        "rewardbench_2", ("prompt", "chosen", "rejected", "num_correct"), f"{_HUB}/allenai/reward-bench-2",
        every_right_with_every_wrong, {"topic": "subset"}, _NAMED,
    ),
    Layout(
        "rewardbench", ("prompt", "chosen", "rejected", "subset"), f"{_HUB}/allenai/reward-bench", preference,
        {"id": "id", "topic": "subset"}, _NAMED,
    ),
    Layout(
        "ultrafeedback", ("prompt", "chosen", "rejected", "score_chosen", "score_rejected"),
        f"{_HUB}/HuggingFaceH4/ultrafeedback_binarized", preference, KEPT, _NAMED,
    ),
    Layout(
        "orca_dpo", ("system", "question", "chosen", "rejected"), f"{_HUB}/Intel/orca_dpo_pairs", orca, KEPT,
        {"prompt": "question", **_NAMED}, unless=_PROMPTS, optional=BEFORE,
    ),
    Layout(
        "distilabel_orca", ("system", "input", "chosen", "rejected"),
        f"{_HUB}/argilla/distilabel-intel-orca-dpo-pairs", orca, KEPT, {"prompt": "input", **_NAMED},
        unless=(*_PROMPTS, "instruction"), optional=BEFORE,
    ),
    Layout(
        "llama_factory", ("instruction", "chosen", "rejected"), _LLAMA_FACTORY, llama_factory, KEPT,
        {"prompt": "instruction", **_NAMED}, unless=_PROMPTS, optional=BEFORE,
    ),
    Layout(
        "ultrainteract", ("trajectory", "chosen", "rejected", "task", "dataset"),
        f"{_HUB}/openbmb/UltraInteract_pair", ultrainteract, KEPT,
        {"prompt": "trajectory", **_NAMED}, unless=_PROMPTS,
    ),
    Layout("preference", ("chosen", "rejected"), _TRL, preference, KEPT, _NAMED),
    Layout("hh_rlhf", ("chosen", "rejected"), "https://github.com/anthropics/hh-rlhf", preference, KEPT, _NAMED),
)  # fmt: skip
