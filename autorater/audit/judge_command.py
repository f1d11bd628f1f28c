"""The command `autorater judge`: pairs judged in both orders by a local judge or one behind a server.

Judgments are stored as they come, in the folder `FILE.judging`, and the same command resumes a stopped run. When all
are there, FILE is written in one step and the folder is removed: the predictions of a stopped run are those of an
undisturbed one. Memory holds ids and some bytes a pair, whatever their texts.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from autorater.audit.arguments import parse_judge_arguments
from autorater.data.errors import UserError


def main(argv: Sequence[str], prog: str = "autorater judge") -> None:
    """Judges pairs and writes their predictions.

    A line has the id, the order, the probability that the response shown second is better (null without an answer),
    its validity, and label, truth and models in that order if the pair has them.

    Raises:
        UserError: If pairs, judge or file are at fault, or the budget was too small.
    """
    args = parse_judge_arguments(argv, prog, __doc__)
    # --help must not wait for SciPy
    from autorater.audit.run import log_missing_answers, open_judging
    from autorater.evaluation.requests import missing_budget
    from autorater.evaluation.results import prepare_output_dir, targets_of

    out = Path(args.out)
    if out.suffix != ".jsonl":
        raise UserError(f"--out {out}: expected a name that ends in .jsonl")
    folder = prepare_output_dir(f"{out}.judging")
    judging = open_judging(args, folder)
    with closing(judging.store) as store:
        n_missing = judging.judge_missing()
        log_missing_answers(judging, args)
        if n_missing:
            raise UserError(missing_budget(n_missing))
        written = out.with_name(f"{out.name}.writing")
        with written.open("w", encoding="utf-8") as file:
            for index, pair in enumerate(judging.pairs()):
                for order, side in (("ab", pair), ("ba", pair.swapped())):
                    record = store[judging.plan.number(index, "swap", 0, order)]
                    targets = targets_of(side, "model_a", "model_b")
                    line = {"id": pair.id, "order": order, **_prediction(record), **targets}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    written.replace(out)
    shutil.rmtree(folder)
    print(f"{out}: {judging.plan.n_pairs:,} pairs in both orders")


def _prediction(record: Mapping) -> dict[str, float | None]:
    answered = record["status"] == "answered"
    valid = record.get("valid", float(answered))
    return {"probability": record.get("probability") if answered else None, "valid": valid}
