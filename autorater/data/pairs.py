"""Pairs: two responses to one prompt, with the probability that the second is preferred; swaps, single votes, splits.

Split before swapping, since both orders of a pair belong on the same side. Sparse labels and swaps commute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import compress

from autorater.data.errors import DataError, UserError
from autorater.data.messages import Text, plain_text

GROUP_COLUMNS = ("topic", "prompt", "model_a", "model_b", "response_a", "response_b", "id", "group", "criteria")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to a prompt and the votes of annotators.

    Attributes:
        id: Unique in its dataset.
        prompt: The prompt of both responses: a text or the messages of a conversation.
        response_a: The response shown first: a text or messages.
        response_b: The response shown second.
        label: Pr[B preferred], in [0, 1]; a vote share, a given probability, or a single vote; None if the pair is
            unlabelled, which is enough to judge it.
        n_votes: Number of votes of the label, at least 1, or None if unknown.
        topic: A group that a split must not divide.
        model_a, model_b: Names of the models that wrote the responses.
        true_probability: The population's Pr[B preferred], in [0, 1], if the annotators are simulated.
        votes_a, votes_b, votes_tie: Votes for A, for B, for neither; None if unknown.
        criteria, reference: What to judge by, and a reference response, for prompt templates with these slots.
        group: The group of annotators that voted.
        weight: How much its votes count, at least 0; None is 1.
    """

    id: str
    prompt: Text
    response_a: Text
    response_b: Text
    label: float | None
    n_votes: int | None = None
    topic: str | None = None
    model_a: str | None = None
    model_b: str | None = None
    true_probability: float | None = None
    votes_a: int | None = None
    votes_b: int | None = None
    votes_tie: int | None = None
    criteria: str | None = None
    reference: Text | None = None
    group: str | None = None
    weight: float | None = None

    def in_plain_text(self) -> Pair:
        """The same pair with conversations as text, see `plain_text`; for models that read texts only."""
        texts = {name: plain_text(getattr(self, name)) for name in ("prompt", "response_a", "response_b")}
        return replace(self, **texts)

    def swapped(self) -> Pair:
        """The same pair in the other order with the same id: responses, models, votes and probabilities swapped."""
        return replace(
            self,
            response_a=self.response_b,
            response_b=self.response_a,
            label=None if self.label is None else 1.0 - self.label,
            model_a=self.model_b,
            model_b=self.model_a,
            true_probability=None if self.true_probability is None else 1.0 - self.true_probability,
            votes_a=self.votes_b,
            votes_b=self.votes_a,
        )


def vote_share(votes_a: int, votes_b: int, votes_tie: int = 0) -> float:
    """The share of votes for B, in [0, 1], a tie vote counting one half; ZeroDivisionError if there is no vote."""
    return (2 * votes_b + votes_tie) / (2 * (votes_a + votes_b + votes_tie))


def _bits(seed: int, name: str) -> int:
    """128 bits that depend only on the seed and the name, not on the process, the epoch or the row order."""
    return int.from_bytes(blake2b(f"{seed}:{name}".encode(), digest_size=16).digest(), "big")


def sparse_label(pair: Pair, seed: int) -> float:
    """Draws one vote of a pair.

    With votes, one of them is drawn at random, and a fair coin decides a tie vote; without, the draw is
    Bernoulli(label). The randomness is a hash of the seed and the id, so the vote is the same in every epoch, after a
    resume and in any order of the rows. The swapped pair has the complementary vote, unless A and B are equal in
    responses, models and votes.

    Returns:
        1.0 where the vote prefers B, else 0.0. Its mean over seeds is the vote share.
    """
    side_a = (plain_text(pair.response_a), pair.model_a or "", 1.0 - pair.label)
    side_b = (plain_text(pair.response_b), pair.model_b or "", pair.label)
    if side_a > side_b:  # draw in a fixed order of the sides, so that a swap complements the vote
        return 1.0 - _vote_for_b(pair.swapped(), seed)
    return _vote_for_b(pair, seed)


