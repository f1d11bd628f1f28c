"""The tables of a study in Markdown.

Every number is the mean over the seeds with its 95 % interval, see `benchmarks.study.results`; a dash means that
there is no value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autorater.report.tables import markdown_table
from benchmarks.study.plan import WARM_START
from benchmarks.study.results import (
    MEAN,
    RECALIBRATED,
    TEST,
    Estimate,
    Results,
    first_below,
    over_seeds,
    sparse_pairs_needed,
)

_COLUMNS = {
    "excess_brier": ("excess Brier", 4),
    "excess_brier_symmetrized": ("excess Brier, both orders averaged", 4),
    "ece": ("ECE", 3),
    "gap": ("overconfidence", 3),
    "symmetry_deviation_abs": ("position bias (absolute)", 3),
    "agreement": ("agreement", 3),
    "sharpness": ("sharpness", 4),
}
_METHODS = {
    "verbalized": "verbalized",
    "verbalized_reasoning": "verbalized with reasoning",
    "self_consistency": "self-consistency",
    "self_consistency_reasoning": "self-consistency with reasoning",
    "letter_logits": "A/B logits",
    "answer_mean": "mean of the exact answers",
    "pointwise": "pointwise scores",
    "linear_probe": "linear probe on its states",
}
BASELINES = {"constant": "always 1/2", "length": "length", "tfidf": "TF-IDF and length"}


def number(estimate: Estimate | None, decimals: int = 4) -> str:
    """A mean with its interval; a dash where there is none."""
    if estimate is None:
        return "–"
    value = f"{estimate.value:.{decimals}f}"
    if np.isnan(estimate.low):
        return value
    return f"{value} [{estimate.low:.{decimals}f}, {estimate.high:.{decimals}f}]"


def methods_table(results: Results, dataset: str, test: str = TEST) -> str:
    """All methods of a simulated dataset on one of its tests."""
    rows = []
    for method in results.methods(dataset):
        if not results.has(dataset, method, test):
            continue
        figures = [number(results.estimate(dataset, method, key, test), d) for key, (_, d) in _COLUMNS.items()]
        rows.append([results.title(method), votes(results, dataset, method), *figures])
    for baseline, title in BASELINES.items():
        for name in _text_methods(results, dataset):
            figures = [
                number(results.estimate(dataset, name, key, test, baseline), d) for key, (_, d) in _COLUMNS.items()
            ]
            rows.append([f"*{title}*", votes(results, dataset, name), *figures])
    return markdown_table(["", "votes", *(title for title, _ in _COLUMNS.values())], rows)


def judging_methods_table(results: Results, dataset: str) -> str:
    """The warm-started policy by every judging method and post-processing."""
    rows = []
    for prediction in results.of(dataset, WARM_START)[0]["predictions"]:
        method, *steps = prediction.split("+")
        name = " + ".join([_METHODS[method], *(step.replace("_", " ") for step in steps)])
        reason = results.of(dataset, WARM_START)[0]["predictions"][prediction][TEST].get("reason")
        if reason:
            rows.append([name, f"not available: {reason}", *[""] * (len(_COLUMNS) - 1)])
            continue
        rows.append(
            [
                name,
                *(
                    number(results.estimate(dataset, WARM_START, k, TEST, prediction), d)
                    for k, (_, d) in _COLUMNS.items()
                ),
            ]
        )
    return markdown_table(["", *(title for title, _ in _COLUMNS.values())], rows)


def headline(results: Results, dataset: str) -> dict[str, float | bool]:
    """Ours against the usual recipe: ratios of the means, and whether the intervals are disjoint."""
    ratios: dict[str, float | bool] = {}
    for key in ("excess_brier", "symmetry_deviation_abs"):
        ours, usual = (
            results.estimate(dataset, m, key) for m in (results.plan.figures.ours, results.plan.figures.usual)
        )
        ratios[f"{key}/ours"], ratios[f"{key}/usual"] = ours.value, usual.value
        ratios[f"{key}/ratio"] = ours.value / usual.value
        ratios[f"{key}/largest_ratio_of_a_seed"] = max(a / b for a, b in zip(ours.seeds, usual.seeds, strict=True))
        ratios[f"{key}/intervals_apart"] = bool(ours.high < usual.low or usual.high < ours.low)
    return ratios


def headline_text(ratios: Mapping[str, float | bool]) -> str:
    """The headline as two sentences."""
    lines = []
    for key, name in (("excess_brier", "Excess Brier"), ("symmetry_deviation_abs", "Absolute position bias")):
        apart = "the intervals do not overlap" if ratios[f"{key}/intervals_apart"] else "the intervals overlap"
        lines.append(
            f"{name}: {ratios[f'{key}/ours']:.4f} against {ratios[f'{key}/usual']:.4f}, a ratio of "
            f"{ratios[f'{key}/ratio']:.2f} (at most {ratios[f'{key}/largest_ratio_of_a_seed']:.2f} "
            f"in a seed); {apart}."
        )
    return "\n".join(f"- {line}" for line in lines)


def votes_table(results: Results, dataset: str) -> str:
    """Exact answers for other numbers of pairs and votes, and how many sparse votes a dense label is worth."""
    points = vote_points(results, dataset)
    sparse = sorted((n, e.value) for n, m, e in points if m == 1)
    rows = []
    for n_pairs, n_votes, excess in points:
        worth = "–"
        if n_votes > 1 and sparse:
            needed, beyond = sparse_pairs_needed(*zip(*sparse, strict=True), excess.value)
            worth = f"{beyond}{needed / n_pairs:.1f}"
        rows.append([f"{n_pairs:,}", str(n_votes), f"{n_pairs * n_votes:,}", number(excess), worth])
    return markdown_table(
        ["pairs", "votes per pair", "votes", "excess Brier", "equivalent sparse votes per label"], rows
    )


def vote_points(results: Results, dataset: str) -> list[tuple[int, int, Estimate]]:
    """Pairs, votes per pair and excess Brier of the methods of figure (b), by votes per pair."""
    points = []
    for method in results.plan.figures.votes:
        settings = results.of(dataset, method)[0]["settings"]
        points.append(
            (settings["n_train"], settings.get("n_votes", 1), results.estimate(dataset, method, "excess_brier"))
        )
    return sorted(points, key=lambda point: (point[1], point[0]))


def orders_table(results: Results, dataset: str) -> str:
    """Effect of swap augmentation, coupling and the symmetry term, with and without swap averaging."""
    keys = ("excess_brier", "excess_brier_symmetrized", "symmetry_deviation_abs", "consistency")
    titles = ("excess Brier", "swap averaged", "position bias (absolute)", "consistency")
    rows = [
        [results.title(m), *(number(results.estimate(dataset, m, k), 3 if k == "consistency" else 4) for k in keys)]
        for m in results.plan.figures.orders
    ]
    return markdown_table(["", *titles], rows)


def objective_table(results: Results, dataset: str) -> str:
    """Accuracy on pairs with one correct answer."""
    rows = []
    for method in results.plan.figures.objective:
        both, each = objective_accuracy(results, dataset, method)
        excess = results.estimate(dataset, method, "excess_brier", "objective")
        rows.append([results.title(method), number(both, 3), number(each, 3), number(excess)])
    return markdown_table(["", "correct in both orders", "correct, each order", "excess Brier against 0 and 1"], rows)


def objective_accuracy(results: Results, dataset: str, method: str) -> tuple[Estimate, Estimate]:
    """Accuracy on pairs with one correct answer: correct in both orders, and each order counted separately."""
    both, each = [], []
    for p_ab, p_ba, label, _ in results.answers(dataset, method, "objective"):
        right = np.stack([(p_ab - 0.5) * (label - 0.5) > 0, (0.5 - p_ba) * (label - 0.5) > 0])
        both.append(right.all(axis=0).mean())
        each.append(right.mean())
    return over_seeds(both, (0, 1)), over_seeds(each, (0, 1))


def cost_table(results: Results, dataset: str) -> str:
    """CPU seconds and tokens of training to the target, by method."""
    target, rows = results.plan.figures.target, []
    for method in results.plan.figures.cost:
        reached = [first_below(r["learning_curve"], "excess_brier", target) for r in results.of(dataset, method)]
        best = np.mean([min(p["excess_brier"] for p in r["learning_curve"]) for r in results.of(dataset, method)])
        n = sum(r.reached for r in reached)
        runs = [
            f"{'' if n == len(reached) else '> '}{np.median([getattr(r, key) for r in reached]):,.0f}"
            for key in ("step", "seconds", "tokens")
        ]
        rows.append([results.title(method), f"{n} of {len(reached)}", *runs, f"{best:.4f}"])
    header = ["", f"seeds that reach {target:g}", "steps", "CPU seconds", "tokens", "lowest during training"]
    return markdown_table(header, rows)


def recorded_table(results: Results, dataset: str) -> str:
    """Methods and text baselines on recorded votes: intervals over pairs, MSE of both orders averaged."""
    rows, named = [], []
    for method in results.methods(dataset):
        named.append((method, MEAN, results.title(method)))
        if RECALIBRATED in results.of(dataset, method)[0]["predictions"]:
            named.append((method, RECALIBRATED, f"{results.title(method)}, temperature on the symmetrized logit"))
    named += [(n, b, f"*{t}*") for n in _text_methods(results, dataset) for b, t in BASELINES.items()]
    for method, prediction, title in named:
        mse = results.mean_over_pairs(dataset, method, lambda ab, ba, y: ((ab + 1 - ba) / 2 - y) ** 2, prediction)
        ece, floor, bias, agreement = (
            results.estimate(dataset, method, key, TEST, prediction)
            for key in ("ece", "ece_noise_floor", "symmetry_deviation_abs", "agreement_symmetrized")
        )
        by_seed = ", ".join(f"{value:.4f}" for value in mse.seeds)
        rows.append(
            [title, number(mse), by_seed, f"{ece.value:.4f}", f"{floor.value:.4f}" if floor else "–",
             f"{bias.value:.3f}", f"{agreement.value:.3f}" if agreement else "–"]
        )  # fmt: skip
    return markdown_table(
        [
            "",
            "MSE, both orders averaged",
            "by seed",
            "ECE",
            "noise floor of the ECE",
            "position bias (absolute)",
            "agreement, averaged",
        ],
        rows,
    )


def votes(results: Results, dataset: str, method: str) -> str:
    """Training pairs and votes per pair of a method."""
    settings = results.of(dataset, method)[0]["settings"]
    if method == WARM_START:
        return "0"
    n_pairs, n_votes = (
        settings.get("n_train", results.of(dataset, method)[0].get("n_train")),
        settings.get("n_votes", 1),
    )
    if "dataset_name" in settings:
        return "one per pair" if settings.get("labels", "sparse") == "sparse" else "all per pair"
    return f"{n_pairs:,} × {n_votes}"


def _text_methods(results: Results, dataset: str) -> list[str]:
    return [n for n, m in results.plan.methods.items() if m.trainer == "text" and dataset in m.datasets]
