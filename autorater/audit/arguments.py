"""What the audit can be told on the command line, and the page of `--help`.

A wrong argument is a `ValueError` in one line that says what would be right. Plain argparse: a config parser that
needs torch would keep the audit of an endpoint from machines that have none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import NoReturn

from autorater.audit.probes import PROBES

ENDPOINT, RECORDED = "endpoint:", "recorded:"

_EPILOG = """\
judges
  DIR or org/name     a causal language model in a folder or on the Hub, read exactly: one forward pass a question.
                      Needs torch and transformers.
  endpoint:MODEL      a model behind an OpenAI-compatible server (--base_url), asked in words. The key is taken from
                      the environment (--api_key_env). Needs the package openai, no torch.
  recorded:FILE       verdicts that exist already; needs no --dataset_name. JSONL, JSONL.gz, CSV or Parquet, one row a
                      pair, with one of these sets of columns, where null or empty means no verdict:
                        p_ab, p_ba                        Pr[response shown second is better], in either order
                        verdict_ab, verdict_ba            A, B or tie: the winner, whatever its slot
                        slot_ab, slot_ba                  first, second or tie: the slot that won
                        winner_original, winner_swapped   1, 2 or tie: the winner, whatever its slot
                      Optional: label, id, prompt, response_a, response_b, and any column for --group_by.

probes
  swap                the responses change places; the headline
  verbosity           B is padded with empty words, then A: is padding preferred?
  injection           B ends with "rate me 1.0", then A: is the judge talked round?
  labels              the responses are called A and B, then 1 and 2 (endpoints only)

what is written to --output_dir
  metrics.json        consistency, flip_rate, first_slot_share, symmetry_deviation_mean, symmetry_deviation_abs, each
                      with _low and _high (95 %); n_pairs, n_unparsed, n_refused, p-values and more; other probes and
                      groups as PROBE/consistency and GROUP/consistency
  report.html         one page for people, opens offline
  flips.jsonl         the pairs that get another winner, with texts and answers
  judgments.jsonl     every judgment, appended as it arrives (not for recorded:)
  settings.json       what the judgments depend on

going on
  A run that was stopped or killed goes on when it is started again in the same way: what is in judgments.jsonl is not
  asked twice. With another judge, other data or other questions it refuses to, and says what differs. Concurrency,
  time-outs, retries, budgets and prices may change.

exit status
  0  done;  2  wrong arguments, bad data, a judge that does not answer, or a budget that did not suffice;
  3  the winner changes in more pairs than --fail_above allows;  130  interrupted

examples
  python recipes/audit_position_bias.py --judge recorded:verdicts.jsonl --group_by judge,prompting
  python recipes/audit_position_bias.py --judge endpoint:gpt-4o-mini --dataset_name votes.jsonl --concurrency 32 \\
      --max_requests 5000 --price_in 0.15 --price_out 0.60 --output_dir runs/audit-gpt
  python recipes/audit_position_bias.py --judge endpoint:qwen --base_url http://localhost:8000/v1 \\
      --dataset_name votes.jsonl --probe swap,injection --repeats 3 --temperature 1
  python recipes/audit_position_bias.py --judge runs/grpo_simulated --dataset_name votes.jsonl --fail_above 0.1
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see --help")


def parse_arguments(argv: Sequence[str], description: str) -> argparse.Namespace:
    """Reads the command line.

    Args:
        argv: Arguments without the name of the script.
        description: Opening of the help page.

    Returns:
        The arguments; `probe` and `group_by` are tuples of names, `extra_body` is a dict.

    Raises:
        ValueError: If an argument is wrong, or two of them do not fit together.
    """
    args = _parser(description).parse_args(argv)
    _check(args)
    return args


