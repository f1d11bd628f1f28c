"""An audit from its arguments to its files: the predictions of the judge, their metrics, the report."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from autorater.audit.judging import judge_remaining
from autorater.audit.plan import Plan
from autorater.audit.predictions import PairIndex, Predictions, index_pairs, recorded_predictions, stored_predictions
from autorater.audit.processes import ALONE, Processes
from autorater.audit.report import audit_summary, write_audit_report
from autorater.audit.results import flat_metrics, measure, recorded_flips, stored_flips, write_flips, write_predictions
from autorater.data.errors import UserError
from autorater.data.loading import iter_pairs
from autorater.data.pairs import Pair
from autorater.evaluation.judgment_store import JudgmentStore
from autorater.evaluation.requests import (
    add_earlier_usage,
    is_refused,
    missing_budget,
    usage_line,
)
from autorater.evaluation.results import write_metrics
from autorater.judges.endpoint import EndpointJudge, missing_answers
from autorater.judges.judged import judged_in_both_orders, warn_of_weights
from autorater.judges.judgments import NamedJudge
from autorater.judges.opening import judge_options, judge_settings, open_judge
from autorater.judges.options import RECORDED, without_secret_values
from autorater.judges.recorded import JudgedPair

logger = logging.getLogger(__name__)
_WITH_WEIGHTS = 1000  # pairs at the beginning of a file that show whether there are weights


@dataclass(frozen=True)
class AuditData:
    """Predictions by probe, the pairs that flip, all pairs, and the number of requests that the budget left out."""

    predictions: Mapping[str, Predictions]
    flips: Iterator[Mapping[str, object]]
    pairs: Callable[[], Iterable[Pair | JudgedPair]]
    n_missing: int = 0


def run_audit(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Audits a judge by the arguments of `parse_arguments`; writes the files of an existing folder, logs a summary.

    Returns:
        The flat metrics.

    Raises:
        UserError: If data, judge or folder are at fault; after the results are written, if the budget was too small.
    """
    data = _recorded_data(args) if args.judge.startswith(RECORDED) else _judged_data(args, folder)
    warn_of_weights(islice(data.pairs(), _WITH_WEIGHTS))
    metrics = {probe: measure(found, args.n_bootstrap, probe) for probe, found in data.predictions.items()}
    first, headline = next(iter(data.predictions.items()))
    _check_family(args, headline.pairs)
    names = dict.fromkeys(headline.pairs.groups) if args.group_by else ()
    groups = {name: measure(headline.of_group(name), args.n_bootstrap, first) for name in names}
    if not any(values["n_pairs"] for values in metrics.values()):
        counts = next(iter(metrics.values()))
        raise UserError(
            f"no pair has a parsed answer for both presentations ({counts['n_unparsed_answers']:.0f} answers are "
            f"unparsed, {counts['n_refused_answers']:.0f} refused); judgments.jsonl has the texts"
        )
    worst, n_flips = write_flips(folder, data.flips)
    if "swap" in data.predictions:
        write_predictions(folder, data.pairs(), data.predictions["swap"])
    flat = flat_metrics(metrics, groups)
    write_metrics(folder, flat)
    title = f"Audit of {args.judge}"
    settings = {
        name: value for name, value in vars(args).items() if value not in (None, (), {}, []) and name != "header"
    }
    if args.header:  # their values may be secret
        settings["header"] = ", ".join(name for name, _ in args.header)
    if args.base_url:
        settings["base_url"] = without_secret_values(args.base_url)
    write_audit_report(folder, data.predictions, metrics, groups, worst, n_flips, title=title, settings=settings)
    logger.info(f"\n{audit_summary(metrics, groups)}\n\nreport: {folder / 'report.html'}")
    if data.n_missing:
        raise UserError(missing_budget(data.n_missing))
    return flat


def _recorded_data(args: argparse.Namespace) -> AuditData:
    pairs = judged_in_both_orders(args.judge.removeprefix(RECORDED))
    predictions = recorded_predictions(pairs(), args.group_by, args.family)
    return AuditData({"swap": predictions}, recorded_flips(pairs(), predictions), pairs)


