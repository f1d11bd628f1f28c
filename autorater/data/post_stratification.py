"""Post-stratification: votes of the annotators at hand, weighted to the groups of another population.

    weight of a vote of group g    w_g = share requested / share in the data
    label of a pair                Σ w v / Σ w over its votes v, the share for B in the requested mix
    weight of a pair               the mean weight of its votes; the mean over all pairs is 1

A row's own `weight` multiplies w_g. Every pair counts as one in the shares, however many votes it has, as it does in
training and in the metrics. Little and Rubin (2002), section 3.3; the design effect is Kish's (1965).

Weights cannot create votes: a group without votes is an error, and a group with few makes every estimate noisy, which
the design effect tells: n pairs are worth n / design effect equally weighted ones.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from autorater.data.errors import DataError, UserError
from autorater.data.gathering import added, in_order_of, pair_key
from autorater.data.pairs import Pair


@dataclass(frozen=True)
class Mix:
    """What post-stratification did.

    Attributes:
        requested: Share of each group that is above 0.
        found: Its share in the data, without groups whose share is 0.
        left_out: Pairs (of a group) whose votes are left out because the share of the group is 0.
        n_pairs: Pairs with weights.
        design_effect: n Σ W² / (Σ W)² over their weights, at least 1.
    """

    requested: Mapping[str, float]
    found: Mapping[str, float]
    left_out: int
    n_pairs: int
    design_effect: float

    def __str__(self) -> str:
        shares = ", ".join(f"{g} {self.found[g]:.3f} -> {share:g}" for g, share in self.requested.items())
        text = (
            f"{shares}; design effect {self.design_effect:.2f}: {self.n_pairs:,} pairs are worth "
            f"{self.n_pairs / self.design_effect:,.0f} without weights"
        )
        return text + (f"; {self.left_out:,} pairs of groups with share 0 left out" if self.left_out else "")


def parse_population(population: str | Mapping[str, float]) -> dict[str, float]:
    """Shares by group from a mapping or from `group=share,group=share`.

    Raises:
        UserError: If a group is named twice, a share is no number in [0, 1], or they do not add up to 1.
    """
    if isinstance(population, str):
        entries = [entry.rpartition("=") for entry in population.split(",")]
        shares = {name.strip(): share for name, _, share in entries}
        if len(shares) < len(entries) or "" in shares:
            raise UserError(f"population {population!r}: expected group=share,group=share with every group once")
    else:
        shares = {str(name): share for name, share in population.items()}
    try:
        numbers = {name: float(share) for name, share in shares.items()}
    except (TypeError, ValueError):
        numbers = {"": math.nan}
    if not all(0 <= share <= 1 for share in numbers.values()):
        raise UserError(f"population {population!r}: expected shares that are numbers from 0 to 1")
    if abs(math.fsum(numbers.values()) - 1) > 1e-6:
        raise UserError(f"population {population!r}: the shares sum to {math.fsum(numbers.values()):g}; expected 1")
    return numbers


def post_stratified(
    pairs: Sequence[Pair], population: Mapping[str, float], name: str = "the data"
) -> tuple[list[Pair], Mix]:
    """Merges the votes of all groups on the same texts, weighted to the shares of a population.

    A merged pair keeps the counts of its votes if they have equal weights; else it has a label alone, from which
    `sparse_label` draws one vote of the mix.

    Args:
        pairs: Pairs with `group`; the votes of several groups on the same texts are pairs of their own.
        population: As from `parse_population`.
        name: What the pairs are, for errors.

    Returns:
        One pair for each distinct (texts, models, criteria, reference) with `weight` and without `group`, at the place
        of its first votes; and a summary.

    Raises:
        DataError: If a pair has no group; if a group of the data has no share, or one with a share has no votes.
    """
    for pair in pairs:
        if pair.group is None:
            raise DataError(f"{name}: pair {pair.id!r} has no group; a population requires one in every pair")
    groups = list(dict.fromkeys(pair.group for pair in pairs))
    if unnamed := [group for group in groups if group not in population]:
        raise DataError(
            f"{name}: the population has no share for {', '.join(map(repr, unnamed))}; expected one for every group, "
            "0 to leave its votes out"
        )
    texts: dict[Hashable, list[Pair]] = {}  # votes of all groups on the same texts, in the order of the first
    for pair in pairs:
        if population[pair.group]:
            votes = texts.setdefault(pair_key(replace(pair, group=None, weight=None)), [])
            votes.append(in_order_of(votes[0], pair) if votes else pair)
    requested = {group: share for group, share in population.items() if share}
    mass = dict.fromkeys(requested, 0.0)
    for votes in texts.values():
        for pair, share in zip(votes, _shares_of_votes(votes), strict=True):
            mass[pair.group] += _weight(pair) * share
    if missing := [group for group in requested if not mass[group]]:
        raise DataError(f"{name}: no votes of {', '.join(map(repr, missing))}; groups: {', '.join(map(repr, groups))}")
    total = sum(mass.values())
    factors = {group: share * len(texts) / mass[group] for group, share in requested.items()}
    merged = [_merged(votes, factors) for votes in texts.values()]
    weights = np.array([pair.weight for pair in merged])
    return merged, Mix(
        requested,
        {group: m / total for group, m in mass.items()},
        sum(not population[pair.group] for pair in pairs),
        len(merged),
        float(weights.size * (weights**2).sum() / weights.sum() ** 2),
    )


def pair_weights(pairs: Sequence[Pair]) -> np.ndarray | None:
    """Weights of N pairs, shape (N,), with mean 1; None if they are equal."""
    weights = np.array([_weight(pair) for pair in pairs], dtype=float)
    return None if np.ptp(weights) <= 1e-9 * weights.max() else weights / weights.mean()


def drawn_by_weight(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """As many pairs, repeated in proportion to their weights, to train on; the given ones if the weights are equal.

    The expected number of copies is the weight (with mean 1), and every number is within 1 of it (systematic sampling,
    Madow 1949), so pairs of small weight may be left out. Copies have ids of their own, so that `sparse_label` draws a
    vote for each.
    """
    weights = pair_weights(pairs)
    if weights is None:
        return list(pairs)
    generator = np.random.default_rng([seed, len(pairs)])
    order = generator.permutation(len(pairs))
    ends = np.floor(np.cumsum(weights[order]) + generator.random() + 1e-9).astype(int)
    copies = np.empty(len(pairs), dtype=int)
    copies[order] = np.diff(ends, prepend=0)
    return [
        replace(pair, weight=None, id=pair.id if copy == 0 else f"{pair.id}#{copy + 1}")
        for pair, n_copies in zip(pairs, copies.tolist(), strict=True)
        for copy in range(n_copies)
    ]


def _weight(pair: Pair) -> float:
    return 1.0 if pair.weight is None else pair.weight


def _shares_of_votes(votes: Sequence[Pair]) -> np.ndarray:
    """Share of each group in the number of votes on the same texts."""
    numbers = np.array([pair.n_votes or 1 for pair in votes])
    return numbers / numbers.sum()


def _merged(votes: Sequence[Pair], factors: Mapping[str, float]) -> Pair:
    """One pair from the votes of several groups, all in the same order."""
    of_vote = np.array([_weight(pair) * factors[pair.group] for pair in votes])
    of_group = of_vote * _shares_of_votes(votes)
    first = replace(votes[0], group=None, weight=float(of_group.sum()))
    if len(votes) == 1:
        return first
    if np.ptp(of_vote) <= 1e-9 * of_vote.max() and all(pair.votes_a is not None for pair in votes):
        return reduce(added, votes[1:], first)
    truths = {pair.true_probability for pair in votes}
    return replace(
        first,
        label=float(np.average([pair.label for pair in votes], weights=of_group)) if of_group.any() else first.label,
        true_probability=truths.pop() if len(truths) == 1 else None,
        **dict.fromkeys(("n_votes", "votes_a", "votes_b", "votes_tie")),
    )
