"""`autorater evaluate`: judges measured on labelled pairs, from their options to the files of the run.

Options: `autorater.evaluation.arguments`. Measuring: `autorater.evaluation.methods`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path

from autorater.data.errors import UserError, located, refuse_several_processes
from autorater.data.loading import load_pairs
from autorater.data.pairs import Pair, grouping, split_by
from autorater.data.population import Population, simulate_pairs
from autorater.data.post_stratification import drawn_by_weight, parse_population, post_stratified
from autorater.evaluation import methods
from autorater.evaluation.arguments import chosen_methods
from autorater.evaluation.method_judgments import ComparedPairs, Storage, cost, generates, methods_of
from autorater.evaluation.panels import panel_entries, panel_line
from autorater.evaluation.results import prepare_output_dir, refuse_results_of_judges
from autorater.judges.identity import model_digest
from autorater.judges.judgments import NamedJudge
from autorater.judges.opening import is_pointwise, judge_options, open_judge
from autorater.judges.options import ENDPOINT, RECORDED
from autorater.metrics.clusters import cluster_numbers
from autorater.report.comparison import comparison_table, full_name, write_comparison_report
from autorater.report.decisions.gate import FAILED, gate_run, predictions_of
from autorater.report.systems import win_rates_of_systems

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> None:
    """Evaluates judges by the arguments of `autorater.evaluation.arguments`; writes the files and prints the table.

    Raises:
        UserError: If data, judges or folder are at fault, a budget was too small, or there are several processes.
    """
    refuse_several_processes()
    folder = prepare_output_dir(args.output_dir)
    refuse_results_of_judges(args.judge, folder)
    if args.baseline is not None:
        predictions_of(args.baseline, folder)  # before anything is judged
    loaded = _load(args)
    paths = methods.judge_names(args.judge)
    judges = _open_judges(args)
    reasons = any(generates(method, judge) for judge in judges.values() for method in chosen_methods(args))
    if args.max_reasoning_tokens and not reasons:
        raise UserError("max_reasoning_tokens: no effect, because no judge reasons by the chosen methods")
    pairs, column, summary = _compared_pairs(args, *loaded, judges.values())
    entries = _judge(args, judges, paths, pairs, folder)
    methods.best_entry(entries)  # an error if no method is available
    compared = methods.headline_entries(entries)
    if args.panel:
        options = {"clusters": pairs.clusters, "n_bootstrap": args.n_bootstrap, "seed": args.seed}
        groups = [getattr(pair, column) for pair in pairs.calibration]
        panel = panel_entries(compared, pairs.calibration, groups=groups, **options)
        logger.info(panel_line(panel[0].recalibration))
        entries, compared = [*entries, *panel], [*compared, *panel]
    _write(folder, entries, compared, pairs, args.n_bootstrap, summary)
    if args.save_recalibration:
        for name, judge in judges.items():
            saved = methods.save_recalibration(args.save_recalibration, entries, judge, paths[name], name)
            logger.info(f"saved with {paths[name]}: {saved.kind}, {saved}")
    if args.baseline is not None:
        methods_compared = (compared[0].key, methods.ANSWER_MEAN_AS_SAVED, methods.ANSWER_MEAN)
        logger.info(f"\n{compared[0].key}, against {args.baseline}:")
        if gate_run(args.baseline, folder, methods=methods_compared, clusters=pairs.clusters):
            sys.exit(FAILED)


def _compared_pairs(
    args: argparse.Namespace,
    pairs: Sequence[Pair],
    unvoted: Sequence[Pair],
    split_column: str | None,
    judges: Iterable[NamedJudge],
) -> tuple[ComparedPairs, str, str]:
    """The pairs that all judges are evaluated on, the column that they are split by, and a sentence about them."""
    total = len(pairs)
    for judge in judges:
        pairs, unvoted = (_fitting(judge, some, args.max_prompt_tokens) for some in (pairs, unvoted))
    column = split_column or methods.group_column(pairs)
    with located(args.dataset_name or "simulated annotators"):
        measured, calibration = split_by(pairs, column, args.calibration_fraction, args.seed)
    train = _load_train(args)
    summary = (
        f"{args.dataset_name or 'Simulated annotators'}: {len(measured):,} evaluation pairs, {len(calibration):,} "
        f"calibration pairs (split by {column}); {total - len(pairs):,} left out because of their length"
    )
    if unvoted:
        summary += f"; {len(unvoted):,} pairs without votes, for win rates only"
    logger.info(summary)
    calibration = drawn_by_weight(calibration, args.seed)
    clusters = cluster_numbers([getattr(pair, column) for pair in measured])
    return ComparedPairs(measured, calibration, train, unvoted, clusters), column, summary


def _judge(
    args: argparse.Namespace,
    judges: Mapping[str, NamedJudge],
    paths: Mapping[str, str],
    pairs: ComparedPairs,
    folder: Path,
) -> list[methods.Entry]:
    """The entries of all judges, after a line about the cost of each."""
    chosen = chosen_methods(args)
    prices = {"price_in": args.price_in, "price_out": args.price_out}
    everything = [pair for part in pairs.parts for pair in part]
    longest_reasoning = args.max_reasoning_tokens or 512
    work = (prices, longest_reasoning, args.n_samples, pairs.train or ())
    applicable = {}
    for name, judge in judges.items():
        say = args.methods not in (None, ["all"])
        applicable[name] = methods_of(judge, chosen, name or paths[name], say=say)
        logger.info(f"{name or paths[name]}: {cost(judge, everything, applicable[name], *work)}")
    if args.save_recalibration:  # before anything is judged
        for name, judge in judges.items():
            judge.check_saved_as(paths[name])
    served = {"ask_refused_again": args.ask_refused_again}
    local = {"n_samples": args.n_samples, "max_reasoning_tokens": longest_reasoning, "seed": args.seed}
    entries = []
    for name, judge in judges.items():
        model = paths[name] if judge.method else model_digest(paths[name], judge.model)
        entries += methods.compare_methods(
            judge,
            pairs,
            methods=chosen if args.methods or judge.method else applicable[name],
            variants=args.variants or methods.VARIANTS,
            name=name,
            n_bootstrap=args.n_bootstrap,
            storage=Storage(folder / "judgments", model),
            progress=True,
            **(served if judge.method else local),
        )
    return entries


def _write(
    folder: Path,
    entries: Sequence[methods.Entry],
    compared: Sequence[methods.Entry],
    pairs: ComparedPairs,
    n_bootstrap: int,
    summary: str,
) -> None:
    """Writes metrics, predictions and report; prints the win rates of systems, if there are any, and the table."""
    systems = win_rates_of_systems(compared[0], pairs.calibration, pairs.unvoted)
    section = systems.section() if systems else None
    methods.write_comparison(folder, entries, systems.metrics if systems else None)
    best = methods.best_entry(entries)
    write_comparison_report(
        folder,
        entries,
        best,
        compared,
        groups=methods.grouped(best.evaluation, n_bootstrap=n_bootstrap),
        win_rates=methods.model_win_rates(best.evaluation, n_bootstrap=n_bootstrap),
        systems=section,
        summary=summary,
    )
    if section:
        logger.info(f"\nBy {full_name(compared[0])}: {section['answer']}")
    logger.info(f"\n{comparison_table(entries, best)}\n\nreport: {folder / 'report.html'}")


def _open_judges(args: argparse.Namespace) -> dict[str, NamedJudge]:
    """The judges by their short names; an option for pairwise ones is not for a pointwise one beside them."""
    options = {name: judge_options(name, args) for name in args.judge}
    local = [name for name in args.judge if not name.startswith((ENDPOINT, RECORDED))]
    for name in local:
        options[name] |= {"device": args.device, "answer_step": args.answer_step}
    for option in ("answer_step", "reasoning"):
        given = [name for name in args.judge if options[name].get(option) is not None]
        pointwise = [name for name in given if len(given) > 1 and name in local and is_pointwise(name, args.judgment)]
        if len(pointwise) < len(given):  # else the first one is refused
            for name in pointwise:
                options[name][option] = None
    judges = {name: open_judge(path, **options[path]) for name, path in methods.judge_names(args.judge).items()}
    for judge in judges.values():
        if not judge.method and judge.prompt_format.reasoning and args.max_reasoning_tokens:
            judge.max_reasoning_tokens = args.max_reasoning_tokens
    return judges


def _load(args: argparse.Namespace) -> tuple[list[Pair], list[Pair], str | None]:
    """Pairs with votes, pairs without, and the column to split by, if it is named."""
    shares = None if args.population is None else parse_population(args.population)
    if args.dataset_name is None:
        people = Population().with_shares(shares)
        options = {"n_votes": args.n_votes, "seed": args.seed, "held_out": True}
        return simulate_pairs(args.n_pairs, people, **options).pairs, [], args.split_by
    column, columns = grouping(args.split_by) if args.split_by else (None, None)
    options = {"split": args.split, "allow_odd_responses": args.allow_odd_responses}
    pairs = load_pairs(args.dataset_name, columns, labelled=False, **options)
    voted, unvoted = [p for p in pairs if p.label is not None], [p for p in pairs if p.label is None]
    if not voted:
        raise UserError(
            f"{args.dataset_name}: none of {len(pairs):,} pairs has votes; expected label, or votes_a and votes_b "
            "(`autorater audit` and `autorater judge` need none)"
        )
    if unvoted and not all(pair.model_a and pair.model_b for pair in pairs):
        logger.warning(
            f"{len(unvoted):,} pairs without votes are left out: without model_a and model_b they have no use"
        )
        unvoted = []
    if shares is not None:
        voted, mix = post_stratified(voted, shares, args.dataset_name)
        logger.info(f"population: {mix}")
    return voted, unvoted, column


def _load_train(args: argparse.Namespace) -> list[Pair] | None:
    if not args.train_dataset_name:
        return None
    train = load_pairs(args.train_dataset_name)
    if args.population is not None:
        train = post_stratified(train, parse_population(args.population), args.train_dataset_name)[0]
        train = drawn_by_weight(train, args.seed)
    return train


def _fitting(judge: NamedJudge, pairs: Sequence[Pair], max_prompt_tokens: int) -> Sequence[Pair]:
    """The pairs whose prompts fit a judge on this machine; other judges have no limit that is known."""
    if judge.method or not pairs:
        return pairs
    return list(compress(pairs, judge.fitting(pairs, max_prompt_tokens)))
