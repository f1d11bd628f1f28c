"""Items: texts that several annotators labelled with one of K labels, and the task of the annotators.

    NLI        premise, hypothesis               entailment, neutral, contradiction
    Likert     source, summary, quality          1, 2, 3, 4, 5 (ordinal)
    A/tie/B    prompt, response_a, response_b     A, tie, B (ordinal)

Votes are counts, one number per label; their shares are the empirical distribution. A pair of responses gives two
items, one per order (`pair_items`). `autorater.data.formats` reads files of items.

Deliberately left out: votes of single annotators, and labels that differ between items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

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
        ValueError: If there are fewer than two labels, equal labels, or no text.
    """

    labels: tuple[str, ...]
    titles: tuple[str, ...] = ("Text",)
    question: str = "People were asked which label fits the text below."
    ordinal: bool = False

    def __post_init__(self):
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels must be at least two and distinct, got {list(self.labels)}")
        if not self.titles:
            raise ValueError("a task needs at least one text")

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
        ValueError: If an item does not match the task, or its counts are invalid.
    """

    task: Task
    items: Sequence[Item]

    def __post_init__(self):
        for item in self.items:
            if len(item.texts) != len(self.task.titles):
                raise ValueError(f"item {item.id!r} has {len(item.texts)} texts, the task {len(self.task.titles)}")
            check_counts(item.counts, self.task.labels, f"item {item.id!r}")

    def __len__(self) -> int:
        return len(self.items)

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

    def select(self, rows: Iterable[int]) -> ItemSet:
        """The items with these indices."""
        return ItemSet(self.task, [self.items[i] for i in rows])


def check_counts(counts: Sequence[float], labels: Sequence[str], where: str) -> None:
    """Raises ValueError if counts are not one number ≥ 0 per label, or all are 0."""
    if len(counts) != len(labels):
        raise ValueError(f"{where}: {len(counts)} counts for the {len(labels)} labels {list(labels)}")
    if not all(np.isfinite(count) and count >= 0 for count in counts):
        raise ValueError(f"{where}: counts must be numbers >= 0, got {list(counts)}")
    if not sum(counts) > 0:
        raise ValueError(f"{where}: counts are all 0; expected at least one vote")


PAIR_LABELS = ("A", "tie", "B")
PAIR_TEXTS = ("prompt", "response_a", "response_b")


def pair_task(ties: bool = True) -> Task:
    """The task of choosing one of two responses, with or without a tie."""
    return Task(
        labels=PAIR_LABELS if ties else PAIR_LABELS[::2],
        titles=("Question", "Response A", "Response B"),
        question="People were asked which of two responses to a question they prefer.",
        ordinal=True,
    )


def label_values(labels: Sequence[str]) -> np.ndarray:
    """Pr[B preferred] of the labels of a pair, shape (K,): A 0, tie ½, B 1.

    Raises:
        ValueError: If the labels are not those of a pair.
    """
    values = {"A": 0.0, "tie": 0.5, "B": 1.0}
    if not set(labels) <= set(values):
        raise ValueError(f"labels of a pair are {', '.join(values)}; got {list(labels)}")
    return np.array([values[label] for label in labels])


def pair_items(pairs: Sequence[Pair], ties: bool | None = None) -> ItemSet:
    """Both orders of every pair as items: ab, ba, ab, ba, …

    Without votes the weights are 1 − label for A and label for B.

    Args:
        pairs: N pairs.
        ties: Whether `tie` is a label; by default if a pair has such a vote.

    Returns:
        2 N items; in every second one the responses and the counts are swapped.

    Raises:
        ValueError: If there are tie votes and `ties` is False.
    """
    voted = any(pair.votes_tie for pair in pairs)
    if voted and ties is False:
        raise ValueError("some pairs have tie votes, but the labels have no tie")
    task = pair_task(voted if ties is None else ties)
    items = []
    for pair in pairs:
        known = pair.votes_a is not None
        counts = (pair.votes_a, pair.votes_tie or 0, pair.votes_b) if known else (1 - pair.label, 0, pair.label)
        truth = pair.true_probability
        sides = (1 - truth, 0.0, truth) if truth is not None else None
        kept = slice(None) if "tie" in task.labels else slice(None, None, 2)
        for side, turn in ((pair, 1), (pair.swapped(), -1)):
            items.append(
                Item(
                    id=f"{pair.id}#{'ab' if turn == 1 else 'ba'}",
                    texts=tuple(getattr(side, name) for name in PAIR_TEXTS),
                    counts=counts[::turn][kept],
                    topic=pair.topic,
                    true_distribution=None if sides is None else sides[::turn][kept],
                )
            )
    return ItemSet(task, items)
