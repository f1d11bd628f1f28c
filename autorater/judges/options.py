"""Options of every command that asks a judge: its prompt, the server it is on, and parsers of values.

Plain argparse, without torch or SciPy, so that help is shown at once. What the options do: `autorater.judges.opening`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn
from urllib.parse import parse_qsl, urlsplit

from autorater.data.config_file import on_command_line
from autorater.data.errors import UserError, did_you_mean, refuse_ineffective
from autorater.prompts.templates import BUILT_IN

ENDPOINT, RECORDED = "endpoint:", "recorded:"
JUDGES = f"a folder or Hub name, {ENDPOINT}MODEL on a server, or {RECORDED}FILE"
SERVED_OPTIONS = (
    *("judge_format", "read", "base_url", "api_key_env", "temperature", "max_answer_tokens", "extra_body"),
    *("header", "concurrency", "timeout", "max_retries", "max_wait"),
)
SERVER_OPTIONS = (*SERVED_OPTIONS, "max_requests", "max_tokens", "price_in", "price_out", "ask_refused_again")
METHODS = (
    "verbalized",
    "verbalized_reasoning",
    "self_consistency",
    "self_consistency_reasoning",
    "letter_logits",
    "answer_mean",
    "pointwise",
    "linear_probe",
)
"""Judging methods of a model on this machine, see `autorater.judges.methods`."""
POINTWISE_METHODS = ("answer_mean", "pointwise", "linear_probe")
"""Those of a pointwise judge."""
RECALIBRATIONS = ("temperature", "odd_temperature", "platt", "isotonic", "contextual", "batch")
"""Kinds of recalibration, see `autorater.judges.calibrators`."""
PROMPT_OPTIONS = ("prompt_template", "system_prompt", "criteria", "reference")
LOCAL_OPTIONS = ("dtype", "judgment")
PAIRWISE, POINTWISE = "pairwise", "pointwise"
_USER = re.compile(r"([^/?#]*//)?[^/?#]*@")
_SECRET_VALUE = re.compile(r"([?&][^=&#]*(?:key|token|sig|secret|auth|pass|code|cred)[^=&#]*=)[^&#]+", re.IGNORECASE)
_ROUTE = re.compile(r"((?:/chat)?/completions)/*$")
_LOCAL = "a local judge sends no requests to a server, and its answers are computed exactly"


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are a `UserError`."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def parse_given(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the names of those that the user gave."""
    args = parser.parse_args(argv)
    given = on_command_line(parser, argv)
    return args, [name for name in vars(args) if name in given]


def add_prompt_options(add: Callable) -> None:
    """The options of the prompt, `PROMPT_OPTIONS` and `reasoning`."""
    template = f"a file with slots (docs/prompts.md), or {', '.join(BUILT_IN)} (default: as saved, else full)"
    add("--prompt_template", metavar="FILE", help=template)
    add("--system_prompt", metavar="TEXT", help="system message in front of the prompt")
    for slot in ("criteria", "reference"):
        add(f"--{slot}", metavar="TEXT", help=f"fills the slot {{{slot}}} for pairs without a value in that column")
    add("--reasoning", action="store_true", help="reason before the answer (endpoints: raise --max_answer_tokens)")


def add_local_options(add: Callable) -> None:
    """The options of a judge on this machine, `LOCAL_OPTIONS`."""
    dtype = "type of the weights of a judge on this machine (default: bfloat16 on a GPU, float32 elsewhere)"
    add("--dtype", choices=("float32", "bfloat16"), help=dtype)
    judgment = "a probability for both responses, or the scores of each (default: as saved, else pairwise)"
    add("--judgment", choices=(PAIRWISE, POINTWISE), help=judgment)


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """The options of judges behind a server, `SERVER_OPTIONS`; headers are a list of pairs."""
    add = parser.add_argument_group("requests to a server (endpoint:MODEL)").add_argument
    count, natural, amount = number(int, 1), number(int, 0), number(float, 0)
    saved = "folder of the trained judge behind the server: requests use its saved prompt and answers"
    add("--judge_format", metavar="DIR", help=saved)
    read = "with --judge_format: `exact` sums over all answers, `sampled` lets the server write one (default: exact)"
    add("--read", choices=("exact", "sampled"), help=read)
    add("--base_url", metavar="URL", help="address of the server, up to /v1 (default: OpenAI's)")
    key = "OPENAI_API_KEY"
    add("--api_key_env", default=key, metavar="NAME", help=f"environment variable with the key (default: {key})")
    temperature = "sampling temperature; repeated requests need one above 0; 'server': its own (default: 0)"
    add("--temperature", type=_temperature, default=0.0, metavar="T", help=temperature)
    add("--max_answer_tokens", type=count, default=64, metavar="N", help="longest answer (default: 64)")
    body = """further fields of a request; null removes one: '{"max_tokens": null, "max_completion_tokens": 64}'"""
    add("--extra_body", type=_json_object, default={}, metavar="JSON", help=body)
    header = "further header, with $NAME from the environment: 'api-key: $AZURE_KEY'; may be repeated"
    add("--header", type=_header, action="append", default=[], metavar="NAME:VALUE", help=header)
    add("--concurrency", type=count, default=8, metavar="N", help="simultaneous requests (default: 8)")
    seconds = number(float, 0.001)
    add("--timeout", type=seconds, default=60.0, metavar="S", help="seconds for an attempt (default: 60)")
    add("--max_retries", type=natural, default=6, metavar="N", help="attempts after the first (default: 6)")
    add("--max_wait", type=seconds, default=600.0, metavar="S", help="longest Retry-After accepted (default: 600)")
    add("--max_requests", type=count, metavar="N", help="stop after N requests, retries included")
    add("--max_tokens", type=count, metavar="N", help="stop after N tokens, those of earlier runs included")
    add("--price_in", type=amount, metavar="USD", help="price of a million prompt tokens, to print the cost")
    add("--price_out", type=amount, metavar="USD", help="price of a million completion tokens")
    add("--ask_refused_again", action="store_true", help="repeat the requests that were refused in an earlier run")


