"""PPO and RLOO: formulas against loops, the whole gradient against autograd; the value head, saved and loaded."""

import json

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from autorater.data.errors import UserError
from autorater.models.loading import load_policy
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from autorater.training.arguments import JudgeArguments, ineffective_options
from autorater.training.data import training_rows
from autorater.training.grpo import grpo_trainer
from autorater.training.ppo import JudgePPOConfig, clipped_value_loss, gae
from autorater.training.prompt_groups import by_row
from autorater.training.value_head import VALUE_HEAD_FILE, ValueHead, collecting_values, load_value_head
from tests.conftest import make_model, make_tokenizer

LORA = LoraConfig(target_modules=["q_proj", "v_proj"], r=2)


def half_full(completions, label, **_):
    """A reward that differs between answers even if none parses."""
    return [y * len(set(text)) / 10 + 0.1 for text, y in zip(completions, label, strict=True)]


@pytest.fixture
def make_trainer(tmp_path, simulated):
    def make(model=None, reward=half_full, peft_config=None, out="out", optimizers=(None, None), **options):
        tokenizer = make_tokenizer("split")
        encoder = PromptEncoder(tokenizer, PromptFormat("compact"))
        pairs = simulated.pairs[:16]
        options = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-2} | options
        args = JudgePPOConfig(
            output_dir=str(tmp_path / out), report_to="none", use_cpu=True, disable_tqdm=True, logging_steps=1, seed=3,
            max_completion_length=6, **{"save_strategy": "no"} | options,
        )  # fmt: skip
        return grpo_trainer(
            model or make_model("qwen", len(tokenizer)),
            reward,
            args,
            train_dataset=Dataset.from_list(training_rows(pairs, encoder.encode(pairs), args.orders)),
            processing_class=tokenizer,
            peft_config=peft_config,
            optimizers=optimizers,
        )

    return make


def rollout(trainer, pairs=2):
    """Inputs of one loss: every row of the data as often as the sampler repeats it."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    rows = [row for row in (trainer.train_dataset[i] for i in range(pairs)) for _ in range(trainer.num_generations)]
    torch.manual_seed(0)
    return trainer._generate_and_score_completions(rows)


def trainable(trainer):
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def explicit_advantages(rewards, values, lam):
    """Advantages of one answer, as the double sum of the definition."""
    after = [*values[1:], 0.0]
    delta = [r + w - v for r, v, w in zip(rewards, values, after, strict=True)]
    return [sum(lam ** (s - t) * delta[s] for s in range(t, len(delta))) for t in range(len(delta))]


@pytest.mark.parametrize("lam", [0.95, 0.7, 1.0, 0.0])
def test_advantages_are_the_double_sum(lam):
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    lengths = [7, 1, 4, 2, 6]
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    advantages, returns = gae(rewards, values, mask, lam)
    for i, length in enumerate(lengths):
        expected = explicit_advantages(rewards[i, :length].tolist(), values[i, :length].tolist(), lam)
        torch.testing.assert_close(advantages[i, :length].tolist(), expected)
        torch.testing.assert_close(returns[i, :length], advantages[i, :length] + values[i, :length])
        assert (advantages[i, length:] == 0).all()


def test_with_lambda_one_the_advantage_is_reward_minus_value():
    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    rewards = torch.zeros(3, 4)
    rewards[:, -1] = torch.tensor([0.3, 0.6, 1.0])
    advantages, returns = gae(rewards, values, torch.ones(3, 4), 1.0)
    torch.testing.assert_close(advantages, rewards[:, -1:] - values)
    torch.testing.assert_close(returns, rewards[:, -1:].expand(3, 4))


def test_value_loss_is_the_larger_of_the_two():
    generator = torch.Generator().manual_seed(1)
    values, old, returns = torch.randn(3, 4, 5, generator=generator)
    loss = clipped_value_loss(values, old, returns, 0.2)
    for i in range(4):
        for t in range(5):
            v, o, g = values[i, t].item(), old[i, t].item(), returns[i, t].item()
            clipped = min(max(v, o - 0.2), o + 0.2)
            assert loss[i, t].item() == pytest.approx(max((v - g) ** 2, (clipped - g) ** 2) / 2, rel=1e-4)


def explicit_loss(trainer, policy, rows, old, rewards, reference=None):
    """PPO's loss of a rollout, token by token; `old`, `reference`: outputs before the update, of the reference."""
    args = trainer.args
    answers = []
    for i, reward in enumerate(rewards):
        prompt = rows["prompt_ids"][i][rows["prompt_mask"][i].bool()].tolist()
        answer = rows["completion_ids"][i][rows["completion_mask"][i].bool()].tolist()
        logps, values, entropies = forward(policy, prompt, answer)
        old_logps, old_values, _ = (x.detach() for x in old[i])
        kl = [0.0] * len(answer) if reference is None else (old_logps - reference[i][0].detach()).tolist()
        in_reward = args.beta if args.kl_in == "reward" else 0.0
        rewarded = [-in_reward * k for k in kl]
        rewarded[-1] += reward
        advantages = explicit_advantages(rewarded, old_values.tolist(), args.lam)
        answers.append((logps, values, entropies, old_logps, old_values, advantages, i))
    flat = [a for *_, advantages, _ in answers for a in advantages]
    mean = sum(flat) / len(flat)
    deviation = (sum((a - mean) ** 2 for a in flat) / len(flat)) ** 0.5
    loss = torch.zeros(())
    for logps, values, entropies, old_logps, old_values, advantages, i in answers:
        for t, a in enumerate(advantages):
            gain = a + old_values[t]
            used = (a - mean) / (deviation + 1e-8) if args.whiten_advantages else a
            ratio = (logps[t] - old_logps[t]).exp()
            loss = loss - torch.min(ratio * used, ratio.clamp(1 - args.epsilon, 1 + args.epsilon) * used)
            near = old_values[t] + (values[t] - old_values[t]).clamp(-args.cliprange_value, args.cliprange_value)
            loss = loss + args.vf_coef * torch.max((values[t] - gain) ** 2, (near - gain) ** 2) / 2
            loss = loss - args.entropy_coef * entropies[t]
            if reference is not None and args.kl_in == "loss":
                gap = reference[i][0][t].detach() - logps[t]
                loss = loss + args.beta * (gap.exp() - gap - 1) * ratio  # TRL's, corrected for reuse
    return loss / len(flat)


