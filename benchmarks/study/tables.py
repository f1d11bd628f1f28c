"""The tables of a study in Markdown, one a question, each with a sentence that says what stands in it.

Every number is the mean over the seeds with its 95 % interval, see `benchmarks.study.results`; a dash is a figure that
there is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

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
    "symmetry_deviation_abs": ("mean \\|SD\\|", 3),
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
}
_BASELINES = {"constant": "always 1/2", "length": "length", "tfidf": "TF-IDF and length"}


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(estimate: Estimate | None, decimals: int = 4) -> str:
    """A mean with its interval; a dash where there is none."""
    if estimate is None:
        return "–"
    value = f"{estimate.value:.{decimals}f}"
    if np.isnan(estimate.low):
        return value
    return f"{value} [{estimate.low:.{decimals}f}, {estimate.high:.{decimals}f}]"


def methods_table(results: Results, ground: str, test: str = TEST) -> str:
    """All methods of a simulated ground on one of its tests."""
    rows = []
    for method in results.methods(ground):
        if not results.has(ground, method, test):
            continue
        figures = [number(results.estimate(ground, method, key, test), d) for key, (_, d) in _COLUMNS.items()]
        rows.append([results.title(method), votes(results, ground, method), *figures])
    for baseline, title in _BASELINES.items():
        for name in _text_methods(results, ground):
            figures = [
                number(results.estimate(ground, name, key, test, baseline), d) for key, (_, d) in _COLUMNS.items()
            ]
            rows.append([f"*{title}*", votes(results, ground, name), *figures])
    return markdown(["", "votes", *(title for title, _ in _COLUMNS.values())], rows)


def readings_table(results: Results, ground: str) -> str:
    """The warm-started policy read in every way, with everything that can be put on top."""
    rows = []
    for reading in results.of(ground, WARM_START)[0]["readings"]:
        method, *steps = reading.split("+")
        name = " + ".join([_METHODS[method], *(step.replace("_", " ") for step in steps)])
        reason = results.of(ground, WARM_START)[0]["readings"][reading][TEST].get("reason")
        if reason:
            rows.append([name, f"not available: {reason}", *[""] * (len(_COLUMNS) - 1)])
            continue
        rows.append(
            [
                name,
                *(number(results.estimate(ground, WARM_START, k, TEST, reading), d) for k, (_, d) in _COLUMNS.items()),
            ]
        )
    return markdown(["", *(title for title, _ in _COLUMNS.values())], rows)


def headline(results: Results, ground: str) -> dict[str, float | bool]:
    """Ours against the usual recipe: ratios of the means, and whether the intervals are apart."""
    told: dict[str, float | bool] = {}
    for key in ("excess_brier", "symmetry_deviation_abs"):
        ours, usual = (
            results.estimate(ground, m, key) for m in (results.plan.figures.ours, results.plan.figures.usual)
        )
        told[f"{key}/ours"], told[f"{key}/usual"] = ours.value, usual.value
        told[f"{key}/ratio"] = ours.value / usual.value
        told[f"{key}/largest_ratio_of_a_seed"] = max(a / b for a, b in zip(ours.seeds, usual.seeds, strict=True))
        told[f"{key}/intervals_apart"] = bool(ours.high < usual.low)
    return told


def headline_text(told: Mapping[str, float | bool]) -> str:
    """The same as two sentences."""
    lines = []
    for key, name in (("excess_brier", "Excess Brier"), ("symmetry_deviation_abs", "Mean |SD|")):
        apart = "the intervals do not overlap" if told[f"{key}/intervals_apart"] else "the intervals overlap"
        lines.append(
            f"{name}: {told[f'{key}/ours']:.4f} against {told[f'{key}/usual']:.4f}, a ratio of "
            f"{told[f'{key}/ratio']:.2f} (at most {told[f'{key}/largest_ratio_of_a_seed']:.2f} in a seed); {apart}."
        )
    return "\n".join(f"- {line}" for line in lines)


def votes_table(results: Results, ground: str) -> str:
    """Exact answers on other numbers of pairs and votes, and how many sparse votes a dense label is worth."""
    points = vote_points(results, ground)
    sparse = sorted((n, e.value) for n, m, e in points if m == 1)
    rows = []
    for n_pairs, n_votes, excess in points:
        worth = "–"
        if n_votes > 1 and sparse:
            needed, beyond = sparse_pairs_needed(*zip(*sparse, strict=True), excess.value)
            worth = f"{beyond}{needed / n_pairs:.1f}"
        rows.append([f"{n_pairs:,}", str(n_votes), f"{n_pairs * n_votes:,}", number(excess), worth])
    return markdown(["pairs", "votes a pair", "votes", "excess Brier", "sparse votes that a label is worth"], rows)


def vote_points(results: Results, ground: str) -> list[tuple[int, int, Estimate]]:
    """Pairs, votes a pair and excess Brier of the methods that answer question (b), by votes a pair."""
    points = []
    for method in results.plan.figures.votes:
        settings = results.of(ground, method)[0]["settings"]
        points.append(
            (settings["n_train"], settings.get("n_votes", 1), results.estimate(ground, method, "excess_brier"))
        )
    return sorted(points, key=lambda point: (point[1], point[0]))


def orders_table(results: Results, ground: str) -> str:
    """What swap augmentation, coupling and the symmetry term buy, each with and without swap averaging."""
    keys = ("excess_brier", "excess_brier_symmetrized", "symmetry_deviation_abs", "consistency")
    titles = ("excess Brier", "swap averaged", "mean \\|SD\\|", "consistency")
    rows = [
        [results.title(m), *(number(results.estimate(ground, m, k), 3 if k == "consistency" else 4) for k in keys)]
        for m in results.plan.figures.orders
    ]
    return markdown(["", *titles], rows)


def objective_table(results: Results, ground: str) -> str:
    """Accuracy on pairs with one right answer."""
    rows = []
    for method in results.plan.figures.objective:
        both, each = objective_accuracy(results, ground, method)
        excess = results.estimate(ground, method, "excess_brier", "objective")
        rows.append([results.title(method), number(both, 3), number(each, 3), number(excess)])
    return markdown(["", "right in both orders", "right, each order", "excess Brier against 0 and 1"], rows)


def objective_accuracy(results: Results, ground: str, method: str) -> tuple[Estimate, Estimate]:
    """Share of pairs with one right answer that are judged right in both orders, and of both orders counted singly."""
    both, each = [], []
    for p_ab, p_ba, label, _ in results.answers(ground, method, "objective"):
        right = np.stack([(p_ab - 0.5) * (label - 0.5) > 0, (0.5 - p_ba) * (label - 0.5) > 0])
        both.append(right.all(axis=0).mean())
        each.append(right.mean())
    return over_seeds(both, (0, 1)), over_seeds(each, (0, 1))


def cost_table(results: Results, ground: str) -> str:
    """CPU seconds and tokens of training to the target, by method."""
    target, rows = results.plan.figures.target, []
    for method in results.plan.figures.cost:
        reached = [first_below(r["course"], "excess_brier", target) for r in results.of(ground, method)]
        best = np.mean([min(p["excess_brier"] for p in r["course"]) for r in results.of(ground, method)])
        n = sum(r.reached for r in reached)
        cells = [
            f"{'' if n == len(reached) else '> '}{np.median([getattr(r, key) for r in reached]):,.0f}"
            for key in ("step", "seconds", "tokens")
        ]
        rows.append([results.title(method), f"{n} of {len(reached)}", *cells, f"{best:.4f}"])
    header = ["", f"seeds that reach {target:g}", "steps", "CPU seconds", "tokens", "lowest on the way"]
    return markdown(header, rows)


def recorded_table(results: Results, ground: str) -> str:
    """Methods and text baselines on recorded votes: intervals over pairs, MSE of both orders averaged."""
    rows, named = [], []
    for method in results.methods(ground):
        named.append((method, MEAN, results.title(method)))
        if RECALIBRATED in results.of(ground, method)[0]["readings"]:
            named.append((method, RECALIBRATED, f"{results.title(method)}, odd temperature"))
    named += [(n, b, f"*{t}*") for n in _text_methods(results, ground) for b, t in _BASELINES.items()]
    for method, reading, title in named:
        mse = results.mean_over_pairs(ground, method, lambda ab, ba, y: ((ab + 1 - ba) / 2 - y) ** 2, reading)
        ece, floor, sd, agreement = (
            results.estimate(ground, method, key, TEST, reading)
            for key in ("ece", "ece_noise_floor", "symmetry_deviation_abs", "agreement_symmetrized")
        )
        by_seed = ", ".join(f"{value:.4f}" for value in mse.seeds)
        rows.append(
            [title, number(mse), by_seed, f"{ece.value:.4f}", f"{floor.value:.4f}" if floor else "–",
             f"{sd.value:.3f}", f"{agreement.value:.3f}" if agreement else "–"]
        )  # fmt: skip
    return markdown(
        ["", "MSE, both orders averaged", "by seed", "ECE", "its noise floor", "mean \\|SD\\|", "agreement, averaged"],
        rows,
    )


def votes(results: Results, ground: str, method: str) -> str:
    """Pairs and votes a pair that a method learns from."""
    settings = results.of(ground, method)[0]["settings"]
    if method == WARM_START:
        return "0"
    n_pairs, n_votes = (
        settings.get("n_train", results.of(ground, method)[0].get("n_train")),
        settings.get("n_votes", 1),
    )
    if "dataset_name" in settings:
        return "one a pair" if settings.get("labels", "sparse") == "sparse" else "all of a pair"
    return f"{n_pairs:,} × {n_votes}"


def _text_methods(results: Results, ground: str) -> list[str]:
    return [n for n, m in results.plan.methods.items() if m.trainer == "text" and ground in m.grounds]
