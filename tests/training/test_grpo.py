"""The GRPO trainers: exact and sampled answers, both orders, shared prompts against TRL's own path, bad options."""

import json
import re
import warnings
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from autorater.data.errors import UserError
from autorater.models.answers import AnswerTree
from autorater.models.shared_beginning import share_beginnings, shares_beginnings
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from autorater.training.arguments import PolicyArguments
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.exact_grpo import ExactGRPOTrainer
from autorater.training.grpo import grpo_trainer
from autorater.training.ppo import JudgePPOConfig
from autorater.training.prefix_sharing import check_answers_at_once
from autorater.training.prompt_groups import PromptGroups, one_prefill
from autorater.training.reasoning_grpo import ReasoningGRPOTrainer
from autorater.training.sampled_grpo import SampledGRPOTrainer
from autorater.training.warm_start import learn_answers, raw_answer_rows
from rewards import BrierReward, brier_reward, parse_probability
from tests.conftest import make_model, make_tokenizer
from tests.models.test_answers import brute_force, brute_force_closing
from tests.models.test_repeated_cache import CONFIGS, TREE, build


@pytest.fixture
def make_trainer(tmp_path, simulated):
    def make(
        model=None, orders="coupled", reward=brier_reward, peft_config=None, tree=True, template="compact", **options
    ):
        tokenizer = make_tokenizer("split")
        reasoning = options.get("reasoning", False)
        encoder = PromptEncoder(tokenizer, PromptFormat("full" if reasoning else template, reasoning))
        pairs = simulated.pairs[:16]
        generates = reasoning or options.get("answers") == "sampled"
        defaults = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-2}
        if generates:
            defaults |= {"num_generations": 4, "max_completion_length": 6}
        args = JudgeGRPOConfig(
            output_dir=str(tmp_path / "out"), report_to="none", use_cpu=True, disable_tqdm=True, logging_steps=1,
            save_strategy="no", answer_step=0.25, orders=orders, seed=3, **defaults | options,
        )  # fmt: skip
        return grpo_trainer(
            model or make_model("qwen", len(tokenizer)),
            reward,
            args,
            AnswerTree(tokenizer, encoder.context, 0.25) if tree else None,
            train_dataset=Dataset.from_list(training_rows(pairs, encoder.encode(pairs), orders)),
            processing_class=tokenizer,
            peft_config=peft_config,
        )

    return make


def parameters(trainer):
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def starts_even(completions, **_):
    """1 if the code of the first character is even: about every second answer of an untrained policy."""
    return [float(ord(text[:1] or "a") % 2 == 0) for text in completions]


@pytest.mark.parametrize("orders", ["coupled", "separate"])
@pytest.mark.parametrize("answers", ["exact", "sampled"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_raises_the_reward(make_trainer, answers, orders, accumulation):
    sampled = {"answers": "sampled", "reward": starts_even, "max_completion_length": 1, "num_generations": 8}
    batch = 4 if answers == "exact" else 16
    trainer = make_trainer(
        orders=orders, gradient_accumulation_steps=accumulation, entropy_coef=0.0, max_steps=25, learning_rate=3e-2,
        per_device_train_batch_size=batch // accumulation, **(sampled if answers == "sampled" else {}),
    )  # fmt: skip
    trainer.train()
    rewards = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:3]) + 0.25
    assert answers == "sampled" or "answers/parse_rate" in trainer.state.log_history[0]
    assert trainer.share_prefix


def test_micro_batches_give_the_gradient_of_the_whole_batch(make_trainer):
    whole = make_trainer(per_device_train_batch_size=8, max_steps=1, symmetry_coef=1.0, shuffle_dataset=False)
    parts = make_trainer(
        per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=1, symmetry_coef=1.0,
        shuffle_dataset=False,
    )  # fmt: skip
    whole.train()
    parts.train()
    for (name, a), b in zip(parameters(whole).items(), parameters(parts).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4, msg=name)


