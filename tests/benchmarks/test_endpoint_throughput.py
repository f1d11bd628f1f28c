"""The benchmark of endpoints at a tiny size."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_it_measures_rate_and_memory(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("endpoint_throughput")
    script.main(["--n_pairs", "8", "--delay", "0.01", "--memory_pairs", "2", "--concurrency", "4"])
    rate, memory = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert rate["n_questions"] == 16
    assert rate["of_ideal"] == pytest.approx(rate["requests_per_second"] / 400, rel=1e-4)
    assert 0 < rate["of_ideal"] <= 1
    assert memory["n_pairs"] == [2, 20]
    assert min(memory["peak_bytes"]) > 1 << 20
