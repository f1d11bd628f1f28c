"""The files of a study: `study.json`, figures, and `study.md` with all tables and figures.

`study.json` has the time, the headline, and for every dataset, method, prediction, test and metric the mean over the
seeds, its interval and the values of the seeds. Predictions of single pairs are in the files of the runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from autorater.data.atomic import write_bytes, write_text
from autorater.report.rendering import png
from benchmarks.study.figures import FIGURES
from benchmarks.study.plan import WARM_START
from benchmarks.study.results import TEST, Results, over_seeds
from benchmarks.study.tables import (
    cost_table,
    headline,
    headline_text,
    judging_methods_table,
    methods_table,
    objective_table,
    orders_table,
    recorded_table,
    votes_table,
)

_INTERVALS = (
    "Numbers are means over the seeds ({seeds}); brackets are 95 % intervals: Student's t over the seeds on simulated "
    "datasets (each seed has its own texts, votes, policy and held-out pairs), the bootstrap over pairs on recorded "
    "votes (all seeds share the held-out pairs). Excess Brier is mean (answer − p*)² over both orders; overconfidence "
    "is the mean of answer − vote share on the side that the answer favours; absolute position bias is mean "
    "|p_ab + p_ba − 1|. CPU seconds "
    "and tokens are those of training steps without the shared warm start."
)
_QUESTIONS = {
    "overconfidence": "(a) Does dividing by the group's deviation cause overconfidence?",
    "votes": "(b) How many sparse votes are equivalent to one dense label?",
    "learning_curve": "(c) Calibration and position bias during training",
    "orders": "(d) Effect of swap augmentation, coupling and swap averaging",
    "objective": "(e) Is accuracy on objective pairs preserved?",
    "cost": "(f) Time and tokens to a given calibration",
}
_TABLES: dict[str, Callable[[Results, str], str]] = {
    "votes": votes_table,
    "orders": orders_table,
    "objective": objective_table,
    "cost": cost_table,
}


def write_study(results: Results, folder: str | Path, clock: Mapping[str, float]) -> str:
    """Writes all files.

    Args:
        results: Results of a finished study.
        folder: An existing folder.
        clock: Seconds of this execution, and of all runs.

    Returns:
        The text of `study.md`.
    """
    folder, figures = Path(folder), results.plan.figures
    Path(folder, "figures").mkdir(exist_ok=True)
    for name, (draw, needed) in FIGURES.items():
        if not needed or getattr(figures, needed):
            write_bytes(Path(folder, "figures", f"{name}.png"), png(draw(results, figures.dataset)))
    ratios = headline(results, figures.dataset)
    document = {"clock": dict(clock), "headline": ratios, "datasets": _numbers(results)}
    write_text(Path(folder, "study.json"), json.dumps(document, indent=1) + "\n")
    text = _text(results, ratios, clock)
    write_text(Path(folder, "study.md"), text)
    return text


def _text(results: Results, ratios: Mapping, clock: Mapping[str, float]) -> str:
    plan, dataset = results.plan, results.plan.figures.dataset
    parts = [
        "# The study",
        f"{len(results.runs)} runs, {clock['cpu_seconds'] / 60:.0f} minutes of CPU time; {clock_text(clock)}.",
        _INTERVALS.format(seeds=len(plan.seeds)),
        f"## Ours against the usual recipe ({plan.datasets[dataset].title})",
        f"{results.title(plan.figures.ours)} against {results.title(plan.figures.usual)}, at equal votes:",
        headline_text(ratios),
    ]
    for name, where in plan.datasets.items():
        if not results.of(name, WARM_START):
            continue
        if results.estimate(name, WARM_START, "excess_brier") is None:
            parts += [f"## Recorded votes: {where.title}", recorded_table(results, name), _left_out(results, name)]
            continue
        parts += [f"## All methods: {where.title}", methods_table(results, name)]
        if name == dataset:
            parts.append("![All methods](figures/methods.png)")
        for test in where.tests:
            if test != "objective":
                parts += [f"### The same judges, another population ({test})", methods_table(results, name, test)]
    parts += [
        f"## The warm start by every judging method ({plan.datasets[dataset].title})",
        judging_methods_table(results, dataset),
    ]
    for name, question in _QUESTIONS.items():
        if getattr(plan.figures, name):
            parts.append(f"## {question}")
            parts += [_TABLES[name](results, dataset)] if name in _TABLES else []
            parts.append(f"![{question}](figures/{name}.png)")
    return "\n\n".join(parts) + "\n"


def clock_text(clock: Mapping[str, float]) -> str:
    """Execution time, as text."""
    return f"this execution took {clock['seconds'] / 60:.1f} minutes and executed {clock['runs_executed']} runs"


def _left_out(results: Results, dataset: str) -> str:
    start = results.of(dataset, WARM_START)[0]
    return f"Held-out pairs with over-long prompts, dropped for all methods: {start['left_out'][TEST]}."


def _numbers(results: Results) -> dict:
    """dataset → method → prediction → test → metric → mean, interval and seeds."""
    numbers: dict = {}
    for dataset in results.plan.datasets:
        names = dict.fromkeys(run.method for run in results.runs if run.dataset == dataset)
        for method in names:
            runs = results.of(dataset, method)
            entry: dict = {"predictions": {}}
            for figure in ("training_seconds", "training_tokens", "cpu_seconds"):
                if figure in runs[0]:
                    entry[figure] = asdict(over_seeds([run[figure] for run in runs]))
            for prediction, tests in runs[0]["predictions"].items():
                entry["predictions"][prediction] = {
                    test: {"reason": recorded["reason"]} if "reason" in recorded else {
                        key: asdict(estimate)
                        for key in recorded["metrics"]
                        if (estimate := results.estimate(dataset, method, key, test, prediction)) is not None
                    }
                    for test, recorded in tests.items()
                }  # fmt: skip
            numbers.setdefault(dataset, {})[method] = entry
    return numbers