def test_coupled_group_holds_both_orders(make_trainer):
    """Half of a group is in order ba, with the other label."""
    trainer = make_trainer(answers="sampled", per_device_train_batch_size=8, max_steps=1)
    seen = []
    trainer.reward_funcs = [
        lambda prompts, label, **_: seen.extend(zip(prompts, label, strict=True)) or [0.0] * len(label)
    ]
    trainer.train()
    for group in (seen[:4], seen[4:8]):
        (ab, y), (ba, z) = group[0], group[2]
        assert group == [(ab, y), (ab, y), (ba, z), (ba, z)]
        assert y == 1 - z
        assert ab != ba
        assert sorted(ab) == sorted(ba), "the same words in another order"


@pytest.mark.parametrize("family", ["qwen", "qwen3_5"])
def test_shared_prefix_gives_the_loss_of_plain_trl(make_trainer, family):
    """Same seed, so the same samples; TRL's own path against ours, gradient by gradient."""
    gradients, vocab = {}, len(make_tokenizer("split"))
    for shared in (False, True):
        model = make_model("qwen", vocab) if family == "qwen" else build(CONFIGS[family], vocab)
        options = {"shared_prefix": shared, "per_device_train_batch_size": 8, "beta": 0.0}
        trainer = make_trainer(answers="sampled", model=model, **options)
        calls = []
        trainer.model.register_forward_pre_hook(
            lambda _, args, kwargs, calls=calls: calls.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        trainer.current_gradient_accumulation_steps = 1
        batch = next(iter(trainer.get_train_dataloader()))
        torch.manual_seed(0)
        trainer.model.train()
        inputs = trainer._prepare_inputs(batch)
        calls.clear()
        trainer.compute_loss(trainer.model, inputs).backward()
        gradients[shared] = {n: p.grad for n, p in trainer.model.named_parameters()}
        gradients[shared, "ids"] = inputs["completion_ids"].flatten(0, -2)
        gradients[shared, "calls"] = calls
    assert torch.equal(gradients[True, "ids"], gradients[False, "ids"])
    for name, expected in gradients[False].items():
        torch.testing.assert_close(gradients[True][name], expected, rtol=1e-4, atol=1e-6, msg=name)
    assert gradients[True, "calls"][-1] < gradients[False, "calls"][-1], "the shared path computes fewer rows"


@pytest.mark.parametrize("answers", ["exact", "sampled", "reasoning"])
def test_a_shared_beginning_gives_the_same_loss(make_trainer, answers):
    """The instructions of the full layout: gradients with and without sharing them, from the same samples."""
    options = {"exact": {}, "sampled": {"answers": "sampled", "reward": starts_even}, "reasoning": {"reasoning": True}}
    options = options[answers]
    results, tokens = [], []
    for shared in (True, False):
        trainer = make_trainer(template="full", per_device_train_batch_size=8, **options)
        if not shared:
            share_beginnings(trainer.model, False)
        trainer.current_gradient_accumulation_steps = 1
        batch = next(iter(trainer.get_train_dataloader()))
        torch.manual_seed(0)
        trainer.model.train()
        inputs = trainer._prepare_inputs(batch)
        counted = []
        hook = trainer.model.register_forward_pre_hook(
            lambda _, args, kwargs, counted=counted: counted.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        trainer.compute_loss(trainer.model, inputs)  # with the check of the first batch
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, inputs).backward()
        hook.remove()
        assert shares_beginnings(trainer.model) is shared
        results.append({n: p.grad for n, p in trainer.model.named_parameters()})
        tokens.append(counted[-1])
    assert tokens[0] < 0.7 * tokens[1]
    scale = max(gradient.abs().max() for gradient in results[1].values())
    for name, expected in results[1].items():
        assert (results[0][name] - expected).abs().max() <= 1e-5 * scale, name


def test_regrouping_restores_the_order_of_rows():
    tokenizer = make_tokenizer("split")
    model = make_model("llama", len(tokenizer))
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(1, 200, (3, 7), generator=generator)
    prompts[1, :3] = 0
    rows = torch.tensor([2, 0, 1, 0, 2, 2])
    completions = torch.randint(1, 200, (6, 4), generator=generator)
    ids = torch.cat([prompts[rows], completions], dim=1)
    mask = torch.ones_like(ids)
    mask[rows == 1, :3] = 0
    mask[0, -2:] = 0
    groups = PromptGroups.of(ids, mask, 4)
    assert groups.size == 3
    logps, entropies = groups.logps(model, 0.7, rows_at_once=3)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, 6:-1] / 0.7
    expected = logits.log_softmax(-1).gather(2, completions[:, :, None])[..., 0]
    kept = mask[:, 7:].bool()
    torch.testing.assert_close(logps[kept], expected[kept], rtol=1e-4, atol=1e-5)
    expected = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(entropies[kept], expected[kept], rtol=1e-4, atol=1e-5)


