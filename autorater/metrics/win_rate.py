"""Win rate of one system from many judged pairs and few human votes, with an interval that a bad judge cannot spoil.

PPI++ (arXiv 2311.01453) corrects the mean vote by the judge's mean over the other pairs:

    θ(λ) = mean votes + λ (mean judged − mean judged_voted)

Its expectation is the win rate by people for every λ and every judge, if the pairs with votes are a random sample. The
tuned λ, cov(votes, judged_voted) / ((1 + n/N) var judged_voted), minimizes the variance for independent pairs. The
variance itself is summed over clusters: Σ (A_c + λ B_c)², where A_c and B_c are the centred terms of the mean vote and
of the difference of the judge's means, summed over the pairs of cluster c.

Few votes make corrections necessary. λ is estimated, so its influence is part of the variance. If few pairs have large
residuals, as those of a judge that agrees with almost every vote, they say little about the variance: Student's t has
the degrees of freedom that the fourth moment implies (Satterthwaite), and the half-width is at least the rate of
disagreements that n votes without one do not exclude, −log((1 − confidence)/2)/n. Near 0 and 1 an interval is not
symmetric: it is Wilson's interval of the votes alone, with its half-width scaled by the ratio of the standard errors
and its shift towards 1/2 by the ratio of the variances. If the half-width is above 1.05 times that of the votes alone,
the result is the votes alone.

With ten clusters there are ten points only. So λ is not estimated from sums over clusters, and the ratio is no smaller
than its geometric mean with the ratio for independent pairs, which has the weight 10 / (10 + clusters). Coverage and
width in simulated studies are in benchmarks/README.md.

Beside it: the votes alone; the judge alone, whose interval ignores the judge's errors; Rogan–Gladen (1978) for the
judge's verdicts, which divides by sensitivity + specificity − 1, with Fieller's interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from autorater.metrics.agreement import verdicts
from autorater.metrics.clusters import as_values, cluster_numbers, effective_number
from autorater.metrics.intervals import wilson_interval
from autorater.metrics.validation import check_equal_lengths, check_probabilities, check_share

MAX_WIDTH = 1.05
"""The interval is at most this times as wide as that of the votes alone."""
_FEW_CLUSTERS = 10


def estimate_win_rate(
    judged: ArrayLike,
    judged_voted: ArrayLike,
    votes: ArrayLike,
    *,
    clusters: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
    confidence: float = 0.95,
) -> dict[str, float | str | None]:
    """Share of pairs that the system wins by people's votes, a tie counting one half.

    Args:
        judged: shape (N,), Pr[the system wins] by the judge for pairs without votes, in [0, 1].
        judged_voted: shape (n,), the same for pairs with votes, which must be a random sample of all pairs.
        votes: shape (n,), their votes: 1 won, 0 lost, 0.5 a tie, or the mean of several votes.
        clusters: Dependent pairs, such as those of one prompt, have equal values: a tuple of the values of the N
            judged and of the n voted pairs, or one array of shape (N + n,) in this order. An array of shape (n,) is
            of the voted pairs alone; the others then count as independent.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        `value`, `low`, `high` and `method` ("PPI++", or "votes alone" if the judge is of no use); the same for other
        estimates under `votes_only_…`, `judge_only_…` and `rogan_gladen_…` (value None, interval [0, 1], if verdicts
        are no better than chance). `lambda`; `votes_gained`, the further votes that votes alone would require for as
        narrow an interval; `n_judged`, `n_votes`, and `n_clusters` of the votes. Votes of a single cluster bound
        nothing: their intervals are [0, 1].

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside their range.

    Example:
        >>> votes, judged_voted = [1, 0, 1, 1, 0, 1] * 10, [0.8, 0.3, 0.7, 0.9, 0.1, 0.6] * 10
        >>> rate = estimate_win_rate([0.6, 0.5, 0.7] * 100, judged_voted, votes)
        >>> bool(rate["low"] < rate["value"] < rate["high"])
        True
    """
    study = _Study.of(judged, judged_voted, votes, clusters, confidence)
    value, ratio, weight = study.corrected()
    voted, low, high = study.votes_alone()
    scale = 1.0 if ratio is None else ratio
    middle, half = value + scale**2 * ((low + high) / 2 - voted), scale * (high - low) / 2
    value = float(np.clip(value, 0, 1))
    return {
        "value": value,
        "low": float(np.clip(middle - half, 0, value)),
        "high": float(np.clip(middle + half, value, 1)),
        "method": "votes alone" if ratio is None else "PPI++",
        **_named("votes_only", voted, low, high),
        **_named("judge_only", *study.judge_alone()),
        **_named("rogan_gladen", *study.rogan_gladen()),
        "lambda": weight,
        "votes_gained": study.votes.size * (scale**-2 - 1),
        "n_judged": study.judged.size,
        "n_votes": study.votes.size,
        "n_clusters": study.n_clusters,
    }


def votes_only_win_rate(
    judged_voted: ArrayLike, votes: ArrayLike, *, clusters: ArrayLike | None = None, confidence: float = 0.95
) -> dict[str, float | str | None]:
    """The win rate where all pairs have votes, to which a judge adds nothing.

    Args, returns and errors as in `estimate_win_rate`; `clusters` are of the n pairs.
    """
    study = _Study.of(judged_voted, judged_voted, votes, None, confidence)
    members = np.arange(study.votes.size) if clusters is None else cluster_numbers(clusters)
    check_equal_lengths(votes=study.votes, clusters=members)
    study = replace(study, judged=study.judged[:0], members=members)
    voted = study.votes_alone()
    return {
        **dict(zip(("value", "low", "high"), voted, strict=True)),
        "method": "votes alone",
        **_named("votes_only", *voted),
        **_named("judge_only", *study.judge_alone()),
        **_named("rogan_gladen", None, 0.0, 1.0),
        "lambda": 0.0,
        "votes_gained": 0.0,
        "n_judged": 0,
        "n_votes": study.votes.size,
        "n_clusters": study.n_clusters,
    }


def votes_for_width(
    judged: ArrayLike,
    judged_voted: ArrayLike,
    votes: ArrayLike,
    width: float,
    *,
    clusters: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
    confidence: float = 0.95,
) -> int:
    """How many more votes make the interval of `estimate_win_rate` as narrow as `width`.

    Assumes that further votes are on pairs of the same kind, first on the judged ones, and are as correlated with the
    judge. With n' of M pairs voted, the width is 2 t sqrt(σ² (1 − ρ² (1 − n'/M)) / n').

    Args:
        width: Requested width, high − low, in (0, 1).

    Other args and errors as in `estimate_win_rate`.

    Returns:
        0 if the interval is as narrow already.
    """
    if not 0 < width < 1:
        raise ValueError(f"width is {width}; expected a value in (0, 1)")
    study = _Study.of(judged, judged_voted, votes, clusters, confidence)
    rate = estimate_win_rate(judged, judged_voted, votes, clusters=clusters, confidence=confidence)
    if rate["high"] - rate["low"] <= width:
        return 0
    n, total = study.votes.size, study.votes.size + study.judged.size
    ratio = study.corrected()[1] or 1.0
    half_alone = (rate["votes_only_high"] - rate["votes_only_low"]) / 2
    unit = n * half_alone**2  # squared half-width with a single vote and no judge
    explained = np.clip((1 - ratio**2) / (1 - n / total), 0, 1)
    # (width/2)² n' = unit (1 − explained + explained n'/M) is linear in n' while judged pairs are left
    slope = (width / 2) ** 2 - unit * explained / total
    required = unit * (1 - explained) / slope if slope > 0 else np.inf
    if required > total:
        required = unit / (width / 2) ** 2
    return max(1, int(np.ceil(required - 1e-9)) - n)


@dataclass(frozen=True)
class _Study:
    judged: np.ndarray
    judged_voted: np.ndarray
    votes: np.ndarray
    members: np.ndarray  # cluster of each judged, then of each voted pair, numbered from 0
    confidence: float

    @classmethod
    def of(cls, judged, judged_voted, votes, clusters, confidence) -> "_Study":
        judged = check_probabilities("judged", judged)
        judged_voted = check_probabilities("judged_voted", judged_voted)
        votes = check_probabilities("votes", votes)
        check_equal_lengths(judged_voted=judged_voted, votes=votes)
        check_share("confidence", confidence)
        members = cluster_members(clusters, judged.size, votes.size)
        return cls(judged, judged_voted, votes, members, confidence)

    @property
    def sizes(self) -> np.ndarray:
        """Votes by cluster, clusters without votes left out."""
        sizes = np.bincount(self.members[self.judged.size :])
        return sizes[sizes > 0]

    @property
    def n_clusters(self) -> int:
        return self.sizes.size

    @property
    def freedom(self) -> float:
        """Effective number of clusters of the votes, Kish (1965), less one."""
        return max(1.0, effective_number(self.sizes) - 1)

    def quantile(self, freedom: float) -> float:
        return float(stdtrit(freedom, (1 + self.confidence) / 2))

    def summed(self, judged: np.ndarray | None, voted: np.ndarray | None) -> np.ndarray:
        """Terms of the pairs summed by cluster; None for zeros."""
        judged = np.zeros(self.judged.size) if judged is None else judged
        voted = np.zeros(self.votes.size) if voted is None else voted
        return np.bincount(self.members, np.concatenate([judged, voted]))

    def vote_terms(self) -> np.ndarray:
        return self.summed(None, (self.votes - self.votes.mean()) / self.votes.size)

    def votes_alone(self) -> tuple[float, float, float]:
        mean, groups = float(self.votes.mean()), self.n_clusters
        if groups < 2:
            return mean, 0.0, 1.0
        variance = (self.vote_terms() ** 2).sum() * groups / (groups - 1)
        # without any difference between clusters, as if each were one vote
        trials = mean * (1 - mean) / variance if variance > 1e-15 else groups
        low, high = wilson_interval(mean, trials, self.quantile(self.freedom))
        return mean, float(low), float(high)

    def corrected(self) -> tuple[float, float | None, float]:
        """θ(λ), its half-width relative to that of votes alone (None if they are the result), and λ."""
        alone = float(self.votes.mean()), None, 0.0
        n_judged, n, groups = self.judged.size, self.votes.size, self.n_clusters
        vote, answer = self.votes - self.votes.mean(), self.judged_voted - self.judged_voted.mean()
        spread, squares = (self.vote_terms() ** 2).sum() * groups, (answer**2).sum() * (1 + n / n_judged)
        if groups < 4 or spread <= 1e-15 or squares <= 1e-15:
            return alone
        weight = float((vote * answer).sum() / squares)
        difference = float(self.judged.mean() - self.judged_voted.mean())
        influence_of_weight = answer * (vote - weight * answer) / squares
        residuals = self.summed(
            weight * (self.judged - self.judged.mean()) / n_judged,
            (vote - weight * answer) / n + difference * influence_of_weight,
        )
        second, fourth = (residuals**2).sum(), (residuals**4).sum()
        excess = fourth - second**2 / groups
        freedom = min(2 * second**2 / excess if excess > 0 else np.inf, max(1.0, self.freedom - 1))
        variance = second * groups * (n - 1) / (n - 2)  # the factor 1 / (groups − 1) is that of `spread` too
        ratio = np.sqrt(variance / spread) * self.quantile(freedom) / self.quantile(self.freedom)
        independent = np.sqrt((1 - weight * (vote * answer).sum() / (vote**2).sum()) * (n - 1) / (n - 2))
        trust = groups / (groups + _FEW_CLUSTERS)
        ratio = max(ratio, ratio**trust * independent ** (1 - trust))
        _, low, high = self.votes_alone()
        ratio = max(ratio, -2 * np.log((1 - self.confidence) / 2) / n / (high - low))
        if ratio > MAX_WIDTH:
            return alone
        return alone[0] + weight * difference, float(ratio), weight

    def judge_alone(self) -> tuple[float, float, float]:
        answers = np.concatenate([self.judged, self.judged_voted])
        mean = float(answers.mean())
        terms = np.bincount(self.members, (answers - mean) / answers.size)
        terms = terms[np.bincount(self.members) > 0]
        groups = terms.size
        if groups < 2:
            return mean, 0.0, 1.0
        half = self.quantile(groups - 1) * float(np.sqrt((terms**2).sum() * groups / (groups - 1)))
        return mean, max(0.0, mean - half), min(1.0, mean + half)

    def rogan_gladen(self) -> tuple[float | None, float, float]:
        verdict, verdict_voted = ((1 + verdicts(p)) / 2 for p in (self.judged, self.judged_voted))
        won, lost, groups = self.votes.sum(), (1 - self.votes).sum(), self.n_clusters
        if not (won and lost) or groups < 2:
            return None, 0.0, 1.0
        rate = verdict.mean()
        hit, false = (self.votes * verdict_voted).sum() / won, ((1 - self.votes) * verdict_voted).sum() / lost
        # rate = θ hit + (1 − θ) false; x − θ z has the expectation 0, for the terms of every cluster too
        x, z = rate - false, hit - false
        false_terms = (1 - self.votes) * (verdict_voted - false) / lost
        x_terms = self.summed((verdict - rate) / verdict.size, -false_terms)
        z_terms = self.summed(None, self.votes * (verdict_voted - hit) / won - false_terms)
        factor = self.quantile(self.freedom) ** 2 * groups / (groups - 1)
        a, b, c = (m - factor * s for m, s in (
            (z * z, (z_terms**2).sum()), (x * z, (x_terms * z_terms).sum()), (x * x, (x_terms**2).sum())
        ))  # fmt: skip
        if z <= 0 or a <= 0:
            return None, 0.0, 1.0
        root = np.sqrt(max(0.0, b * b - a * c))
        return tuple(float(np.clip(end, 0, 1)) for end in (x / z, (b - root) / a, (b + root) / a))


def cluster_members(clusters: ArrayLike | Sequence[ArrayLike] | None, n_judged: int, n_voted: int) -> np.ndarray:
    """Numbers of the clusters of judged pairs, then of voted pairs, from 0; see `estimate_win_rate`.

    Raises:
        ValueError: lengths that do not match.
    """
    total = n_judged + n_voted
    if clusters is None:
        return np.arange(total)
    if isinstance(clusters, tuple) and len(clusters) == 2:
        first, second = map(as_values, clusters)
        if (len(first), len(second)) != (n_judged, n_voted):
            raise ValueError(
                f"clusters have shapes ({len(first)},) and ({len(second)},); expected ({n_judged},) and ({n_voted},)"
            )
        clusters = first + second
    clusters = cluster_numbers(clusters)
    if clusters.shape == (n_voted,):
        return np.concatenate([n_voted + np.arange(n_judged), clusters])
    if clusters.shape != (total,):
        raise ValueError(
            f"clusters has shape {clusters.shape}; expected ({total},) for judged and voted pairs, ({n_voted},) for "
            "voted pairs, or a tuple of both"
        )
    return clusters


def _named(prefix: str, value: float | None, low: float, high: float) -> dict[str, float | None]:
    return {f"{prefix}_value": value, f"{prefix}_low": low, f"{prefix}_high": high}
