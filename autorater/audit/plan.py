"""The questions of an audit, in order, and the number of each: pairs × probes × repetitions × two readings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from autorater.audit.probes import PROBES, Reading
from autorater.data.pairs import Pair


@dataclass(frozen=True, slots=True)
class Question:
    """One reading of a pair to be judged.

    Attributes:
        slot: Its number among all questions of the run.
        index: Number of the pair in the data.
        probe, order, repeat: Which of its readings, and the how many-th time.
        reading: What to show.
        id: Id of the pair.
    """

    slot: int
    index: int
    id: str
    probe: str
    order: str
    repeat: int
    reading: Reading


@dataclass(frozen=True)
class Plan:
    """What is asked of how many pairs.

    Attributes:
        n_pairs: Number of pairs, at least 1.
        probes: Names from `PROBES`, each once.
        n_repeats: How often each question is asked, at least 1.
    """

    n_pairs: int
    probes: tuple[str, ...] = ("swap",)
    n_repeats: int = 1

    @property
    def n_questions(self) -> int:
        """Number of questions."""
        return self.n_pairs * len(self.probes) * self.n_repeats * 2

    def slot(self, index: int, probe: str, repeat: int, order: str) -> int:
        """Number of a question.

        Raises:
            ValueError: If it is not in the plan.
        """
        side = PROBES[probe].orders.index(order)
        if not (0 <= index < self.n_pairs and 0 <= repeat < self.n_repeats):
            raise ValueError(f"pair {index}, repetition {repeat} is not planned")
        return ((index * len(self.probes) + self.probes.index(probe)) * self.n_repeats + repeat) * 2 + side

    def slot_of(self, record: Mapping) -> int:
        """Number of the question that a record of the journal answers.

        Raises:
            ValueError, KeyError, TypeError: If it is none of the plan.
        """
        return self.slot(record["pair"], record["probe"], record["repeat"], record["order"])

    def questions(self, pairs: Iterable[Pair], done: Collection[int] = ()) -> Iterator[Question]:
        """The questions about the first `n_pairs` pairs, but for those that are done."""
        for index, pair in zip(range(self.n_pairs), pairs, strict=False):
            for name in self.probes:
                probe = PROBES[name]
                readings = probe.readings(pair)
                for repeat in range(self.n_repeats):
                    for order, reading in zip(probe.orders, readings, strict=True):
                        slot = self.slot(index, name, repeat, order)
                        if slot not in done:
                            yield Question(slot, index, pair.id, name, order, repeat, reading)
