"""An audit from its arguments to its files: recorded verdicts are read, judges are asked; then it is one road."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

from autorater.audit.arguments import ENDPOINT, RECORDED
from autorater.audit.judging import Ask, ask_missing, endpoint_asker, local_asker
from autorater.audit.plan import Plan
from autorater.audit.predictions import Readings, catalogue_pairs, journal_readings, recorded_readings
from autorater.audit.report import audit_summary, write_audit_report
from autorater.audit.results import flat_metrics, journal_flips, measure, recorded_flips, write_flips, write_metrics
from autorater.audit.store import Journal
from autorater.data.loading import iter_pairs
from autorater.data.pairs import Pair
from autorater.judges.answer import Answer
from autorater.judges.endpoint import EndpointJudge, Usage
from autorater.judges.recorded import iter_recorded
from autorater.prompts.templates import PromptFormat

Flips = Iterator[Mapping[str, object]]


@dataclass(frozen=True)
class Heard:
    """What an audit has heard from a judge.

    Attributes:
        readings: By probe.
        flips: The pairs that flip, of all probes.
        notes: Lines to print: tokens, cost, what was left behind by an earlier run.
        unfinished: Why not everything was asked; empty if it was.
    """

    readings: Mapping[str, Readings]
    flips: Flips
    notes: list[str] = field(default_factory=list)
    unfinished: str = ""


@dataclass(frozen=True)
class Outcome:
    """Figures of a finished audit: the flat metrics, a summary for the terminal, and what is still missing."""

    metrics: Mapping[str, float]
    summary: str
    unfinished: str


def run_audit(args: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Hears the judge, measures, and writes `metrics.json`, `flips.jsonl` and `report.html`.

    Args:
        args: As `parse_arguments` gives them.
        folder: Existing folder to write to.
        say: Prints a line.

    Raises:
        ValueError: Whatever is wrong with data, judge or folder.
    """
    heard = _read_recorded(args) if args.judge.startswith(RECORDED) else _ask_judge(args, folder, say)
    for note in heard.notes:
        say(note)
    metrics = {probe: measure(readings, args.n_bootstrap) for probe, readings in heard.readings.items()}
    headline = next(iter(heard.readings.values()))
    groups = {}
    if args.group_by:
        names = headline.catalogue.group_names
        groups = {name: measure(headline.of_group(i), args.n_bootstrap) for i, name in enumerate(names)}
    if not any(figures["n_pairs"] for figures in metrics.values()):
        counts = next(iter(metrics.values()))
        raise ValueError(
            f"no pair has a readable answer in both orders ({counts['n_unparsed_answers']:.0f} answers hold no "
            f"probability, {counts['n_refused_answers']:.0f} were refused); judgments.jsonl has what was said"
        )
    worst, n_flips = write_flips(folder, heard.flips)
    flat = flat_metrics(metrics, groups)
    write_metrics(folder, flat)
    title = f"Audit of {args.judge}"
    settings = {name: value for name, value in vars(args).items() if value not in (None, (), {})}
    write_audit_report(folder, heard.readings, metrics, groups, worst, n_flips, title=title, settings=settings)
    return Outcome(flat, audit_summary(metrics, groups), heard.unfinished)


def _read_recorded(args: argparse.Namespace) -> Heard:
    path = args.judge.removeprefix(RECORDED)
    readings = recorded_readings(iter_recorded(path), args.group_by)
    return Heard({"swap": readings}, recorded_flips(iter_recorded(path), readings))


