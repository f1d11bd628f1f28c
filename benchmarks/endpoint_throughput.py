"""Judgments per second from a server of known speed, and memory as a function of the number of pairs.

    python benchmarks/endpoint_throughput.py
    python benchmarks/endpoint_throughput.py --delay 0.2 --concurrency 128 --n_pairs 4000

    throughput   the audit's client (requests, judgment store) against `benchmarks/harness/fake_endpoint.py` in a
                 separate process, which answers after `--delay` seconds; `of_ideal` is the rate relative to
                 concurrency / delay
    memory       peak resident memory of a fresh process that audits few, and ten times as many, pairs of long
                 responses from disk

The server and the client each use one core; with fewer cores the rate is lower. `client_seconds_per_request` is
processor time.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from autorater.audit.judging import judge_remaining
from autorater.audit.plan import Plan
from autorater.data.loading import iter_pairs
from autorater.evaluation.judgment_store import JudgmentStore
from autorater.judges.endpoint import EndpointJudge

FAKE_ENDPOINT = Path(__file__).parent / "harness" / "fake_endpoint.py"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_pairs", type=int, default=3200)
    parser.add_argument("--delay", type=float, default=0.05, help="Seconds until the server answers.")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--response_characters", type=int, default=4000, help="Of the pairs in the memory case.")
    parser.add_argument("--memory_pairs", type=int, default=500, help="The fewer of the two numbers of pairs.")
    return parser.parse_args(argv)


def write_long_pairs(path: Path, n_pairs: int, n_characters: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for i in range(n_pairs):
            a, b = (f"{side}{i} " * (n_characters // (len(str(i)) + 2)) for side in "ab")
            file.write(json.dumps({"prompt": f"q{i}", "response_a": a, "response_b": b, "label": 1}) + "\n")


def serving(delay: float) -> tuple[subprocess.Popen, str]:
    server = subprocess.Popen(
        [sys.executable, str(FAKE_ENDPOINT), "--delay", str(delay)], stdout=subprocess.PIPE, text=True
    )
    return server, f"http://127.0.0.1:{int(server.stdout.readline())}/v1"


def audit(data: Path, folder: Path, url: str, n_pairs: int, concurrency: int) -> dict[str, float]:
    """Audits a file; wall seconds, processor seconds, and peak memory."""
    import openai  # noqa: F401  (takes about a second, once a run, and is no part of the rate)

    judge = EndpointJudge("m", base_url=url, concurrency=concurrency)
    plan = Plan(n_pairs)
    store = JudgmentStore(folder, plan.n_requests, plan.number_of, {})

    def pairs() -> Iterator:
        yield from iter_pairs(data)

    clock, processor = time.perf_counter(), time.process_time()
    judge_remaining(judge, plan, pairs(), store)
    seconds = {"seconds": time.perf_counter() - clock, "processor": time.process_time() - processor}
    store.close()
    # not getrusage, which counts what the parent held when it started this process
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return seconds | {"peak_bytes": 1024 * int(peak[1])}


def measured(n_pairs: int, n_characters: int, delay: float, concurrency: int) -> dict[str, float]:
    from harness.measure import in_fresh_process

    server, url = serving(delay)
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder, "pairs.jsonl")
            write_long_pairs(data, n_pairs, n_characters)
            return in_fresh_process(audit, data, Path(folder), url, n_pairs, concurrency)
    finally:
        server.kill()
        server.wait()


def main(argv: list[str] | None = None) -> None:
    from harness.measure import emit, say  # imported here: the measured process has no torch, as in an audit

    args = parse(argv)
    say("throughput")
    took = measured(args.n_pairs, 200, args.delay, args.concurrency)
    n_questions, ideal = 2 * args.n_pairs, args.concurrency / args.delay
    emit(
        {
            "benchmark": "endpoint_throughput",
            "n_questions": n_questions,
            "delay": args.delay,
            "concurrency": args.concurrency,
            "requests_per_second": n_questions / took["seconds"],
            "of_ideal": n_questions / took["seconds"] / ideal,
            "client_seconds_per_request": took["processor"] / n_questions,
        }
    )
    say("memory")
    few, many = args.memory_pairs, 10 * args.memory_pairs
    peaks = [measured(n, args.response_characters, 0.0, 8)["peak_bytes"] for n in (few, many)]
    emit(
        {
            "benchmark": "endpoint_memory",
            "n_pairs": [few, many],
            "file_bytes": [2 * n * args.response_characters for n in (few, many)],
            "peak_bytes": peaks,
            "growth_bytes_per_pair": (peaks[1] - peaks[0]) / (many - few),
        }
    )


if __name__ == "__main__":
    main()
