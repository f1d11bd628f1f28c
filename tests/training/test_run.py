"""What a run checks before it loads or writes anything."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from transformers import trainer_optimizer
from transformers.trainer_utils import IntervalStrategy
from transformers.training_args import OptimizerNames
from trl import ModelConfig

from autorater.alignment.trainer import AlignmentConfig
from autorater.charm.reward_model import RewardModel
from autorater.charm.training import RewardTrainingConfig
from autorater.data.errors import UserError
from autorater.judges.opening import open_judge
from autorater.prompts.templates import PromptFormat
from autorater.training import checks, results, run
from autorater.training.arguments import JudgeArguments
from autorater.training.checks import check_run
from autorater.training.config import JudgeGRPOConfig, model_init_kwargs, non_default_settings
from autorater.training.data import prepare_data
from autorater.training.options import RunOptions
from autorater.training.ppo import JudgePPOConfig
from autorater.training.run import begin_run, finish_run, open_run, shown_settings
from autorater.training.sft import JudgeSFTConfig
from tests.conftest import full_disk, make_tokenizer
from tests.models.test_repeated_cache import CONFIGS, WITHOUT, build


def training(folder, **options):
    of_optimizer = {"optim": OptimizerNames.ADAMW_TORCH, "optim_args": None, "learning_rate": 1e-3}
    of_optimizer |= {"adam_beta1": 0.9, "adam_beta2": 0.99, "adam_epsilon": 1e-8}
    defaults = {"output_dir": str(folder), "report_to": [], "eval_strategy": IntervalStrategy.NO, "n_gpu": 0}
    return SimpleNamespace(**defaults | of_optimizer | options)


@pytest.fixture
def judge(tmp_path):
    """The folder of a judge, and that of an adapter of it."""
    for name, file, content in (
        ("judge", "config.json", {}),
        ("adapter", "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "judge")}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(content))
    return tmp_path / "judge"


@pytest.mark.parametrize(
    ("start", "teacher", "output_dir", "option"),
    [
        ("judge", "opinions", "adapter/../judge", "model_name_or_path"),
        ("adapter", "opinions", "adapter", "model_name_or_path"),
        ("adapter", "opinions", "judge", "the base model of its adapter"),
        ("org/model", "judge", "judge", "warm_start_verdicts"),
    ],
)
def test_a_run_does_not_overwrite_what_it_begins_from(judge, start, teacher, output_dir, option):
    place = judge.parent
    start = start if "/" in start else str(place / start)
    teacher = str(place / teacher) if teacher == "judge" else teacher
    args, model = JudgeArguments(warm_start_steps=12, warm_start_verdicts=teacher), ModelConfig(start)
    with pytest.raises(UserError, match=f"^output_dir: .* is the folder of {option}, which this run would overwrite"):
        check_run(args, training(place / output_dir), model)
    check_run(args, training(place / "new"), model)
    check_run(args, training(place), model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size: got 0; expected a whole number, 1 or more"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps: got 0; expected a whole number, 1 or more"),
        ({"max_steps": -5}, "max_steps: got -5; expected 1 or more, or -1 for num_train_epochs"),
        ({"num_train_epochs": 0}, "num_train_epochs: got 0; expected a number above 0, or max_steps"),
    ],
)
@pytest.mark.parametrize(
    "config", [JudgeGRPOConfig, JudgePPOConfig, JudgeSFTConfig, AlignmentConfig, RewardTrainingConfig]
)
def test_a_training_of_no_length_is_an_error_at_the_start(tmp_path, config, options, message):
    with pytest.raises(UserError, match=message):
        config(output_dir=str(tmp_path), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"load_best_model_at_end": True, "metric_for_best_model": "eval_brier"},
            "load_best_model_at_end: True: the evaluations during a training choose nothing; leave it out",
        ),
        ({"save_strategy": "best"}, "save_strategy: best: .* choose nothing; expected no, steps or epoch"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler_type: reduce_lr_on_plateau: .* such as linear"),
        ({"lr_scheduler_type": "greedy"}, "lr_scheduler_type: greedy: .* such as linear"),
    ],
)
@pytest.mark.parametrize("config", [JudgeGRPOConfig, JudgePPOConfig, JudgeSFTConfig, AlignmentConfig])
def test_nothing_is_chosen_by_evaluations(tmp_path, config, options, message):
    with pytest.raises(UserError, match=message):
        config(output_dir=str(tmp_path), **options)


_KINDS = {
    "exact answers": (JudgeGRPOConfig, {}),
    "exact answers after reasoning": (JudgeGRPOConfig, {"reasoning": True}),
    "sampled answers": (JudgeGRPOConfig, {"answers": "sampled"}),
    "pointwise judgments": (JudgeGRPOConfig, {"judgment": "pointwise"}),
    "ppo": (JudgePPOConfig, {}),
    "rloo": (JudgePPOConfig, {"algorithm": "rloo"}),
    "text": (JudgeSFTConfig, {}),
    "tokenized_brier": (JudgeSFTConfig, {"objective": "tokenized_brier"}),
    "distribution alignment": (AlignmentConfig, {}),
}
_GRPO = [mode for mode, (config, _) in _KINDS.items() if config in (JudgeGRPOConfig, JudgePPOConfig)]
_WITHOUT_EFFECT = [  # option, value, modes that refuse it, and options with which it has an effect
    ("eval_delay", 5, list(_KINDS), None),
    ("fp16_full_eval", True, list(_KINDS), None),
    ("per_device_eval_batch_size", 2, list(_KINDS), None),
    ("num_generations_eval", 4, _GRPO, None),
    ("data_seed", 7, _GRPO, None),
    ("data_seed", 7, ["text", "tokenized_brier", "distribution alignment"], {"train_sampling_strategy": "random"}),
    ("label_smoothing_factor", 0.1, [mode for mode in _KINDS if mode != "text"], None),
    ("model_init_kwargs", {"dtype": "bfloat16"}, ["exact answers", "sampled answers", "ppo"], {"beta": 0.1}),
    ("model_init_kwargs", {"dtype": "bfloat16"}, ["text", "tokenized_brier"], None),
    ("sapo_temperature_pos", 2.0, _GRPO, None),
    ("sapo_temperature_neg", 2.0, ["sampled answers"], {"loss_type": "sapo"}),
    ("vespo_k_pos", 3.0, ["sampled answers"], {"loss_type": "vespo"}),
    ("pad_to_multiple_of", 64, ["exact answers", "pointwise judgments", "tokenized_brier"], None),
]


@pytest.mark.parametrize(
    ("option", "value", "mode", "effective"),
    [(option, value, mode, effective) for option, value, modes, effective in _WITHOUT_EFFECT for mode in modes],
)
def test_options_without_an_effect_are_refused(tmp_path, option, value, mode, effective):
    config, options = _KINDS[mode]
    common = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True} | options
    with pytest.raises(UserError, match=f"{option}: .* is not compatible with {mode}: "):
        config(**common, **{option: value})
    config(**common)
    if effective:
        config(**common, **{option: value}, **effective)


def test_several_gpus_in_one_process_are_refused(tmp_path):
    with pytest.raises(UserError, match="one process sees 8 GPUs; start it with accelerate launch or torchrun"):
        check_run(JudgeArguments(), training(tmp_path, n_gpu=8), ModelConfig())


def test_a_missing_vllm_is_an_error_at_the_start(tmp_path, monkeypatch):
    sampled = training(tmp_path, use_vllm=True)
    monkeypatch.setattr(checks, "is_vllm_available", lambda: False)
    with pytest.raises(UserError, match=r"^use_vllm: vLLM is not installed; .* pip install .* vllm=="):
        check_run(JudgeArguments(), sampled, ModelConfig())
    check_run(JudgeArguments(), training(tmp_path, use_vllm=False), ModelConfig())
    monkeypatch.setattr(checks, "is_vllm_available", lambda: True)
    check_run(JudgeArguments(), sampled, ModelConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_strategy": IntervalStrategy.EPOCH}, "eval_strategy: epoch: .* leave eval_strategy out, and set"),
        ({"eval_on_start": True}, "eval_on_start: True: .* leave eval_on_start out, and set eval_steps"),
    ],
)
def test_an_evaluation_of_transformers_is_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        check_run(JudgeArguments(), training(tmp_path, **options), ModelConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sync_ref_model": True}, "sync_ref_model: a run that is stopped could not be resumed"),
        ({"reward_weights": [1.0, 2.0]}, "reward_weights: got 2 numbers; expected one"),
        ({"reward_weights": []}, "reward_weights: got 0 numbers; expected one"),
        ({"use_liger_kernel": True}, "use_liger_kernel: liger-kernel is not installed"),
        ({"optim": OptimizerNames.PAGED_ADAMW_8BIT}, "optim: paged_adamw_8bit: You need to install `bitsandbytes`"),
        ({"optim": OptimizerNames.GALORE_ADAMW}, "optim: galore_adamw: You need to install `galore_torch`"),
        ({"optim": OptimizerNames.GROKADAMW}, "optim: grokadamw: Please install grokadamw"),
        ({"optim": OptimizerNames.SGD, "optim_args": "momentum=x"}, "optim: sgd, optim_args: momentum=x: could not"),
    ],
)
def test_what_would_stop_the_training_is_an_error_at_the_start(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(checks, "is_liger_kernel_available", lambda: False)
    for package in ("bitsandbytes", "galore_torch", "grokadamw"):
        monkeypatch.setattr(trainer_optimizer, f"is_{package}_available", lambda: False)
    with pytest.raises(UserError, match=message):
        check_run(JudgeArguments(), training(tmp_path, **options), ModelConfig())
    check_run(JudgeArguments(), training(tmp_path, reward_weights=[2.0]), ModelConfig())
    monkeypatch.setattr(trainer_optimizer, "is_lomo_available", lambda: True)
    check_run(JudgeArguments(), training(tmp_path, optim=OptimizerNames.LOMO), ModelConfig())  # needs the model


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {"model_init_kwargs": {"trust_remote_code": True}}])
def test_code_of_a_repository_is_not_executed(tmp_path, options):
    with pytest.raises(UserError, match="trust_remote_code: true: a run executes no code of a model's repository"):
        check_run(JudgeArguments(), training(tmp_path, **options), ModelConfig())


def test_nobody_is_asked_whether_to_execute_code_of_a_repository(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", asked.append)
    config = {"model_type": "custom", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    make_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "code.py").write_text("raise RuntimeError('executed')")
    start = str(tmp_path / "model")
    options = JudgeGRPOConfig(str(tmp_path / "run"), report_to="none", use_cpu=True)
    with pytest.raises(UserError, match="contains custom code"):
        open_run(JudgeArguments(n_train=8, n_test=3), options, ModelConfig(start), PromptFormat())
    with pytest.raises(UserError, match="contains custom code"):
        open_judge(start)
    with pytest.raises(UserError, match="contains custom code"):
        RewardModel.from_pretrained(start, **model_init_kwargs(ModelConfig(start)))
    assert not asked


def test_checkpoints_of_transformers_at_sigterm_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"enable_jit_checkpoint: no effect; .* when SIGTERM or Ctrl-C stops it"):
        check_run(JudgeArguments(), training(tmp_path, enable_jit_checkpoint=True), ModelConfig())


def test_checkpoints_of_the_model_alone_are_refused(tmp_path):
    with pytest.raises(UserError, match="save_only_model: its checkpoints cannot be resumed"):
        check_run(JudgeArguments(), training(tmp_path, save_only_model=True), ModelConfig())


def test_a_run_is_not_resumed_on_changed_votes(tmp_path, simulated):
    def begun(votes_a, votes_b):
        row = {"prompt": "p", "votes_a": votes_a, "votes_b": votes_b}
        rows = [row | {"response_a": pair.response_a, "response_b": pair.response_b} for pair in simulated.pairs[:9]]
        (tmp_path / "votes.jsonl").write_text("\n".join(map(json.dumps, rows)))
        args = JudgeArguments(dataset_name=str(tmp_path / "votes.jsonl"), labels="dense", split_by="id")
        options = JudgeGRPOConfig(str(tmp_path / "run"), report_to="none", use_cpu=True, resume_from_checkpoint="auto")
        return begin_run(RunOptions(args, options, ModelConfig()), prepare_data(args, seed=0))[0]

    assert begun(3, 1).run == begun(3, 1).run
    with pytest.raises(UserError, match=r"run with other settings: contents of the data was '\w+' and is '\w+'"):
        begun(2, 2)


@pytest.mark.parametrize(
    "config", [JudgeGRPOConfig, JudgePPOConfig, JudgeSFTConfig, AlignmentConfig, RewardTrainingConfig]
)
def test_the_token_of_the_hub_is_neither_written_nor_sent(tmp_path, config):
    options = config(str(tmp_path), report_to="none", use_cpu=True, hub_token="hf_secret", hub_model_id="me/judge")
    assert options.hub_token == "hf_secret"
    assert "hub_token" not in non_default_settings(options)
    torch.save(options, tmp_path / "training_args.bin")  # as trainers do
    loaded = torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert (loaded.hub_token, loaded.hub_model_id) == (None, "me/judge")


@pytest.mark.parametrize("failing", ["save_model", "write"])
def test_a_full_disk_after_the_training_says_how_to_resume(tmp_path, monkeypatch, failing):
    monkeypatch.setattr(run, "run_training", lambda *_: SimpleNamespace(metrics={"train_runtime": 1.0}))
    monkeypatch.setattr(run, "evaluation_precision", nullcontext)

    def nothing(*_, **__):
        pass

    writes = {"save_model": nothing, "write": nothing, failing: full_disk}
    trainer = SimpleNamespace(
        args=training(tmp_path, process_index=0, push_to_hub=False), model=None, save_model=writes["save_model"],
        accelerator=SimpleNamespace(unwrap_model=nothing),
    )  # fmt: skip
    judge = SimpleNamespace(tokenizer=SimpleNamespace(save_pretrained=nothing), save_format=nothing)
    with pytest.raises(UserError, match=r"cannot be written \(.*No space.*with --resume_from_checkpoint auto"):
        finish_run(trainer, judge, None, nothing, writes["write"])


def test_too_few_pairs_for_a_batch_are_refused_before_the_model_is_loaded(tmp_path):
    model = ModelConfig(model_name_or_path=str(tmp_path / "nowhere"))
    options = {"report_to": "none", "use_cpu": True, "per_device_train_batch_size": 6}
    for orders, message in (("coupled", "5 training rows do not fill a batch"), ("separate", "no such folder")):
        training = JudgeGRPOConfig(str(tmp_path / orders), orders=orders, **options)
        with pytest.raises(UserError, match=message):
            open_run(JudgeArguments(n_train=5, n_test=3), training, model, PromptFormat())


def test_the_whole_judge_is_uploaded_once(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(run, "run_training", lambda *_: SimpleNamespace(metrics={"train_runtime": 1.0}))
    monkeypatch.setattr(run, "evaluation_precision", nullcontext)
    monkeypatch.setattr(results, "upload_folder", lambda **options: done.append(options))
    args = training(
        tmp_path, process_index=0, push_to_hub=True, hub_token="t", hub_revision=None
    )  # fmt: skip
    trainer = SimpleNamespace(
        args=args, model=None, hub_model_id="me/judge", save_model=lambda **options: done.append(options),
        accelerator=SimpleNamespace(unwrap_model=lambda *_, **__: None),
    )  # fmt: skip
    judge = SimpleNamespace(
        tokenizer=SimpleNamespace(save_pretrained=lambda _: None), save_format=lambda _: done.append("format")
    )
    record = SimpleNamespace(mark=done.append)
    finish_run(trainer, judge, record, lambda: "evaluated", lambda *_: done.append("report"))
    saved, *written, upload, mark = done
    assert saved == {"_internal_call": True}, "the trainer would upload weights without the format of the judge"
    assert written == ["format", "format", "report"]
    assert {"run.json", "training_args.bin"} <= set(upload["ignore_patterns"])
    assert (upload["repo_id"], upload["folder_path"], mark) == ("me/judge", str(tmp_path), run.REPORT)


@pytest.mark.parametrize("family", ["lfm2", "mamba"])
def test_reasoning_requires_answers_at_once_before_anything_is_judged(family, tmp_path, simulated, monkeypatch):
    """LFM2 repeats the cache of a prompt, Mamba cannot."""
    folder, tokenizer = tmp_path / "model", make_tokenizer()
    build((CONFIGS | WITHOUT)[family], len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    names = ("prompt", "response_a", "response_b", "label")
    rows = [json.dumps({name: getattr(pair, name) for name in names}) for pair in simulated.pairs[:20]]
    (tmp_path / "votes.jsonl").write_text("\n".join(rows))
    args = JudgeArguments(dataset_name=str(tmp_path / "votes.jsonl"), held_out_fraction=0.5)
    options = JudgeGRPOConfig(output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True, reasoning=True)

    class Judged(Exception):
        pass

    def judge_all(*_, **__):
        raise Judged

    monkeypatch.setattr(run, "judge_all", judge_all)
    refused = pytest.raises(UserError, match=r"after reasoning require a model .* use answers: sampled")
    warned = pytest.warns(RuntimeWarning, match="processes a prompt again") if family == "mamba" else nullcontext()
    with warned, refused if family == "mamba" else pytest.raises(Judged):
        open_run(args, options, ModelConfig(str(folder)), PromptFormat("full", reasoning=True))


def test_report_and_card_show_the_learning_rate_and_nothing_empty():
    settings = {"seed": 3, "debug": [], "beta": 0.0, "n": None}
    options = SimpleNamespace(learning_rate=1e-6, seed=3, eval_steps=None)
    shown = shown_settings(settings, RunOptions(JudgeArguments(), options, ModelConfig()))
    assert shown == {"learning_rate": 1e-6, "seed": 3, "beta": 0.0}


def test_report_and_card_show_only_what_was_used(tmp_path):
    """The settings of the default config on the user's own data."""
    args = JudgeArguments(dataset_name="votes.jsonl", n_train=12_000, n_test=1000)
    options = JudgeGRPOConfig(str(tmp_path), report_to="none", use_cpu=True, save_strategy="no")
    settings = non_default_settings(args, options, ModelConfig())
    shown = shown_settings(settings, RunOptions(args, options, ModelConfig()))
    assert not {"n_train", "n_test"} & set(shown)
    assert (shown["dataset_name"], str(shown["save_strategy"])) == ("votes.jsonl", "no")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"max_steps"}, "default"),
        ({"output_dir"}, None),
        ({"dataset_name"}, None),
        ({"output_dir", "run_name"}, "default"),
    ],
)
def test_the_name_of_the_default_run_is_not_that_of_another(tmp_path, given, name):
    args = JudgeArguments(n_train=20, n_test=5)
    options = JudgeGRPOConfig(str(tmp_path), report_to="none", use_cpu=True, run_name="default")
    _, settings = begin_run(RunOptions(args, options, ModelConfig(), given), prepare_data(args, seed=0))
    assert (options.run_name, settings.get("run_name")) == (name, name)
