"""The whole report of one judge over pairs read in both orders, as flat keys.

Order ab is judged against the label y, order ba against 1 − y: calibration is measured over the 2N answers. Intervals
resample pairs, so the two orders of a pair, which share their votes, are never torn apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import agreement_credits, check_tie_band, macro_f1, verdict_classes, verdicts
from autorater.metrics.binning import bin_indices
from autorater.metrics.calibration import calibration_metrics, expected_calibration_error
from autorater.metrics.intervals import BinnedGap, Mean, Share, Statistic, bootstrap
from autorater.metrics.noise import noise_floors
from autorater.metrics.position import position_bias, position_terms, symmetrize
from autorater.metrics.scores import brier_scores, log_scores, squared_errors
from autorater.metrics.validation import (
    DECIMALS,
    check_at_least,
    check_equal_lengths,
    check_probabilities,
    check_votes,
)

_N_BINS = 10


def _gaps_by_bin(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Residuals of both orders, (2, N), as each pair's mean residual in each bin, (N, K)."""
    n_pairs = answers.shape[1]
    cells = bin_indices(answers.ravel(), _N_BINS, "uniform") + _N_BINS * np.tile(np.arange(n_pairs), 2)
    return np.bincount(cells, (targets - answers).ravel() / 2, _N_BINS * n_pairs).reshape(n_pairs, _N_BINS)


