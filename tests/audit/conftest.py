"""Faulty servers in separate processes, files of pairs, and the script in a subprocess."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from autorater.data.loading import write_pairs
from autorater.data.population import simulate_pairs
from tests.recipes.forked import run_forked

ROOT = Path(__file__).parents[2]
SCRIPT = [sys.executable, "recipes/audit_position_bias.py"]
ENV = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "", "NO_PROXY": "127.0.0.1"}


class FakeServer:
    """A running `benchmarks/harness/fake_endpoint.py`."""

    def __init__(self, *options):
        command = [sys.executable, str(ROOT / "benchmarks/harness/fake_endpoint.py"), *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    @property
    def base_url(self):
        return f"{self.url}/v1"

    def get(self, path):
        with urllib.request.urlopen(f"{self.url}/{path}") as reply:
            return json.load(reply)

    def stats(self):
        return self.get("stats")

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def serve():
    """Starts servers; they are stopped at the end."""
    servers = []

    def start(*options):
        servers.append(FakeServer(*options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def make_pairs_file(tmp_path):
    """A file of simulated pairs."""

    def make(n_pairs, name="pairs.jsonl"):
        write_pairs(simulate_pairs(n_pairs, n_votes=3, seed=0).pairs, tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture
def audit():
    """Runs the script in a process of its own and returns that when it is finished."""

    def run(*arguments, **env):
        with pytest.MonkeyPatch.context() as patched:
            for name, value in (ENV | env).items():
                patched.setenv(name, value)
            return run_forked("audit_position_bias", *arguments)

    return run


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
