"""The command line of the audit, with plain argparse: the audit of an endpoint must not require torch or TRL."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from autorater.audit.probes import PROBES
from autorater.data.errors import UserError, refuse_ineffective
from autorater.judges.options import (
    ENDPOINT,
    LOCAL_OPTIONS,
    PROMPT_OPTIONS,
    RECORDED,
    CommandParser,
    add_local_options,
    add_prompt_options,
    add_server_options,
    check_judge_options,
    names,
    number,
    parse_given,
)

_JUDGING_OPTIONS = (
    "dataset_name",
    "split",
    "max_pairs",
    "allow_odd_responses",
    "probe",
    "repeats",
    "reasoning",
    *PROMPT_OPTIONS,
    *LOCAL_OPTIONS,
)
_JUDGE = """Judge pairs in both orders with a model on this machine or one behind a server. Judgments are stored as
they come, in the folder FILE.judging, and the same command resumes a stopped run."""
_RANK = """Rank the responses to every prompt. A row of PROMPTS has `prompt`, `responses` (a list) and optionally `id`;
texts may be chat messages. A line of FILE has the id, `order` (indices of the responses, the best first), `strengths`
(Bradley-Terry, in logits, with mean 0), `probabilities` (of the row's response to be preferred over the column's) and
`n_judgments`, the prompts that the judge read. Judgments are stored as they come, in the folder FILE.judging, and the
same command resumes a stopped run."""
_RECORDED = "a recorded file already holds the pairs and the verdicts"


def parse_arguments(argv: Sequence[str], prog: str, description: str = "Audit a judge.") -> argparse.Namespace:
    """Parses the command line of the audit, without the name of the script.

    `description` is the first part of the help page.

    Returns:
        The arguments; `probe` and `group_by` are tuples of names, `extra_body` is a dict, `header` a list of pairs.

    Raises:
        UserError: If an argument is wrong, has no effect on the judge, or contradicts another.
    """
    parser = CommandParser(
        prog=prog,
        description=description,
        epilog=Path(__file__).with_name("help.txt").read_text(encoding="utf-8"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("judge, data and prompt").add_argument
    add("--judge", metavar="SPEC", required=True, help="DIR, org/name, endpoint:MODEL or recorded:FILE; see below")
    add("--dataset_name", metavar="DATA", help="pairs: a file, a folder or a Hub name, as in the README")
    _add_data_and_prompt(add)
    add("--probe", type=names, default=("swap",), metavar="P,P", help=f"out of {', '.join(PROBES)} (default: swap)")
    repeats = "requests per presentation, to measure noise (default: 1)"
    add("--repeats", type=number(int, 1), default=1, metavar="R", help=repeats)
    add("--group_by", type=names, default=(), metavar="C,C", help="metrics also by the values of these columns")
    own = "systems (model_a, model_b) of the judge's own family: are they preferred more than by people?"
    add("--self", dest="family", type=names, default=(), metavar="NAME,…", help=own)
    add_server_options(parser)
    add = parser.add_argument_group("output").add_argument
    add("--output_dir", default="runs/audit", metavar="DIR", help="output folder (default: runs/audit)")
    rounds = "rounds; 0: no intervals (default: 1000)"
    add("--n_bootstrap", type=number(int, 0), default=1000, metavar="N", help=rounds)
    baseline = "recorded run to compare with on the same pairs: its folder or metrics.json; exit with 3 if worse"
    add("--baseline", metavar="RUN", help=baseline)
    share = number(float, 0, 1)
    add("--fail_above", "--fail-above", type=share, metavar="FLIP_RATE", help="exit with 3 if flip_rate is above this")
    args, given = parse_given(parser, argv)
    _check(args, given)
    return args


def parse_judge_arguments(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the command line of `autorater judge`; returns and raises as `parse_arguments`."""
    pairs = "pairs to judge: a file, a folder or a Hub name, with or without labels"
    written = "predictions to write, .jsonl, two lines a pair: order ab and ba"
    parser, add = _judging_parser(prog, _JUDGE, "PAIRS", pairs, written)
    _add_data_and_prompt(add)
    add_server_options(parser)
    return _parse_judging(parser, argv)