def test_one_prefill_generates_the_same_and_restores_generate():
    model = make_model("llama", 50)
    ids = torch.randint(1, 50, (1, 5)).repeat(3, 1)
    kwargs = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": True, "eos_token_id": None}
    torch.manual_seed(0)
    plain = model.generate(ids, **kwargs)
    torch.manual_seed(0)
    with one_prefill(model, 3):
        shared = model.generate(ids, **kwargs)
    assert torch.equal(plain, shared)
    assert "generate" not in model.__dict__


def test_model_that_fails_the_check_falls_back_with_a_warning(make_trainer, monkeypatch):
    monkeypatch.setattr("autorater.training.prefix_sharing.check_shared_prefix", lambda *_: (0.5, 1e-4))
    trainer = make_trainer(answers="sampled", max_steps=1)
    with pytest.warns(RuntimeWarning, match=r"shared prefix disabled.*differ by 5.0e-01"):
        trainer.train()
    assert not trainer.share_prefix


@pytest.mark.parametrize("answers", ["exact", "sampled"])
def test_lora_with_reference_model(make_trainer, answers):
    trainer = make_trainer(answers=answers, beta=0.1, peft_config=LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    frozen = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    before = parameters(trainer)
    trainer.train()
    assert any((before[n] != p).any() for n, p in parameters(trainer).items())
    assert all((frozen[n] == p).all() for n, p in trainer.model.named_parameters() if n in frozen)
    first, second = (log["kl"] for log in trainer.state.log_history[:2])
    assert first == pytest.approx(0, abs=1e-4)
    assert second > first


def test_full_model_with_reference_from_its_folder(make_trainer, tmp_path, monkeypatch):
    tokenizer = make_tokenizer("split")
    make_model("qwen", len(tokenizer)).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    trainer = make_trainer(model=model, beta=0.1, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    distribution, sizes = AnswerTree.distribution, []

    def seen(tree, model, ids, mask, closing=None):
        sizes.append(len(ids))
        return distribution(tree, model, ids, mask, closing)

    monkeypatch.setattr(AnswerTree, "distribution", seen)
    trainer.train()
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert max(sizes) == 4, "the reference, too, reads no more prompts at a time than a micro-batch has"


def test_a_reference_of_a_class_that_cannot_share_is_read_plainly(make_trainer, tmp_path, monkeypatch):
    """TRL loads it by its name, so that of a text model taken out of another model is that whole model."""
    make_model("qwen", len(make_tokenizer("split"))).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    trainer = make_trainer(model=model, answers="sampled", beta=0.1, num_iterations=2)
    monkeypatch.setattr(
        "autorater.training.sampled_grpo.supports_shared_prefix", lambda model: (model is not trainer.ref_model, "")
    )
    trainer.train()
    assert trainer.share_prefix
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0, abs=1e-4)
    names = [model.config._attn_implementation for model in (trainer.ref_model, trainer.model)]
    assert names == ["sdpa", "shared_prefix"]


@pytest.mark.parametrize("answers", ["exact", "sampled"])
def test_several_iterations_and_gradient_checkpointing(make_trainer, answers):
    trainer = make_trainer(answers=answers, num_iterations=2, gradient_checkpointing=True, max_steps=4)
    trainer.train()
    assert trainer.state.global_step == 4
    assert trainer.share_prefix


def test_completions_are_logged(make_trainer, tmp_path):
    import pandas as pd

    trainer = make_trainer(log_completions=True, max_steps=1)
    trainer.train()
    table = pd.read_parquet(next((tmp_path / "out" / "completions").glob("*.parquet")))
    assert set(table) >= {"prompt", "completion", "label", "expected"}
    assert all(0 <= float(c) <= 1 for c in table["completion"])


def test_exact_answers_require_a_reward_of_grids_and_a_tree(make_trainer):
    def any_reward(completions, **_):
        return [0.0] * len(completions)

    with pytest.raises(ValueError, match="any_reward does not"):
        make_trainer(reward=any_reward)
    with pytest.raises(ValueError, match="requires an answer_tree"):
        make_trainer(tree=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_adaptive_entropy": True}, "use_adaptive_entropy: True is not compatible with exact answers"),
        ({"scale_rewards": "batch"}, "scale_rewards: batch is not compatible with exact answers"),
        ({"num_generations": 4}, "num_generations: 4 is not compatible with exact answers: no answer is sampled"),
        ({"router_aux_loss_coef": 0.1}, "router_aux_loss_coef: 0.1 is not compatible with exact answers"),
        ({"temperature": 0.7}, "temperature: 0.7 is not compatible with exact answers: no answer is sampled"),
        ({"answers": "sampled", "num_generations": 3, "per_device_train_batch_size": 3}, "requires an even number"),
        ({"answers": "sampled", "symmetry_coef": 1.0}, "symmetry_coef: 1.0 is not compatible with sampled answers"),
        ({"answers": "sampled", "objective": "score_of_mean"}, "not compatible with sampled answers"),
        ({"orders": "separate", "symmetry_coef": 1.0}, "symmetry_coef: 1.0 .* requires orders: coupled"),
        ({"scale_rewards": "nne"}, "scale_rewards: got 'nne'; expected none, group or batch"),
        ({"answers": "guessed"}, "answers: got 'guessed'; expected one of exact, sampled"),
    ],
)
def test_incompatible_options(make_trainer, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


def test_weights_of_several_rewards(make_trainer):
    trainer = make_trainer(reward=[BrierReward(), BrierReward()], reward_weights=[0.5, 2.0], max_steps=1)
    single = make_trainer(max_steps=1)
    trainer.train()
    single.train()
    assert trainer.state.log_history[0]["reward"] == pytest.approx(2.5 * single.state.log_history[0]["reward"])


@pytest.mark.parametrize(
    ("trainer", "hooks"),
    [
        (ExactGRPOTrainer, ("_generate_and_score_completions", "_compute_loss", "_tokenize_prompts")),
        (SampledGRPOTrainer, ("_generate_and_score_completions", "_generate_single_turn", "_compute_loss")),
        (SampledGRPOTrainer, ("_get_per_token_logps_and_entropies", "_calculate_rewards")),
        (ReasoningGRPOTrainer, ("_generate", "_get_per_token_logps_and_entropies", "_calculate_rewards")),
    ],
)
def test_overridden_hooks_exist(trainer, hooks):
    """A TRL that renames a hook fails here first."""
    for hook in hooks:
        assert getattr(trainer, hook) is not getattr(GRPOTrainer, hook)


def test_state_is_json(make_trainer):
    trainer = make_trainer(max_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        trainer.train()
    json.dumps(trainer.state.log_history)


@pytest.fixture
def make_reasoner(make_trainer):
    """A trainer whose policy often ends its reasoning: some rows have an answer, others have none."""

    def make(**options):
        end = make_tokenizer("split").convert_tokens_to_ids("</think>")
        defaults = {"reasoning": True, "per_device_train_batch_size": 8, "entropy_coef": 0.0}
        return make_trainer(generation_kwargs={"sequence_bias": [[[end], 5.0]]}, **defaults | options)

    return make


@pytest.mark.parametrize(
    ("family", "orders"), [("qwen", "coupled"), ("qwen", "separate"), ("qwen3_5", "coupled"), ("lfm2", "separate")]
)
def test_reasoning_gradient_is_leave_one_out_reinforce_plus_the_gradient_of_the_value(make_reasoner, family, orders):
    size = len(make_tokenizer("split"))
    trainer = make_reasoner(
        model=make_model("qwen", size) if family == "qwen" else build(CONFIGS[family], size), orders=orders
    )
    assert trainer.share_prefix == (family == "qwen")
    rows = [row for row in (trainer.train_dataset[i] for i in range(2)) for _ in range(4)]
    trainer.model.train()
    batch = trainer._generate_and_score_completions(rows)
    trainer.current_gradient_accumulation_steps = 1
    parameters = list(trainer.model.parameters())
    got = torch.autograd.grad(trainer._compute_loss(trainer.model, batch), parameters)

    flat = {name: value.flatten(0, 1) for name, value in batch.items() if torch.is_tensor(value) and value.ndim > 1}
    assert 0 < flat["answered"].sum() < 8, "the test requires rows of both kinds"
    tokenizer, tree, encoder = trainer.processing_class, trainer.answer_tree, PromptEncoder(
        trainer.processing_class, PromptFormat("full", reasoning=True)
    )  # fmt: skip
    values, logps, closed = [], [], []
    for i in range(8):
        prompt = flat["prompt_ids"][i][flat["prompt_mask"][i].bool()].tolist()
        completion = flat["completion_ids"][i][flat["completion_mask"][i].bool()].tolist()
        written = int((flat["completion_mask"][i] * flat["tool_mask"][i]).sum())
        logits = trainer.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        logps.append(logits.gather(1, torch.tensor(completion)[:, None])[:written].sum())
        if flat["answered"][i]:
            probs = brute_force(trainer.model, tree, tokenizer, encoder, prompt + completion, differentiable=True)
            scores = torch.as_tensor(brier_reward.score(tree.values, flat["labels"][i].item()), dtype=torch.float32)
            closing = brute_force_closing(trainer.model, tokenizer, encoder, prompt + completion, tree.strings[0])
            values.append((probs * scores).sum())
            closed.append(0.1 * probs.sum().detach() * closing)
        else:
            values.append(torch.zeros(()))
            closed.append(torch.zeros(()))
    loss = torch.zeros(())
    for group in (range(4), range(4, 8)):
        for i in group:
            others = [values[j].detach() for j in group if j != i]
            advantage = values[i].detach() - sum(others) / 3
            loss = loss - (advantage * logps[i] + values[i] + closed[i]) / 8
    expected = torch.autograd.grad(loss, parameters)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-9


@pytest.mark.parametrize("rows_at_once", [None, 1, 3])
@pytest.mark.parametrize("family", ["lfm2", "qwen3_5"])
def test_answers_after_completions_of_a_model_that_repeats_its_cache(family, rows_at_once):
    """Completions of unlike length, one of them empty, in less than the padding of the whole rollout."""
    model = build(CONFIGS[family])
    assert TREE.repeats_cache(model, [1, 2, 3])
    prompts, completions = [[5, 6, 7], [8, 9], [5, 6, 7], [8, 9]], [[4, 3, 2, 1], [], [7], [9, 9]]
    padded = [completion + [0] * (12 - len(completion)) for completion in completions]
    ids, mask = (torch.cat(both, dim=1) for both in zip(pad_prompts(prompts, 0), pad_prompts(padded, 0), strict=True))
    for row, completion in enumerate(completions):
        mask[row, 3 + len(completion) :] = 0
    logps, entropies, nodes = PromptGroups.of(ids, mask, 12).logps(model, 0.7, rows_at_once, TREE)
    assert logps.shape == entropies.shape == (4, 12)
    for row, (prompt, own) in enumerate(zip(prompts, completions, strict=True)):
        chosen = (model(torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
        expected = chosen.gather(1, torch.tensor(own, dtype=torch.long)[:, None])[:, 0]
        torch.testing.assert_close(logps[row, : len(own)], expected, rtol=1e-4, atol=1e-5)
        entropy = -(chosen.exp() * chosen).sum(-1)
        torch.testing.assert_close(entropies[row, : len(own)], entropy, rtol=1e-4, atol=1e-5)
        assert not logps[row, len(own) :].any()
        whole = TREE.plain_logits(model, *pad_prompts([prompt + own], 0))
        torch.testing.assert_close(nodes[row], whole[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"router_aux_loss_coef": 0.0}])
def test_exact_answers_of_a_mixture_of_experts_share_what_prompts_begin_with(make_trainer, options, recwarn):
    """Loss and gradients are those of rows of their own, with fewer tokens."""
    model = make_model("moe", len(make_tokenizer("split")))
    assert model.config.router_aux_loss_coef > 0
    trainer = make_trainer(model=model, template="full", **options)
    assert trainer.share_prefix
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    results, calls = [], []
    model.register_forward_pre_hook(lambda _, a, inputs: calls.append(inputs["input_ids"].numel()), with_kwargs=True)
    trainer.compute_loss(model, inputs)  # with the check of the first batch
    assert shares_beginnings(model)
    for shared in (True, False):
        share_beginnings(model, shared)
        model.zero_grad()
        calls.clear()
        loss = trainer.compute_loss(model, inputs)
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((loss.item(), gradients, sum(calls)))
    (loss, got, tokens), (expected, wanted, plain_tokens) = results
    assert loss == pytest.approx(expected, rel=1e-5)
    scale = max(gradient.abs().max() for gradient in wanted.values())
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (got[name] - gradient).abs().max() <= 1e-5 * scale, name
    assert tokens < 0.7 * plain_tokens
    assert not any("shared" in str(warned.message) for warned in recwarn)


@pytest.mark.parametrize("requested", [True, False])
def test_sampled_answers_of_a_mixture_of_experts_say_why_they_share_nothing(make_trainer, requested, recwarn):
    model = make_model("moe", len(make_tokenizer("split")))
    trainer = make_trainer(model=model, answers="sampled", shared_prefix=requested, max_steps=1)
    assert not trainer.share_prefix
    trainer.train()
    assert trainer.state.log_history[0]["aux_loss"] > 0
    told = [str(warned.message) for warned in recwarn if "shared prefix" in str(warned.message)]
    reason = "every answer has a row of its own: its router loss would count a shared prompt once"
    assert told == ([f"shared prefix disabled, {reason}"] if requested else [])


def test_reasoning_of_a_mixture_of_experts_has_no_term_for_their_balance(make_reasoner):
    """Its default coefficient, which TRL takes from the model, is not 0."""
    model = build(CONFIGS["granite4"], len(make_tokenizer("split")))
    assert model.config.router_aux_loss_coef > 0
    trainer = make_reasoner(model=model, max_steps=1)
    trainer.train()
    assert trainer.repeat_prefix


def test_checkpointed_reasoning_requires_layers_that_take_a_cache():
    tree, prompt = TREE, [1, 2, 3]
    check_answers_at_once(build(CONFIGS["bloom"]), tree, prompt, checkpointing=False)
    with pytest.raises(UserError, match="gradient_checkpointing: false"):
        check_answers_at_once(build(CONFIGS["bloom"]), tree, prompt, checkpointing=True)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_training_with_reasoning_moves_the_policy(make_reasoner, beta, tmp_path):
    peft_config = LoraConfig(r=4, target_modules="all-linear") if beta else None
    trainer = make_reasoner(beta=beta, peft_config=peft_config, gradient_accumulation_steps=2, entropy_coef=0.01)
    before = parameters(trainer)
    trainer.train()
    assert any((before[n] != p).any() for n, p in parameters(trainer).items())
    logged = trainer.state.log_history[0]
    assert 0 < logged["answers/parse_rate"] < 1
    assert logged["rewards/brier_reward/mean"] == pytest.approx(logged["reward"])
    assert "answers/spread" in logged


def test_reference_weighs_as_much_as_the_reward(make_reasoner):
    """dr_grpo divides both by the completions' length, so both are multiplied by it."""
    trainer = make_reasoner(beta=0.1, peft_config=LoraConfig(r=4, target_modules="all-linear"))
    assert trainer.beta == pytest.approx(0.1 * trainer.max_completion_length)


@pytest.mark.parametrize(("given", "name"), [(False, "none"), ("none", "none"), (True, "group"), ("batch", "batch")])
def test_rewards_are_divided_as_trl_says(tmp_path, given, name):
    options = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "answers": "sampled"}
    assert JudgeGRPOConfig(**options, num_generations=4, scale_rewards=given).scale_rewards == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "cispoo"}, "loss_type: got 'cispoo'; expected one of grpo, dr_grpo, dapo"),
        ({"importance_sampling_level": "sequenc"}, "importance_sampling_level: got 'sequenc'; expected one of token,"),
        ({"temperature": 0.0}, "temperature: got 0.0; expected a number above 0"),
        ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs: .'num_beams': 2. is not compatible"),
        ({"generation_kwargs": '{"num_return_sequences": 2}'}, "generation_kwargs: .* rewards are of single samples"),
    ],
)
def test_values_that_generation_or_loss_would_refuse_are_errors_of_the_config(tmp_path, options, message):
    common = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "num_generations": 4}
    for kind in ({"answers": "sampled"}, {"reasoning": True}):
        with pytest.raises(UserError, match=message):
            JudgeGRPOConfig(**common, **kind, **options)
    if "loss_type" not in options and "importance_sampling_level" not in options:
        for algorithm in ("ppo", "rloo"):
            with pytest.raises(UserError, match=message):
                JudgePPOConfig(**common, algorithm=algorithm, kl_in="loss", **options)


