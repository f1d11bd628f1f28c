"""Accuracy before and after training: counted by hand, on the same prompts, and as a person runs it."""

import json
from pathlib import Path

import numpy as np
import pytest

from autorater.data.errors import UserError
from autorater.data.objective import objective_pairs
from autorater.evaluation import objective
from autorater.evaluation.objective import accuracy_change, judge_objective, trained_from, untrained
from autorater.judges import Judge, Judgments
from autorater.judges.calibrators import LogitMap
from autorater.prompts.templates import PromptFormat
from autorater.report.tables import accuracy_table
from tests.conftest import make_model, make_tokenizer
from tests.recipes.forked import run_forked

ROOT = Path(__file__).parents[2]
PAIRS = objective_pairs(60)
LABELS = np.array([pair.label for pair in PAIRS])


def judgments(p):
    mean = np.stack([p, 1 - p], axis=1)
    return Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


def test_accuracy_and_its_change():
    before = np.where(np.arange(60) < 45, LABELS, 1 - LABELS)
    after = np.where(np.arange(60) < 30, LABELS, 0.5)  # an undecided answer is half right
    found = accuracy_change(PAIRS, judgments(before), judgments(after))
    assert (found["before"], found["after"], found["change"]) == (0.75, 0.75, 0)
    assert found["change_low"] < 0 < found["change_high"]
    assert found["before_low"] < 0.75 < found["before_high"]
    assert np.mean([found[f"before/{kind}"] for kind in {p.topic for p in PAIRS}]) == pytest.approx(0.75)
    assert "no clear change: the interval includes 0" in accuracy_table(found)
    worse = accuracy_change(PAIRS, judgments(LABELS), judgments(1 - LABELS))
    assert "lower than before" in accuracy_table(worse)


@pytest.fixture
def trained(tmp_path):
    """A folder with a model, and one with a judge that began with it."""
    tokenizer = make_tokenizer(chat=True)
    for name, seed in (("base", 0), ("judge", 1)):
        model = make_model("llama", len(tokenizer), seed)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    judge = Judge(model, tokenizer, PromptFormat("compact"), 0.1, recalibration=LogitMap("odd_temperature", 0.5))
    judge.save_format(tmp_path / "judge")
    settings = {"model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "judge" / "run.json").write_text(json.dumps({"settings": settings}))
    return tmp_path


def test_both_models_read_the_same_prompts(trained):
    judge = Judge.from_pretrained(str(trained / "judge"))
    base, _ = trained_from(trained / "judge")
    before = untrained(judge, base)
    assert judge.recalibration is not None
    assert before.recalibration is None
    plain = Judge.from_pretrained(base, "compact", answer_step=0.1)
    np.testing.assert_allclose(judge_objective(before, PAIRS[:6]).mean, plain.probabilities(PAIRS[:6]).mean, atol=1e-6)
    with pytest.raises(UserError, match="name it with --before"):
        trained_from(trained / "base")
    record = trained / "judge" / "run.json"
    record.write_text('{"run": 1}')
    with pytest.raises(UserError, match="name it with --before"):
        trained_from(trained / "judge")
    record.write_text('{"settings": {')
    with pytest.raises(UserError, match=r"run\.json cannot be read .*; name the untrained model with --before"):
        trained_from(trained / "judge")
    tokenizer = make_tokenizer("merged")
    tokenizer.save_pretrained(trained / "base")
    with pytest.raises(UserError, match="another tokenizer"):
        untrained(judge, base)


def test_a_base_in_the_folder_of_the_run_is_found_from_anywhere(trained):
    """A pointwise judge begins from the teacher that its run trained."""
    record = trained / "judge" / "run.json"
    record.write_text('{"settings": {"model_name_or_path": "teacher"}}')
    assert trained_from(trained / "judge") == ("teacher", None)
    (trained / "judge" / "teacher").mkdir()
    assert trained_from(trained / "judge") == (str(trained / "judge" / "teacher"), None)


def test_the_model_before_training_is_that_before_the_own_teacher(trained):
    def began_with(base, **more):
        settings = {"model_name_or_path": base} | more
        (trained / "judge" / "run.json").write_text(json.dumps({"settings": settings}))
        return trained_from(trained / "judge")

    teacher = trained / "judge" / "teacher"
    teacher.mkdir()
    of_teacher = {"settings": {"model_name_or_path": "org/model", "model_revision": "v1"}}
    (teacher / "run.json").write_text(json.dumps(of_teacher))
    assert began_with("teacher", warm_start_verdicts="teacher") == ("org/model", "v1")
    assert began_with("teacher") == (str(teacher), None), "another run, in a folder of this one"
    (trained / "base" / "run.json").write_text(json.dumps(of_teacher))
    base = str(trained / "base")
    assert began_with(base, warm_start_verdicts=base) == (base, None), "a teacher that was there"


def test_the_model_before_training_has_the_revision_of_the_run(trained, monkeypatch):
    settings = {"model_name_or_path": "org/model", "model_revision": "v1"}
    (trained / "judge" / "run.json").write_text(json.dumps({"settings": settings}))
    assert trained_from(trained / "judge") == ("org/model", "v1")
    revisions = []

    def load_policy(name, dtype, revision):
        revisions.append(revision)
        return judge.model, judge.tokenizer

    judge = Judge.from_pretrained(str(trained / "judge"))
    monkeypatch.setattr(objective, "load_policy", load_policy)
    untrained(judge, *trained_from(trained / "judge"))
    untrained(judge, "org/model")
    assert revisions == ["v1", None]


def test_the_recipe_prints_and_writes_them(trained):
    output = trained / "accuracy.json"
    done = run_forked("objective", "--judge", trained / "judge", "--n_pairs", 12, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "| capital |" in done.stdout
    written = json.loads((trained / "accuracy.json").read_text())
    assert {"before", "after", "change", "change_low", "change_high", "after/sum"} <= set(written)