def parse_rank_arguments(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the command line of `autorater rank`; returns and raises as `parse_arguments`."""
    prompts = "prompts with responses: .jsonl, .json, .parquet, or a Hub name"
    written = "rankings to write, .jsonl, one line a prompt"
    parser, add = _judging_parser(prog, _RANK, "PROMPTS", prompts, written)
    add("--split", default="train", help="split of a Hub dataset (default: train)")
    add("--max_prompts", type=number(int, 1), metavar="N", help="rank only the first N prompts")
    add_local_options(add)
    add_prompt_options(add)
    add_server_options(parser)
    return _parse_judging(parser, argv)


def _judging_parser(
    prog: str, description: str, data: str, data_help: str, out_help: str
) -> tuple[CommandParser, Callable]:
    """A parser of the data, the judge and the file to write, and what adds options to their group."""
    parser = CommandParser(prog=prog, description=description, allow_abbrev=False)
    add = parser.add_argument_group("judge, data and prompt").add_argument
    add("dataset_name", metavar=data, help=data_help)
    add("--judge", metavar="JUDGE", required=True, help="DIR, org/name or endpoint:MODEL, as in the audit")
    add("--out", metavar="FILE", required=True, help=out_help)
    return parser, add


def _parse_judging(parser: CommandParser, argv: Sequence[str]) -> argparse.Namespace:
    parser.set_defaults(probe=("swap",), repeats=1, fail_above=None)
    args, given = parse_given(parser, argv)
    if args.judge.startswith(RECORDED):
        raise UserError(
            f"--judge {args.judge}: recorded verdicts are predictions already; autorater audit, evaluate, winrate, "
            "defer and gate read that file"
        )
    if not args.out.endswith(".jsonl"):
        raise UserError(f"--out {args.out}: expected a name that ends in .jsonl")
    _check(args, given)
    return args


def _add_data_and_prompt(add: Callable) -> None:
    add("--split", default="train", help="split of a Hub dataset (default: train)")
    add("--max_pairs", type=number(int, 1), metavar="N", help="judge only the first N pairs")
    odd = "judge blank responses too, those that are not text, and half characters"
    add("--allow_odd_responses", action="store_true", help=odd)
    add_local_options(add)
    add_prompt_options(add)


def _check(args: argparse.Namespace, given: Sequence[str]) -> None:
    recorded = args.judge.startswith(RECORDED)
    refuse_ineffective([(recorded, _RECORDED, _JUDGING_OPTIONS)], given)
    check_judge_options([args.judge], args, given)
    if not recorded and not args.dataset_name:
        raise UserError("--dataset_name is missing: a file with the columns prompt, response_a and response_b")
    if not set(args.probe) <= set(PROBES) or len(set(args.probe)) < len(args.probe):
        raise UserError(f"--probe {','.join(args.probe)}: expected names out of {', '.join(PROBES)}, each once")
    if "labels" in args.probe and not args.judge.startswith(ENDPOINT):
        raise UserError(
            "--probe labels is for endpoints: the labels in a local judge's prompt are those of its training"
        )
    for probe in {"labels", "paraphrase"} & set(args.probe):
        if args.judge_format:
            raise UserError(f"--probe {probe} has no effect with --judge_format: the prompt is that of its training")
    if getattr(args, "family", ()) and "swap" not in args.probe:
        raise UserError("--self requires the probe swap; add it to --probe")
    if getattr(args, "baseline", None) is not None and "swap" not in args.probe:
        raise UserError("--baseline requires the probe swap; add it to --probe")
    if args.fail_above is not None and "swap" not in args.probe:
        raise UserError("--fail_above requires the probe swap; add it to --probe")