def test_losses_are_those_of_trl(make_trainer):
    losses = get_args(get_type_hints(JudgeGRPOConfig)["loss_type"])
    for loss in losses:
        make_trainer(answers="sampled", loss_type=loss, max_steps=1).train()
    described = GRPOConfig.__dataclass_fields__["loss_type"].metadata["help"].split(" Supported values are ")[1]
    assert set(re.findall(r"'(\w+)'", described.split(".")[0])) == set(losses)


def test_reasoning_has_room_by_default(tmp_path):
    options = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True}
    assert JudgeGRPOConfig(**options).max_completion_length == 24
    assert JudgeGRPOConfig(**options, reasoning=True).max_completion_length == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_rewards": "group"}, "scale_rewards: group"),
        ({"loss_type": "dapo"}, "loss_type: dapo"),
        ({"num_iterations": 2}, "num_iterations: 2, steps_per_generation: 1 .* reasonings of the current policy"),
        ({"shared_prefix": False}, "shared_prefix: False"),
        ({"symmetry_coef": 1.0}, "different reasonings"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation"),
    ],
)
def test_options_incompatible_with_reasoning(make_reasoner, options, message):
    with pytest.raises(ValueError, match=message):
        make_reasoner(**options)


def test_generated_answers_parse_after_training(make_trainer, simulated, tmp_path):
    """V ends with the first token of the closing tag; without `closing_coef` the rest is forgotten."""
    tokenizer = make_tokenizer("split")
    encoder, model = PromptEncoder(tokenizer, PromptFormat("compact")), make_model("qwen", len(tokenizer))
    prompts = encoder.encode(simulated.pairs[:16])
    policy = PolicyArguments(warm_start_steps=60, warm_start_batch_size=16, warm_start_learning_rate=1e-2)
    training = TrainingArguments(str(tmp_path), seed=0, use_cpu=True)
    rows = raw_answer_rows(tokenizer, prompts, np.linspace(0, 1, 16), policy, seed=0, answer_step=0.25)
    learn_answers(model, tokenizer, rows, policy, training)
    trainer = make_trainer(model, max_steps=60, per_device_train_batch_size=8, learning_rate=3e-3)
    trainer.train()
    for prompt, _ in prompts:
        ids = torch.tensor([prompt.ids])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        assert parse_probability(text, prefilled=True) is not None, text
