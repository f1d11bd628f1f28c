"""What annotators and judges call the winner of a pair, as votes.

    A      a, model_a, response_a, 1, model_1, response_1, output_1, first, left, "A>B", "[[A]]", "A++",
           "A-is-clearly-better", "A is much better than B", "Slightly prefer A", …
    B      the same with b and 2
    tie    tie, both, equal, draw, same, neither, "tie (bothbad)", "both_bad", "A=B", "[[C]]", "about the same", …
    none   error, NA, null and the empty string: there is no vote

The name of a model in `model_a` or `model_b` is a vote for it.

Case, blanks, underscores and hyphens inside a word do not count; a hyphen at an end ("A-", "-A") is an error. Numbers
other than 1 and 2 are errors: 0 is A in some files and a tie in others, and negative numbers are strengths, whose
direction differs.
"""

from __future__ import annotations

import math
import re

from autorater.data.errors import DataError
from autorater.data.fields import Row, bad_value, given_in, name_in, number_of

VOTE_COLUMNS = ("vote", "winner", "preference")
"""Our columns with a verdict in words."""
VOTES = {"A": (1, 0, 0), "B": (0, 1, 0), "tie": (0, 0, 1)}
"""votes_a, votes_b and votes_tie of one vote."""

_EXPECTED = (
    "A, B or tie (also 1, 2, model_a, response_1, left, 'A>B', …), or null or error for no vote; shares in [0, 1] "
    "belong into the column label"
)
_SIDE = re.compile(r"(?:model|response|answer|output|candidate|completion|option|assistant|text)?(\w+)")
_SIDES = {"a": "A", "1": "A", "first": "A", "left": "A", "b": "B", "2": "B", "second": "B", "right": "B"}
_TIES = {
    *("tie", "tied", "tie(bothbad)", "tie(bothgood)", "tie(inconsistent)", "bothbad", "bothgood", "both", "equal"),
    *("draw", "same", "neither", "a=b", "b=a", "[[c]]", "aboutthesame", "aboutequal", "equallygood", "equallybad"),
    *("bothequallygood", "bothequallybad", "nopreference", "nodifference", "neutral"),
}
_HOW = "(?:clearly|slightly|much|significantly|strongly|somewhat|marginally)?"
_BETTER = re.compile(rf"(?:{_HOW}prefer(\w+)|(\w+?)(?:is)?{_HOW}better(?:than(?!or)\w+)?|(\w+?)\+{{1,2}})")
_ORDERS = {"a>b": "A", "a>>b": "A", "b<a": "A", "b<<a": "A", "b>a": "B", "b>>a": "B", "a<b": "B", "a<<b": "B"}
_NONE = {"", "error", "none", "null", "nan", "na", "n/a", "<na>", "invalid"}


def bare_word(value: object) -> str:
    """A word without what does not count in it: case, blanks, underscores, hyphens inside it, brackets around it."""
    return re.sub(r"(?<!^)-(?!$)", "", _unspaced(value).strip("[]"))  # "-A" and "A-" may be votes against A


def _unspaced(value: object) -> str:
    return re.sub(r"[\s_]", "", str(value).lower())


def preferred_in(bare: str) -> str:
    """What a bare word prefers: `response1` in `response1isbetter`; the word itself if it only names something."""
    return match[match.lastindex] if (match := _BETTER.fullmatch(bare)) else bare


def winner_of(value: object, column: str) -> str | None:
    """ "A", "B", "tie", or None where there is no verdict.

    Raises:
        DataError: If the value is none of the words above.
    """
    number = number_of("".join(value.split()) if isinstance(value, str) else value)
    if not math.isnan(number):
        if number not in (1, 2) or str(value).lstrip().startswith("+"):  # "+1" is a strength
            raise bad_value(column, value, _EXPECTED)
        return "A" if number == 1 else "B"
    word, bare = _unspaced(value), bare_word(value)
    if word in _TIES or bare in _TIES:
        return "tie"
    if bare.strip("-") in _NONE:
        return None
    bare = preferred_in(bare)
    winner = _ORDERS.get(bare) or _SIDES.get(_SIDE.fullmatch(bare)[1] if _SIDE.fullmatch(bare) else "")
    if winner is None or isinstance(value, bool):
        raise bad_value(column, value, _EXPECTED)
    return winner


def counts(a: int, b: int, tie: int) -> Row:
    """The columns of votes."""
    return {"votes_a": a, "votes_b": b, "votes_tie": tie}


def votes_in(row: Row, column: str) -> Row:
    """The vote in a column as counts, or `no_vote` with the reason. It may be the name of one of the row's models."""
    value = given_in(row, column)
    models = [name_in(row, f"model_{side}") for side in "ab"]
    named = "AB"[models.index(value)] if isinstance(value, str) and models.count(value) == 1 else None
    try:
        winner = None if value is None else winner_of(value, column)
    except DataError:
        if named is None:
            raise
        winner = named
    if named not in (None, winner):
        raise bad_value(column, value, f"another word: it is the name of model {named} and may mean the other one")
    if winner is None:
        return {"no_vote": f"{column} is {'null' if value is None else repr(value)}"}
    return counts(*VOTES[winner])


def numbered_vote(row: Row, column: str) -> Row:
    """The same for a column that counts the responses from 0: 0 is A and 1 is B. Words are as elsewhere."""
    number = number_of(given_in(row, column))
    if number in (0, 1):
        return counts(*VOTES["B" if number else "A"])
    if not math.isnan(number):
        raise bad_value(column, row[column], "0 (the first response) or 1 (the second)")
    return votes_in(row, column)


def summed(winners: list[str], reason: str) -> Row:
    """The counts of several winners, or `no_vote` with the reason if there is none."""
    return counts(*(winners.count(name) for name in VOTES)) if winners else {"no_vote": reason}


def signs(strengths: list[float]) -> list[str]:
    """Winners of strengths of preference: below 0 A, above 0 B, 0 a tie. How strong a preference is does not count."""
    return ["A" if strength < 0 else "B" if strength > 0 else "tie" for strength in strengths]
