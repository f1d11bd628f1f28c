"""`autorater winrate`: which system is better, and how sure are we, from judged pairs and votes on some of them.

Writes `winrate.json` and `winrate.html`, and prints a line per system. With `model_a` and `model_b` there is a row per
system, against all others, and a Bradley–Terry ranking; without them one for "response B".
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from autorater.data.atomic import write_text
from autorater.data.errors import UserError
from autorater.evaluation.results import prepare_output_dir
from autorater.judges.judged import check_method, clusters_of, column_of, labels_of, read_judged
from autorater.judges.recorded import JudgedPair
from autorater.metrics import estimate_win_rate, rank_systems, votes_for_width, votes_only_win_rate
from autorater.metrics.clusters import cluster_numbers
from autorater.report.decisions.page import win_rate_figure, write_page
from autorater.report.tables import percent

logger = logging.getLogger(__name__)

_RESPONSE_B = "response B"
HEADER = ("System", "Win rate", "Votes alone", "Judge alone", "Votes", "Votes gained", "Rank")
CAPTION = "Dots: votes corrected by the judge; squares: votes alone; crosses: the judge alone. Bars are intervals."


def run(args: argparse.Namespace) -> None:
    """Reads, estimates, writes and prints.

    Raises:
        UserError: If a file or an option is invalid, or no system has votes.
    """
    folder = prepare_output_dir(args.output_dir)
    pairs = read_judged(args.judged, args.votes, methods=args.methods)
    check_method(args.methods, pairs)
    labels, judged = labels_of(pairs), np.array([pair.probability for pair in pairs])
    if not np.isnan(labels).any():
        raise UserError(f"all {len(pairs):,} pairs have votes, so that the judge adds nothing; expected some without")
    clusters = clusters_of(pairs, args.cluster_by)
    clusters = np.arange(len(pairs)) if clusters is None else cluster_numbers(clusters)
    rates = system_win_rates(pairs, judged, labels, clusters, args.confidence, args.width)
    if not rates:
        raise UserError("no system has votes; the votes are about pairs of a system with itself")
    results = {"systems": rates, "ranking": ranking(pairs, judged, labels, clusters, args.confidence)}
    write_text(folder / "winrate.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    for name, rate in rates.items():
        print(_line(name, rate, args))
    ranks = rank_texts(results["ranking"])
    for name, rank in ranks.items():
        print(f"rank {rank}: {name}")
    write_page(
        folder / "winrate.html",
        "Win rates",
        answer(rates, args.confidence),
        win_rate_figure(rates),
        CAPTION,
        HEADER,
        [table_row(name, rate, ranks.get(name, "–")) for name, rate in rates.items()],
        vars(args),
    )
    logger.info("%s", folder / "winrate.html")


def system_win_rates(
    pairs: Sequence[JudgedPair],
    judged: np.ndarray,
    labels: np.ndarray,
    clusters: np.ndarray,
    confidence: float,
    width: float | None = None,
) -> dict[str, dict[str, float | str | None]]:
    """The results of `estimate_win_rate` for every system, the best first; for "response B" if systems have no names.

    Args:
        judged, labels: shape (N,), Pr[B preferred] by the judge, and share of votes for B, NaN without votes.
        clusters: shape (N,), dependent pairs have equal numbers.
        width: Adds `more_votes` for an interval this narrow, except for systems whose pairs all have votes.

    A system whose pairs all have votes has the win rate of the votes; one whose pairs have none is left out, with a
    warning.
    """
    rates, without = {}, []
    for name, sides in _systems(pairs).items():
        here, b = sides != 0, sides == 1
        won, label = (np.where(b, values, 1 - values)[here] for values in (judged, labels))
        voted, group = ~np.isnan(label), clusters[here]
        study = won[~voted], won[voted], label[voted]
        options = {"clusters": (group[~voted], group[voted]), "confidence": confidence}
        if not voted.any():
            without.append(f"{name} ({voted.size:,} pairs)")
            continue
        if voted.all():
            rates[name] = votes_only_win_rate(won, label, clusters=group, confidence=confidence)
            continue
        rates[name] = estimate_win_rate(*study, **options)
        if width is not None:
            rates[name]["more_votes"] = votes_for_width(*study, width, **options)
    if without:
        logger.warning(f"no votes, so no win rate: {', '.join(without)}")
    return dict(sorted(rates.items(), key=lambda item: -item[1]["value"]))


def _systems(pairs: Sequence[JudgedPair]) -> dict[str, np.ndarray]:
    """By system: 1 for pairs in which it wrote B, −1 for A, 0 for neither or both."""
    names_a, names_b = (np.array(column_of(pairs, column) or [""] * len(pairs)) for column in ("model_a", "model_b"))
    if "" in (names_a[0], names_b[0]):
        return {_RESPONSE_B: np.ones(len(pairs))}
    return {str(name): (names_b == name) * 1 - (names_a == name) for name in np.unique([names_a, names_b])}


def ranking(
    pairs: Sequence[JudgedPair], judged: np.ndarray, labels: np.ndarray, clusters: np.ndarray, confidence: float
) -> list[dict[str, object]]:
    """The rows of `rank_systems`; none, with a warning, where systems have no names or cannot be ranked."""
    names = [column_of(pairs, column) for column in ("model_a", "model_b")]
    if None in names:
        return []
    try:
        rows = rank_systems(judged, labels, *names, clusters=clusters, confidence=confidence)
    except ValueError as error:
        logger.warning("no ranking: %s", error)
        return []
    return [asdict(row) for row in rows]


def rank_texts(rows: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """The rank of every system with its interval, as text."""
    return {str(row["system"]): f"{row['rank']} ({row['rank_low']}–{row['rank_high']})" for row in rows}


def _line(name: str, rate: dict, args: argparse.Namespace) -> str:
    counts = f"{rate['n_votes']:,} votes, {rate['n_judged']:,} judged pairs, {rate['votes_gained']:+.0f} votes gained"
    more = f"; {rate['more_votes']:,} more votes for a width of {args.width:g}" if "more_votes" in rate else ""
    return f"{name}: win rate {_interval(rate)}, votes alone {_interval(rate, 'votes_only_')} ({counts}{more})"


def table_row(name: str, rate: dict, rank: str) -> tuple[str, ...]:
    """A row of the table with the heading `HEADER`."""
    gained = f"{rate['votes_gained']:+.0f}"
    shown = _interval(rate), _interval(rate, "votes_only_"), f"{rate['judge_only_value']:.3f}"
    return (name, *shown, f"{rate['n_votes']:,}", gained, rank)


def _interval(rate: dict, prefix: str = "") -> str:
    value, low, high = (rate[f"{prefix}{end}"] for end in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def answer(rates: dict[str, dict], confidence: float) -> str:
    """What the win rates say, in sentences."""
    above = [name for name, rate in rates.items() if rate["low"] > 0.5]
    below = [name for name, rate in rates.items() if rate["high"] < 0.5]
    parts = []
    for names, phrase in ((above, "more than half of its pairs"), (below, "less than half of its pairs")):
        parts += [f"{name} wins {phrase}: {_interval(rates[name])}." for name in names]
    unclear = [name for name in rates if name not in above + below]
    if unclear:
        parts.append(f"Too close to call with these votes: {', '.join(unclear)}.")
    return f"{' '.join(parts)} Intervals hold with {percent(confidence)} confidence."
