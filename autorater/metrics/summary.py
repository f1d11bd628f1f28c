"""All metrics of one judge over pairs judged in both orders, as flat keys.

Order ab is measured against the label y, order ba against 1 − y: calibration is measured over the 2N answers.
Intervals resample pairs, so the two orders of a pair, which share their votes, stay together. Weights apply to all
that is measured against votes or a known truth; consistency and position bias are of the pairs as they are.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import TIE_BAND, agreement_credits, three_way_agreement, verdicts
from autorater.metrics.binning import N_BINS, bin_indices
from autorater.metrics.calibration import calibration_metrics, expected_calibration_error
from autorater.metrics.chance_agreement import Kappa, annotator_statistics
from autorater.metrics.clusters import cluster_numbers, effective_number
from autorater.metrics.intervals import BinnedGap, Mean, Share, Statistic, bootstrap, point_estimate, point_estimates
from autorater.metrics.noise import noise_floors
from autorater.metrics.position import position_bias, position_statistics, position_terms, symmetrize
from autorater.metrics.scores import brier_scores, log_scores, squared_errors
from autorater.metrics.validation import (
    DECIMALS,
    LEAST_VALID,
    check_at_least,
    check_equal_lengths,
    check_orders,
    check_probabilities,
    check_votes,
    check_weights,
)

Measured = tuple[dict[str, float], dict[str, Statistic]]
"""Values of metrics, and the statistics that have intervals."""


@dataclass(frozen=True)
class Targets:
    """What the answers for N pairs are measured against.

    Attributes:
        labels: shape (N,), Pr[B preferred] by the votes, in [0, 1]; None without votes.
        n_votes: votes per label, one number or shape (N,).
        true_probability: shape (N,), p* = Pr[B preferred], known for simulated annotators.
        clusters: shape (N,), pairs with equal values are resampled together.
        weights: shape (N,), at least 0, how much each pair counts; None if all count the same.
        counts: shape (N, 3), votes for A, for neither and for B.
    """

    labels: ArrayLike | None = None
    n_votes: ArrayLike | None = None
    true_probability: ArrayLike | None = None
    clusters: ArrayLike | None = None
    weights: ArrayLike | None = None
    counts: ArrayLike | None = None

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The fields that have one value per pair, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: np.asarray(column) for name, column in values.items() if np.ndim(column)}

    def __getitem__(self, rows: np.ndarray) -> Self:
        """The targets of some of the pairs."""
        return replace(self, **{name: column[rows] for name, column in self.columns.items()})


def judge_metrics(
    answers: ArrayLike,
    targets: Targets,
    *,
    valid: ArrayLike | None = None,
    mode: ArrayLike | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """All metrics of one judge, as JSON-ready floats; undefined metrics have no key.

    Args:
        answers: shape (N, 2), in [0, 1]: column 0 p_ab = Pr[B better] from order ab, column 1 p_ba = Pr[A better] from
            order ba.
        targets: of the N pairs. Without labels the keys that depend on them are left out.
        valid: shape (N, 2), whether each answer parses, or the probability that it does, in [0, 1]; default 1.
        mode: shape (N, 2), the verbalized answers if `answers` are means, in [0, 1]; used by `distinct_answers`.
        n_bootstrap: rounds of the bootstrap; 0 for no intervals.
        seed: seed of the bootstrap and of the noise floor.

    Returns:
        - the keys of `calibration_metrics` and `three_way_agreement` over the 2N answers, and those of
          `position_bias` over the pairs with an answer in both orders (validity above 0), or all if there is none;
        - `gap`, mean signed overconfidence: how much further from 1/2 the answers are than the votes, on the side that
          the answer favours, in [−1, 1]; an answer of 1/2 adds 0;
        - `cohen_kappa` over the 2N answers; with counts and without weights, `alpha_annotators` and, for p_sym,
          `alpha_with_judge`, see `annotator_statistics`;
        - `agreement` over the 2N answers; `excess_brier`, mean (p − p*)², with a known truth;
        - `brier`, `log_loss`, `mse_dense`, `ece`, `agreement`, `excess_brier` of p_sym = (p_ab + 1 − p_ba)/2, each
          with the suffix `_symmetrized`;
        - `<key>_constant` for `brier`, `mse_dense` and `excess_brier`: the value of always answering 1/2; and, with
          labels, `<key>_base_rate`: of always answering these pairs' mean label;
        - `<key>_noise_floor`, the value for a perfect judge with these answers and as many votes, for `brier`,
          `log_loss`, and, if `n_votes` is given or all labels are single votes (0, 1/2 or 1), `mse_dense`, `ece` and
          `ece_quantile`;
        - with weights, `n_pairs_effective` = (Σ w)² / Σ w², the number of equally weighted pairs that would be as
          informative, Kish (1965);
        - `parse_rate`, mean validity; `distinct_answers`, distinct modes if given, else distinct p; `n_pairs`;
        - `<key>_low` and `<key>_high`, 95 % bootstrap, for `brier`, `log_loss`, `ece`, `gap`, `mse_dense`,
          `excess_brier`, `agreement`, `agreement_three_way`, `cohen_kappa`, `alpha_…`, `parse_rate` and those of
          `position_bias` but `sharpness_symmetrized`.

    Raises:
        ValueError: empty input, other shapes, unequal lengths, NaN, values outside their range.
    """
    answers = check_orders("answers", answers)  # (2, N), as valid and mode
    valid = np.ones_like(answers) if valid is None else check_orders("valid", valid)
    mode = answers if mode is None else check_orders("mode", mode)
    named = {"labels": targets.labels, "true_probability": targets.true_probability}
    checked = {name: check_probabilities(name, values) for name, values in named.items() if values is not None}
    clusters = None if targets.clusters is None else cluster_numbers(targets.clusters)
    weights = check_weights(targets.weights, answers.shape[1])
    check_equal_lengths(answers=answers[0], valid=valid[0], mode=mode[0], **checked, clusters=clusters)
    check_at_least("n_bootstrap", n_bootstrap, 0)
    targets = replace(targets, clusters=clusters, **checked)
    parsed = (valid[0] + valid[1]) / 2

    report = {"n_pairs": float(answers.shape[1]), "parse_rate": float(parsed.mean())}
    positions, of_positions = _of_positions(answers, valid)
    report |= positions
    if targets.weights is not None:
        report["n_pairs_effective"] = effective_number(weights)
    statistics: dict[str, Statistic] = {}
    if targets.labels is not None:
        values, of_votes = _against_votes(answers, targets, weights, seed)
        report, statistics = report | values, statistics | of_votes
    if targets.true_probability is not None:
        values, of_truth = _against_truth(answers, targets, weights)
        report, statistics = report | values, statistics | of_truth
    report["distinct_answers"] = float(np.unique(mode.round(DECIMALS)).size)
    report["sharpness"] = float(answers.var())
    statistics |= of_positions | {"parse_rate": Share(parsed)}
    if n_bootstrap:
        report |= bootstrap(statistics, n_bootstrap, seed, clusters)
    return report


def _of_positions(answers: np.ndarray, valid: np.ndarray) -> Measured:
    """Position bias and consistency of the pairs with an answer in both orders, or of all if there is none."""
    p_ab, p_ba = answers
    answered = (valid > LEAST_VALID).all(axis=0)
    answered = answered if answered.any() else ~answered
    statistics = position_statistics(position_terms(p_ab, p_ba), answered)
    return position_bias(p_ab[answered], p_ba[answered]), statistics


def _against_votes(answers: np.ndarray, targets: Targets, weights: np.ndarray, seed: int) -> Measured:
    """What is measured against the labels and the votes."""
    label = targets.labels
    both = np.stack([label, 1 - label])  # (2, N)
    references = _references(answers, label, weights)
    report, statistics = _calibration(answers, targets, weights, seed), {}
    for name, score in {"brier": brier_scores, "log_loss": log_scores, "mse_dense": squared_errors}.items():
        statistics[name] = _weighted(score(answers, both).mean(axis=0), weights)
        for kind in ("symmetrized",) if name == "log_loss" else ("symmetrized", "constant", "base_rate"):
            report[f"{name}_{kind}"] = point_estimate(_weighted(score(references[kind], label), weights))
    statistics["ece"] = _calibration_gap(answers, both, weights)
    report["ece_symmetrized"] = expected_calibration_error(references["symmetrized"], label, weights=weights)
    statistics["gap"] = _weighted((verdicts(answers) * (answers - both)).mean(axis=0), weights)
    report["gap"] = point_estimate(statistics["gap"])
    agreement, of_agreement = _agreement(answers, targets, weights)
    return report | agreement, statistics | of_agreement


def _agreement(answers: np.ndarray, targets: Targets, weights: np.ndarray) -> Measured:
    """Agreement with the majority of the votes, with and without ties, and beyond chance."""
    label, symmetrized = targets.labels, symmetrize(*answers)
    both = np.stack([label, 1 - label])  # (2, N)
    report, statistics = {}, {}
    credit, counted = agreement_credits(answers, both)
    statistics["agreement"] = Share(weights * credit.sum(axis=0), weights * counted.sum(axis=0))
    if (weights * counted).any():
        report["agreement"] = point_estimate(statistics["agreement"])
        of_both = weights @ agreement_credits(symmetrized, label)[0]
        report["agreement_symmetrized"] = float(of_both / (weights @ counted[0]))

    same = verdicts(answers, TIE_BAND) == verdicts(both, TIE_BAND)
    statistics["agreement_three_way"] = Share(weights * same.mean(axis=0), weights)
    report |= three_way_agreement(answers.ravel(), both.ravel(), np.tile(weights, 2))
    beyond_chance: dict[str, Statistic] = {"cohen_kappa": Kappa(answers, both, weights)}
    if targets.counts is not None and targets.weights is None:
        beyond_chance |= annotator_statistics(np.asarray(targets.counts, dtype=np.float64), symmetrized)
    values = point_estimates(beyond_chance)
    report |= {name: value for name, value in values.items() if not np.isnan(value)}
    return report, statistics | beyond_chance


def _against_truth(answers: np.ndarray, targets: Targets, weights: np.ndarray) -> Measured:
    """The excess Brier score of the answers and of what they are compared with."""
    truth = targets.true_probability
    excess = squared_errors(answers, np.stack([truth, 1 - truth])).mean(axis=0)
    statistics = {"excess_brier": _weighted(excess, weights)}
    report = {"excess_brier": point_estimate(statistics["excess_brier"])}
    for kind, reference in _references(answers, targets.labels, weights).items():
        report[f"excess_brier_{kind}"] = point_estimate(_weighted(squared_errors(reference, truth), weights))
    return report, statistics


def _references(answers: np.ndarray, label: np.ndarray | None, weights: np.ndarray) -> dict[str, np.ndarray]:
    """What single answers are compared with, shape (N,) each: always 1/2, p_sym and, with labels, their mean."""
    references = {"constant": np.full(answers.shape[1], 0.5), "symmetrized": symmetrize(*answers)}
    if label is not None:
        references["base_rate"] = np.full(label.size, point_estimate(_weighted(label, weights)))
    return references


def _weighted(values: np.ndarray, weights: np.ndarray) -> Mean:
    return Mean(weights * values, weights)


def _calibration(answers: np.ndarray, targets: Targets, weights: np.ndarray, seed: int) -> dict[str, float]:
    """`calibration_metrics` of the 2N answers with their noise floors."""
    label = targets.labels
    votes = None if targets.n_votes is None else check_votes(targets.n_votes, label.size)
    both = np.concatenate([label, 1 - label])
    units = np.tile(np.arange(label.size) if targets.clusters is None else targets.clusters, 2)
    weights = np.tile(weights, 2)
    report = calibration_metrics(answers.ravel(), both, None if votes is None else np.tile(votes, 2), units, weights)
    if votes is None and np.isin(label, [0, 0.5, 1]).all():
        votes = np.ones(label.size)
    votes = None if votes is None else np.tile(votes, 2)
    floors = noise_floors(answers.ravel(), votes, seed, weights, both_orders=True)
    return report | {f"{name}_noise_floor": floor for name, floor in floors.items()}


def _calibration_gap(answers: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> BinnedGap:
    """The ECE of both orders, (2, N) each, with each pair's mean residual per bin."""
    n_pairs = answers.shape[1]
    entries = bin_indices(answers.ravel(), N_BINS, "uniform") + N_BINS * np.tile(np.arange(n_pairs), 2)
    residuals = np.bincount(entries, (weights * (targets - answers)).ravel() / 2, N_BINS * n_pairs)
    return BinnedGap(residuals.reshape(n_pairs, N_BINS), weights)
