"""Rows per second and peak memory of reading a CSV file of conversations, one row at a time and gathered.

    python benchmarks/load_pairs.py [--rows 200000]

Each row has a prompt of three messages (JSON in a CSV field), two responses, an id and votes; about 600 characters.
The file is written first; one core reads it. `iter_pairs` keeps hashes of the rows, `load_pairs` the pairs.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_MEASURE = """
import re, sys, time
from autorater.data.loading import iter_pairs, load_pairs
read, path = sys.argv[1:]
start = time.process_time()
n = sum(1 for _ in iter_pairs(path)) if read == "iter_pairs" else len(load_pairs(path))
seconds = time.process_time() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(f"{read:10s} {n:>8,} pairs  {n / seconds:>8,.0f} rows/s  {peak:>6.0f} MiB at most")
"""


def write_conversations(path: Path, n_rows: int) -> None:
    """A CSV file of conversations; every text is different."""
    filler = "Descale it with vinegar, rinse it twice, and boil it once more. " * 3
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b", "votes_a", "votes_b"])
        for i in range(n_rows):
            turns = (("user", f"Hi, kettle {i}."), ("assistant", "Hello."), ("user", f"How do I descale kettle {i}?"))
            prompt = json.dumps([{"role": role, "content": content} for role, content in turns])
            writer.writerow([i, prompt, f"{i}: {filler}", f"{filler} {i}", i % 4, 4 - i % 4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    n_rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.csv")
        start = time.perf_counter()
        write_conversations(path, n_rows)
        size = path.stat().st_size / 2**20
        print(f"{n_rows:,} rows, {size:.0f} MiB, written in {time.perf_counter() - start:.0f} s")
        for read in ("iter_pairs", "load_pairs"):
            subprocess.run([sys.executable, "-c", _MEASURE, read, str(path)], check=True)


if __name__ == "__main__":
    main()
