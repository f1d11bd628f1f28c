"""Rows that show the same pair: their votes are added, or they form one cluster.

Two rows show the same pair if prompt and both responses are equal, in either order. Votes are added if the rows are
single votes, or have one id, and if models, criteria, reference, group and weight are equal. Other repetitions stay
pairs of their own. Resampling has to draw them together, blanks around a text aside: three rows of one vote are no
more evidence than one row of three.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace

from autorater.data.load_report import LoadReport
from autorater.data.messages import Text
from autorater.data.pairs import Pair, vote_share


def texts_key(prompt: Text, response_a: Text, response_b: Text) -> Hashable:
    """Equal for pairs with the same texts but for blanks around them, whatever the order of the responses."""
    prompt, *responses = (text.strip() if isinstance(text, str) else text for text in (prompt, response_a, response_b))
    return prompt, frozenset(responses)


def pair_key(pair: Pair) -> Hashable:
    """Equal for pairs whose votes can be added."""
    sides = frozenset(((pair.response_a, pair.model_a), (pair.response_b, pair.model_b)))
    return pair.prompt, sides, pair.criteria, pair.reference, pair.group, pair.weight


def shown_key(pair: Pair) -> Hashable:
    """Equal for pairs that show a judge the same, whatever the order of the responses: texts, criteria, group."""
    texts = texts_key(pair.prompt, pair.response_a, pair.response_b)
    return texts, pair.criteria, pair.reference, pair.group


def clusters(keys: Iterable[Hashable]) -> list[int] | None:
    """The number of each of N keys, equal for equal ones, from 0 in order of first occurrence; None if all differ.

    Only hashes of the keys are kept.
    """
    numbers: dict[int, int] = {}
    found = [numbers.setdefault(hash(key), len(numbers)) for key in keys]
    return None if len(numbers) == len(found) else found


def pair_clusters(pairs: Iterable[Pair]) -> list[int] | None:
    """`clusters` of pairs by their texts."""
    return clusters(texts_key(pair.prompt, pair.response_a, pair.response_b) for pair in pairs)


class Gatherer:
    """Adds the votes of rows that show an earlier pair.

    Args:
        report: Counts what was gathered, repeated and left out.

    Attributes:
        pairs: The gathered pairs, each at the place of its first row.
    """

    def __init__(self, report: LoadReport):
        self.pairs: list[Pair] = []
        self._report = report
        self._places: dict[int, int] = {}  # hash of a pair to its place
        self._votes: set[int] = set()  # hashes of the votes of named annotators

    def add(self, pair: Pair, annotator: str | None = None, is_vote: bool = True) -> None:
        """Adds a pair, or its votes to the pair that it repeats.

        Args:
            pair: The pair of a row.
            annotator: Who voted, if the row names one; the same vote of the same annotator counts once.
            is_vote: Whether the row is a vote, and no pair with its own counts.
        """
        key = pair_key(pair)
        place = self._places.setdefault(hash(key), len(self.pairs))
        if annotator is not None:
            same_order = place == len(self.pairs) or self.pairs[place].response_a == pair.response_a
            vote = hash((key, annotator, pair.label if same_order else 1 - (pair.label or 0)))
            if vote in self._votes:
                self._report.left_out["repeats a row of the same annotator"] += 1
                return
            self._votes.add(vote)
        if place == len(self.pairs):
            self.pairs.append(pair)
        elif None in (self.pairs[place].votes_a, pair.votes_a) or not (is_vote or self.pairs[place].id == pair.id):
            self._report.repeated += 1
            self.pairs.append(pair)
        else:
            self._report.gathered += 1
            self.pairs[place] = added(self.pairs[place], pair)


def in_order_of(first: Pair, second: Pair) -> Pair:
    """The second pair, which shows the same texts, swapped if it is not in the order of the first."""
    same = (second.response_a, second.model_a) == (first.response_a, first.model_a)
    return second if same else second.swapped()


def added(first: Pair, second: Pair) -> Pair:
    """The first pair with the votes of both; the second may be in the other order."""
    second = in_order_of(first, second)
    votes = {name: getattr(first, name) + getattr(second, name) for name in ("votes_a", "votes_b", "votes_tie")}
    return replace(first, label=vote_share(**votes), n_votes=sum(votes.values()), **votes)
