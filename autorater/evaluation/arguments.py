"""The options of `autorater evaluate`, with plain argparse, so that help needs neither torch nor SciPy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from autorater.data.config_file import check_options, read_config
from autorater.data.errors import UserError, did_you_mean, refuse_ineffective
from autorater.judges.options import (
    ENDPOINT,
    JUDGES,
    METHODS,
    RECALIBRATIONS,
    RECORDED,
    CommandParser,
    add_local_options,
    add_prompt_options,
    add_server_options,
    check_judge_options,
    check_methods,
    fraction,
    number,
    parse_given,
)

DESCRIPTION = """Evaluate judges on labelled pairs by every judging method, with swap averaging and recalibration as
post-processing, in one table.

    autorater evaluate --judge runs/a runs/b --dataset_name votes.jsonl --methods answer_mean
    autorater evaluate --judge Qwen/Qwen2.5-7B-Instruct --dataset_name votes.jsonl --methods all
    autorater evaluate --judge runs/a endpoint:gpt recorded:gpt.jsonl --dataset_name votes.jsonl --panel

A model on this machine has all methods; one behind a server (endpoint:MODEL) writes its answer (verbalized), with
--judge_format it is read exactly (answer_mean); judgments in a file (recorded:FILE, such as of `autorater judge`)
are taken as they are. Without --dataset_name the pairs are simulated, those that recipes/grpo.py holds out. A part of
the pairs, split off by topic or prompt, is used to fit recalibrations only. Writes metrics.json, predictions.jsonl,
report.html and reliability.png to --output_dir. Judgments are stored there as they come: the same command resumes a
stopped run.
"""
DEFAULT_METHODS = ("verbalized", "letter_logits", "answer_mean")
"""The methods that take one forward pass a prompt and fit nothing."""
SWAP, NONE = "swap", "none"
STEPS = (SWAP, *RECALIBRATIONS)
_SIMULATED = ("n_pairs", "n_votes")
_DATA = ("split", "allow_odd_responses")
_ON_THIS_MACHINE = ("methods", "n_samples", "max_reasoning_tokens", "answer_step", "max_prompt_tokens", "device")
_ON_THIS_MACHINE += ("train_dataset_name", "save_recalibration")


def parse_arguments(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the command line, and the YAML file of `--config`, over which the command line wins.

    Raises:
        UserError: If an argument is wrong, has no effect, or contradicts another.
    """
    parser = CommandParser(
        prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    count, natural = number(int, 1), number(int, 0)
    add = parser.add_argument_group("judges and pairs").add_argument
    add("--judge", nargs="+", metavar="JUDGE", required=True, help=f"one or several: {JUDGES}")
    add("--dataset_name", metavar="DATA", help="pairs with votes or labels (docs/data.md); default: simulated pairs")
    odd = "keep blank responses, those that are not text, and half characters; they are counted"
    add("--allow_odd_responses", action="store_true", help=odd)
    add("--split", default="test", help="split of a Hub dataset (default: test)")
    add("--n_pairs", type=count, default=1000, metavar="N", help="number of simulated pairs (default: 1000)")
    add("--n_votes", type=count, default=10, metavar="N", help="simulated votes per pair (default: 10)")
    add("--split_by", metavar="COLUMN", help="separates calibration pairs (default: topic, else prompt)")
    share = "share of the pairs on which recalibrations and panels are fitted (default: 0.3)"
    add("--calibration_fraction", type=fraction, default=0.3, metavar="F", help=share)
    train = "pairs on which the linear probe is fitted (default: the calibration pairs)"
    add("--train_dataset_name", metavar="DATA", help=train)
    people = "annotators to measure for, as in recipes/grpo.py: group=share,group=share (docs/decisions.md)"
    add("--population", metavar="MIX", help=people)
    add("--seed", type=int, default=0, help="seed of the split, the simulated texts and the sampled answers")
    add = parser.add_argument_group("methods").add_argument
    add("--panel", action="store_true", help="also all judges as one, with weights fitted on the calibration pairs")
    methods = f"all, or names out of {', '.join(METHODS)} (default: those a judge has with one forward pass)"
    add("--methods", nargs="+", metavar="M", help=methods)
    add("--variants", nargs="+", metavar="V", help=f"{NONE}, or steps joined by + out of {', '.join(STEPS)}")
    add(
        "--n_samples", type=count, default=10, metavar="N", help="answers per prompt of self-consistency (default: 10)"
    )
    longest = "longest reasoning (default: as saved, else 512)"
    add("--max_reasoning_tokens", type=count, metavar="N", help=longest)
    add("--answer_step", type=number(float, 0.001, 1), metavar="S", help="step of the answers (default: as saved)")
    longest = "pairs with longer prompts are left out (default: 2048)"
    add("--max_prompt_tokens", type=count, default=2048, metavar="N", help=longest)
    add("--device", help="default: a GPU if there is one")
    add_local_options(add)
    add_prompt_options(parser.add_argument_group("prompt").add_argument)
    add_server_options(parser)
    add = parser.add_argument_group("output").add_argument
    add("--output_dir", default="runs/evaluation", metavar="DIR", help="output folder (default: runs/evaluation)")
    add("--n_bootstrap", type=natural, default=1000, metavar="N", help="rounds; 0: no intervals (default: 1000)")
    baseline = "recorded run to compare the first judge with on the same pairs: its folder or metrics.json;"
    add("--baseline", metavar="RUN", help=f"{baseline} exit with 3 if it is worse")
    saved = "kind of recalibration, fitted on answer_mean, to save with a judge in a local folder"
    add("--save_recalibration", choices=RECALIBRATIONS, metavar="KIND", help=f"{saved}: {', '.join(RECALIBRATIONS)}")
    add("--config", metavar="FILE", help="YAML file with `option: value` lines; the command line wins")
    args, given = parse_given(parser, [*_config_arguments(parser, argv), *argv])
    _check(args, given)
    return args


def chosen_methods(args: argparse.Namespace) -> Sequence[str]:
    """The methods to judge by; some may not be available for a judge."""
    return METHODS if args.methods == ["all"] else args.methods or DEFAULT_METHODS


def variant_steps(variant: str) -> tuple[str, ...]:
    """The steps of a variant: `swap+isotonic` → (`swap`, `isotonic`), `none` → (); `UserError` for an unknown step."""
    steps = () if variant == NONE else tuple(variant.split("+"))
    for step in steps:
        if step not in STEPS:
            known = f"expected {NONE}, {', '.join(STEPS)}{did_you_mean(step, (NONE, *STEPS))}"
            raise UserError(f"variant {variant!r}: unknown step {step!r}; {known}")
    return steps


def _config_arguments(parser: CommandParser, argv: Sequence[str]) -> list[str]:
    """The options of the file of `--config` as arguments."""
    only_config = CommandParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    only_config.add_argument("--config")
    path = only_config.parse_known_args(list(argv))[0].config
    if path is None:
        return []
    config, found = read_config(path), []
    check_options(config, {action.dest for action in parser._actions}, f"in {path}")
    for name, value in config.items():
        if isinstance(value, dict):  # a population
            value = ",".join(f"{key}={share}" for key, share in value.items())
        values = value if isinstance(value, list) else [value]
        if value is True:
            found.append(f"--{name}")
        elif value is not None and value is not False:  # a 0 is a value
            found += [f"--{name}", *map(str, values)]
    return found


def _check(args: argparse.Namespace, given: Sequence[str]) -> None:
    check_judge_options(args.judge, args, given)
    on_this_machine = not all(name.startswith((ENDPOINT, RECORDED)) for name in args.judge)
    chosen = chosen_methods(args)
    check_methods(chosen)
    samples = any(method.startswith("self_consistency") for method in chosen)
    cases = (
        (args.dataset_name is not None, "the pairs are read from --dataset_name", _SIMULATED),
        (args.dataset_name is None, "the pairs are simulated", _DATA),
        (not on_this_machine, "no judge runs on this machine", _ON_THIS_MACHINE),
        ("linear_probe" not in chosen, "linear_probe is not among the methods", ("train_dataset_name",)),
        (not samples, "self_consistency is not among the methods", ("n_samples",)),
    )
    refuse_ineffective(cases, given)
    for variant in args.variants or ():
        variant_steps(variant)
    if args.panel and len(args.judge) < 2:
        raise UserError(f"--panel: got one judge, {args.judge[0]}; expected at least two")
    if args.save_recalibration and args.methods and not {"all", "answer_mean"} & {*args.methods}:
        raise UserError("--save_recalibration: it is fitted on answer_mean, which is not among --methods")
    elsewhere = [name for name in args.judge if name.startswith((ENDPOINT, RECORDED))]
    if args.save_recalibration and elsewhere:
        raise UserError(f"--save_recalibration: {elsewhere[0]} is not a local folder, so nothing can be saved with it")