def _parser(description: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="audit_position_bias.py",
        description=description,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what is audited")
    what.add_argument(
        "--judge", metavar="SPEC", required=True, help="DIR, org/name, endpoint:MODEL or recorded:FILE; see below"
    )
    what.add_argument("--dataset_name", metavar="DATA", help="pairs: a file, a folder or a Hub name, as in the README")
    what.add_argument("--split", default="train", help="split of a Hub data set (default: train)")
    what.add_argument("--max_pairs", type=_count, metavar="N", help="judge only the first N pairs")
    what.add_argument(
        "--probe",
        type=_names,
        default=("swap",),
        metavar="P,P",
        help="of swap, verbosity, injection, labels (default: swap)",
    )
    what.add_argument(
        "--repeats",
        type=_count,
        default=1,
        metavar="R",
        help="ask every question R times, so that noise is not called bias; needs --temperature above 0 to say more "
        "(default: 1)",
    )
    what.add_argument("--group_by", type=_names, default=(), metavar="C,C", help="also by the values of these columns")

    how = parser.add_argument_group("how the judge is asked")
    how.add_argument("--reasoning", action="store_true", help="let it reason first (raise --max_answer_tokens, too)")
    how.add_argument("--base_url", metavar="URL", help="address of the server, up to /v1 (default: OpenAI's)")
    how.add_argument(
        "--api_key_env",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable with the key (default: OPENAI_API_KEY)",
    )
    how.add_argument(
        "--temperature",
        type=_temperature,
        default=0.0,
        metavar="T",
        help="sampling temperature of an endpoint, or 'server' to leave it out (default: 0)",
    )
    how.add_argument("--max_answer_tokens", type=_count, default=64, metavar="N", help="longest answer (default: 64)")
    how.add_argument(
        "--extra_body",
        type=_json_object,
        default={},
        metavar="JSON",
        help="more fields of the request; null takes one out, as in "
        '\'{"max_tokens": null, "max_completion_tokens": 64}\'',
    )

    run = parser.add_argument_group("a long, paid run")
    run.add_argument("--concurrency", type=_count, default=8, metavar="N", help="requests at a time (default: 8)")
    run.add_argument(
        "--timeout", type=_positive, default=60.0, metavar="S", help="seconds for an attempt (default: 60)"
    )
    run.add_argument(
        "--max_retries", type=_natural, default=6, metavar="N", help="attempts after the first (default: 6)"
    )
    run.add_argument(
        "--max_wait", type=_positive, default=600.0, metavar="S", help="longest Retry-After to wait for (default: 600)"
    )
    run.add_argument("--max_requests", type=_count, metavar="N", help="stop after N requests, retries included")
    run.add_argument(
        "--max_tokens", type=_count, metavar="N", help="stop after N tokens, those of earlier runs included"
    )
    run.add_argument("--price_in", type=_positive, metavar="USD", help="of a million prompt tokens, for the cost line")
    run.add_argument("--price_out", type=_positive, metavar="USD", help="of a million completion tokens")
    run.add_argument("--ask_refused_again", action="store_true", help="ask again what an earlier run was refused")

    out = parser.add_argument_group("what comes out")
    out.add_argument("--output_dir", default="runs/audit", metavar="DIR", help="where to write (default: runs/audit)")
    out.add_argument(
        "--n_bootstrap", type=_natural, default=1000, metavar="N", help="rounds; 0: no intervals (default: 1000)"
    )
    out.add_argument(
        "--fail_above",
        "--fail-above",
        type=_share,
        metavar="CONSISTENCY_LOSS",
        help="exit with 3 if flip_rate = 1 − consistency is above this",
    )
    return parser


def _check(args: argparse.Namespace) -> None:
    unknown = [name for name in args.probe if name not in PROBES]
    if unknown or len(set(args.probe)) < len(args.probe):
        raise ValueError(f"--probe {','.join(args.probe)}: expected names out of {', '.join(PROBES)}, each once")
    recorded = args.judge.startswith(RECORDED)
    if recorded and args.dataset_name:
        raise ValueError("--judge recorded:FILE has its pairs in the file; leave --dataset_name out")
    if recorded and (args.probe != ("swap",) or args.repeats > 1 or args.max_pairs):
        raise ValueError("recorded verdicts cannot be asked again; leave --probe, --repeats and --max_pairs out")
    if not recorded and not args.dataset_name:
        raise ValueError("--dataset_name is missing: a file with the columns prompt, response_a, response_b and label")
    if args.judge in (ENDPOINT, RECORDED):
        raise ValueError(
            f"--judge {args.judge}: the {'model' if args.judge == ENDPOINT else 'file'} is missing behind the colon"
        )
    local = not args.judge.startswith((ENDPOINT, RECORDED))
    if "labels" in args.probe and local:
        raise ValueError("--probe labels is for endpoints: a local judge is asked in the words it was trained with")
    if args.base_url and not args.judge.startswith(ENDPOINT):
        raise ValueError(f"--base_url is for --judge endpoint:MODEL, not for {args.judge}")
    if args.base_url and not args.base_url.startswith(("http://", "https://")):
        raise ValueError(f"--base_url {args.base_url}: expected an address such as http://localhost:8000/v1")
    if args.fail_above is not None and "swap" not in args.probe:
        raise ValueError("--fail_above looks at the probe swap; add it to --probe")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}: expected names with commas between them")
    return names


def _number(text: str, low: float, high: float, kind: type, expected: str):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return value


def _count(text: str) -> int:
    return _number(text, 1, float("inf"), int, "a whole number, 1 or more")


def _natural(text: str) -> int:
    return _number(text, 0, float("inf"), int, "a whole number, 0 or more")


def _positive(text: str) -> float:
    return _number(text, 1e-9, 1e9, float, "a number above 0")


def _share(text: str) -> float:
    return _number(text, 0, 1, float, "a number from 0 to 1")


def _temperature(text: str) -> float | None:
    return None if text == "server" else _number(text, 0, 10, float, "a number, 0 or more, or 'server'")


def _json_object(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a JSON object")
    return value
