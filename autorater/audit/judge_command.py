"""The command `autorater judge`: pairs judged in both orders by a local judge or one behind a server.

Judgments are stored as they come, in the folder `FILE.judging`, and the same command resumes a stopped run. When all
are there, FILE is written in one step and the folder is removed: the predictions of a stopped run are those of an
undisturbed one. Where a server refused requests the folder stays, and `--ask_refused_again` repeats them; without it,
all pairs are judged anew. Memory holds ids and some bytes a pair, whatever their texts. torchrun starts several
processes, which share the pairs (`autorater.audit.processes`).
"""

import argparse
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from autorater.audit.processes import Processes, collect
from autorater.audit.results import cluster_columns
from autorater.audit.run import Judging, log_missing_answers, open_judging
from autorater.data.atomic import open_atomic
from autorater.data.errors import UserError, refuse_overwriting
from autorater.data.pairs import Pair
from autorater.evaluation.judgment_store import StoredElsewhere
from autorater.evaluation.requests import missing_budget
from autorater.evaluation.results import prepare_output_dir, targets_of
from autorater.judges.endpoint import EndpointJudge, numbers_in
from autorater.judges.options import ENDPOINT

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> None:
    """Judges pairs and writes their predictions, by the arguments of `parse_judge_arguments`.

    A line has the id, the order, the probability that the response shown second is better (null without an answer),
    its validity, and label, truth and models in that order if the pair has them; rows that show the same texts have
    the same `cluster`.

    Raises:
        UserError: If pairs, judge or file are at fault, or the budget was too small.
    """
    if judging := judge_to_file(args, predictions):
        print(f"{args.out}: {judging.plan.n_pairs:,} pairs in both orders")


def predictions(judging: Judging) -> Iterator[dict[str, object]]:
    """The lines of a file of predictions, from judgments that are stored."""
    clusters, records = cluster_columns(judging.index.clusters), judging.store.records()  # sorted
    for index, pair in enumerate(judging.pairs()):
        for order, side in (("ab", pair), ("ba", pair.swapped())):
            about = {**targets_of(side, "model_a", "model_b"), **clusters[index]}
            yield {"id": pair.id, "order": order, **_prediction(next(records)), **about}


def judge_to_file(
    args: argparse.Namespace,
    lines: Callable[[Judging], Iterable[Mapping[str, object]]],
    pairs: Callable[[], Iterator[Pair]] | None = None,
) -> Judging | None:
    """Judges pairs, in the store `FILE.judging`, and writes lines made of the judgments to FILE, in one step.

    Of several processes (`autorater.audit.processes`) the first one writes; in the others it returns None.

    Errors as in `run`; `pairs` as in `open_judging`.
    """
    out, processes = Path(args.out), Processes.of_environment()
    if processes.size > 1 and args.judge.startswith(ENDPOINT):
        raise UserError(f"--judge {args.judge}: one process sends all requests to a server; raise --concurrency")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; expected a file to write")
    refuse_overwriting(args.dataset_name, out)
    folder = Path(f"{out}.judging")
    if args.ask_refused_again and out.exists() and not folder.exists():
        raise UserError(f"--ask_refused_again: {out} is finished and no request was refused; delete it to judge again")
    finished = folder / "finished"
    if finished.exists() and not args.ask_refused_again:
        shutil.rmtree(folder)
    prepare_output_dir(folder)
    finished.unlink(missing_ok=True)
    if not processes.is_first:
        _judge_share(args, folder, pairs, processes)
        return None
    judging = open_judging(args, folder, pairs)
    with closing(judging.store):
        collect(judging.store, folder, judging.open_store)
        processes.wait()  # the others read what is stored
        judging.judge_missing(processes)
        processes.wait()
        collect(judging.store, folder, judging.open_store)
        n_missing = judging.complete()
        log_missing_answers(judging, args)
        if n_missing:
            raise UserError(missing_budget(n_missing))
        found = Counter(record["status"] for record in judging.store.records())
        if found and not found["answered"]:
            raise UserError(
                f"no request has an answer: {found['refused']:,} were refused, {found['unparsed']:,} are unparsed; "
                f"{judging.store.path} has the reasons, and --ask_refused_again repeats what a server refused"
            )
        with open_atomic(out) as file:
            for line in lines(judging):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if found["refused"] and isinstance(judging.judge, EndpointJudge):
        finished.touch()
        logger.info(f"{found['refused']:,} requests were refused; --ask_refused_again repeats them, from {folder}")
    else:
        shutil.rmtree(folder)
    return judging


def _judge_share(
    args: argparse.Namespace,
    folder: Path,
    pairs: Callable[[], Iterator[Pair]] | None,
    processes: Processes,
) -> None:
    """Judges the share of a process that is not the first."""
    processes.wait()  # until the first one has opened the store and found the pairs in order
    judging = open_judging(args, prepare_output_dir(processes.folder(folder)), pairs)
    with closing(judging.store):
        stored = StoredElsewhere(folder, judging.plan.n_requests, judging.plan.number_of)
        judging.judge_missing(processes, stored)
    processes.wait()


def _prediction(record: Mapping) -> dict[str, float | None]:
    return {"probability": record.get("probability"), "valid": numbers_in(record)[1]}
