"""The command line of the audit, with plain argparse: the audit of an endpoint must not require torch or TRL."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from autorater.audit.probes import PROBES
from autorater.data.errors import UserError
from autorater.prompts.templates import BUILT_IN
from autorater.training.compatibility import refuse_ineffective

ENDPOINT, RECORDED = "endpoint:", "recorded:"

_SERVER_OPTIONS = (
    *("judge_format", "read"),
    *("base_url", "api_key_env", "temperature", "max_answer_tokens", "extra_body", "header", "concurrency", "timeout"),
    *("max_retries", "max_wait", "max_requests", "max_tokens", "price_in", "price_out", "ask_refused_again"),
)
PROMPT_OPTIONS = ("prompt_template", "system_prompt", "criteria", "reference")
_JUDGING_OPTIONS = ("dataset_name", "split", "max_pairs", "probe", "repeats", "reasoning", *PROMPT_OPTIONS)
_LOCAL = "a local judge sends no requests to a server, and its answers are computed exactly"
_RECORDED = "a recorded file already holds the pairs and the verdicts"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def parse_arguments(argv: Sequence[str], prog: str, description: str) -> argparse.Namespace:
    """Parses the command line of the audit, without the name of the script.

    `description` is the first part of the help page.

    Returns:
        The arguments; `probe` and `group_by` are tuples of names, `extra_body` is a dict, `header` a list of pairs.

    Raises:
        UserError: If an argument is wrong, has no effect on the judge, or contradicts another.
    """
    parser = _Parser(
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
    add("--probe", type=_names, default=("swap",), metavar="P,P", help=f"out of {', '.join(PROBES)} (default: swap)")
    repeats = "requests per presentation, to measure noise (default: 1)"
    add("--repeats", type=_number(int, 1), default=1, metavar="R", help=repeats)
    add("--group_by", type=_names, default=(), metavar="C,C", help="metrics also by the values of these columns")
    _add_server(parser.add_argument_group("requests to a server (endpoint:MODEL)").add_argument)
    add = parser.add_argument_group("output").add_argument
    add("--output_dir", default="runs/audit", metavar="DIR", help="output folder (default: runs/audit)")
    rounds = "rounds; 0: no intervals (default: 1000)"
    add("--n_bootstrap", type=_number(int, 0), default=1000, metavar="N", help=rounds)
    share = _number(float, 0, 1)
    add("--fail_above", "--fail-above", type=share, metavar="FLIP_RATE", help="exit with 3 if flip_rate is above this")
    return _parse(parser, argv)


def parse_judge_arguments(argv: Sequence[str], prog: str, description: str) -> argparse.Namespace:
    """Parses the command line of `autorater judge`; returns and raises as `parse_arguments`."""
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    add = parser.add_argument_group("judge, data and prompt").add_argument
    add("dataset_name", metavar="PAIRS", help="pairs to judge: a file, a folder or a Hub name, with or without labels")
    add("--judge", metavar="JUDGE", required=True, help="DIR, org/name or endpoint:MODEL, as in the audit")
    add("--out", metavar="FILE", required=True, help="predictions to write, .jsonl, two lines a pair: order ab and ba")
    _add_data_and_prompt(add)
    _add_server(parser.add_argument_group("requests to a server (endpoint:MODEL)").add_argument)
    parser.set_defaults(probe=("swap",), repeats=1, fail_above=None)
    args = _parse(parser, argv)
    if args.judge.startswith(RECORDED):
        raise UserError(f"--judge {args.judge}: recorded verdicts are predictions already")
    return args


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    args = parser.parse_args(argv)
    unset = object()
    given = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args), unset))))
    _check(args, [name for name, value in given.items() if value is not unset])
    return args


def _add_data_and_prompt(add: Callable) -> None:
    add("--split", default="train", help="split of a Hub dataset (default: train)")
    add("--max_pairs", type=_number(int, 1), metavar="N", help="judge only the first N pairs")
    template = f"a file with slots (docs/prompts.md), or {', '.join(BUILT_IN)} (default: as saved, else full)"
    add("--prompt_template", metavar="FILE", help=template)
    add("--system_prompt", metavar="TEXT", help="system message in front of the prompt")
    for slot in ("criteria", "reference"):
        add(f"--{slot}", metavar="TEXT", help=f"fills the slot {{{slot}}} for pairs without a value in that column")
    add("--reasoning", action="store_true", help="reason before the answer (endpoints: raise --max_answer_tokens)")


def _add_server(add: Callable) -> None:
    count, natural, amount = _number(int, 1), _number(int, 0), _number(float, 0)
    add(
        "--judge_format", metavar="DIR", help="folder of the trained judge behind the server: asked as it was measured"
    )
    read = "with --judge_format: `exact` sums over all answers, `sampled` lets the server write one (default: exact)"
    add("--read", choices=("exact", "sampled"), default="exact", help=read)
    add("--base_url", metavar="URL", help="address of the server, up to /v1 (default: OpenAI's)")
    key = "OPENAI_API_KEY"
    add("--api_key_env", default=key, metavar="NAME", help=f"environment variable with the key (default: {key})")
    temperature = "sampling temperature, with --repeats above 0; 'server': chosen by the server (default: 0)"
    add("--temperature", type=_temperature, default=0.0, metavar="T", help=temperature)
    add("--max_answer_tokens", type=count, default=64, metavar="N", help="longest answer (default: 64)")
    body = """further fields of a request; null removes one: '{"max_tokens": null, "max_completion_tokens": 64}'"""
    add("--extra_body", type=_json_object, default={}, metavar="JSON", help=body)
    header = "further header, with $NAME from the environment: 'api-key: $AZURE_KEY'; may be repeated"
    add("--header", type=_header, action="append", default=[], metavar="NAME:VALUE", help=header)
    add("--concurrency", type=count, default=8, metavar="N", help="simultaneous requests (default: 8)")
    seconds = _number(float, 0.001)
    add("--timeout", type=seconds, default=60.0, metavar="S", help="seconds for an attempt (default: 60)")
    add("--max_retries", type=natural, default=6, metavar="N", help="attempts after the first (default: 6)")
    add("--max_wait", type=seconds, default=600.0, metavar="S", help="longest Retry-After accepted (default: 600)")
    add("--max_requests", type=count, metavar="N", help="stop after N requests, retries included")
    add("--max_tokens", type=count, metavar="N", help="stop after N tokens, those of earlier runs included")
    add("--price_in", type=amount, metavar="USD", help="price of a million prompt tokens, to print the cost")
    add("--price_out", type=amount, metavar="USD", help="price of a million completion tokens")
    add("--ask_refused_again", action="store_true", help="repeat the requests that were refused in an earlier run")


def _check(args: argparse.Namespace, given: Sequence[str]) -> None:
    endpoint, recorded = args.judge.startswith(ENDPOINT), args.judge.startswith(RECORDED)
    if args.judge in (ENDPOINT, RECORDED):
        raise UserError(f"--judge {args.judge}: expected a {'model' if endpoint else 'file'} after the colon")
    cases = ((recorded, _RECORDED, _SERVER_OPTIONS + _JUDGING_OPTIONS), (not endpoint, _LOCAL, _SERVER_OPTIONS))
    refuse_ineffective(cases, given)
    if not recorded and not args.dataset_name:
        raise UserError("--dataset_name is missing: a file with the columns prompt, response_a and response_b")
    if not set(args.probe) <= set(PROBES) or len(set(args.probe)) < len(args.probe):
        raise UserError(f"--probe {','.join(args.probe)}: expected names out of {', '.join(PROBES)}, each once")
    if "labels" in args.probe and not endpoint:
        raise UserError(
            "--probe labels is for endpoints: the labels in a local judge's prompt are those of its training"
        )
    if args.base_url and not args.base_url.startswith(("http://", "https://")):
        raise UserError(f"--base_url {args.base_url}: expected an address such as http://localhost:8000/v1")
    if not args.judge_format and "read" in given:
        raise UserError("--read requires --judge_format: without it the server is asked in words")
    if args.judge_format:
        for name in ("reasoning", *PROMPT_OPTIONS):
            if name in given:
                raise UserError(f"--{name} has no effect with --judge_format: the prompt is that of the saved judge")
        if "labels" in args.probe:
            raise UserError("--probe labels has no effect with --judge_format: the labels are those of its training")
        if args.read == "exact" and {"temperature", "max_answer_tokens", "repeats"} & set(given):
            raise UserError("--temperature, --max_answer_tokens and --repeats require --read sampled")
    if args.fail_above is not None and "swap" not in args.probe:
        raise UserError("--fail_above requires the probe swap; add it to --probe")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}: expected names separated by commas")
    return names


def _number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """A parser of finite numbers from low to high."""
    bounds = f", {low} or more" if high == math.inf else f" from {low} to {high}"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"{text!r}: expected a {'whole ' * (kind is int)}number{bounds}")
        return value

    return parse


def _temperature(text: str) -> float | None:
    return None if text == "server" else _number(float, 0)(text)


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":" if ":" in text.split("=")[0] else "=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name, a colon and a value")
    return name.strip(), os.path.expandvars(value.strip())


def _json_object(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a JSON object")
    return value
