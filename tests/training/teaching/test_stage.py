"""Teaching moves a judge to its teacher, exactly resumed; what it refuses; the whole run."""

import json
import logging
import weakref
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from trl import ModelConfig

from autorater.data.errors import AlreadyFinished, UserError
from autorater.data.loading import write_pairs
from autorater.data.pairs import Pair
from autorater.judges import Judge
from autorater.judges.calibrators import fit_recalibration
from autorater.judges.pointwise import PointwiseJudge
from autorater.models.loading import load_policy
from autorater.prompts.templates import PromptFormat
from autorater.report.text import markdown_line
from autorater.training import policy, run
from autorater.training.arguments import JudgeArguments
from autorater.training.checkpointing.record import RunRecord
from autorater.training.config import JudgeGRPOConfig
from autorater.training.grpo import train_on_votes
from autorater.training.options import RunOptions
from autorater.training.teaching import stage, trainer
from autorater.training.teaching.pointwise_teacher import teacher_run
from autorater.training.teaching.stage import learn_from_teacher
from autorater.training.teaching.teachers import PairTeacher, ScoreTeacher
from autorater.training.teaching.texts import TrainingTexts
from autorater.training.teaching.trainer import teaching_rows
from tests.conftest import make_model, make_tokenizer

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def pairs():
    """Two topics of eight texts; their digit says how good they are."""
    texts = [f"{digit} " * 4 + ("fox" if topic else "dogs") for topic in range(2) for digit in range(8)]
    rng = np.random.default_rng(0)
    sides = [rng.choice(8, size=2, replace=False) + 8 * topic for topic in range(2) for _ in range(20)]
    return [
        Pair(f"pair {i}", "Which?", texts[a], texts[b], float(b > a), 1, topic=f"topic {a // 8}")
        for i, (a, b) in enumerate(sides)
    ]


@pytest.fixture
def teacher_file(pairs, tmp_path):
    def probability(pair):
        return 1 / (1 + np.exp(-0.6 * (int(pair.response_b[0]) - int(pair.response_a[0]))))

    path = tmp_path / "teacher.jsonl"
    path.write_text("".join(json.dumps({"id": p.id, "probability": probability(p)}) + "\n" for p in pairs))
    return str(path)


@pytest.fixture
def opened_models(monkeypatch):
    """How many models of a run are in memory whenever one is opened."""
    alive, models, load = [], [], policy.load_policy

    def loaded(*args, **options):
        alive.append(sum(model() is not None for model in models))
        model, tokenizer = load(*args, **options)
        models.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr(policy, "load_policy", loaded)
    return alive


def make_judge(kind):
    tokenizer = make_tokenizer(chat=True)
    model = make_model("llama", len(tokenizer))
    return (
        PointwiseJudge(model, tokenizer)
        if kind == "pointwise"
        else Judge(model, tokenizer, PromptFormat("compact"), answer_step=0.25)
    )


