"""Our columns, and the errors when a source lacks one or has one under another name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from shlex import quote

from autorater.data.errors import DataError, nearest
from autorater.data.fields import shortened
from autorater.data.layouts.exports import usual_responses
from autorater.data.layouts.layout import PROMPTS
from autorater.data.layouts.votes import VOTE_COLUMNS
from autorater.data.pairs import Pair
from autorater.data.text_files import spelled

COLUMNS = tuple(field.name for field in fields(Pair))
OUR_COLUMNS = (*COLUMNS, "annotator", *VOTE_COLUMNS)
NOT_TEXT = ("image", "images", "image_path", "image_url", "video", "videos", "audio", "tools")
"""Columns that a judge of texts does not see."""
TEXTS = {"prompt", "response_a", "response_b"}
CRITERIA = ("rubric", "rubrics", "criterion", "guidelines")
_COUNT = "(#|nb?|nums?|numbers?|of|total|votes?|counts?)"
_TIE = "(tied?|ties|draws?|both(_?(bad|good))?|neither|equal|neutral|same|no_?preference)"
_TIES = re.compile(rf"({_COUNT}_?)*{_TIE}(_?{_COUNT})*")
_RECORDED = "verdicts in both orders, which recipes/audit_position_bias.py --judge recorded:FILE reads, and no pairs"
_NO_PAIRS = {
    ("prompt", "completion", "label"): "one response a row with a label (KTO); expected two responses a row",
    ("output", "kto_tag"): "one response a row with a label (KTO); expected two responses a row",
    ("prompt", "response", "is_safe"): "ratings of one response a row (BeaverTails); expected two responses a row",
    ("info", "summary", "worker"): "ratings of one summary a row; expected the comparisons of summarize_from_feedback",
    ("response1", "response2", "feedback1", "feedback2"): "notes on two responses without a preference (HelpSteer3)",
    ("prompt", "response", "helpfulness"): "ratings of one response a row (HelpSteer); expected two responses a row",
    ("user_prompt", "model_response", "within_turn_id"): "one response a row (PRISM); expected its conversations",
    ("message_id", "parent_id", "rank"): "one message a row (OpenAssistant); expected its trees",
    ("g1_winner", "g2_winner"): _RECORDED,
    ("games",): _RECORDED,
}


def check_columns(names: Collection[str], labelled: bool, renamed: Mapping[str, str]) -> None:
    """Raises a DataError if a column is missing among those of the source and the renamed ones, ours to theirs."""
    voted = "label" not in names and ("votes_a" in names or "votes_b" in names)
    single = any(name in names for name in VOTE_COLUMNS)
    label = ("votes_a", "votes_b") if voted else () if single or not labelled else ("label",)
    required = ("prompt", "response_a", "response_b", *label)
    missing = next((column for column in required if column not in names), None)
    if missing is not None:
        raise DataError(_why_missing(missing, names, renamed))


def _why_missing(column: str, names: Collection[str], renamed: Mapping[str, str]) -> str:
    for columns, reason in _NO_PAIRS.items():
        if set(columns) <= set(names):
            return f"the columns {', '.join(columns)} are {reason}"
    if column == "label":
        also = (
            " (or the columns votes_a and votes_b, or vote; labelled=False, or --unlabelled of autorater convert, "
            "reads pairs to judge)"
        )
    else:
        others = [name for name in names if name not in (*OUR_COLUMNS, *renamed.values())]
        named = {ours: renamed.get(name, name) for ours, name in _suggested(column, names, others).items()}
        option = quote(",".join(f"{ours}={theirs}" for ours, theirs in named.items()))
        also = (
            f" (or columns={named} to name it, on the command line autorater convert FILE OUT.jsonl --columns "
            f"{option}, or a layout of docs/data.md)"
        )
    theirs = [name for name in names if renamed.get(name, name) == name]
    return f"column {column!r} is missing; expected it{also} among {shortened(theirs, 200)}"


def check_ties(names: Collection[str], renames: bool = True) -> None:
    """Raises a DataError if there are counts of ties under another name: without them the share of votes is wrong.

    Args:
        names: Columns of the file.
        renames: Whether it can be read with `columns`.
    """
    ties = sorted(name for name in names if name != "votes_tie" and _TIES.fullmatch(spelled(name)))
    if ties and "votes_a" in names:
        named = f"columns={{'votes_tie': {ties[0]!r}}} to read it" if renames else "the name votes_tie"
        way = "it to be added to votes_tie" if "votes_tie" in names else named
        raise DataError(
            f"column {ties[0]!r} is beside votes_a and is not read; expected {way}, or another name if it does not "
            "count ties"
        )


def _suggested(column: str, names: Collection[str], others: Sequence[str]) -> dict[str, str]:
    """Our missing columns to those that may be meant; both responses together, so that they cannot change places."""
    usual = next((name for name in PROMPTS if column == "prompt" and name in others), "THEIRS")
    found = {column: nearest(column, others) or usual}
    if column not in TEXTS or {"response_a", "response_b"} & set(names):
        return found
    found = found if column == "prompt" else {}
    chosen = next((name for name in others if "chosen" in name and name.replace("chosen", "rejected") in others), None)
    if chosen == "chosen":  # a caller who reads pairs as they are
        return found | {"response_a": "chosen", "response_b": "rejected"}
    if chosen:
        return found | {"chosen": chosen, "rejected": chosen.replace("chosen", "rejected")}
    a, b = usual_responses(others) or ("THEIRS", "THEIRS")
    return found | {"response_a": a, "response_b": b}
