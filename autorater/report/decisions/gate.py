"""`autorater gate`: is this judge worse than a recorded baseline on the same pairs?

Writes `gate.json`, `gate.html` and `gate.md`, a summary for a pull request, which it also prints. Exit status 3 if any
metric is worse. `gate_run` does the same at the end of an audit or an evaluation (`--baseline`).
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import numpy as np

from autorater.data.atomic import write_json, write_text
from autorater.data.errors import DataError, UserError
from autorater.evaluation.results import PREDICTIONS, prepare_output_dir
from autorater.judges.judged import check_method, clusters_of, read_judged, warn_of_weights
from autorater.judges.recorded import JudgedPair
from autorater.metrics.gate import Change, compare_with_baseline, gate_fails
from autorater.report.decisions.page import gate_figure, write_page
from autorater.report.tables import markdown_table

logger = logging.getLogger(__name__)
FAILED = 3
_LEVEL = 0.05  # of the gate at the end of a run
_NAMES = {
    "brier": "Brier score",
    "agreement": "Agreement",
    "consistency": "Consistency",
    "symmetry_deviation_abs": "Position bias (absolute)",
    "answered": "Pairs answered in both orders",
}
_HEADER = ("Metric", "Baseline", "Now", "Change", "p, corrected", "Verdict", "Detectable")
_CAPTION = "Change of every metric from the baseline and its interval; to the right is better."


def run(args: argparse.Namespace) -> None:
    """Reads, compares, writes, prints; exits with 3 if a metric is worse.

    Raises:
        UserError: If a file or an option is invalid, or the pairs are not the same.
    """
    folder = prepare_output_dir(args.output_dir)
    baseline, current = (predictions_of(run) if Path(run).is_dir() else run for run in (args.baseline, args.current))
    sides = (read_judged(baseline, methods=args.methods), read_judged(current, args.votes, methods=args.methods))
    check_method(args.methods, chain(*sides))
    before, after = _same_pairs(*sides, baseline, current)
    warn_of_weights(after)
    clusters = clusters_of(after, args.cluster_by)
    labels = np.array([pair.label for pair in after])
    if np.isnan(labels).any() and not np.isnan(labels).all():
        raise UserError(
            f"{np.isnan(labels).sum():,} of {len(after):,} pairs have no votes; expected votes on all or none"
        )
    if _write_gate(folder, before, after, current, clusters, args.level, vars(args)):
        sys.exit(FAILED)


def gate_run(
    baseline: str,
    folder: Path,
    *,
    methods: Sequence[str] = (),
    clusters: Sequence[Hashable] | None = None,
) -> bool:
    """Compares the predictions of a run with those of an earlier one about the same pairs; whether it is worse.

    Answers that are missing count as 1/2 against votes, and their pairs not for consistency and position bias; that
    there are more or fewer of them is a change too. Writes and prints as the command does.

    Args:
        baseline: Folder of the earlier run, its metrics.json, or its predictions.jsonl.
        folder: Folder of this run, with its predictions.jsonl.
        methods: For runs of `autorater evaluate`: names of the methods to compare, the first that a run has.
        clusters: Dependent pairs, in the order of this run, have equal values; by default a column `prompt` or
            `cluster` of the predictions.

    Raises:
        UserError: If the predictions are missing or about other pairs.
    """
    paths = predictions_of(baseline), folder / PREDICTIONS
    both = [read_judged(path, unanswered=True, methods=methods) for path in paths]
    missing = [sum(math.isnan(p) for pair in side for p in pair.answers) for side in both]
    silent = [{pair.id for pair in side if any(map(math.isnan, pair.answers))} for side in both]
    both = [[replace(p, answers=tuple(0.5 if math.isnan(a) else a for a in p.answers)) for p in side] for side in both]
    before, after = _same_pairs(*both, *paths)
    if any(missing):
        logger.warning(
            f"missing answers: {missing[0]:,} of the baseline, {missing[1]:,} of this run; they count as 0.5 against "
            "votes, and their pairs not for consistency and position bias"
        )
    clusters = clusters_of(after) if clusters is None else clusters
    answered = [[pair.id not in ids for pair in after] for ids in silent]
    settings = {"baseline": baseline, "level": _LEVEL}
    return _write_gate(folder, before, after, paths[1], clusters, _LEVEL, settings, answered)


def predictions_of(run: str | os.PathLike[str], folder: Path | None = None) -> Path:
    """The predictions of a recorded run, from its folder or one of its files.

    Raises:
        UserError: If there are none, or they are those of `folder`, which will be overwritten.
    """
    path = Path(run)
    found = path / PREDICTIONS if path.is_dir() else path.with_name(PREDICTIONS) if path.suffix == ".json" else path
    if not found.is_file():
        raise UserError(
            f"{run}: no {found}; expected the folder of a run of `autorater audit` or `evaluate`, or its "
            f"metrics.json with {PREDICTIONS} beside it"
        )
    if folder is not None and found.parent.resolve() == folder.resolve():
        raise UserError(f"{run} is the output folder, which is overwritten; choose another --output_dir")
    return found


def _write_gate(
    folder: Path,
    before: list[JudgedPair],
    after: list[JudgedPair],
    current: str | os.PathLike[str],
    clusters: Sequence[Hashable] | None,
    level: float,
    settings: Mapping[str, object],
    answered: Sequence[Sequence[bool]] | None = None,
) -> bool:
    """Writes and prints the comparison of two runs; whether a metric is worse. Labels count if all pairs have one."""
    labels = np.array([pair.label for pair in after])
    answers = (np.array([pair.answers for pair in side]) for side in (before, after))
    try:
        changes = compare_with_baseline(
            *answers, None if np.isnan(labels).any() else labels, clusters=clusters, answered=answered, level=level
        )
    except ValueError as error:
        raise UserError(f"{os.fspath(current)}: {error}") from error
    rows = [_row(change) for change in changes]
    summary = f"{_answer(changes, len(after))}\n\n{markdown_table(_HEADER, rows, 'lrrrrlr')}\n"
    write_text(folder / "gate.md", summary)
    results = {"failed": gate_fails(changes), "changes": [asdict(change) for change in changes]}
    write_json(folder / "gate.json", results)
    figure = gate_figure(changes, [_NAMES[change.metric] for change in changes])
    write_page(folder / "gate.html", "Gate", _answer(changes, len(after)), figure, _CAPTION, _HEADER, rows, settings)
    print(summary, end="")
    return results["failed"]


def _same_pairs(
    before: list[JudgedPair],
    after: list[JudgedPair],
    baseline: str | os.PathLike[str],
    current: str | os.PathLike[str],
) -> tuple[list[JudgedPair], list[JudgedPair]]:
    """Both runs in the order of the second; every pair has answers in both orders."""
    by_id = {pair.id: pair for pair in before}
    for path, missing in (
        (baseline, [pair.id for pair in after if pair.id not in by_id]),
        (current, sorted(set(by_id) - {pair.id for pair in after})),
    ):
        if missing:
            raise DataError(
                f"{os.fspath(path)}: {len(missing):,} ids of the other run are missing, first {missing[0]!r}"
            )
    for path, pairs in ((baseline, before), (current, after)):
        half = [pair.id for pair in pairs if any(map(math.isnan, pair.answers))]
        if half:
            raise DataError(
                f"{os.fspath(path)}: {len(half):,} pairs lack an order, first {half[0]!r}; expected both orders of all"
            )
    return [by_id[pair.id] for pair in after], after


def _answer(changes: list[Change], n_pairs: int) -> str:
    worse = ", ".join(_NAMES[change.metric] for change in changes if change.verdict == "worse")
    better = ", ".join(_NAMES[change.metric] for change in changes if change.verdict == "better")
    verdict = f"The judge is worse than the baseline: {worse}." if worse else "The judge is not clearly worse."
    return f"{verdict}{f' Better: {better}.' if better else ''} {n_pairs:,} pairs compared."


def _row(change: Change) -> tuple[str, ...]:
    interval = f"{change.change:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
    values = f"{change.baseline:.4f}", f"{change.current:.4f}", interval, f"{change.p_value:.3f}"
    return (_NAMES[change.metric], *values, change.verdict, f"{change.detectable:.4f}")
