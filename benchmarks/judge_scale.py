"""`autorater judge` over many pairs: peak memory against few pairs, and the bytes of runs that were killed.

    python benchmarks/judge_scale.py                                   # 200,000 pairs; ten minutes on one core
    python benchmarks/judge_scale.py --few 100 --many 1000 --kills 1   # a minute

Short pairs of random syllables and a judge of one layer with random weights, so that the time is that of the
command and not of the model. `peak_bytes` is the peak resident memory of the whole process. The killed run is stopped
by SIGKILL at equal distances and started again with the same command; `same_bytes` compares its file with that of the
undisturbed run.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from harness.measure import emit, say

from autorater.judges import Judge
from autorater.models.tiny import build_policy
from autorater.prompts.templates import PromptFormat

_RUN = """
import re
from autorater.cli import command
command()
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
_SYLLABLES = ["".join(letters) for letters in product("bcdfgklmnprst", "aeiou")]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=2_000)
    parser.add_argument("--many", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=3)
    return parser.parse_args(argv)


def write_pairs(path: Path, n_pairs: int) -> None:
    draw = random.Random(0)

    def text(n_words: int) -> str:
        return " ".join(draw.choices(_SYLLABLES, k=n_words))

    with path.open("w", encoding="utf-8") as file:
        for i in range(n_pairs):
            row = {"id": f"pair-{i}", "prompt": text(6), "response_a": text(8), "response_b": text(8), "label": i % 2}
            file.write(json.dumps(row) + "\n")


def save_judge(folder: Path) -> None:
    prompt_format = PromptFormat("compact")
    texts = [" ".join(_SYLLABLES), f"{prompt_format.text} 0123456789 <prob_rb_better></prob_rb_better>"]
    shape = {"vocab_size": 600, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": 256}
    model, tokenizer = build_policy(texts, **shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Judge(model, tokenizer, prompt_format, answer_step=0.1).save_format(folder)


def command(folder: Path, n_pairs: int, name: str) -> list[str]:
    """The command that judges the first `n_pairs` pairs of the file, and prints its peak memory in KiB."""
    options = ["--judge", str(folder / "judge"), "--out", str(folder / name), "--max_pairs", str(n_pairs)]
    return [sys.executable, "-c", _RUN, "judge", str(folder / "pairs.jsonl"), *options]


def peak_bytes(arguments: list[str]) -> int:
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return 1024 * int(done.stdout.splitlines()[-1])


def kill_at(arguments: list[str], stored: Path, n_judgments: int) -> int:
    """Starts a run, kills it when it has stored so many judgments, and returns how many there are."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    while process.poll() is None and _n_lines(stored) < n_judgments:
        time.sleep(0.1)
    process.kill()
    process.wait()
    return _n_lines(stored)


def _n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_judge(folder / "judge")
        write_pairs(folder / "pairs.jsonl", args.many)
        peaks, seconds = [], 0.0
        for n_pairs in (args.few, args.many):
            say(f"{n_pairs:,} pairs")
            start = time.perf_counter()
            peaks.append(peak_bytes(command(folder, n_pairs, f"{n_pairs}.jsonl")))
            seconds = time.perf_counter() - start
        again, stored = command(folder, args.many, "killed.jsonl"), folder / "killed.jsonl.judging" / "judgments.jsonl"
        kills = []
        for i in range(args.kills):
            kills.append(kill_at(again, stored, 2 * args.many * (i + 1) // (args.kills + 1)))
            say(f"killed after {kills[-1]:,} judgments")
        peak_bytes(again)
        same = (folder / "killed.jsonl").read_bytes() == (folder / f"{args.many}.jsonl").read_bytes()
    emit(
        {
            "benchmark": "judge_scale",
            "n_pairs": [args.few, args.many],
            "peak_bytes": peaks,
            "growth": peaks[1] / peaks[0] - 1,
            "growth_bytes_per_pair": (peaks[1] - peaks[0]) / (args.many - args.few),
            "pairs_per_second": args.many / seconds,
            "killed_after_judgments": kills,
            "same_bytes": same,
        }
    )


if __name__ == "__main__":
    main()
