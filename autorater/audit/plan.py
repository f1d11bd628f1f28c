"""The requests of an audit, in order and numbered: pairs × probes × repetitions × two presentations."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from autorater.audit.probes import PROBES, Presentation
from autorater.data.pairs import Pair


@dataclass(frozen=True, slots=True)
class Request:
    """One presentation of a pair. From 0, `number` counts requests, `index` pairs, and `repeat` repetitions."""

    number: int
    index: int
    id: str
    probe: str
    order: str
    repeat: int
    presentation: Presentation


@dataclass(frozen=True)
class Plan:
    """The requests of a run: `probes` are names from `PROBES`, each once; the numbers are at least 1."""

    n_pairs: int
    probes: tuple[str, ...] = ("swap",)
    n_repeats: int = 1

    @property
    def n_requests(self) -> int:
        return self.n_pairs * len(self.probes) * self.n_repeats * 2

    def number(self, index: int, probe: str, repeat: int, order: str) -> int:
        """Number of a request; ValueError, KeyError or TypeError if it is not in the plan."""
        place = index, self.probes.index(probe), repeat, PROBES[probe].orders.index(order)
        return int(np.ravel_multi_index(place, (self.n_pairs, len(self.probes), self.n_repeats, 2)))

    def number_of(self, record: Mapping) -> int:
        """Number of the request that a stored judgment belongs to; errors as in `number`."""
        return self.number(record["pair"], record["probe"], record["repeat"], record["order"])

    def requests(self, pairs: Iterable[Pair], done: Container[int] = ()) -> Iterator[Request]:
        """The requests for the first `n_pairs` pairs, without the numbers in `done`."""
        for index, pair in zip(range(self.n_pairs), pairs, strict=False):
            for probe in self.probes:
                shown = zip(PROBES[probe].orders, PROBES[probe].present(pair), strict=True)
                for repeat, (order, presentation) in product(range(self.n_repeats), shown):
                    number = self.number(index, probe, repeat, order)
                    if number not in done:
                        yield Request(number, index, pair.id, probe, order, repeat, presentation)
