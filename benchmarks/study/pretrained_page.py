"""The report of a study of a pretrained model on recorded votes: `study.json`, `study.md` and a figure.

All seeds share the held-out pairs: brackets are 95 % bootstrap intervals over pairs of the mean over the finished
seeds. With `recalibration_dataset_name` trained judges that write numbers have a recalibration, by default a
temperature, unless it makes single answers worse; those that write letters have none. Minutes are with the warm start
or the teaching, tokens without.
`noise` is the error of a judge that knows the true shares: mean y (1 − y) / (m − 1) for m votes with share y.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from autorater.data.atomic import write_bytes, write_text
from autorater.metrics.agreement import agreement_credits
from autorater.metrics.intervals import Mean, Share, bootstrap
from autorater.report.plots import blank_figure
from autorater.report.rendering import png
from autorater.report.tables import markdown_table
from benchmarks.study.plan import WARM_START
from benchmarks.study.results import BEFORE, LETTERS, MEAN, OBJECTIVE, TEST, VERBALIZED, Estimate, Results
from benchmarks.study.tables import BASELINES, number

_AS_IT_COMES = {
    VERBALIZED: "zero-shot, the number it writes",
    MEAN: "zero-shot, mean of the exact numbers",
    LETTERS: "zero-shot, letters A and B",
}
_HEADER = (
    "", "votes", "seeds", "MSE, each order", "MSE, both orders averaged", "ECE", "agreement", "position bias, before",
    "position bias, after", "objective accuracy, before", "objective accuracy, after", "minutes of training", "tokens",
)  # fmt: skip
_ROUNDS = 2000


@dataclass(frozen=True)
class Row:
    """A row of the table: predictions of a method on a dataset.

    Attributes:
        title: Its name.
        votes: Votes that it is trained on.
        runs: Results of its finished seeds.
        prediction: Name of the predictions.
    """

    title: str
    votes: str
    runs: list[dict]
    prediction: str


def rows_of(results: Results, dataset: str) -> Iterator[Row]:
    """The finished rows of a dataset: baselines, the model as it comes, then the methods in the plan's order."""
    plan = results.plan
    for name, method in plan.methods.items():
        if method.trainer == "text" and (runs := results.of(dataset, name)):
            for baseline, title in BASELINES.items():
                yield Row(title, "none" if baseline == "constant" else "one a pair", runs, baseline)
    if starts := results.of(dataset, WARM_START):
        yield from (Row(title, "none", starts[:1], prediction) for prediction, title in _AS_IT_COMES.items())
    for name, method in plan.methods.items():
        if method.trainer != "text" and (runs := results.of(dataset, name)):
            votes = "one a pair" if runs[0]["settings"].get("labels", "sparse") == "sparse" else "all"
            yield Row(method.title, votes, runs, MEAN)


def _targets(results: Results, dataset: str) -> Mapping[str, Mapping]:
    """The targets of every test, which are those of all runs; empty if none is finished."""
    return next((result["pairs"] for run, result in results.runs.items() if run.dataset == dataset), {})


def estimate(row: Row, pairs: Mapping, kind: str, test: str = TEST, prediction: str | None = None) -> Estimate | None:
    """A mean over pairs and seeds with its interval; None if the predictions were not made.

    Args:
        pairs: Targets of the test, as in `benchmarks.study.run`.
        kind: `each` (squared error of each order), `both` (of both orders averaged), `bias` (|SD|) or `right`.
    """
    predicted = [run["predictions"].get(prediction or row.prediction, {}).get(test) for run in row.runs]
    if None in predicted or not predicted:
        return None
    label, of_seed = np.array(pairs["label"], dtype=float), []
    for columns in predicted:
        p_ab, p_ba = (np.array(columns[name]) for name in ("p_ab", "p_ba"))
        of_seed.append(
            {
                "each": lambda a, b: ((a - label) ** 2 + (b - (1 - label)) ** 2) / 2,
                "both": lambda a, b: ((a + 1 - b) / 2 - label) ** 2,
                "bias": lambda a, b: np.abs(a + b - 1),
                "right": lambda a, b: agreement_credits((a + 1 - b) / 2, label)[0],
            }[kind](p_ab, p_ba)
        )
    counted = label != 0.5 if kind == "right" else np.ones(len(label), dtype=bool)
    values = np.array(of_seed)[:, counted]
    of_kind = Share if kind == "right" else Mean
    ends = bootstrap({"it": of_kind(values.mean(axis=0))}, _ROUNDS)
    return Estimate(float(values.mean()), ends["it_low"], ends["it_high"], tuple(values.mean(axis=1).tolist()))


def noise(pairs: Mapping) -> float:
    """Mean squared error of the true shares, over the pairs with several votes."""
    label, n_votes = (np.array(pairs[name], dtype=float) for name in ("label", "n_votes"))
    several = n_votes > 1
    return float(np.mean(label[several] * (1 - label[several]) / (n_votes[several] - 1)))


