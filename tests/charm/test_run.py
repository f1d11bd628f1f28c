"""Arguments, data and preference sets of a CHARM run; the run itself is in tests/recipes."""

import json
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Qwen2ForSequenceClassification
from trl import ModelConfig

from autorater.charm import expected_win_rate
from autorater.charm.arena import Arena
from autorater.charm.arguments import CharmArguments
from autorater.charm.calibration import calibrate
from autorater.charm.data import prepare_charm
from autorater.charm.made_from import OF_THE_WEIGHTS
from autorater.charm.responses import Preference, Response
from autorater.charm.reward_model import RewardModel, build_reward_model
from autorater.charm.run import CharmRun
from autorater.charm.training import RewardTrainingConfig, train_reward_model
from autorater.data.errors import UserError
from autorater.data.loading import write_pairs
from autorater.models.tiny import small_config
from tests.conftest import DATED, full_disk, make_tokenizer

ELO = {"ada": 1000.0, "bob": 1000.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "some"}, "stage: got 'some'; expected one of all, score, diagnose, train, evaluate"),
        ({"responses_name": "r.jsonl"}, "responses_name requires elo_table"),
        ({"elo_table": "t.csv"}, "elo_table requires responses_name or dataset_name"),
        ({"eval_responses_name": "r.jsonl"}, "eval_responses_name requires responses_name"),
        ({"held_out_fraction": 1.0}, "held_out_fraction is 1.0; expected a number between 0 and 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CharmArguments(**arguments)


def test_simulated_data_keeps_prompts_apart():
    data = prepare_charm(CharmArguments(n_pairs=40, n_prompts=10, n_test_prompts=5, n_test_pairs=20), seed=0)
    trained = {r.prompt for r in data.responses} | {p.prompt for p in data.pairs}
    assert not trained & ({r.prompt for r in data.held_out} | {p.prompt for p in data.held_out_pairs})
    assert data.summary.startswith("8 models; 10 prompts to calibrate on, 5 held out; 20 held-out pairs")


@pytest.fixture
def votes(tmp_path):
    path = tmp_path / "votes.jsonl"
    write_pairs(Arena().pairs(200, n_votes=3, seed=0), path)
    return str(path)


def test_pairs_are_divided_by_prompt(votes):
    data = prepare_charm(CharmArguments(dataset_name=votes, held_out_fraction=0.25), seed=0)
    assert len(data.pairs) + len(data.held_out_pairs) == 200
    assert not {p.prompt for p in data.pairs} & {p.prompt for p in data.held_out_pairs}
    assert {r.prompt for r in data.held_out} == {p.prompt for p in data.held_out_pairs}
    assert np.mean(list(data.elo.values())) == pytest.approx(1000)


def test_conversations_of_several_turns_are_counted(votes, tmp_path, caplog):
    rows = [json.loads(line) for line in Path(votes).read_text().splitlines()]
    prepare_charm(CharmArguments(dataset_name=votes), seed=0)
    assert not caplog.records
    for row in rows[:7]:
        row["prompt"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["prompt"]}]
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = prepare_charm(CharmArguments(dataset_name=str(path)), seed=0)
    (warning,) = (record.message for record in caplog.records)
    assert "7 of 200 pairs have conversations" in warning
    assert any(p.prompt.startswith("System: Be brief.") for p in data.pairs + data.held_out_pairs)


def test_a_model_without_elo_is_named(votes, tmp_path):
    with pytest.raises(ValueError, match="no Elo for 'nobody'; there is one for aspen, birch"):
        prepare_charm(CharmArguments(dataset_name=votes, overvalued="nobody"), seed=0)
    (tmp_path / "elo.json").write_text('{"aspen": 1000, "birch": 1000}')
    with pytest.raises(ValueError, match=r"no Elo for 'cedar', 'elm', .*; there is one for aspen, birch"):
        prepare_charm(CharmArguments(dataset_name=votes, elo_table=str(tmp_path / "elo.json")), seed=0)


