"""Items: texts that several annotators labelled with one of K labels, and the task of the annotators.

    NLI        premise, hypothesis               entailment, neutral, contradiction
    Likert     source, summary, quality          1, 2, 3, 4, 5 (ordinal)
    A/tie/B    prompt, response_a, response_b     A, tie, B (ordinal)

Votes are counts, one number per label; their shares are the empirical distribution. A pair of responses gives two
items, one per order (`pair_items`). `autorater.data.formats` reads files of items.

Deliberately left out: votes of single annotators, and labels that differ between items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from numbers import Real

import numpy as np

from autorater.data.errors import DataError
from autorater.data.fields import shortened
from autorater.data.messages import plain_text
from autorater.data.pairs import Pair


@dataclass(frozen=True)
class Task:
    """The task of the annotators, the same for all items of a dataset.

    Attributes:
        labels: The K labels, at least 2, distinct; ordered if `ordinal`.
        titles: Name of each text of an item in the prompt, at least one.
        question: The instruction, as a sentence.
        ordinal: Whether the labels are ordered.

    Raises:
        DataError: If there are fewer than two labels, equal labels, or no text.
    """

    labels: tuple[str, ...]
    titles: tuple[str, ...] = ("Text",)
    question: str = "People were asked which label fits the text below."
    ordinal: bool = False

    def __post_init__(self):
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise DataError(f"labels must be at least two and distinct, got {list(self.labels)}")
        if not self.titles:
            raise DataError("a task needs at least one text")

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Item:
    """Texts and their votes.

    Attributes:
        id: Unique in its dataset.
        texts: One per title of the task.
        counts: Votes for each label (or weights), ≥ 0, not all 0.
        topic: A group that a split must not divide.
        true_distribution: The population's distribution over the labels, if the annotators are simulated.
    """

    id: str
    texts: tuple[str, ...]
    counts: tuple[float, ...]
    topic: str | None = None
    true_distribution: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ItemSet:
    """Items of one task.

    Raises:
        DataError: If an item does not match the task, or its counts are invalid.
    """

    task: Task
    items: Sequence[Item]

    def __post_init__(self):
        for item in self.items:
            if len(item.texts) != len(self.task.titles):
                raise DataError(f"item {item.id!r} has {len(item.texts)} texts, the task {len(self.task.titles)}")
            check_counts(item.counts, self.task.labels, f"item {item.id!r}")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @property
    def counts(self) -> np.ndarray:
        """Votes, shape (N, K)."""
        return np.array([item.counts for item in self.items], dtype=float)

    @property
    def shares(self) -> np.ndarray:
        """Empirical distributions, shape (N, K)."""
        return self.counts / self.counts.sum(axis=1, keepdims=True)

    @property
    def truth(self) -> np.ndarray | None:
        """Distributions of the population, shape (N, K), or None if one is unknown."""
        truth = [item.true_distribution for item in self.items]
        return None if None in truth else np.array(truth)


def check_counts(counts: Sequence[float], labels: Sequence[str], where: str) -> None:
    """Raises DataError if counts are not one number ≥ 0 per label, or all are 0."""
    if not (
        isinstance(counts, list | tuple)
        and len(counts) == len(labels)
        and all(isinstance(n, Real) and not isinstance(n, bool) and 0 <= n < np.inf for n in counts)
        and any(counts)
    ):
        expected = f"one number of votes for each of the labels {', '.join(labels)}, not negative and not all 0"
        raise DataError(f"{where}: got {shortened(counts)}; expected {expected}")


_PAIR_VALUES = {"A": 0.0, "tie": 0.5, "B": 1.0}  # Pr[B preferred] of every label of a pair


def pair_task(ties: bool = True) -> Task:
    """The task of choosing one of two responses, with or without a tie."""
    return Task(
        labels=tuple(_PAIR_VALUES) if ties else ("A", "B"),
        titles=("Question", "Response A", "Response B"),
        question="People were asked which of two responses to a question they prefer.",
        ordinal=True,
    )


def label_values(labels: Sequence[str]) -> np.ndarray:
    """Pr[B preferred] of the labels of a pair, shape (K,): A 0, tie ½, B 1.

    Raises:
        KeyError: If a label is not one of a pair.
    """
    return np.array([_PAIR_VALUES[label] for label in labels])


def pair_items(pairs: Sequence[Pair], ties: bool | None = None) -> ItemSet:
    """Both orders of every pair as items: ab, ba, ab, ba, …

    Without votes the weights are 1 − label for A and label for B. In the order ba, responses and counts are swapped.

    Args:
        pairs: N pairs.
        ties: Whether `tie` is a label; by default if a pair has such a vote.

    Raises:
        DataError: If there are tie votes and `ties` is False.
    """
    tied = any(pair.votes_tie for pair in pairs)
    if tied and ties is False:
        raise DataError("some pairs have tie votes, but the labels have no tie")
    task = pair_task(tied if ties is None else ties)
    step = 1 if "tie" in task.labels else 2  # in steps of 2, (A, tie, B) becomes (A, B)
    items = []
    for pair in pairs:
        p, truth = pair.label, pair.true_probability
        counts = (1 - p, 0, p) if pair.votes_a is None else (pair.votes_a, pair.votes_tie or 0, pair.votes_b)
        sides = None if truth is None else (1 - truth, 0.0, truth)
        for order, shown, turn in (("ab", pair, step), ("ba", pair.swapped(), -step)):
            texts = tuple(map(plain_text, (shown.prompt, shown.response_a, shown.response_b)))
            items.append(Item(f"{pair.id}#{order}", texts, counts[::turn], pair.topic, sides and sides[::turn]))
    return ItemSet(task, items)
