"""`autorater defer`: which judgments may stand, and which pairs go to people, the most informative first.

The threshold is learned from the pairs with votes, which must not have trained or calibrated the judge. Writes
`defer.json`, `defer.html` and `for_people.jsonl`: the pairs without votes whose judgment may not stand, the least
certain first, with `probability` and all their columns.
"""

from __future__ import annotations

import argparse
import logging
import math

import numpy as np

from autorater.data.atomic import open_atomic, write_json
from autorater.data.errors import counted, refuse_overwriting
from autorater.data.tables import write_rows
from autorater.evaluation.results import prepare_output_dir
from autorater.judges.judged import check_method, labels_of, one_a_pair, read_judged
from autorater.metrics import deferral_threshold
from autorater.metrics.deferral import risk_curve
from autorater.metrics.validation import DECIMALS
from autorater.report.decisions.page import deferral_figure, write_page
from autorater.report.tables import percent

logger = logging.getLogger(__name__)

_FOR_PEOPLE = "for_people.jsonl"
_CAPTION = "Disagreement of the judge with the majority of votes, for every share of pairs that could be left to it."


def run(args: argparse.Namespace) -> None:
    """Reads, decides, writes and prints.

    Raises:
        UserError: If a file or an option is invalid, no pair has votes, or `for_people.jsonl` is a file to read.
    """
    folder = prepare_output_dir(args.output_dir)
    for source in (args.judged, args.votes):
        refuse_overwriting(source, folder / _FOR_PEOPLE)  # votes may have been added to it
    pairs = read_judged(args.judged, args.votes, methods=args.methods)
    check_method(args.methods, pairs)
    voted = ~np.isnan(labels_of(pairs))
    probabilities, labels = one_a_pair([pair for pair, has_votes in zip(pairs, voted, strict=True) if has_votes])
    if repeated := voted.sum() - len(labels):
        logger.info(f"{counted(repeated, 'row')} with votes repeat a pair; the votes of a pair count together")
    study = probabilities, 1 - labels, labels
    threshold = deferral_threshold(*study, alpha=args.alpha, delta=args.delta)
    judged = np.array([pair.probability for pair in pairs])
    stands = _stands(judged, threshold)
    order = np.argsort(_margins(judged), kind="stable")
    for_people = [i for i in order if not (voted[i] or stands[i])]
    with open_atomic(folder / _FOR_PEOPLE) as file:
        write_rows(({**pairs[i].row, "id": pairs[i].id, "probability": float(judged[i])} for i in for_people), file)
    share = float(_stands(probabilities, threshold).mean())
    results = {
        "threshold": threshold, "alpha": args.alpha, "delta": args.delta, "share_standing": share,
        "n_votes": len(labels), "n_judged": int((~voted).sum()),
        "n_standing": int((stands & ~voted).sum()), "n_for_people": len(for_people),
    }  # fmt: skip
    write_json(folder / "defer.json", results)
    answer = _answer(results)
    print(answer)
    rows = [
        ("Judged pairs without votes", f"{results['n_judged']:,}"),
        ("Judgment may stand", f"{results['n_standing']:,}"),
        ("For people", f"{results['n_for_people']:,}"),
        ("Pairs with votes", f"{results['n_votes']:,}"),
        ("Threshold on |p − 0.5|", "none" if threshold is None else f"{threshold:.3f}"),
    ]
    figure = deferral_figure(*risk_curve(*study), args.alpha, share)
    write_page(folder / "defer.html", "Deferral", answer, figure, _CAPTION, ("", "Pairs"), rows, vars(args))
    logger.info("%s, %s", folder / "defer.html", folder / _FOR_PEOPLE)


def _margins(probabilities: np.ndarray) -> np.ndarray:
    return np.abs(probabilities - 0.5).round(DECIMALS)


def _stands(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """Whether each judgment may stand; none may without a threshold."""
    return _margins(probabilities) >= (math.inf if threshold is None else round(threshold, DECIMALS))


def _answer(results: dict) -> str:
    confidence = percent(1 - results["delta"])
    promise = f"disagreement with the majority at most {results['alpha']:g} with {confidence} confidence"
    everything_voted = f"all {results['n_votes']:,} pairs have votes, so none is left to decide on"
    if results["threshold"] is None:
        rest = f"all {results['n_for_people']:,} judged pairs go to people"
        return (
            f"No judgment may stand: the {results['n_votes']:,} pairs with votes do not show {promise}; "
            f"{rest if results['n_judged'] else everything_voted}."
        )
    if not results["n_judged"]:
        return (
            f"A{everything_voted[1:]}. Judgments of further pairs may stand where |p − 0.5| is at least "
            f"{results['threshold']:.3f}, as in {results['share_standing']:.0%} of these: {promise}."
        )
    return (
        f"{results['n_standing']:,} of {results['n_judged']:,} judgments may stand, {results['n_for_people']:,} go to "
        f"people: {promise} where |p − 0.5| is at least {results['threshold']:.3f}."
    )