def _vote_for_b(pair: Pair, seed: int) -> float:
    pick, coin = divmod(_bits(seed, pair.id), 2**64)
    if pair.votes_a is None:
        return float((pick >> 11) * 2.0**-53 < pair.label)
    vote = pick * (pair.votes_a + pair.votes_b + pair.votes_tie) >> 64
    if vote < pair.votes_a:
        return 0.0
    if vote < pair.votes_a + pair.votes_b:
        return 1.0
    return float(coin % 2)


def turns_as_text(pairs: Sequence[Pair]) -> str | None:
    """A warning for models that read `plain_text`, if a prompt or a response is a conversation of several messages."""
    texts = ((pair.prompt, pair.response_a, pair.response_b) for pair in pairs)
    n = sum(any(not isinstance(text, str) and len(text) > 1 for text in shown) for shown in texts)
    if not n:
        return None
    return f"{n:,} of {len(pairs):,} pairs have conversations, whose turns are read as one text after their roles"


def with_sparse_labels(pairs: Iterable[Pair], seed: int) -> list[Pair]:
    """Replaces label and votes of every pair by the vote of `sparse_label`; the order of the pairs is unchanged.

    A pair without votes and with a label of 0 or 1 is unchanged.
    """

    def sparse(pair: Pair) -> Pair:
        if pair.votes_a is None and pair.label in (0.0, 1.0):
            return pair
        vote = sparse_label(pair, seed)
        return replace(pair, label=vote, n_votes=1, votes_a=int(1 - vote), votes_b=int(vote), votes_tie=0)

    return [sparse(pair) for pair in pairs]


def split_by(pairs: Sequence[Pair], column: str, fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Splits pairs by whole groups: no value of `column` is on both sides.

    Groups are visited in an order given by the seed and their names, and held out while this brings the held-out side
    closer to `fraction` of the pairs. The result does not depend on the order of the pairs.

    Args:
        pairs: N pairs; both sides keep their order.
        column: One of `GROUP_COLUMNS`.
        fraction: Target share of held-out pairs, in (0, 1).
        seed: Any integer.

    Returns:
        `(train, held_out)`, each at least one group. A response may be on both sides, see `leaked_responses`.

    Raises:
        UserError: If the column is unknown or has one value; if `fraction` is not in (0, 1).
        DataError: If a pair has no value in the column.
    """
    if column not in GROUP_COLUMNS:
        raise UserError(f"cannot split by {column!r}; expected one of {', '.join(GROUP_COLUMNS)}")
    if not 0 < fraction < 1:
        raise UserError(f"fraction is {fraction}; expected a number between 0 and 1, both excluded")
    names = [None if (value := getattr(pair, column)) is None else plain_text(value) for pair in pairs]
    if None in names:
        odd = names.index(None)
        raise DataError(
            f"pair {pairs[odd].id!r} has no {column}; expected one in every pair to split by (pair {odd + 1:,} of "
            f"{len(pairs):,})"
        )
    sizes = Counter(names)
    if len(sizes) < 2:
        also = "" if column == "id" or len(pairs) < 2 else ", for example by id"
        raise UserError(
            f"{len(pairs)} pairs with {len(sizes)} distinct {column}; expected at least 2 to split by{also}"
        )

    groups = sorted(sizes, key=lambda group: (_bits(seed, group), group))
    missing = fraction * len(pairs)
    held: set[str] = set()
    for group in groups:
        if sizes[group] < 2 * missing:
            held.add(group)
            missing -= sizes[group]
    if not held or len(held) == len(groups):  # neither side may be empty
        held ^= {min(groups, key=sizes.__getitem__)}
    sides = [name in held for name in names]
    return list(compress(pairs, (not side for side in sides))), list(compress(pairs, sides))


def grouping(column: str) -> tuple[str, dict[str, str] | None]:
    """How to split by any column of a file: the column of `split_by`, and `columns` for `load_pairs`.

    A column that pairs do not keep is read in place of the topic.
    """
    return (column, None) if column in GROUP_COLUMNS else ("topic", {"topic": column})


def leaked_responses(train: Iterable[Pair], held_out: Iterable[Pair]) -> int:
    """Counts the distinct response texts on both sides of a split; a few may be chance ("Yes.")."""
    seen, again = (
        {plain_text(text) for p in pairs for text in (p.response_a, p.response_b)} for pairs in (train, held_out)
    )
    return len(seen & again)