def _ask_judge(args: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> Heard:
    def pairs() -> Iterator[Pair]:
        for index, pair in enumerate(iter_pairs(args.dataset_name, split=args.split)):
            if index == args.max_pairs:
                return
            yield pair

    catalogue = catalogue_pairs(pairs(), args.group_by)  # all of it checked before the first question is paid for
    plan = Plan(len(catalogue), args.probe, args.repeats)
    judge, ask, settings = (_endpoint if args.judge.startswith(ENDPOINT) else _local)(args)
    settings |= {"data": catalogue.fingerprint, **asdict(plan)}

    def forgotten(record: Mapping) -> bool:
        return args.ask_refused_again and record["status"] == "refused"

    journal = Journal(folder, plan.n_questions, plan.slot_of, settings, forgotten)
    with closing(journal):
        n_left = plan.n_questions - len(journal)
        if journal.torn:
            say("the last line of judgments.jsonl was cut off and is asked again")
        if journal.n_kept:
            say(f"{journal.n_kept:,} judgments are there already, {n_left:,} to go")
        if isinstance(judge, EndpointJudge):
            _count_earlier(judge.usage, journal)
        if n_left:
            with closing(pairs()) as asked:
                ask_missing(ask, plan, asked, journal, progress=True)
        journal.sort()
        n_missing = plan.n_questions - len(journal)
    notes = [_usage_line(judge.usage, args)] if isinstance(judge, EndpointJudge) else []
    readings = {probe: journal_readings(journal, plan, catalogue, probe) for probe in plan.probes}
    flips = (flip for probe in plan.probes for flip in journal_flips(pairs(), readings[probe], journal, plan, probe))
    unfinished = ""
    if n_missing:
        unfinished = (
            f"the budget sufficed for all but {n_missing:,} of {plan.n_questions:,} questions; start again with more "
            "--max_requests or --max_tokens to go on"
        )
    return Heard(readings, flips, notes, unfinished)


def _endpoint(args: argparse.Namespace) -> tuple[EndpointJudge, Ask, dict[str, object]]:
    judge = EndpointJudge(
        args.judge.removeprefix(ENDPOINT),
        base_url=args.base_url,
        api_key_env=args.api_key_env,
        prompt_format=PromptFormat(reasoning=args.reasoning),
        temperature=args.temperature,
        max_answer_tokens=args.max_answer_tokens,
        extra_body=args.extra_body,
        concurrency=args.concurrency,
        timeout=args.timeout,
        max_retries=args.max_retries,
        max_wait=args.max_wait,
        usage=Usage(max_requests=args.max_requests, max_tokens=args.max_tokens),
    )
    settings = {
        "judge": args.judge,
        "base_url": args.base_url,
        "prompt": judge.prompt_format.text,
        "temperature": args.temperature,
        "max_answer_tokens": args.max_answer_tokens,
        "extra_body": dict(args.extra_body),
    }
    return judge, endpoint_asker(judge), settings


def _local(args: argparse.Namespace):
    from autorater.models.libraries import quiet_libraries

    quiet_libraries()
    from autorater.judges import Judge

    reasoning = {"prompt_format": PromptFormat(reasoning=True)} if args.reasoning else {}
    judge = Judge.from_pretrained(args.judge, **reasoning)
    settings = {
        "judge": args.judge,
        "weights": _files_fingerprint(Path(args.judge)),
        "prompt": judge.encoder.format.text,
        "answer_step": judge.tree.step,
    }
    return judge, local_asker(judge), settings


def _files_fingerprint(folder: Path) -> str:
    """Changes when a model in a folder is replaced; a name on the Hub has no files here."""
    files = sorted(path for path in folder.glob("*") if path.suffix in (".safetensors", ".json"))
    described = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return blake2b(repr(described).encode(), digest_size=16).hexdigest()


def _count_earlier(usage: Usage, journal: Journal) -> None:
    """Counts what an earlier run has used up; of its requests only those that were answered are known."""
    for record in journal.records():
        usage.requests += 1
        usage.add(Answer(record["status"], **{n: record.get(n, 0) for n in ("prompt_tokens", "completion_tokens")}))


def _usage_line(usage: Usage, args: argparse.Namespace) -> str:
    line = (
        f"{usage.requests:,} requests ({usage.retries:,} retries), {usage.prompt_tokens:,} prompt tokens, "
        f"{usage.completion_tokens:,} completion tokens"
    )
    if args.price_in is not None or args.price_out is not None:
        cost = usage.prompt_tokens * (args.price_in or 0) + usage.completion_tokens * (args.price_out or 0)
        line += f", {cost / 1e6:.4f} USD"
    return line