def test_responses_of_files_stay_in_their_part(votes, tmp_path):
    def file(name, prompts):
        rows = [{"prompt": p, "model": m, "response": m} for p in prompts for m in ("aspen", "birch")]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    data = prepare_charm(
        CharmArguments(
            dataset_name=votes,
            responses_name=file("r.jsonl", ["p1", "p2"]),
            eval_responses_name=file("e.jsonl", ["p2", "p3"]),
        ),
        seed=0,
    )
    assert {r.prompt for r in data.responses} == {"p1"}, "p2 is held out, so nothing is calibrated on it"
    assert {r.prompt for r in data.held_out} == {"p2", "p3"}
    assert data.summary.endswith("held-out pairs with votes")
    again = replace(data, responses=[*data.responses, *(replace(r, text="again") for r in data.responses)])
    assert again.summary == f"{data.summary}; of a model's responses to one prompt the first is compared, 2 are not"
    assert data.held_out_pairs
    assert not {p.prompt for p in data.pairs} & {p.prompt for p in data.held_out_pairs}


def scored(over, reference):
    """Responses and their scores."""
    sides = (("ada", over), ("bob", reference))
    scores = {Response(f"q{i}", m, f"{m} {i}"): s for m, side in sides for i, s in enumerate(side)}
    return list(scores), scores


def test_preference_sets_by_hand():
    calibration = calibrate(*scored([3.0, 2.0, 0.0, 1.0], [1.0, 1.5, 1.0, 1.0]), ELO, "ada", "bob")
    assert calibration.expected == expected_win_rate(1000, 1000) == 0.5
    wins = 1 / (1 + np.exp(-(np.array([2.0, 0.5, -1.0, 0.0]) + calibration.offset)))
    assert wins.mean() == pytest.approx(0.5, abs=1e-12)
    assert [p.chosen.text for p in calibration.sets["uncalibrated"]] == ["ada 0", "ada 1", "bob 2"]
    assert [p.chosen.text for p in calibration.sets["calibrated"]] == ["ada 0", "ada 1", "bob 2", "bob 3"]
    assert calibration.turned == 1


def test_what_cannot_be_calibrated_is_refused():
    responses = scored([1.0], [2.0])
    with pytest.raises(ValueError, match="both 'ada'; expected two different models"):
        calibrate(*responses, ELO, "ada", "ada")
    with pytest.raises(ValueError, match="no Elo for 'cyd'"):
        calibrate(*responses, ELO, "ada", "cyd")
    with pytest.raises(ValueError, match="answered no common prompt"):
        calibrate(
            [Response("p", "ada", "x"), y := Response("q", "bob", "x")],
            {Response("p", "ada", "x"): 1.0, y: 1.0},
            ELO,
            "ada",
            "bob",
        )
    with pytest.raises(ValueError, match="NaN"):
        calibrate(*scored([float("nan")], [2.0]), ELO, "ada", "bob")
    with pytest.raises(ValueError, match="no finite offset"):
        calibrate(*responses, {"ada": 1e9, "bob": 0.0}, "ada", "bob")