def forward(policy, prompt, answer):
    """Log-probabilities, values and entropies of an answer's tokens, from the hidden states of transformers."""
    out = policy(torch.tensor([prompt + answer]), output_hidden_states=True)
    before = slice(len(prompt) - 1, -1)
    logits = out.logits[0, before].log_softmax(-1)
    head = policy.value_head
    values = out.hidden_states[-1][0, before] @ head.weight[0] + head.bias
    return logits.gather(1, torch.tensor(answer)[:, None])[:, 0], values, -(logits.exp() * logits).sum(-1)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_generations": 2, "lam": 0.5, "whiten_advantages": True},
        {"orders": "separate", "beta": 0.3, "kl_in": "reward"},
        {"num_generations": 2, "beta": 0.3, "kl_in": "loss", "vf_coef": 1.0},
    ],
)
def test_gradient_is_that_of_the_explicit_loss(make_trainer, options, shared):
    """After an update, so that ratios and values have changed: some are clipped, others are not."""
    trainer = make_trainer(
        per_device_train_batch_size=8, num_iterations=2, entropy_coef=0.05, shared_prefix=shared,
        cliprange_value=0.05, epsilon=0.02, peft_config=LORA if "beta" in options else None, **options,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)

    def move(size):
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    parameter += size * torch.randn(parameter.shape, generator=generator)

    def evaluate():
        with torch.no_grad():
            return [forward(trainer.policy, *row) for row in texts]

    move(0.05)  # otherwise the values are zero, and an adapter does not change its model
    batch = rollout(trainer, pairs=8 // trainer.num_generations)
    rows = by_row(batch)
    assert len(rows["completion_ids"]) == 8
    texts = [
        [ids[kept.bool()].tolist() for ids, kept in ((p, pm), (c, cm))]
        for p, pm, c, cm in zip(
            *(rows[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")), strict=True
        )
    ]
    old, reference = evaluate(), None
    if "beta" in options:
        with trainer.model.disable_adapter():
            reference = evaluate()
    rewards = trainer._rewards.tolist()
    move(0.02)
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    got = torch.autograd.grad(trainer._compute_loss(trainer.model, batch), parameters)
    loss = explicit_loss(trainer, trainer.policy, rows, old, rewards, reference)
    expected = torch.autograd.grad(loss, parameters)
    assert trainer.share_prefix == shared
    assert 0 < sum(trainer._metrics["train"]["clip_ratio/region_mean"]) < 1
    assert trainer._metrics["train"]["approx_kl"][0] > 0
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 2e-4 * b.norm() + 1e-8


@pytest.mark.parametrize("orders", ["coupled", "separate"])
def test_one_sampled_answer_per_prompt(make_trainer, orders):
    seen = []

    def reward(prompts, label, **_):
        seen.append(list(zip(prompts, label, strict=True)))
        return [0.0] * len(label)

    trainer = make_trainer(reward=reward, orders=orders)
    trainer.train()
    assert trainer.args.num_generations == 1
    for rows in seen:
        assert len({prompt for prompt, _ in rows}) == 4, "every prompt is answered once"
        if orders == "coupled":
            for (ab, y), (ba, z) in (rows[:2], rows[2:]):
                assert y == 1 - z
                assert sorted(ab) == sorted(ba), "the same words in another order"


def test_training_changes_policy_and_value_head_and_logs(make_trainer):
    trainer = make_trainer(num_iterations=2, max_steps=4, gradient_accumulation_steps=2, log_completions=True)
    before = trainable(trainer)
    trainer.train()
    moved = {name for name, parameter in trainable(trainer).items() if (before[name] != parameter).any()}
    assert moved == set(before)
    assert {"value_head.weight", "value_head.bias"} <= moved
    first, second = trainer.state.log_history[:2]
    for key in ("value/loss", "value/explained_variance", "approx_kl", "clip_ratio/region_mean", "policy_loss"):
        assert isinstance(first[key], float), key
    assert first["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert second["approx_kl"] > 0
    json.dumps(trainer.state.log_history)


def test_the_head_learns_a_constant_reward_so_advantages_vanish(make_trainer):
    model = make_model("qwen", len(make_tokenizer("split")))
    model.model.embed_tokens.weight.data += 0.6  # a part that all tokens share: the head has no constant of its own
    trainer = make_trainer(
        model, reward=lambda completions, **_: [0.7] * len(completions), max_steps=16, value_learning_rate=2e-2,
        lam=1.0, learning_rate=1e-4, lr_scheduler_type="constant", cliprange_value=1.0, vf_coef=1.0,
    )  # fmt: skip
    trainer.train()
    advantages = by_row(rollout(trainer))["advantages"]
    assert advantages.abs().mean() < 0.1
    assert [group["lr"] for group in trainer.optimizer.param_groups][::2] == [1e-4, 2e-2]


def test_an_optimizer_of_the_caller_trains_the_head_too(make_trainer):
    model = make_model("qwen", len(make_tokenizer("split")))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    trainer = make_trainer(model, optimizers=(optimizer, schedule))
    before = trainable(trainer)
    trainer.train()
    assert all((before[name] != parameter).any() for name, parameter in trainable(trainer).items())

    trainer = make_trainer(model, optimizers=(optimizer, schedule), value_learning_rate=1e-3)
    with pytest.raises(UserError, match=r"^value_learning_rate: the schedule was made for other groups"):
        trainer.train()


def test_several_updates_on_a_rollout_and_gradient_checkpointing(make_trainer):
    gradients = []
    for checkpointing in (False, True):
        trainer = make_trainer(gradient_checkpointing=checkpointing, num_generations=2)
        trainer.model.value_head.weight.data.fill_(0.05)
        batch = rollout(trainer)
        if checkpointing:  # as `train` would
            trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
        gradients.append(
            torch.autograd.grad(trainer._compute_loss(trainer.model, batch), list(trainer.model.parameters()))
        )
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
    trainer = make_trainer(gradient_checkpointing=True, num_iterations=2, steps_per_generation=2, max_steps=4)
    trainer.train()
    assert trainer.state.global_step == 4


def test_values_come_from_one_call_of_the_module(make_trainer):
    trainer = make_trainer()
    batch = rollout(trainer)
    calls = []
    trainer.model.register_forward_hook(lambda *_: calls.append(1))
    trainer._compute_loss(trainer.model, batch)
    assert len(calls) == 1


def test_values_leave_wrappers_with_the_output():
    """Flattens and restores the output, as DDP does with find_unused_parameters."""
    from torch.utils._pytree import tree_flatten, tree_unflatten

    policy = make_model("llama", 50)
    policy.value_head = ValueHead(32)
    policy.value_head.weight.data.normal_()

    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = policy

        def forward(self, **inputs):
            tensors, spec = tree_flatten(self.module(**inputs))
            assert sum(torch.is_tensor(t) for t in tensors) == 2, "logits and values"
            return tree_unflatten(tensors, spec)

    ids = torch.randint(0, 50, (2, 6))
    with collecting_values(policy, wrapper := Wrapper()) as collected:
        logits = wrapper(input_ids=ids, use_cache=False).logits
    states = policy(ids, output_hidden_states=True)
    torch.testing.assert_close(logits, states.logits)
    torch.testing.assert_close(collected[0], policy.value_head(states.hidden_states[-1]))
    assert not hasattr(policy(ids), "token_values"), "values are added only within the context"


def test_saved_beside_the_model_and_loaded_again(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.train()
    trainer.save_model()
    folder = tmp_path / "out"
    with safe_open(folder / "model.safetensors", "pt") as saved:
        assert not [key for key in saved.keys() if "value_head" in key]  # noqa: SIM118
    plain, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(plain(ids).logits, trainer.model.eval()(ids).logits, rtol=0, atol=0)
    again = make_trainer(model=plain, out="again")
    for name, parameter in trainer.policy.value_head.state_dict().items():
        assert torch.equal(again.policy.value_head.state_dict()[name], parameter)
        assert parameter.any()


def test_same_seed_gives_the_same_run_even_if_resumed(make_trainer, tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "value_learning_rate": 2e-2}
    first = make_trainer(**options)
    first.train()
    assert {f.name for f in (tmp_path / "out" / "checkpoint-2").iterdir()} >= {"model.safetensors", VALUE_HEAD_FILE}
    second = make_trainer(out="second", **options)
    second.train()
    resumed = make_trainer(out="resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    for other in (second, resumed):
        for (name, a), b in zip(trainable(first).items(), trainable(other).values(), strict=True):
            assert torch.equal(a, b), name


def test_an_adapter_that_is_trained_further_keeps_its_head(make_trainer, tmp_path):
    tokenizer = make_tokenizer("split")
    make_model("qwen", len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base, _ = load_policy(str(tmp_path / "base"))
    trainer = make_trainer(model=base, peft_config=LORA)
    trainer.train()
    trainer.save_model()
    tokenizer.save_pretrained(tmp_path / "out")
    adapter, _ = load_policy(str(tmp_path / "out"))
    again = make_trainer(model=adapter, out="again")
    assert trainer.policy.value_head.weight.any()
    assert torch.equal(again.policy.value_head.weight, trainer.policy.value_head.weight)


def test_loading_a_head_that_ppo_did_not_write(tmp_path):
    with pytest.raises(ValueError, match=r"value_head\.safetensors is missing"):
        load_value_head(ValueHead(32), tmp_path)
    save_file({"weight": torch.zeros(1, 8), "bias": torch.zeros(1)}, tmp_path / VALUE_HEAD_FILE)
    with pytest.raises(ValueError, match="is not the value head of this policy"):
        load_value_head(ValueHead(32), tmp_path)
    (tmp_path / VALUE_HEAD_FILE).write_bytes(b"cut")
    with pytest.raises(ValueError, match="is not the value head of this policy"):
        load_value_head(ValueHead(32), tmp_path)


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_lora_trains_only_adapter_and_head(make_trainer, tmp_path, kl_in):
    options = {"beta": 0.1, "kl_in": kl_in, "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(peft_config=LORA, **options)
    frozen = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    before = trainable(trainer)
    assert sum("value_head" in name for name in before) == 2
    trainer.train()
    assert all((before[n] != p).any() for n, p in trainable(trainer).items() if "value_head" in n or "lora_B" in n)
    assert all((frozen[n] == p).all() for n, p in trainer.model.named_parameters() if n in frozen)
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0, abs=1e-4)
    resumed = make_trainer(peft_config=LORA, out="resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    for (name, a), b in zip(trainable(trainer).items(), trainable(resumed).values(), strict=True):
        assert torch.equal(a, b), name


def test_full_model_with_reference_from_its_folder(make_trainer, tmp_path):
    make_model("qwen", len(make_tokenizer("split"))).save_pretrained(tmp_path / "base")
    trainer = make_trainer(model=AutoModelForCausalLM.from_pretrained(tmp_path / "base"), beta=0.1)
    trainer.train()
    first, second = (log["kl"] for log in trainer.state.log_history[:2])
    assert first == pytest.approx(0, abs=1e-5)
    assert abs(second) > 1e-4


@pytest.mark.parametrize(("orders", "group"), [("coupled", 2), ("coupled", 4), ("separate", 4)])
def test_rloo_is_reinforce_with_the_mean_of_the_others(make_trainer, orders, group):
    trainer = make_trainer(
        algorithm="rloo", orders=orders, per_device_train_batch_size=4, entropy_coef=0.0,
        num_generations=group // 2 if orders == "coupled" else group,
    )  # fmt: skip
    rows = by_row(batch := rollout(trainer, pairs=4 // group))
    texts = trainer.processing_class.batch_decode(rows["completion_ids"], skip_special_tokens=True)
    labels = [trainer.train_dataset[i // group]["label"] for i in range(4)]
    if orders == "coupled":
        labels = [1 - y if i % group >= group // 2 else y for i, y in enumerate(labels)]
    rewards = half_full(texts, labels)
    parameters = list(trainer.model.parameters())
    got = torch.autograd.grad(trainer._compute_loss(trainer.model, batch), parameters)
    policy, loss, tokens = trainer.model, torch.zeros(()), 0
    policy.value_head = ValueHead(32)
    for i in range(4):
        first = i // group * group
        others = [rewards[j] for j in range(first, first + group) if j != i]
        prompt = rows["prompt_ids"][i][rows["prompt_mask"][i].bool()].tolist()
        answer = rows["completion_ids"][i][rows["completion_mask"][i].bool()].tolist()
        loss = loss - (rewards[i] - sum(others) / len(others)) * forward(policy, prompt, answer)[0].sum()
        tokens += len(answer)
    expected = torch.autograd.grad(loss / tokens, parameters)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-9
    trainer.train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answers": "exact"}, "answers: exact is not compatible with ppo: the sum over all answers"),
        ({"scale_rewards": "group"}, "scale_rewards: group is not compatible with ppo"),
        ({"scale_rewards": "batch"}, "whiten_advantages divides over the batch"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation"),
        ({"loss_type": "dr_grpo"}, "loss_type: dr_grpo"),
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level: sequence"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions"),
        ({"symmetry_coef": 1.0}, "symmetry_coef: 1.0 is not compatible with ppo"),
        ({"num_generations": 0}, "num_generations: got 0; expected at least 1"),
        ({"per_device_train_batch_size": 3}, "3 answers; expected a multiple of 2, the answers to a pair"),
        ({"lam": -0.1}, r"lam: got -0.1; expected a number in \[0, 1\]"),
        ({"vf_coef": 0.0}, "vf_coef: got 0.0; expected a number above 0"),
        ({"cliprange_value": 0.0}, "cliprange_value: got 0.0"),
        ({"kl_in": "both"}, "kl_in: got 'both'; expected one of reward, loss"),
        ({"algorithm": "rloo", "orders": "separate"}, "num_generations: 1 is not compatible with rloo"),
        ({"algorithm": "rloo", "whiten_advantages": True}, "whiten_advantages: True is not compatible with rloo"),
        ({"algorithm": "rloo", "beta": 0.1}, "kl_in: reward is not compatible with rloo"),
    ],
)
def test_incompatible_options(make_trainer, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


def test_options_of_the_value_head_have_no_effect_on_rloo():
    assert ineffective_options(JudgeArguments(), False, "rloo", ["lam"]) == {"rloo has no value head": ["lam"]}
