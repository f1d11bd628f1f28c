"""Preference data in the shapes of TRL's own datasets trains as it is: plain, conversational, implicit prompt."""

import json
import shutil

import pytest
import torch

from autorater import Judge, load_pairs
from autorater.data.pairs import with_sparse_labels
from autorater.judges.calibrators import shrunken_temperature
from recipes.grpo import main
from tests.conftest import make_model, make_tokenizer

COLOURS = ("blue", "red", "green", "black", "white", "grey", "pink", "brown")


def message(role, content):
    return {"role": role, "content": content}


def plain(colour):
    return {"prompt": f"The sky is {colour}?", "chosen": f"It is {colour}.", "rejected": "It is not."}


def conversational(colour):
    row = plain(colour)
    sides = {side: [message("assistant", row[side])] for side in ("chosen", "rejected")}
    return {"prompt": [message("system", "Be short."), message("user", row["prompt"])]} | sides


def implicit(colour):
    row = plain(colour)
    return {side: [message("user", row["prompt"]), message("assistant", row[side])] for side in ("chosen", "rejected")}


def plain_implicit(colour):
    row = plain(colour)
    return {side: f"{row['prompt']} {row[side]}" for side in ("chosen", "rejected")}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tokenizer = make_tokenizer("split")
    make_model("qwen", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("shape", [plain, conversational, implicit, plain_implicit], ids=lambda shape: shape.__name__)
def test_a_shape_trains_without_conversion(shape, policy, tmp_path, monkeypatch):
    rows = [shape(colour) for colour in COLOURS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {
        "dataset_name": tmp_path / "rows.jsonl", "model_name_or_path": policy, "output_dir": tmp_path / "out",
        "max_steps": 2, "per_device_train_batch_size": 2, "answer_step": 0.5, "prompt_template": "short",
        "held_out_fraction": 0.25, "save_strategy": "no", "report_to": "none",
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in options.items()]
    monkeypatch.setattr("sys.argv", ["grpo.py", "--use_cpu", *arguments])
    main()
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["after/n_pairs"] == 2
    labels = [json.loads(line)["label"] for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert set(labels) == {0.0, 1.0}


def trained_with_a_third_file(policy, folder, monkeypatch, **options):
    """Trains a judge for two steps on one file; a recalibration is fitted to the third. The judge and the files."""
    files = {}
    for name, kind in (("train", 0), ("test", 1), ("third", 2)):
        rows = [
            {"prompt": f"Colour {kind}{i}?", "response_a": f"It is {colour}.", "response_b": f"No: {kind}.",
             "votes_a": i % 3, "votes_b": 1}
            for i, colour in enumerate(COLOURS)
        ]  # fmt: skip
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("\n".join(map(json.dumps, rows)))
    options |= {
        "dataset_name": files["train"], "eval_dataset_name": files["test"], "model_name_or_path": policy,
        "recalibration_dataset_name": files["third"], "output_dir": folder / "out", "max_steps": 2,
        "save_strategy": "no", "report_to": "none",
    }  # fmt: skip
    monkeypatch.setattr(
        "sys.argv", ["grpo.py", "--use_cpu", *[f"--{name}={value}" for name, value in options.items()]]
    )
    main()
    return Judge.from_pretrained(folder / "out"), files


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_temperature_is_fitted_to_a_third_file_and_saved(bfloat16, policy, tmp_path, monkeypatch):
    """All in the precision of the evaluation, which is not that of the training."""
    options = {"judgment": "pointwise", "bf16": not bfloat16, "bf16_full_eval": bfloat16}
    options["recalibration"] = "platt" if bfloat16 else "temperature"  # a pointwise judge has a temperature with both
    judge, files = trained_with_a_third_file(policy, tmp_path, monkeypatch, **options)
    assert judge.recalibration.kind == "odd_temperature"
    third = with_sparse_labels(load_pairs(files["third"]), 42)
    fitted, judge.recalibration = judge.recalibration, None
    precision = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
    with precision:
        raw = judge.probabilities(third)
    expected = shrunken_temperature(raw.p_ab, raw.p_ba, [pair.label for pair in third], n_votes=len(third))
    assert fitted.slope == pytest.approx(expected.slope, rel=1e-4)
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    after = [row["probability"] for row in rows if row["order"] == "ab"]
    with precision:
        raw = judge.probabilities(load_pairs(files["test"])).p_ab
    assert after == pytest.approx(fitted(raw).tolist(), abs=1e-4)


def test_a_slope_and_a_shift_are_fitted_to_a_third_file_and_saved(policy, tmp_path, monkeypatch, caplog):
    options = {"recalibration": "platt", "recalibration_labels": "dense", "answer_step": 0.5, "bf16": False}
    options |= {"prompt_template": "short", "per_device_train_batch_size": 2}
    with caplog.at_level("INFO", "autorater"):
        judge, files = trained_with_a_third_file(policy, tmp_path, monkeypatch, **options)
    third = load_pairs(files["third"])
    fitted, judge.recalibration = judge.recalibration, None
    assert fitted.kind == "platt"
    assert fitted.intercept != 0
    assert f"recalibrated on 8 pairs, 15 votes: {fitted}, 95 % interval" in caplog.text
    raw = judge.probabilities(third)
    after = raw.recalibrated(fitted)
    assert abs((raw.p_ab + raw.p_ba).mean() - 1) > 1e-3
    assert (after.p_ab + after.p_ba).mean() == pytest.approx(1, abs=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    predictions = [row["probability"] for row in rows if row["order"] == "ab"]
    expected = fitted(judge.probabilities(load_pairs(files["test"])).p_ab)
    assert predictions == pytest.approx(expected.tolist(), abs=1e-4)


def test_runs_of_one_model_share_the_judgments_before_training(policy, tmp_path, monkeypatch, caplog):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(plain(colour)) for colour in COLOURS))

    def run(name, **options):
        options |= {
            "dataset_name": tmp_path / "rows.jsonl", "model_name_or_path": policy, "output_dir": tmp_path / name,
            "max_steps": 1, "per_device_train_batch_size": 2, "answer_step": 0.5, "held_out_fraction": 0.25,
            "save_strategy": "no", "report_to": "none", "untrained_judgments_dir": tmp_path / "before",
        }  # fmt: skip
        monkeypatch.setattr("sys.argv", ["grpo.py", "--use_cpu", *[f"--{n}={value}" for n, value in options.items()]])
        caplog.clear()
        with caplog.at_level("INFO", "autorater"):
            main()
        rows = [json.loads(line) for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()]
        return [row["probability_before"] for row in rows], "judgments before training: those of" in caplog.text

    first, reused = run("first", prompt_template="short")
    assert not reused
    assert run("second", prompt_template="short", learning_rate=0.1) == (first, True)
    (stored,) = (tmp_path / "before").glob("*/all.npz")
    stored.write_bytes(stored.read_bytes()[:100])
    assert run("damaged", prompt_template="short") == (first, False)
    assert "all.npz cannot be read" in caplog.text
    assert run("repaired", prompt_template="short") == (first, True)
    other, reused = run("third", prompt_template="compact")
    assert not reused
    assert other != first


def test_the_first_evaluation_is_repeated_with_the_model_before_its_warm_up(policy, tmp_path, monkeypatch, caplog):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(plain(colour)) for colour in COLOURS))

    def run(name, max_steps):
        options = {
            "dataset_name": tmp_path / "rows.jsonl", "model_name_or_path": policy, "output_dir": tmp_path / name,
            "max_steps": max_steps, "per_device_train_batch_size": 2, "answer_step": 0.5, "held_out_fraction": 0.25,
            "warm_start_steps": 3, "prompt_template": "short", "report_to": "none", "resume_from_checkpoint": "auto",
            "save_strategy": "no",
        }  # fmt: skip
        monkeypatch.setattr("sys.argv", ["grpo.py", "--use_cpu", *[f"--{n}={value}" for n, value in options.items()]])
        main()
        return (tmp_path / name / "predictions.jsonl").read_text()

    run("whole", 1)
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    (tmp_path / "damaged" / "before.npz").write_bytes(b"PK")
    assert run("damaged", 2) == run("whole", 2)
    assert "before.npz cannot be read" in caplog.text
    assert (tmp_path / "whole" / "warm_start" / "model.safetensors").exists()