def test_a_reward_model_that_scores_all_alike_is_warned_about():
    with pytest.warns(RuntimeWarning, match="all 3 score differences are 0"):
        calibration = calibrate(*scored([1.0] * 3, [1.0] * 3), {"ada": 900.0, "bob": 1000.0}, "ada", "bob")
    assert np.isfinite(calibration.offset)


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains the calibrated version in a folder, without a model: `save` is called in place of the training."""
    calibration = calibrate(*scored([3.0, 2.0, 0.0, 1.0], [1.0, 1.5, 1.0, 1.0]), ELO, "ada", "bob")
    monkeypatch.setattr(CharmRun, "_load", lambda run, name: SimpleNamespace(model=torch.nn.Linear(9, 1)))

    def train(save, stage="all", model="org/m", **options):
        monkeypatch.setattr("autorater.charm.run.train_reward_model", save)
        training = RewardTrainingConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", **options)
        args = CharmArguments(stage=stage, n_pairs=20, n_prompts=5, n_test_prompts=5, n_test_pairs=5)
        CharmRun(args, training, ModelConfig(model_name_or_path=model)).train("calibrated", calibration)

    return train


def saved(reward_model, preferences, config, **options):
    Path(config.output_dir).mkdir(exist_ok=True)
    Path(config.output_dir, "config.json").write_text("{}")


def test_nothing_is_known_of_a_model_whose_training_failed(train, tmp_path):
    """Its folder may hold new weights with the scores of the earlier ones."""
    train(saved)
    scores = tmp_path / "scores" / "calibrated" / "part-000.jsonl"
    scores.parent.mkdir(parents=True)
    scores.write_text("{}\n")
    train(full_disk, stage="evaluate")
    assert scores.exists(), "nothing was trained"
    with pytest.raises(OSError, match="No space"):
        train(full_disk)
    assert not scores.exists()
    with pytest.raises(OSError, match="No space"):
        train(full_disk, stage="evaluate")


def test_weights_in_half_precision_are_warned_about(train, monkeypatch, caplog):
    train(saved)
    assert not caplog.records
    half = torch.nn.Linear(9, 1).to(torch.bfloat16)
    monkeypatch.setattr(CharmRun, "_load", lambda run, name: SimpleNamespace(model=half))
    train(saved)
    assert "bfloat16 weights: a step of learning_rate 2e-06 can move 0.0% of them" in caplog.text


def test_bfloat16_that_is_emulated_is_warned_about(train, monkeypatch, caplog):
    monkeypatch.setattr("autorater.training.precision.cpu_has_bf16", lambda: False)
    train(saved, bf16=True)
    assert "bf16: this CPU has no bfloat16 instructions" in caplog.text


def test_an_evaluation_has_the_options_of_the_training(train, tmp_path):
    """The report shows them."""
    train(saved, learning_rate=0.05)
    train(full_disk, stage="evaluate", learning_rate=0.05, per_device_eval_batch_size=2, logging_steps=3)
    message = "calibrated was trained with learning_rate: 0.05, and now it is "
    with pytest.raises(ValueError, match=f"{message}learning_rate: 0.07: train it again"):
        train(full_disk, stage="evaluate", learning_rate=0.07)
    with pytest.raises(ValueError, match=f"{message}the defaults: train it again"):
        train(full_disk, stage="evaluate")


def test_an_evaluation_has_the_base_of_the_training(train, tmp_path):
    """If the responses have scores, the preferences do not depend on it."""
    train(saved)
    with pytest.raises(ValueError, match="was trained with base: org/m, and now it is base: org/other: train it"):
        train(full_disk, stage="evaluate", model="org/other")
    for name, made_from in (("weights", "config.json"), ("trained", "made_from.txt")):
        base = tmp_path / name
        base.mkdir()
        (base / made_from).write_text("learning_rate: 0.1")
        train(saved, model=str(base))
        train(full_disk, stage="evaluate", model=str(base))
        (base / made_from).write_text("learning_rate: 0.02")
        with pytest.raises(ValueError, match=r"was trained with base: [0-9a-f]{32}, and now it is base: [0-9a-f]"):
            train(full_disk, stage="evaluate", model=str(base))


def test_a_revision_of_the_hub_is_a_model_of_its_own(tmp_path, monkeypatch):
    """Scores and layout of another revision are not used."""
    tokenizer = make_tokenizer(chat=True)
    config = small_config(tokenizer, 32, 1, 4, 256, num_labels=1)
    loaded = RewardModel(Qwen2ForSequenceClassification(config), tokenizer)
    monkeypatch.setattr(RewardModel, "from_pretrained", lambda name, **options: loaded)
    args = CharmArguments(n_pairs=20, n_prompts=2, n_test_prompts=2, n_test_pairs=2)
    training = RewardTrainingConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")

    def score(**options):
        CharmRun(args, training, ModelConfig(model_name_or_path="org/rm", **options)).score("original")

    score(model_revision="v1")
    score(model_revision="v1")
    with pytest.raises(UserError, match=r"holds scores of 'org/rm@v1, layout .*', not of 'org/rm@v2, layout .*"):
        score(model_revision="v2")
    assert list(json.loads((tmp_path / "layouts.json").read_text())) == ["org/rm@v1", "org/rm@v2"]


def test_an_evaluation_may_be_on_another_machine(train, tmp_path):
    """Without a GPU transformers changes options such as dataloader_pin_memory."""
    train(saved, learning_rate=0.05)
    lines = (tmp_path / "calibrated" / "made_from.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in lines] == ["overvalued", "preferences", "base", "learning_rate"]
    train(full_disk, stage="evaluate", learning_rate=0.05, bf16_full_eval=True, dataloader_pin_memory=True)
    options = {field.name for part in (RewardTrainingConfig, ModelConfig) for field in fields(part)}
    assert not OF_THE_WEIGHTS - options, "no longer options: what they are called now is to be in the list"


@pytest.mark.parametrize("note", ["ada, a1ed5c\n", "overvalued: ada\npreferences: a1ed5c\nlearning_rate: 0.05\n"])
def test_a_model_of_an_older_version_is_trained_again(train, tmp_path, note):
    train(saved)
    (tmp_path / "calibrated" / "made_from.txt").write_text(note)
    with pytest.raises(ValueError, match="by an older version, which did not note its base model: train it again"):
        train(full_disk, stage="evaluate")


def test_a_model_without_its_note_is_not_replaced_by_an_evaluation(train, tmp_path):
    train(saved)
    (tmp_path / "calibrated" / "made_from.txt").unlink()  # not copied
    train(saved, stage="evaluate")  # there are no weights, as after a training that was stopped
    (tmp_path / "calibrated" / "made_from.txt").unlink()
    (tmp_path / "calibrated" / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"calibrated holds a model without made_from\.txt, so it is not known what"):
        train(full_disk, stage="evaluate")
    train(saved)


def test_a_full_disk_says_to_start_again(tmp_path, monkeypatch):
    monkeypatch.setattr("trl.RewardTrainer.save_model", full_disk)
    preferences = [Preference(Response("q", "ada", "yes"), Response("q", "bob", "no"))]
    options = {"max_steps": 1, "use_cpu": True, "report_to": "none", "save_strategy": "no"}
    model = build_reward_model(["q yes no"], hidden_size=32, num_layers=1)
    with pytest.raises(UserError, match=r"written \(No space.*\); once it can, start the same command again"):
        train_reward_model(model, preferences, RewardTrainingConfig(output_dir=str(tmp_path), **options))


def test_a_run_has_the_chat_layout_of_its_first_day(tmp_path, on_day):
    """A chat template may write the date."""
    tokenizer = make_tokenizer(chat=True)
    tokenizer.chat_template = DATED
    config = small_config(tokenizer, 32, 1, 4, 256, num_labels=1)
    for part in (Qwen2ForSequenceClassification(config), tokenizer):
        part.save_pretrained(tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    args = CharmArguments(n_pairs=20, n_prompts=5, n_test_prompts=5, n_test_pairs=5)
    training = RewardTrainingConfig(output_dir=str(out), use_cpu=True, max_steps=1, report_to="none")

    def run():
        return CharmRun(args, training, ModelConfig(model_name_or_path=str(tmp_path / "base")))

    on_day("2026-11-27")
    first = run()
    first.score("original")
    part = out / "scores" / "original" / "part-000.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:20]))  # killed
    on_day("2026-11-28")
    again = run()
    again.score("original")
    assert again._scores["original"] == pytest.approx(first._scores["original"], abs=1e-6)
    again.train("calibrated", again.calibrate())
    assert "27 Nov 2026" in RewardModel.from_pretrained(str(out / "calibrated")).pieces[0]


def test_an_evaluation_with_other_options_does_not_train_the_original_again(tmp_path):
    note = tmp_path / "original" / "made_from.txt"
    note.parent.mkdir()
    note.write_text("max_length: 900\n")
    args = CharmArguments(stage="evaluate", n_pairs=20, n_prompts=5, n_test_prompts=5, n_test_pairs=5)
    run = CharmRun(args, RewardTrainingConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none"), ModelConfig())
    with pytest.raises(UserError, match=r"original was trained with max_length: 900, and now it is base_batch_size"):
        _ = run.base
    assert note.read_text() == "max_length: 900\n"


def test_an_optimizer_whose_package_is_missing_is_an_error_at_the_start(tmp_path):
    training = RewardTrainingConfig(output_dir=str(tmp_path), optim="grokadamw", use_cpu=True, report_to="none")
    with pytest.raises(UserError, match=r"^optim: grokadamw: Please install grokadamw"):
        CharmRun(CharmArguments(dataset_name="none.jsonl"), training, ModelConfig())