def taught(kind, pairs, folder, teacher, model=None, run="run", judge=None, resume=None, steps=10, **options):
    folder.mkdir(exist_ok=True)
    args = JudgeArguments(
        warm_start_verdicts=teacher,
        warm_start_steps=steps,
        warm_start_learning_rate=2e-2 if kind == "pointwise" else 1e-2,
        **options,
    )
    training = JudgeGRPOConfig(
        output_dir=str(folder), judgment=kind, report_to="none", use_cpu=True, disable_tqdm=True, save_steps=4,
        save_strategy="steps" if steps < 80 else "no", logging_steps=2, resume_from_checkpoint=resume,
        **{"batch_tokens": 300, "entropy_coef": 0.3} if kind == "pointwise" else {},
    )  # fmt: skip
    judge = judge or make_judge(kind)
    record = RunRecord(folder, run, {}, [])
    options = RunOptions(args, training, model or ModelConfig("model"))
    learn_from_teacher(judge, pairs, options, record, 1000)
    return record.warm_start, judge


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_the_judge_learns_what_the_teacher_says(kind, pairs, tmp_path, teacher_file, monkeypatch, caplog):
    monkeypatch.setattr(stage, "reopen", lambda *_: None)  # the judge that was taught, not its copy
    caplog.set_level(logging.INFO, "autorater")
    folder, judge = taught(kind, pairs, tmp_path / "run", teacher_file, steps=80)
    distances = [
        float(r.message.split("teacher ")[1].split(",")[0]) for r in caplog.records if "distance" in r.message
    ]
    assert distances[1] < 0.7 * distances[0]
    assert judge.probabilities(pairs).valid.min() > 0.9, "the format is learned in passing"
    assert all(record.levelname != "WARNING" for record in caplog.records)
    loaded, _ = load_policy(folder)
    for (name, weight), other in zip(judge.model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(weight, other), name
    assert not list((tmp_path / "run" / "warm_start").glob("checkpoint-*")), "they are removed when it is complete"


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_little_mass_after_teaching_is_warned_about(kind, pairs, tmp_path, teacher_file, caplog):
    taught(kind, pairs, tmp_path / "run", teacher_file, steps=1)
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "rewards teach next to nothing" in messages[-1]
    assert messages[-1].endswith("raise warm_start_steps or warm_start_learning_rate")


def test_sharp_targets_come_first_and_the_symmetry_term_later(pairs, tmp_path, monkeypatch):
    path, seen, weights = tmp_path / "teacher.jsonl", [], []
    path.write_text("".join(json.dumps({"id": pair.id, "probability": 0.75}) + "\n" for pair in pairs))
    compute = trainer.TeachingTrainer.compute_loss

    def recorded(self, model, inputs, **kwargs):
        seen.append(torch.logit(inputs["target"]).abs().max().item() / np.log(3))
        self.loss = LoggedLoss(trainer._KL, symmetry_coef=1.0)
        return compute(self, model, inputs, **kwargs)

    class LoggedLoss(trainer.TargetLoss):
        def __call__(self, *args):
            weights.append(self.symmetry_coef)
            return super().__call__(*args)

    monkeypatch.setattr(trainer.TeachingTrainer, "compute_loss", recorded)
    taught(
        "pairwise", pairs, tmp_path / "run", str(path), steps=16, warm_start_sharpness=2.0, warm_start_batch_size=12
    )
    np.testing.assert_allclose(seen, [2] * 4 + [2, 1.75, 1.5, 1.25] + [1] * 8, rtol=1e-4)
    np.testing.assert_allclose(weights, 2 - np.array(seen), atol=1e-4)


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_resumed_is_uninterrupted(kind, pairs, tmp_path, teacher_file, monkeypatch):
    whole, _ = taught(kind, pairs, tmp_path / "whole", teacher_file)

    class Stopped(Exception):
        pass

    compute = trainer.TeachingTrainer.compute_loss

    def stop(self, *args, **kwargs):
        if self.state.global_step == 6:
            raise Stopped
        return compute(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(trainer.TeachingTrainer, "compute_loss", stop)
        with pytest.raises(Stopped):
            taught(kind, pairs, tmp_path / "stopped", teacher_file)
    assert [p.name for p in (tmp_path / "stopped" / "warm_start").glob("checkpoint-*")] == ["checkpoint-4"]
    torch.manual_seed(99)
    resumed, _ = taught(kind, pairs, tmp_path / "stopped", teacher_file, resume="auto")
    for (name, p), q in zip(*(load_policy(folder)[0].named_parameters() for folder in (whole, resumed)), strict=True):
        assert torch.equal(p, q[1]), name


def test_an_adapter_learns(pairs, tmp_path, teacher_file):
    judge = make_judge("pairwise")
    judge.model.save_pretrained(tmp_path / "base")
    judge.tokenizer.save_pretrained(tmp_path / "base")
    judge.model, _ = load_policy(str(tmp_path / "base"))
    model = ModelConfig(str(tmp_path / "base"), use_peft=True, lora_r=4, lora_target_modules=["all-linear"])
    taught("pairwise", pairs, tmp_path / "run", teacher_file, model, judge=judge, steps=2)
    assert isinstance(judge.model, PeftModel), "opened again from the folder of its warm start"


def test_rows_hold_every_text_once_an_epoch(pairs):
    texts = TrainingTexts.of(pairs)
    scores = np.arange(len(texts), dtype=float)[None] / 5
    teacher = ScoreTeacher(scores, np.zeros(len(texts), dtype=int), np.zeros((1, 1), dtype=int))
    rows = teaching_rows(texts, teacher, [1] * len(texts), 4, 8, seed=0)  # two epochs of four clusters
    for epoch in (rows[:4], rows[4:]):
        met = [set(a) | set(b) for a, b in zip(epoch["a"], epoch["b"], strict=True)]
        assert Counter(text for cluster in met for text in cluster) == Counter(range(len(texts)))
        assert all(len(cluster) == 4 and len(set(texts.group[list(cluster)])) == 1 for cluster in met)
    assert rows["a"][:4] != rows["a"][4:]
    for row in rows:
        assert len(row["target"]) == 6
        np.testing.assert_allclose(row["target"], teacher.between(np.array(row["a"]), np.array(row["b"])))
    assert rows["a"] == teaching_rows(texts, teacher, [1] * len(texts), 4, 8, seed=0)["a"]


def test_the_first_targets_are_sharper(pairs):
    texts = TrainingTexts.of(pairs)
    known = {tuple(sides): 0.25 for sides in texts.sides.tolist()}
    rows = teaching_rows(texts, PairTeacher(known), [1] * len(texts), 4, 40, seed=0, sharpness=3.0)
    factors = [np.log(target[0] / (1 - target[0])) / np.log(0.25 / 0.75) for target in rows["target"]]
    np.testing.assert_allclose(factors[:10], 3.0)
    np.testing.assert_allclose(factors[10:20], np.linspace(3.0, 1.2, 10))
    np.testing.assert_allclose(factors[20:], 1.0)
    np.testing.assert_allclose(rows["symmetry"], [0.0] * 10 + np.linspace(0.0, 0.9, 10).tolist() + [1.0] * 20)
    rows = teaching_rows(texts, PairTeacher(known), [1] * len(texts), 4, 40, seed=0, sharpness=1.0)
    assert set(rows["symmetry"]) == {1.0}


def test_rows_of_single_pairs_and_of_those_that_fit(pairs):
    texts = TrainingTexts.of(pairs)
    known = {tuple(sides): 0.25 for sides in texts.sides[:9].tolist()}
    rows = teaching_rows(texts, PairTeacher(known), [1] * len(texts), 4, 40, seed=0)
    sides = [pair for row in rows for pair in zip(row["a"], row["b"], strict=True)]
    assert set(sides) == set(known)
    assert {value for row in rows for value in row["target"]} == {0.25}
    only = teaching_rows(texts, PairTeacher(known), [1] * len(texts), 4, 5, 0, fits=lambda a, b: a == sides[0][0])
    assert {a for row in only for a in row["a"]} == {sides[0][0]}
    with pytest.raises(UserError, match="has no probability of a pair"):
        teaching_rows(texts, PairTeacher(known), [1] * len(texts), 4, 5, 0, fits=lambda a, b: a < 0)


@pytest.mark.parametrize("pairs_a_row", [6, None])
def test_prompts_with_two_responses_share_a_row(pairs_a_row):
    texts = TrainingTexts.of([Pair(str(i), f"Which {i}?", "so", "no", 1.0) for i in range(14)])
    dense = ScoreTeacher(np.zeros((1, 28)), np.zeros(28, dtype=int), np.zeros((1, 1), dtype=int))
    for teacher in (dense, PairTeacher({tuple(sides): 0.5 for sides in texts.sides.tolist()})):
        budget = 4 if pairs_a_row else 12
        rows = teaching_rows(texts, teacher, [1] * 28, budget, 3, 0, pairs_a_row)
        assert sorted(len(row["a"]) for row in rows) == [2, 6, 6]
        assert all(texts.group[a] == texts.group[b] for row in rows for a, b in zip(row["a"], row["b"], strict=True))


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        ({"warm_start_steps": 0}, "model", "warm_start_steps is 0"),
        ({"warm_start_steps": 9}, None, "teaches a pretrained model; set model_name_or_path"),
        ({"warm_start_steps": 9, "warm_start_batch_size": 16}, "model", "expected a multiple of 12"),
        ({"warm_start_steps": 9, "warm_start_sharpness": 0.0}, "model", "warm_start_sharpness: got 0; expected"),
        ({"warm_start_steps": 9, "recalibration_labels": "teacher"}, "model", "a trained judge; got probe"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, model, message):
    args = JudgeArguments(warm_start_verdicts="probe", n_train=8, n_test=4, **options)
    training = JudgeGRPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(UserError, match=message):
        train_on_votes(args, training, ModelConfig(model_name_or_path=model), (), "grpo")


def test_a_run_trains_its_pointwise_teacher_first(pairs, tmp_path, caplog):
    caplog.set_level(logging.INFO, "autorater")
    judge, model = make_judge("pairwise"), tmp_path / "model"
    judge.model.save_pretrained(model)
    judge.tokenizer.save_pretrained(model)
    write_pairs(pairs, tmp_path / "votes.jsonl")

    def train(judgment="pairwise", resume=None, steps=3):
        args = JudgeArguments(
            dataset_name=str(tmp_path / "votes.jsonl"), split_by="topic", held_out_fraction=0.5, n_eval_pairs=0,
            prompt_template="compact", warm_start_verdicts="pointwise", warm_start_steps=steps,
            recalibration_dataset_name=str(tmp_path / "votes.jsonl"), recalibration_labels="teacher",
        )  # fmt: skip
        training = JudgeGRPOConfig(
            output_dir=str(tmp_path / "run"), judgment=judgment, report_to="none", use_cpu=True, disable_tqdm=True,
            max_steps=1, save_strategy="no", resume_from_checkpoint=resume,
            **{"answer_step": 0.1} if judgment == "pairwise" else {},
        )  # fmt: skip
        train_on_votes(args, training, ModelConfig(model_name_or_path=str(model)), (), "grpo")

    with pytest.raises(UserError, match="pointwise teaches a pairwise judge, and judgment is pointwise"):
        train("pointwise")
    with pytest.raises(UserError, match="warm_start_verdicts: pointwise has no effect, because warm_start_steps is 0"):
        train(steps=0)
    train()
    teacher, taught = (Judge.from_pretrained(str(tmp_path / path), device="cpu") for path in ("run/teacher", "run"))
    assert (teacher.is_pointwise, taught.is_pointwise) == (True, False)
    fits = [record.message for record in caplog.records if record.message.startswith("recalibrated on")]
    assert "40 pairs, 40 votes" in fits[0], "the teacher, on votes"
    assert "the teacher's probabilities of 40 pairs" in fits[1]
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["model_name_or_path"] == settings["warm_start_verdicts"] == "teacher", "the folder can be moved"
    assert json.loads((tmp_path / "run/teacher/metrics.json").read_text())["after/n_pairs"] == 20
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"Trained from {markdown_line(str(model))} to read" in card, "not from the teacher"
    modified = (tmp_path / "run/teacher/model.safetensors").stat().st_mtime_ns
    with pytest.raises(AlreadyFinished):
        train(resume="auto")
    (tmp_path / "run" / "run.json").unlink()  # as if it was stopped while the teacher was trained
    train(resume="true")
    assert (tmp_path / "run/teacher/model.safetensors").stat().st_mtime_ns == modified, "it is not trained again"


def test_a_pointwise_teacher_has_the_optimizer_and_the_checkpointing_of_the_judge(tmp_path):
    shared = {
        "optim": "galore_adamw", "optim_args": "rank=8", "optim_target_modules": ["q_proj"],
        "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True},
    }  # fmt: skip
    training = JudgeGRPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, **shared)
    args = JudgeArguments(warm_start_verdicts="pointwise", warm_start_steps=5)
    of_teacher = teacher_run(RunOptions(args, training, ModelConfig(use_peft=True)))
    assert {name: getattr(of_teacher.training, name) for name in shared} == shared


def test_a_file_may_name_training_pairs_that_weights_and_length_leave_out(pairs, tmp_path, caplog):
    caplog.set_level(logging.INFO, "autorater")
    judge = make_judge("pairwise")
    for save in (judge.model.save_pretrained, judge.tokenizer.save_pretrained):
        save(tmp_path / "model")
    many = " fox" * 300
    long = [replace(pair, id=f"long {pair.id}", response_a=pair.response_a + many) for pair in pairs[:3]]
    never = [replace(pair, id=f"never {pair.id}", weight=1e-9, topic="other") for pair in pairs[:3]]
    write_pairs([*pairs, *long, *never], tmp_path / "votes.jsonl")
    write_pairs([replace(pair, response_a=pair.response_a + " so") for pair in pairs[:6]], tmp_path / "test.jsonl")
    rows = [{"id": pair.id, "probability": 0.7} for pair in [*pairs, *long, *never]]
    (tmp_path / "teacher.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = JudgeArguments(
        dataset_name=str(tmp_path / "votes.jsonl"), eval_dataset_name=str(tmp_path / "test.jsonl"),
        prompt_template="compact", warm_start_verdicts=str(tmp_path / "teacher.jsonl"), warm_start_steps=1,
        max_prompt_tokens=300,
    )  # fmt: skip
    training = JudgeGRPOConfig(
        output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
        answer_step=0.1, per_device_train_batch_size=2,
    )  # fmt: skip
    run.open_run(args, training, ModelConfig(model_name_or_path=str(tmp_path / "model")), args.prompt_format)
    assert "skipped 6 rows about pairs left out" in caplog.text


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_a_run_from_a_pointwise_judge(kind, pairs, tmp_path, caplog, opened_models):
    """A verbalizing judge begins from the weights of a pointwise judge, with a prompt layout of its own."""
    caplog.set_level(logging.INFO, "autorater")
    judge = make_judge("pointwise")
    for save in (judge.model.save_pretrained, judge.tokenizer.save_pretrained, judge.save_format):
        (tmp_path / "model").mkdir(exist_ok=True)
        save(tmp_path / "model")
    write_pairs(pairs, tmp_path / "votes.jsonl")
    write_pairs([replace(pair, response_a=pair.response_a + " so") for pair in pairs[:6]], tmp_path / "test.jsonl")
    unlabelled = [{"prompt": "Which?", "response_a": f"{i} fox", "response_b": f"{9 - i} fox"} for i in range(9)]
    (tmp_path / "unlabelled.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in unlabelled))
    fit = "platt" if kind == "pairwise" else "temperature"
    args = JudgeArguments(
        dataset_name=str(tmp_path / "votes.jsonl"), eval_dataset_name=str(tmp_path / "test.jsonl"),
        prompt_template="compact" if kind == "pairwise" else "full", warm_start_verdicts=str(tmp_path / "model"),
        warm_start_steps=3, n_eval_pairs=0, recalibration_dataset_name=str(tmp_path / "unlabelled.jsonl"),
        recalibration=fit, recalibration_labels="teacher",
    )  # fmt: skip
    training = JudgeGRPOConfig(
        output_dir=str(tmp_path / "run"), judgment=kind, report_to="none", use_cpu=True, disable_tqdm=True,
        max_steps=1, save_strategy="no", **{"answer_step": 0.1} if kind == "pairwise" else {},
    )  # fmt: skip
    train_on_votes(args, training, ModelConfig(model_name_or_path=str(tmp_path / "model")), (), "grpo")
    assert any(record.message.startswith("after teaching") for record in caplog.records)
    assert opened_models == [0, 0], "the model that was taught has left the memory before it is opened again"
    trained = Judge.from_pretrained(str(tmp_path / "run"), device="cpu")
    assert isinstance(trained, PointwiseJudge) == (kind == "pointwise")
    layout = "".join(trained.encoder.pieces)
    assert ("[Response A]" in layout) == (kind == "pairwise")
    fitted, trained.recalibration = trained.recalibration, None
    taught = judge.probabilities(unlabelled).p_ab
    answers = trained.probabilities(unlabelled)
    slopes = {
        name: fit_recalibration(name, answers.p_ab, answers.p_ba, taught).slope
        for name in ("odd_temperature", "platt", "temperature")
    }
    assert fitted.slope == pytest.approx(np.clip(slopes["odd_temperature"], *sorted((1, slopes[fit]))), rel=1e-5)
    assert (fitted.kind == "platt") == (kind == "pairwise")
