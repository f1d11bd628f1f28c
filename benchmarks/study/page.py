"""What a study leaves to be read: `study.json`, a table and a figure a question, and `study.md` that holds them all.

`study.json` has the time, the headline, and of every ground, method, reading, test and metric the mean over the seeds,
its interval and the numbers of the seeds. What was said of each pair is in the cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from autorater.report.rendering import png
from benchmarks.study.figures import FIGURES
from benchmarks.study.plan import WARM_START
from benchmarks.study.results import TEST, Results, over_seeds
from benchmarks.study.tables import (
    cost_table,
    headline,
    headline_text,
    methods_table,
    objective_table,
    orders_table,
    readings_table,
    recorded_table,
    votes_table,
)

_INTERVALS = (
    "Numbers are means over the seeds ({seeds}); brackets are 95 % intervals: Student's t over the seeds on simulated "
    "grounds (each seed has its own texts, votes, policy and held-out pairs), the bootstrap over pairs on recorded "
    "votes (all seeds share the held-out pairs). Excess Brier is mean (answer − p*)² over both orders; overconfidence "
    "is the mean of answer − vote share on the side that the answer is on; SD = p_ab + p_ba − 1. CPU seconds "
    "and tokens are those of training steps, the shared warm start not counted."
)
_QUESTIONS = {
    "overconfidence": "(a) Does dividing by the group's deviation cause overconfidence?",
    "votes": "(b) How many sparse votes is one dense label worth?",
    "course": "(c) How calibration and bias move during training",
    "orders": "(d) What swap augmentation, coupling and swap averaging each buy",
    "objective": "(e) Is accuracy on objective pairs kept?",
    "cost": "(f) Time and tokens to a given calibration",
}
_TABLES: dict[str, Callable[[Results, str], str]] = {
    "votes": votes_table,
    "orders": orders_table,
    "objective": objective_table,
    "cost": cost_table,
}


def write_study(results: Results, folder: str | Path, clock: Mapping[str, float]) -> str:
    """Writes everything.

    Args:
        results: Of a finished study.
        folder: An existing folder.
        clock: Seconds that the study took: of this run, and of all its cells.

    Returns:
        The text of `study.md`.
    """
    folder, figures = Path(folder), results.plan.figures
    Path(folder, "figures").mkdir(exist_ok=True)
    for name, (draw, needed) in FIGURES.items():
        if not needed or getattr(figures, needed):
            Path(folder, "figures", f"{name}.png").write_bytes(png(draw(results, figures.ground)))
    told = headline(results, figures.ground)
    document = {"clock": dict(clock), "headline": told, "grounds": _numbers(results)}
    Path(folder, "study.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = _text(results, told, clock)
    Path(folder, "study.md").write_text(text, encoding="utf-8")
    return text


def _text(results: Results, told: Mapping, clock: Mapping[str, float]) -> str:
    plan, ground = results.plan, results.plan.figures.ground
    parts = [
        "# The study",
        f"{len(results.cells)} cells, {clock['cpu_seconds'] / 60:.0f} minutes of CPU time; {clock_text(clock)}.",
        _INTERVALS.format(seeds=len(plan.seeds)),
        f"## Ours against the usual recipe ({plan.grounds[ground].title})",
        f"{results.title(plan.figures.ours)} against {results.title(plan.figures.usual)}, at equal votes:",
        headline_text(told),
    ]
    for name, where in plan.grounds.items():
        if not results.of(name, WARM_START):
            continue
        if results.estimate(name, WARM_START, "excess_brier") is None:
            parts += [f"## Recorded votes: {where.title}", recorded_table(results, name), _left_out(results, name)]
            continue
        parts += [f"## All methods: {where.title}", methods_table(results, name)]
        if name == ground:
            parts.append("![All methods](figures/methods.png)")
        for test in where.tests:
            if test != "objective":
                parts += [f"### The same judges, another population ({test})", methods_table(results, name, test)]
    parts += [f"## The warm start read in every way ({plan.grounds[ground].title})", readings_table(results, ground)]
    for name, question in _QUESTIONS.items():
        if getattr(plan.figures, name):
            parts.append(f"## {question}")
            parts += [_TABLES[name](results, ground)] if name in _TABLES else []
            parts.append(f"![{question}](figures/{name}.png)")
    return "\n\n".join(parts) + "\n"


def clock_text(clock: Mapping[str, float]) -> str:
    """How long it took, in words."""
    return f"this run took {clock['seconds'] / 60:.1f} minutes and ran {clock['cells_run']} of the cells"


def _left_out(results: Results, ground: str) -> str:
    start = results.of(ground, WARM_START)[0]
    return f"Held-out pairs whose prompt is too long, left out for all methods: {start['left_out'][TEST]}."


def _numbers(results: Results) -> dict:
    """ground → method → reading → test → metric → mean, interval and seeds."""
    numbers: dict = {}
    for ground in results.plan.grounds:
        names = dict.fromkeys(cell.method for cell in results.cells if cell.ground == ground)
        for method in names:
            cells = results.of(ground, method)
            entry: dict = {"readings": {}}
            for figure in ("training_seconds", "training_tokens", "cpu_seconds"):
                if figure in cells[0]:
                    entry[figure] = asdict(over_seeds([cell[figure] for cell in cells]))
            for reading, tests in cells[0]["readings"].items():
                entry["readings"][reading] = {
                    test: {"reason": said["reason"]} if "reason" in said else {
                        key: asdict(estimate)
                        for key in said["metrics"]
                        if (estimate := results.estimate(ground, method, key, test, reading)) is not None
                    }
                    for test, said in tests.items()
                }  # fmt: skip
            numbers.setdefault(ground, {})[method] = entry
    return numbers