def write_pretrained_study(results: Results, folder: str | Path, clock: Mapping[str, float]) -> str:
    """Writes all files for the runs that are finished; returns the text of `study.md`."""
    folder = Path(folder)
    there = [name for name in results.plan.datasets if _targets(results, name)]
    parts = ["# The study of a pretrained model", __doc__.split("\n\n")[1].strip()]
    document: dict = {"clock": dict(clock), "datasets": {}}
    for name in there:
        (folder / "figures").mkdir(exist_ok=True)
        write_bytes(folder / "figures" / f"{name}.png", png(figure(results, name)))
        parts += [f"## {results.plan.datasets[name].title}", table(results, name)]
        if text := headline(results, name):
            parts.append(text)
        parts.append(f"![Mean squared error by method](figures/{name}.png)")
        document["datasets"][name] = numbers(results, name)
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "study.json", json.dumps(document, indent=1) + "\n")
    write_text(folder / "study.md", text)
    return text


def table(results: Results, dataset: str) -> str:
    """All finished rows of a dataset, and the noise floor."""
    pairs, lines = _targets(results, dataset), []
    for row in rows_of(results, dataset):
        trained = any(BEFORE in run["predictions"] for run in row.runs)
        ece = np.mean([run["predictions"][row.prediction][TEST]["metrics"]["ece"] for run in row.runs])
        objective = pairs.get(OBJECTIVE)
        right = [
            number(estimate(row, objective, "right", OBJECTIVE, prediction), 3) if objective else "–"
            for prediction in (BEFORE, row.prediction)
        ]
        lines.append(
            [
                row.title,
                row.votes,
                str(len(row.runs)),
                number(estimate(row, pairs[TEST], "each")),
                number(estimate(row, pairs[TEST], "both")),
                f"{ece:.3f}",
                number(estimate(row, pairs[TEST], "right"), 3),
                number(estimate(row, pairs[TEST], "bias", TEST, BEFORE), 3) if trained else "–",
                number(estimate(row, pairs[TEST], "bias"), 3),
                *right,
                _cost(row, "training_seconds", 60),
                _cost(row, "training_tokens", 1),
            ]
        )
    lines.append(["*noise*", "", "", *[f"{noise(pairs[TEST]):.4f}"] * 2, *[""] * (len(_HEADER) - 5)])
    return markdown_table(_HEADER, lines)


def _cost(row: Row, name: str, divisor: int) -> str:
    known = [run[name] for run in row.runs if run.get(name) is not None]
    return f"{np.mean(known) / divisor:,.0f}" if known else "–"


def headline(results: Results, dataset: str) -> str:
    """Ours against the usual recipe, above the noise floor, if both are finished on this dataset."""
    plan, rows = results.plan, {row.title: row for row in rows_of(results, dataset)}
    named = [plan.methods[name].title for name in (plan.figures.ours, plan.figures.usual)]
    if not set(named) <= set(rows):
        return ""
    pairs = _targets(results, dataset)[TEST]
    ours, usual = (estimate(rows[title], pairs, "both") for title in named)
    bias = [estimate(rows[title], pairs, "bias") for title in named]
    floor = noise(pairs)
    is_apart = ours.high < usual.low or usual.high < ours.low
    apart = "the intervals do not overlap" if is_apart else "the intervals overlap"
    return (
        f"{named[0]} against {named[1]}: above the noise, the squared error of both orders averaged is "
        f"{ours.value - floor:.4f} against {usual.value - floor:.4f} ({apart}); the absolute position bias is "
        f"{bias[0].value:.3f} against {bias[1].value:.3f}."
    )


def numbers(results: Results, dataset: str) -> dict:
    """By title: the estimates of the table, with the values of the seeds."""
    pairs = _targets(results, dataset)
    found: dict = {"noise": noise(pairs[TEST])}
    for row in rows_of(results, dataset):
        made = {kind: estimate(row, pairs[TEST], kind) for kind in ("each", "both", "bias", "right")}
        if OBJECTIVE in pairs:
            made |= {
                f"objective_{prediction}": estimate(row, pairs[OBJECTIVE], "right", OBJECTIVE, prediction)
                for prediction in (BEFORE, row.prediction)
            }
        found[row.title] = {kind: asdict(value) for kind, value in made.items() if value is not None}
    return found


def figure(results: Results, dataset: str) -> Figure:
    """Mean squared error of every row: each order, and both averaged, with the noise floor."""
    pairs, rows = _targets(results, dataset)[TEST], list(rows_of(results, dataset))
    drawn = blank_figure((9, 1.2 + 0.34 * len(rows)))
    axes = drawn.add_subplot()
    for kind, marker, label in (("each", "o", "each order"), ("both", "D", "both orders averaged")):
        found = [estimate(row, pairs, kind) for row in rows]
        values = np.array([e.value for e in found])
        ends = np.abs(np.array([[e.value - e.low, e.high - e.value] for e in found]).T)
        color = "#000000" if kind == "both" else "#8C8C8C"
        axes.errorbar(values, range(len(rows)), xerr=ends, fmt=marker, color=color, markersize=5, label=label)
    axes.axvline(noise(pairs), color="#6E6E6E", linestyle="--", linewidth=1, label="noise of the vote shares")
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("mean squared error to the vote share (95 % interval over pairs)")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    return drawn
