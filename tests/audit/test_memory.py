"""Peak memory of the whole script does not follow the size of the file."""

import json
import os
import subprocess
import sys

import pytest

from tests.audit.conftest import ENV, ROOT, SCRIPT

N_CHARACTERS = 100_000
PEAK = """
import re, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]))
"""


def peak_of_audit(server, folder, n_pairs):
    """Peak resident bytes of the script on pairs of long responses, and the bytes of their file."""
    folder.mkdir()
    data = folder / "pairs.jsonl"
    with data.open("w") as file:
        for i in range(n_pairs):
            a, b = (f"{side}{i:06d} " * (N_CHARACTERS // 9) for side in "ab")
            file.write(json.dumps({"prompt": "q", "response_a": a, "response_b": b, "label": 1}) + "\n")
    command = [
        *SCRIPT, "--judge", "endpoint:m", "--base_url", server.base_url, "--dataset_name", str(data), "--output_dir",
        str(folder / "out"), "--concurrency", "4", "--n_bootstrap", "100",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command[1:]], cwd=ROOT, env=ENV, capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1]), data.stat().st_size


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux reports the peak memory of a process")
def test_six_times_the_pairs_take_no_more_memory(serve, tmp_path):
    server = serve("--shift", 3)  # many flips: the texts of twenty are held for the report
    (few, small), (many, large) = (peak_of_audit(server, tmp_path / str(n), n) for n in (40, 240))
    assert large - small > 30 << 20
    assert many - few < 8 << 20
