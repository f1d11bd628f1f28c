"""One judge evaluated: labels and truth follow the order, and the files contain the metrics."""

import json
import subprocess
import sys

import numpy as np
import pytest

from autorater.data.errors import UserError
from autorater.evaluation.judge import evaluate
from autorater.evaluation.results import prepare_output_dir, write_run
from autorater.judges import Judge
from autorater.metrics import Targets, judge_metrics
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_model, make_tokenizer


@pytest.fixture
def evaluation(simulated):
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.1)
    return evaluate(judge, simulated.pairs[:12], n_bootstrap=50)


def test_metrics_are_those_of_the_judgments(evaluation):
    pairs, judgments = evaluation.pairs, evaluation.judgments
    truth = np.array([p.true_probability for p in pairs])
    excess = np.mean([(judgments.p_ab - truth) ** 2, (judgments.p_ba - (1 - truth)) ** 2])
    assert evaluation.metrics["excess_brier"] == pytest.approx(excess)
    assert evaluation.metrics["n_pairs"] == 12
    expected = judge_metrics(judgments.mean, Targets([p.label for p in pairs], n_votes=3), n_bootstrap=0)
    assert evaluation.metrics["ece"] == pytest.approx(expected["ece"])
    assert evaluation.metrics["mse_corrected"] == pytest.approx(expected["mse_corrected"])
    assert {"brier_low", "brier_high"} <= set(evaluation.metrics)


def test_columns_of_both_orders(evaluation):
    labels = np.array([p.label for p in evaluation.pairs])
    np.testing.assert_allclose(evaluation.labels, [*labels, *(1 - labels)])
    np.testing.assert_allclose(evaluation.probabilities[12:], evaluation.judgments.p_ba)
    np.testing.assert_allclose(evaluation.truth[:12] + evaluation.truth[12:], 1)


def test_files_of_a_run(evaluation, tmp_path):
    write_run(tmp_path, evaluation, evaluation, training_seconds=1.0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["before/brier"] == metrics["after/brier"] == evaluation.metrics["brier"]
    records = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(records) == 24
    assert [r["order"] for r in records[:2]] == ["ab", "ba"]
    assert records[0]["label"] + records[1]["label"] == 1
    assert records[1]["probability"] == pytest.approx(evaluation.judgments.p_ba[0], abs=1e-6)
    assert {r["id"] for r in records} == {p.id for p in evaluation.pairs}


def test_output_dir_that_cannot_be_written_is_a_mistake_of_the_user(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output_dir .*file.* cannot be written"):
        prepare_output_dir(tmp_path / "file" / "run")


def test_judges_that_need_no_torch_are_evaluated_without_it():
    script = """
import sys
import numpy as np
from autorater.data.pairs import Pair
from autorater.evaluation.judge import evaluate
from autorater.judges import Judgments

class Constant:
    def probabilities(self, pairs, *, progress=False):
        column = np.full((len(pairs), 2), 0.5)
        return Judgments(column, column, column, column)

assert evaluate(Constant(), [Pair("1", "q", "a", "b", 1.0)], n_bootstrap=0).metrics["brier"] == 0.25
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