def judge_metrics(
    p_ab: ArrayLike,
    p_ba: ArrayLike,
    labels: ArrayLike | None,
    *,
    n_votes: ArrayLike | None = None,
    true_probability: ArrayLike | None = None,
    valid_ab: ArrayLike | None = None,
    valid_ba: ArrayLike | None = None,
    verbalized_ab: ArrayLike | None = None,
    verbalized_ba: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    tie_band: float = 0.05,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Everything there is to say about one judge, as JSON-ready floats; undefined metrics have no key.

    Args:
        p_ab: shape (N,), Pr[B better] read from order ab, in [0, 1].
        p_ba: shape (N,), Pr[A better] read from order ba, in [0, 1].
        labels: shape (N,), Pr[B preferred] by the votes, in [0, 1]; None if there are no votes, which leaves the
            keys that need none.
        n_votes: votes behind each label, one number or shape (N,).
        true_probability: shape (N,), p* = Pr[B preferred], where the annotators are simulated.
        valid_ab: shape (N,), whether the read was valid, or the probability that it is, in [0, 1]; default 1.
        valid_ba: the same for order ba.
        verbalized_ab: shape (N,), the answers as said (the mode, where p_ab is a mean), in [0, 1].
        verbalized_ba: the same for order ba.
        clusters: shape (N,), pairs with equal values are resampled together.
        tie_band: for `agreement_three_way` and `macro_f1`, answers and labels this close to 1/2 are ties.
        n_bootstrap: rounds of the bootstrap; 0 for no intervals.
        seed: seed of the bootstrap and of the noise floor.

    Returns:
        - the keys of `calibration_metrics` over the 2N answers, and those of `position_bias`;
        - `gap`, mean signed overconfidence: how much further from 1/2 the answers are than the votes, on the side that
          the answers are on, in [−1, 1]; above 0 is overconfident, and an answer of 1/2 adds 0;
        - `agreement`, `agreement_three_way` and `macro_f1` over the 2N answers; `excess_brier`, mean (p − p*)², with a
          known truth;
        - `brier`, `log_loss`, `mse_dense`, `ece`, `agreement`, `excess_brier` of p_sym = (p_ab + 1 − p_ba)/2, each
          with the suffix `_symmetrized`;
        - `<key>_noise_floor`, what a perfect judge with these answers would show on as many votes, for `brier`,
          `log_loss`, and, where `n_votes` is given or all labels are single votes (0, 1/2 or 1), `mse_dense`, `ece`
          and `ece_quantile`;
        - `parse_rate`, mean validity; `distinct_answers`, distinct verbalized answers if given, else distinct p;
          `n_pairs`; `sharpness` of the answers;
        - `<key>_low` and `<key>_high`, 95 % bootstrap, for `brier`, `log_loss`, `ece`, `gap`, `mse_dense`,
          `excess_brier`, `agreement`, `agreement_three_way`, `consistency`, `flip_rate`, `first_slot_share`,
          `symmetry_deviation_mean`, `symmetry_deviation_abs` and `parse_rate`.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside their range.
    """
    given = {
        "p_ab": p_ab,
        "p_ba": p_ba,
        "labels": labels,
        "true_probability": true_probability,
        "valid_ab": valid_ab,
        "valid_ba": valid_ba,
        "verbalized_ab": verbalized_ab,
        "verbalized_ba": verbalized_ba,
    }
    arrays = {name: check_probabilities(name, values) for name, values in given.items() if values is not None}
    check_equal_lengths(**arrays, **({} if clusters is None else {"clusters": np.asarray(clusters)}))
    check_at_least("n_bootstrap", n_bootstrap, 0)
    check_tie_band(tie_band)
    p_ab, p_ba = arrays["p_ab"], arrays["p_ba"]
    n_pairs = p_ab.size
    answers = np.stack([p_ab, p_ba])
    symmetrized = symmetrize(p_ab, p_ba)
    valid = (arrays.get("valid_ab", np.ones(n_pairs)) + arrays.get("valid_ba", np.ones(n_pairs))) / 2

    statistics: dict[str, Statistic] = {}
    report = {"n_pairs": float(n_pairs), "parse_rate": float(valid.mean()), **position_bias(p_ab, p_ba)}

    if labels is not None:
        label = arrays["labels"]
        targets = np.stack([label, 1 - label])
        votes = None if n_votes is None else check_votes("n_votes", n_votes, n_pairs)
        report |= calibration_metrics(
            answers.ravel(),
            targets.ravel(),
            None if votes is None else np.tile(votes, 2),
            units=np.tile(np.arange(n_pairs) if clusters is None else clusters, 2),
        )
        if votes is None and np.isin(label, [0, 0.5, 1]).all():
            votes = np.ones(n_pairs)
        floors = noise_floors(answers.ravel(), None if votes is None else np.tile(votes, 2), seed)
        report |= {f"{name}_noise_floor": floor for name, floor in floors.items()}

        scores = {"brier": brier_scores, "log_loss": log_scores, "mse_dense": squared_errors}
        for name, score in scores.items():
            statistics[name] = Mean(score(answers, targets).mean(axis=0))
            report[f"{name}_symmetrized"] = float(score(symmetrized, label).mean())
        statistics["ece"] = BinnedGap(_gaps_by_bin(answers, targets))
        report["ece_symmetrized"] = expected_calibration_error(symmetrized, label, _N_BINS)

        gap = (verdicts(answers) * (answers - targets)).mean(axis=0)
        statistics["gap"] = Mean(gap)
        report["gap"] = float(gap.mean())

        credit, counted = agreement_credits(answers, targets)
        statistics["agreement"] = Share(credit.sum(axis=0), counted.sum(axis=0))
        if counted.any():
            report["agreement"] = float(credit.sum() / counted.sum())
            report["agreement_symmetrized"] = float(agreement_credits(symmetrized, label)[0].sum() / counted[0].sum())

        said, voted = (verdict_classes(values.ravel(), tie_band) for values in (answers, targets))
        same = (said * voted).sum(axis=1)
        statistics["agreement_three_way"] = Share(same.reshape(2, n_pairs).mean(axis=0))
        report |= {"agreement_three_way": float(same.mean()), "macro_f1": macro_f1(said, voted)}

    if true_probability is not None:
        truth = arrays["true_probability"]
        excess = squared_errors(answers, np.stack([truth, 1 - truth])).mean(axis=0)
        statistics["excess_brier"] = Mean(excess)
        report["excess_brier"] = float(excess.mean())
        report["excess_brier_symmetrized"] = float(squared_errors(symmetrized, truth).mean())

    verbalized = [arrays[name] for name in ("verbalized_ab", "verbalized_ba") if name in arrays] or [p_ab, p_ba]
    report["distinct_answers"] = float(np.unique(np.concatenate(verbalized).round(DECIMALS)).size)
    report["sharpness"] = float(answers.var())

    terms = position_terms(p_ab, p_ba)
    statistics |= {
        "consistency": Share(terms["consistent"]),
        "flip_rate": Share(1 - terms["consistent"]),
        "first_slot_share": Share(terms["first"], terms["decided"]),
        "symmetry_deviation_mean": Mean(terms["deviation"]),
        "symmetry_deviation_abs": Mean(np.abs(terms["deviation"])),
        "parse_rate": Share(valid),
    }
    if n_bootstrap:
        report |= bootstrap(statistics, n_bootstrap, seed, clusters)
    return report
