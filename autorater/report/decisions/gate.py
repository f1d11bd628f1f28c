"""`autorater gate`: is this judge worse than a recorded baseline on the same pairs?

Writes `gate.json`, `gate.html` and `gate.md`, a summary for a pull request, which it also prints. Exit status 3 if any
metric is worse.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict

import numpy as np

from autorater.data.errors import DataError, UserError
from autorater.evaluation.results import prepare_output_dir
from autorater.judges.judged import JudgedPair, column_of, read_judged
from autorater.metrics.gate import Change, compare_with_baseline, gate_fails
from autorater.report.decisions.page import gate_figure, write_page
from autorater.report.tables import markdown_table

FAILED = 3
_NAMES = {
    "brier": "Brier score",
    "agreement": "Agreement",
    "consistency": "Consistency",
    "symmetry_deviation_abs": "Position bias (absolute)",
}
_HEADER = ("Metric", "Baseline", "Now", "Change", "p, corrected", "Verdict", "Detectable")
_CAPTION = "Change of every metric from the baseline and its interval; to the right is better."


def run(args: argparse.Namespace) -> None:
    """Reads, compares, writes, prints; exits with 3 if a metric is worse.

    Raises:
        UserError: If a file or an option is invalid, or the pairs are not the same.
    """
    if not 0 < args.level < 1:
        raise UserError(f"--level: got {args.level}; expected a number between 0 and 1")
    folder = prepare_output_dir(args.output_dir)
    before, after = _same_pairs(read_judged(args.baseline), read_judged(args.current, args.votes), args)
    clusters = column_of(after, args.cluster_by or "prompt")
    if args.cluster_by and clusters is None:
        raise UserError(f"--cluster_by: a pair has no {args.cluster_by!r}; expected a value in every pair")
    labels = np.array([pair.label for pair in after])
    if np.isnan(labels).any() and not np.isnan(labels).all():
        raise UserError(
            f"{np.isnan(labels).sum():,} of {len(after):,} pairs have no votes; expected votes on all or none"
        )
    answers = (np.array([pair.answers for pair in side]) for side in (before, after))
    try:
        changes = compare_with_baseline(
            *answers, None if np.isnan(labels).all() else labels, clusters=clusters, level=args.level
        )
    except ValueError as error:
        raise UserError(f"{args.current}: {error}") from error
    rows = [_row(change) for change in changes]
    summary = f"{_answer(changes, len(after))}\n\n{markdown_table(_HEADER, rows, 'lrrrrlr')}\n"
    (folder / "gate.md").write_text(summary, encoding="utf-8")
    results = {"failed": gate_fails(changes), "changes": [asdict(change) for change in changes]}
    (folder / "gate.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    figure = gate_figure(changes, [_NAMES[change.metric] for change in changes])
    write_page(folder / "gate.html", "Gate", _answer(changes, len(after)), figure, _CAPTION, _HEADER, rows, vars(args))
    print(summary, end="")
    if results["failed"]:
        sys.exit(FAILED)


def _same_pairs(
    before: list[JudgedPair], after: list[JudgedPair], args: argparse.Namespace
) -> tuple[list[JudgedPair], list[JudgedPair]]:
    """Both runs in the order of the second; every pair has answers in both orders."""
    by_id = {pair.id: pair for pair in before}
    for path, missing in (
        (args.baseline, [pair.id for pair in after if pair.id not in by_id]),
        (args.current, sorted(set(by_id) - {pair.id for pair in after})),
    ):
        if missing:
            raise DataError(f"{path}: {len(missing):,} ids of the other run are missing, first {missing[0]!r}")
    for path, pairs in ((args.baseline, before), (args.current, after)):
        half = [pair.id for pair in pairs if any(map(math.isnan, pair.answers))]
        if half:
            raise DataError(
                f"{path}: {len(half):,} pairs lack an order, first {half[0]!r}; expected both orders of all"
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