@dataclass(frozen=True)
class Judging:
    """Pairs, the requests about them, a judge, the judgments that are stored, and what opens another such store."""

    pairs: Callable[[], Iterator[Pair]]
    index: PairIndex
    plan: Plan
    judge: NamedJudge
    store: JudgmentStore
    open_store: Callable[[Path], JudgmentStore]

    def judge_missing(self, processes: Processes = ALONE, stored: Container[int] | None = None) -> None:
        """Judges what is not stored; `processes` and `stored` as in `judge_remaining`."""
        n_missing = self.plan.n_requests - len(self.store)
        if len(self.store):
            logger.info(f"{len(self.store):,} judgments are stored already, {n_missing:,} are missing")
        if isinstance(self.judge, EndpointJudge):
            add_earlier_usage(self.judge.usage, self.store)
        if n_missing:
            options = {"progress": processes.is_first, "processes": processes, "stored": stored}
            judge_remaining(self.judge, self.plan, self.pairs(), self.store, **options)

    def complete(self) -> int:
        """Sorts the store; returns the number of requests that the budget did not allow."""
        self.store.sort()
        return self.plan.n_requests - len(self.store)


def open_judging(args: argparse.Namespace, folder: Path, pairs: Callable[[], Iterator[Pair]] | None = None) -> Judging:
    """Opens judge and store; all pairs are checked before the first paid request.

    Args:
        pairs: Returns the pairs to judge, the same whenever it is called; by default those of `--dataset_name`.

    Errors as in `run_audit`.
    """

    def of_dataset() -> Iterator[Pair]:
        options = {"split": args.split, "allow_odd_responses": args.allow_odd_responses}
        return islice(iter_pairs(args.dataset_name, labelled=False, **options), args.max_pairs)

    pairs = pairs or of_dataset
    index = index_pairs(pairs(), getattr(args, "group_by", ()), getattr(args, "family", ()))
    _check_family(args, index)  # before the first request
    plan = Plan(len(index), args.probe, args.repeats)
    judge = open_judge(args.judge, **judge_options(args.judge, args))
    if "paraphrase" in args.probe:
        _check_instruction(judge)
    settings = judge_settings(args.judge, judge) | {"data": index.fingerprint, **asdict(plan)}
    about = plan.n_requests, plan.number_of, settings, is_refused, args.ask_refused_again

    def open_store(folder: Path) -> JudgmentStore:
        return JudgmentStore(folder, *about)

    return Judging(pairs, index, plan, judge, open_store(folder), open_store)


def _check_family(args: argparse.Namespace, index: PairIndex) -> None:
    family = getattr(args, "family", ())
    if family and not index.own.any():
        raise UserError(
            f"--self {','.join(family)}: no pair compares one of these with another system; expected values of "
            "model_a and model_b"
        )


def _check_instruction(judge: NamedJudge) -> None:
    """UserError if there is no instruction of ours that the probe `paraphrase` could replace."""
    if judge.is_pointwise:
        raise UserError("--probe paraphrase requires a judge of pairs; this one reads single responses")
    _ = judge.prompt_format.paraphrased


def log_missing_answers(judging: Judging, args: argparse.Namespace) -> None:
    """For a judge behind a server: what was used, and why requests have no probability."""
    if isinstance(judging.judge, EndpointJudge):
        used = usage_line(judging.judge.usage)
        logger.info("\n".join([used, *missing_answers(judging.store.records(), args.max_answer_tokens)]))


def _judged_data(args: argparse.Namespace, folder: Path) -> AuditData:
    judging = open_judging(args, folder)
    plan, store = judging.plan, judging.store
    with closing(store):
        judging.judge_missing()
        n_missing = judging.complete()
    log_missing_answers(judging, args)
    predictions = {probe: stored_predictions(store, plan, judging.index, probe) for probe in plan.probes}
    flips = (
        flip for probe in plan.probes for flip in stored_flips(judging.pairs(), predictions[probe], store, plan, probe)
    )
    return AuditData(predictions, flips, judging.pairs, n_missing)