def check_judge_options(judges: Sequence[str], args: argparse.Namespace, given: Collection[str]) -> None:
    """Checks names of judges, and that every given option has an effect on one of them.

    Raises:
        UserError: A name without a model or file, an option without an effect, or options that contradict.
    """
    for name in judges:
        if name in (ENDPOINT, RECORDED):
            raise UserError(f"--judge {name}: expected a {'model' if name == ENDPOINT else 'file'} after the colon")
    served = any(name.startswith(ENDPOINT) for name in judges)
    asked = not all(name.startswith(RECORDED) for name in judges)
    local = not all(name.startswith((ENDPOINT, RECORDED)) for name in judges)
    cases = (
        (not asked, "a recorded file already holds the judgments", (*SERVER_OPTIONS, *PROMPT_OPTIONS, "reasoning")),
        (not served, _LOCAL, (*SERVER_OPTIONS, "repeats")),
        (not local, "no judge runs on this machine", LOCAL_OPTIONS),
    )
    refuse_ineffective(cases, given)
    if args.base_url:
        check_address("--base_url", args.base_url)
    if not args.judge_format and "read" in given:
        raise UserError("--read requires --judge_format: without it the server writes its answer")
    if args.judge_format:
        if not local:
            for name in ("reasoning", *PROMPT_OPTIONS):
                if name in given:
                    raise UserError(
                        f"--{name} has no effect with --judge_format: the prompt is that of the saved judge"
                    )
        if args.read != "sampled" and {"temperature", "max_answer_tokens", "repeats"} & set(given):
            raise UserError("--temperature, --max_answer_tokens and --repeats require --read sampled")


def check_address(name: str, text: str) -> None:
    """Checks that a text, which has this name in an error, is the address of a server, and not of one of its routes.

    It has no user and password, and every name in its query is there once.

    Raises:
        UserError: If it is not.
    """
    if _USER.match(text):
        raise UserError(
            f"{name} has a user or a password, which would be stored; expected an address without them, and "
            "--header 'Authorization: Basic $X' with the base64 of user:password in the environment variable X"
        )
    if not is_address(text):
        raise UserError(f"{name} {without_secret_values(text)}: expected an address such as http://localhost:8000/v1")
    if route := _ROUTE.search(urlsplit(text).path):
        raise UserError(
            f"{name} {without_secret_values(text)}: expected the address without {route[1]}, which every request adds"
        )
    counts = Counter(key for key, _ in parse_qsl(urlsplit(text).query, keep_blank_values=True))
    if repeated := next((key for key, count in counts.items() if count > 1), None):
        raise UserError(
            f"{name} {without_secret_values(text)}: got {repeated} {counts[repeated]} times; expected it once"
        )


def without_secret_values(address: str) -> str:
    """An address to show or store, with `…` for values of its query whose names say that they are secret."""
    return _SECRET_VALUE.sub(r"\1…", address)


def check_methods(methods: Sequence[str]) -> None:
    """Raises a `UserError` for a name that is not in `METHODS`."""
    for name in methods:
        if name not in METHODS:
            known = f"expected one of {', '.join(METHODS)}{did_you_mean(name, METHODS)}"
            raise UserError(f"unknown judging method {name!r}; {known}")


def is_address(text: str) -> bool:
    """Whether a text is the address of a server: http or https, a host and, if there is one, a valid port."""
    try:
        address = urlsplit(text)
        (address.hostname or "").encode("idna")  # a label of a name has 1 to 63 characters
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False


def names(text: str) -> tuple[str, ...]:
    """A parser of names separated by commas."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r}: expected names separated by commas")
    return found


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
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


def fraction(text: str) -> float:
    """Parses a number between 0 and 1, both excluded."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number between 0 and 1, both excluded")
    return value


def _temperature(text: str) -> float | None:
    return None if text == "server" else number(float, 0)(text)


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":" if ":" in text.split("=")[0] else "=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name, a colon and a value")
    for variable in re.findall(r"\$\{?(\w+)", value):
        if variable not in os.environ:
            raise argparse.ArgumentTypeError(f"${variable} is not set in the environment")
    return name.strip(), os.path.expandvars(value.strip())


def _json_object(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a JSON object")
    return value
