"""The line about memory at the start of a training: its micro-batch, and what to lower where it does not fit."""

import logging
import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
from peft import LoraConfig, get_peft_model
from trl import ModelConfig

from autorater.alignment.judge import LabelJudge
from autorater.alignment.labels import LabelFormat
from autorater.alignment.trainer import AlignmentConfig
from autorater.data.items import pair_task
from autorater.judges import Judge
from autorater.judges.pointwise import PointwiseJudge
from autorater.models.memory import MicroBatch, count_parameters
from autorater.prompts.templates import PromptFormat
from autorater.training import memory
from autorater.training.arguments import JudgeArguments
from autorater.training.config import JudgeGRPOConfig
from autorater.training.options import RunOptions
from autorater.training.sft import JudgeSFTConfig
from tests.conftest import make_model, make_tokenizer
from tests.models.test_repeated_cache import CONFIGS, build


@pytest.fixture(scope="module")
def judge():
    tokenizer = make_tokenizer()
    return Judge(make_model("llama", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.1)


def config(tmp_path, kind=JudgeGRPOConfig, **options):
    return kind(str(tmp_path), use_cpu=True, report_to="none", **options)


def test_the_largest_micro_batch(judge, tmp_path, monkeypatch):
    nodes = len(judge.tree.tokens) + judge.tree.closing_tokens

    def batch(**options):
        return memory.micro_batch(judge, [30, 50], config(tmp_path, **options))

    assert batch(per_device_train_batch_size=3) == MicroBatch(6, 50, nodes, 6 * (1 + nodes))
    assert batch(per_device_train_batch_size=3, orders="separate").prompts == 3
    sampled = batch(
        answers="sampled", per_device_train_batch_size=16, num_generations=8, max_completion_length=10
    )  # two pairs, each order with four answers
    assert (sampled.prompts, sampled.suffix) == (4, 40)
    text = memory.micro_batch(judge, [30, 50], config(tmp_path, JudgeSFTConfig, per_device_train_batch_size=2))
    answer = judge.tree.depth + judge.tree.closing_tokens
    assert text == MicroBatch(2, 50, answer, 2 * (1 + answer))
    monkeypatch.setattr(memory, "supports_shared_prefix", lambda _: (False, ""))
    repeated = batch(answers="sampled", per_device_train_batch_size=16, max_completion_length=10)
    config_of = judge.model.config
    cache = 2 * 4 * config_of.num_hidden_layers * config_of.num_key_value_heads * 50  # float32 keys and values
    cache *= config_of.hidden_size // config_of.num_attention_heads
    assert repeated == replace(sampled, caches=16 * cache), "its cache is repeated for every answer"
    leaves = len(judge.tree.leaf_paths)
    suffix = leaves * (judge.tree.depth - 1)
    expected = MicroBatch(6, 50, suffix, 6 * (1 + suffix), caches=6 * leaves * cache)
    assert batch(per_device_train_batch_size=3) == expected
    reasoned = batch(reasoning=True, per_device_train_batch_size=16, max_completion_length=10)
    caches = 16 * leaves * cache * 60 / 50
    assert reasoned == MicroBatch(16, 60, suffix, 16 * (11 + suffix), 20, caches), "every reasoning with its prompt"
    monkeypatch.setattr(memory, "_bytes_of_copies", lambda *_: None)
    text = memory.micro_batch(judge, [30, 50], config(tmp_path, JudgeSFTConfig, per_device_train_batch_size=2))
    plain = batch(answers="sampled", per_device_train_batch_size=16, max_completion_length=10)
    assert plain == MicroBatch(16, 60, 0, 16 * 60, 20), "every answer reads its prompt, and TRL computes all logits"
    assert text.positions == text.tokens, "SFTTrainer computes all logits"


def test_answers_that_share_no_prompt_read_it_each(judge, tmp_path):
    options = {"answers": "sampled", "per_device_train_batch_size": 16, "max_completion_length": 10}
    batch = memory.micro_batch(judge, [30, 50], config(tmp_path, shared_prefix=False, **options))
    assert (batch.tokens, batch.suffix) == (16 * 60, 0)


@pytest.mark.parametrize(("reshards", "stage"), [("true", 3), ("false", 2)])
def test_fsdp_divides_the_states(judge, tmp_path, monkeypatch, reshards, stage):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", reshards)
    assert memory.setup_of(judge.model, config(tmp_path)).zero_stage == stage


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_precision_of_the_launcher_counts(judge, tmp_path, monkeypatch, precision):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    training = config(tmp_path)
    assert memory.setup_of(judge.model, training).autocast
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert memory.setup_of(judge.model, training).element == 2


def test_a_repeated_prompt_is_processed_once_also_by_parameters_that_are_sharded(tmp_path, monkeypatch):
    """ZeRO-3 leaves empty weights, which a stand-in gathers here."""
    tokenizer = make_tokenizer()
    judge = Judge(build(CONFIGS["lfm2"], len(tokenizer)), tokenizer, answer_step=0.1)
    head, whole = judge.model.lm_head.weight, judge.model.lm_head.weight.data
    head.data = whole[:0]

    @contextmanager
    def gathered(_):
        head.data = whole
        yield

    monkeypatch.setattr(memory, "gathered", gathered)
    batch = memory.micro_batch(judge, [30, 50], config(tmp_path, orders="separate", per_device_train_batch_size=2))
    assert (batch.prompts, batch.longest) == (2, 50)
    assert batch.suffix == len(judge.tree.leaf_paths) * (judge.tree.depth - 1)


def test_labels_are_read_after_their_prompt(tmp_path):
    tokenizer = make_tokenizer()
    judge = LabelJudge(make_model("llama", len(tokenizer)), tokenizer, LabelFormat(pair_task(), "compact"))
    batch = memory.micro_batch(judge, [30, 50], config(tmp_path, AlignmentConfig, per_device_train_batch_size=3))
    nodes = len(judge.tree.tokens)
    assert batch == MicroBatch(3, 50, nodes, 3 * (1 + nodes))


def test_a_pointwise_micro_batch_has_batch_tokens(tmp_path):
    tokenizer = make_tokenizer()
    judge = PointwiseJudge(make_model("llama", len(tokenizer)), tokenizer)
    training = config(tmp_path, judgment="pointwise", batch_tokens=200)
    batch = memory.micro_batch(judge, [10, 30], training)
    assert batch.tokens == 200
    assert batch.positions == 10
    assert memory.micro_batch(judge, [10, 300], training).tokens == 300, "a longer prompt is a batch of its own"


@pytest.mark.parametrize("judgment", ["pairwise", "pointwise"])
def test_what_does_not_fit_is_warned_about(judge, simulated, tmp_path, monkeypatch, caplog, judgment):
    caplog.set_level(logging.INFO, "autorater")
    if judgment == "pointwise":
        judge = PointwiseJudge(judge.model, judge.tokenizer)
    prompts = judge.encoder.encode(simulated.pairs[:8])
    training = config(tmp_path, judgment=judgment)
    arguments = (judge, prompts, training, ModelConfig(lora_target_modules=["q_proj", "v_proj"]))
    memory.log_memory(*arguments)
    assert caplog.records[-1].levelname == "INFO"
    assert "memory of a training step: about" in caplog.text

    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    memory.log_memory(*arguments)
    assert caplog.records[-1].levelname == "WARNING"
    message = caplog.records[-1].message
    size = "batch_tokens: 1024" if judgment == "pointwise" else "per_device_train_batch_size: 4"
    for option in (size, "use_peft: true"):
        assert option in message
    assert "gradient_checkpointing" not in message, "it saves nothing with two layers"
    needed = int(re.search(r"about (\d+) MiB", message)[1])
    lowered = [int(size) for size in re.findall(r"(\d+) MiB\)", message)[1:]]
    assert len(lowered) >= 2
    assert max(lowered) <= needed


def test_a_warm_up_has_a_batch_of_its_own_and_is_not_sharded(judge, simulated, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "autorater")
    prompts = judge.encoder.encode(simulated.pairs[:8])
    longest = max(len(prompt.ids) for both in prompts for prompt in both)
    nodes = len(judge.tree.tokens) + judge.tree.closing_tokens
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    seen = []
    monkeypatch.setattr(
        memory,
        "_estimate",
        lambda model, *sizes, estimate=memory._estimate: seen.append(sizes) or estimate(model, *sizes),
    )

    def options(verdicts="opinions", size=None, **training):
        args = JudgeArguments(warm_start_steps=1, warm_start_verdicts=verdicts, warm_start_batch_size=size)
        return RunOptions(args, config(tmp_path, **{"beta": 0.1} | training), ModelConfig())

    for given, rows in ((options(), 4), (options(size=2), 2), (options("probe"), 12)):
        memory.log_warm_up_memory(judge, prompts, given)
        batch, setup, _ = seen[-1]
        assert batch == MicroBatch(rows, longest, nodes, rows * (1 + nodes))
        assert (setup.zero_stage, setup.reference) == (0, False)
    assert "memory of a step of teaching, which is not sharded: about" in caplog.records[-1].message
    pointwise = PointwiseJudge(judge.model, judge.tokenizer)
    scored = pointwise.encoder.encode(simulated.pairs[:8])
    memory.log_warm_up_memory(pointwise, scored, options("probe", judgment="pointwise", batch_tokens=2000, beta=0.0))
    assert seen[-1][0].tokens == 2000

    assert {record.levelname for record in caplog.records} == {"INFO"}
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    memory.log_warm_up_memory(judge, prompts, options())
    assert "what would lower it: warm_start_batch_size: 2 (" in caplog.records[-1].message
    memory.log_warm_up_memory(judge, prompts, options("probe"))
    assert "what would lower it: half of max_prompt_tokens (" in caplog.records[-1].message
    assert caplog.records[-1].levelname == "WARNING"


def test_the_weights_of_an_adapter_are_counted_before_it_exists(judge):
    lora = {"lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}
    parts = memory._estimate(judge.model, MicroBatch(1, 1, 1, 1), memory.Setup(), ModelConfig(use_peft=True, **lora))
    tokenizer = make_tokenizer()
    model = get_peft_model(make_model("llama", len(tokenizer)), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    _, trained = count_parameters(model)
    assert parts["gradients"] == 4 * trained
