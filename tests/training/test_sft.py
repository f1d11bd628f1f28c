"""SFT on vote shares: labels, trained tokens, and the loss against an explicit sum."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig
from trl import SFTTrainer

import rewards
from autorater.data.errors import UserError
from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.models.shared_beginning import shares_beginnings
from autorater.models.tiny import build_policy
from autorater.prompts.templates import PromptFormat
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.grpo import grpo_trainer
from autorater.training.sft import JudgeSFTConfig, JudgeSFTTrainer, sft_rows
from tests.conftest import make_model, make_tokenizer

OPTIONS = {
    "max_steps": 1, "per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True, "save_strategy": "no",
    "logging_steps": 1, "disable_tqdm": True, "answer_step": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    pairs = simulate_pairs(8, n_votes=5, seed=0).pairs
    texts = [
        t
        for p in pairs
        for t in (p.prompt, p.response_a, p.response_b, "0123456789 <prob_rb_better></prob_rb_better>")
    ]
    model, tokenizer = build_policy(texts, hidden_size=32, num_layers=1, max_length=300)
    judge = Judge(model, tokenizer, PromptFormat("compact"), 0.1)
    return pairs, judge.encoder.encode(pairs), judge


def trainer(policy, tmp_path, **options):
    pairs, prompts, judge = policy
    config = JudgeSFTConfig(output_dir=str(tmp_path), **OPTIONS | options)
    rows = Dataset.from_list(sft_rows(pairs, prompts, judge.tokenizer, config))
    return JudgeSFTTrainer(judge.model, config, judge.tree, train_dataset=rows, processing_class=judge.tokenizer)


def test_text_is_the_share_in_both_orders(policy, tmp_path):
    pairs, prompts, judge = policy
    rows = sft_rows(pairs, prompts, judge.tokenizer, JudgeSFTConfig(output_dir=str(tmp_path), **OPTIONS))
    assert len(rows) == 2 * len(pairs)
    for pair, ab, ba in zip(pairs, rows[0::2], rows[1::2], strict=True):
        for row, share in ((ab, pair.label), (ba, 1 - pair.label)):
            learned = [token for token in row["labels"] if token != -100]
            assert judge.tokenizer.decode(learned) == f"{share:.2f}</prob_rb_better><|endoftext|>"
            assert row["input_ids"][-len(learned) :] == learned


def test_text_loss_is_the_likelihood_of_the_answer_alone(policy, tmp_path):
    sft = trainer(policy, tmp_path)
    batch = sft.data_collator([sft.train_dataset[i] for i in range(4)])
    loss = sft.compute_loss(sft.model, dict(batch))
    logits = sft.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert (batch["labels"] != -100).sum() < 4 * 40
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def instructed(family, folder, **options):
    """A trainer of a toy model on prompts that begin with the instructions of the full layout."""
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model(family, len(tokenizer)), tokenizer, PromptFormat("full"), 0.1)
    pairs = simulate_pairs(8, n_votes=5, seed=0).pairs
    defaults = {"per_device_train_batch_size": 8, "gradient_checkpointing": False, "bf16": False}
    return trainer((pairs, judge.encoder.encode(pairs), judge), folder, **defaults | options)


@pytest.mark.parametrize(
    ("family", "count"), [("qwen", 97), ("llama", 97), ("gemma", 97), ("gpt2", 97), ("qwen", None)]
)
def test_text_loss_with_the_instructions_read_once_is_that_of_trl(family, count, tmp_path):
    """Loss, gradients and logged values; prompts and answers of unlike length. `count`: TRL's num_items_in_batch."""
    sft, results, calls = instructed(family, tmp_path), [], []
    for module in sft.model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = sft.data_collator([sft.train_dataset[i] for i in range(8)])
    assert len(set(batch["attention_mask"].sum(dim=1).tolist())) > 1, "padded"
    for row, n_dropped in ((0, 1), (3, 4)):  # all answers of the grid have as many tokens with this tokenizer
        last = batch["attention_mask"][row].sum()
        batch["labels"][row, last - n_dropped :], batch["attention_mask"][row, last - n_dropped :] = -100, 0
    sft.compute_loss(sft.model, dict(batch))  # with the check of the first batch
    assert shares_beginnings(sft.model)
    sft.model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for shared in (True, False):
        sft.share_prefix = shared
        sft._metrics["train"].clear()
        sft.model.zero_grad()
        loss = sft.compute_loss(sft.model, dict(batch), num_items_in_batch=count)
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in sft.model.named_parameters()}
        results.append((loss.item(), gradients, dict(sft._metrics["train"])))
    (loss, got, logged), (expected, wanted, logged_by_trl) = results
    assert loss == pytest.approx(expected, rel=1e-5)
    scale = max(gradient.abs().max() for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert (got[name] - gradient).abs().max() <= 1e-5 * scale, name
    for name in ("entropy", "mean_token_accuracy"):
        assert logged[name] == pytest.approx(logged_by_trl[name], rel=1e-4)
    assert calls[0] < 0.7 * calls[1]


def test_a_step_of_two_micro_batches_is_that_of_trl(tmp_path):
    """Weights after one step of SGD: TRL divides by the tokens of both micro-batches, whose numbers differ."""
    weights, losses = [], []
    for plain in (False, True):
        sft = instructed(
            "llama", tmp_path, gradient_accumulation_steps=2, optim="sgd", learning_rate=1.0, max_grad_norm=0.0
        )
        before = {n: p.detach().clone() for n, p in sft.model.named_parameters()}
        sft.share_prefix = not plain
        sft.train()
        weights.append({n: p.detach() - before[n] for n, p in sft.model.named_parameters()})
        losses.append(sft.state.log_history[0]["loss"])
        assert bool(shares_beginnings(sft.model)) != plain
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    scale = max(step.abs().max() for step in weights[1].values())
    assert scale > 0
    for name, step in weights[1].items():
        assert (weights[0][name] - step).abs().max() <= 1e-5 * scale, name


def test_text_of_a_mixture_of_experts_has_its_router_loss(tmp_path):
    """Added to the likelihood; the saved config does not request router logits in calls without a loss."""
    with pytest.warns(RuntimeWarning, match="prefix disabled.*its router loss would count a shared prompt once"):
        sft = instructed("moe", tmp_path, router_aux_loss_coef=0.5)
    batch = sft.data_collator([sft.train_dataset[i] for i in range(8)])
    loss = sft.compute_loss(sft.model, dict(batch))
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    read = sft.model(**inputs, output_router_logits=True)
    likelihood = torch.nn.functional.cross_entropy(read.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    torch.testing.assert_close(loss, likelihood + 0.5 * read.aux_loss, rtol=1e-4, atol=1e-5)
    sft.train()
    assert sft.state.log_history[0]["aux_loss"] > 0
    sft.save_model(str(tmp_path / "judge"))
    saved = AutoConfig.from_pretrained(tmp_path / "judge")
    assert not saved.output_router_logits
    assert saved.router_aux_loss_coef == 0.5


def test_scored_answers_of_a_mixture_of_experts_have_no_router_loss(tmp_path):
    """Its default coefficient, which TRL takes from the model, is not 0, and later training may use it."""
    sft = instructed("moe", tmp_path, objective="tokenized_brier")
    coefficient = sft.model.config.router_aux_loss_coef
    assert sft.share_prefix
    sft.train()
    assert shares_beginnings(sft.model)
    assert sft.model.config.router_aux_loss_coef == coefficient > 0
    with pytest.raises(UserError, match=r"router_aux_loss_coef: 0.5 is not compatible with tokenized_brier"):
        instructed("moe", tmp_path, objective="tokenized_brier", router_aux_loss_coef=0.5)


def test_rows_without_padding_share_nothing_and_say_so_once(tmp_path, recwarn):
    sft = instructed("llama", tmp_path, padding_free=True, max_steps=2)
    sft.train()
    assert not sft.share_prefix
    (told,) = [str(warned.message) for warned in recwarn if "shared prefix" in str(warned.message)]
    assert "TRL's call of the model differs from that for padded rows in attention_mask, " in told


def test_the_loss_of_smoothed_labels_shares_nothing_and_says_so(tmp_path):
    """TRL calls the model a second time, for the values that it logs; that call shares."""
    with pytest.warns(RuntimeWarning, match="label_smoothing_factor: 0.1 requires the logits of whole rows"):
        sft = instructed("llama", tmp_path, label_smoothing_factor=0.1)
    batch = sft.data_collator([sft.train_dataset[i] for i in range(8)])
    sft.compute_loss(sft.model, dict(batch))  # with the check of the first batch
    calls = []
    sft.model.register_forward_pre_hook(
        lambda _, args, inputs: calls.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    sft.compute_loss(sft.model, dict(batch))
    assert sft.share_prefix
    assert calls[0] == batch["input_ids"].numel() > 1.4 * calls[1]


def test_an_evaluation_that_returns_logits_leaves_the_prompts_shared(tmp_path, recwarn):
    sft = instructed("llama", tmp_path)
    batch = sft.data_collator([sft.train_dataset[i] for i in range(8)])
    sft.prediction_step(sft.model, dict(batch), prediction_loss_only=False)
    assert sft.share_prefix
    assert not any("shared prefix" in str(warned.message) for warned in recwarn)


def test_a_model_that_cannot_share_reads_whole_rows(tmp_path, monkeypatch):
    """With the reason; the loss is TRL's own."""
    reason = "its attention is not causal"
    monkeypatch.setattr("autorater.training.prefix_sharing.supports_shared_prefix", lambda _: (False, reason))
    with pytest.warns(RuntimeWarning, match=f"shared prefix disabled.*{reason}"):
        sft = instructed("llama", tmp_path)
    batch = sft.data_collator([sft.train_dataset[i] for i in range(8)])
    assert torch.equal(sft.compute_loss(sft.model, dict(batch)), SFTTrainer.compute_loss(sft, sft.model, dict(batch)))
    assert shares_beginnings(sft.model) is False


def test_answers_read_as_a_tree_need_no_shared_prompt(policy, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr("autorater.training.prefix_sharing.supports_shared_prefix", lambda _: (False, "a state"))
    assert not trainer(policy, tmp_path, objective="tokenized_brier").share_prefix
    assert not any("shared prefix" in str(warned.message) for warned in recwarn)


@pytest.mark.parametrize("objective", ["tokenized_brier", "tokenized_log"])
def test_tokenized_loss_is_the_expected_score(policy, tmp_path, objective):
    sft = trainer(policy, tmp_path, objective=objective)
    sft.loss = replace(sft.loss, closing_coef=0.0)
    rows = [sft.train_dataset[i] for i in range(4)]
    loss = sft.compute_loss(sft.model, sft.data_collator(rows))
    reward = {"tokenized_brier": rewards.brier_reward, "tokenized_log": rewards.log_reward}[objective]
    expected = 0.0
    for row in rows:
        answers = sft.answer_tree.read(sft.model, [row["prompt_ids"]])
        scores = reward.score(answers.values.double().numpy(), row["label"])
        invalid = float(reward.invalid_score(row["label"]))
        probs = answers.probs[0].double().numpy()
        expected -= ((probs * scores).sum() + (1 - probs.sum()) * invalid) / 4
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("objective", ["text", "tokenized_brier", "tokenized_log"])
def test_training_runs_and_logs(policy, tmp_path, objective):
    sft = trainer(policy, tmp_path, objective=objective)
    sft.train()
    logged = {name for row in sft.state.log_history for name in row}
    assert "loss" in logged
    assert objective == "text" or {"reward", "answers/parse_rate"} <= logged


def test_bad_options(tmp_path):
    with pytest.raises(
        ValueError, match="objective: got 'brier'; expected one of text, tokenized_brier, tokenized_log"
    ):
        JudgeSFTConfig(output_dir=str(tmp_path), objective="brier")
    with pytest.raises(ValueError, match=r"entropy_coef: 0.1 is not compatible with text"):
        JudgeSFTConfig(output_dir=str(tmp_path), entropy_coef=0.1)
    with pytest.raises(ValueError, match="max_length: 512 is not compatible with text"):
        JudgeSFTConfig(output_dir=str(tmp_path), max_length=512)


_OF_TEXT = {"loss_type": "dft", "label_smoothing_factor": 0.3, "padding_free": True}
_OF_NONE = {"packing": True, "assistant_only_loss": True}


@pytest.mark.parametrize("objective", ["text", "tokenized_brier", "tokenized_log"])
@pytest.mark.parametrize("name", [*_OF_TEXT, *_OF_NONE])
def test_options_of_trl_without_an_effect_are_refused(tmp_path, objective, name):
    options = {"output_dir": str(tmp_path), "objective": objective, "report_to": "none", "use_cpu": True}
    JudgeSFTConfig(**options)
    options[name] = (_OF_TEXT | _OF_NONE)[name]
    accepted = objective == "text" and name in _OF_TEXT
    with (
        nullcontext() if accepted else pytest.raises(UserError, match=f"{name}: .* is not compatible with {objective}")
    ):
        JudgeSFTConfig(**options)


@pytest.mark.parametrize("answers", ["exact", "sampled"])
def test_kl_reward_on_dense_labels(policy, tmp_path, answers):
    """`reward: kl`, exact and sampled: the exact loss is the expected −KL, the sampled run has finite rewards."""
    pairs, prompts, judge = policy
    assert {pair.label for pair in pairs} - {0.0, 1.0}, "shares, not single votes"
    sampled = {"num_generations": 4} if answers == "sampled" else {}
    config = JudgeGRPOConfig(output_dir=str(tmp_path), answers=answers, entropy_coef=0.0, **OPTIONS, **sampled)
    grpo = grpo_trainer(
        judge.model, rewards.kl_reward, config, judge.tree,
        train_dataset=Dataset.from_list(training_rows(pairs, prompts, "coupled")), processing_class=judge.tokenizer,
    )  # fmt: skip
    if answers == "exact":
        inputs = grpo._prepare_inputs(next(iter(grpo.get_train_dataloader())))
        grpo.model.eval()  # in training the loss would be divided by the accumulation steps
        labels = inputs["labels"].flatten().double()
        ids, mask = inputs["prompt_ids"].flatten(0, 1), inputs["prompt_mask"].flatten(0, 1)
        with torch.no_grad():
            answered = judge.tree.distribution(grpo.model, ids, mask)
            loss = grpo.compute_loss(grpo.model, inputs)
        p = answered.values.double().clamp(1e-3, 1 - 1e-3)[None]
        y = labels[:, None]
        kl = torch.special.xlogy(y, y / p) + torch.special.xlogy(1 - y, (1 - y) / (1 - p))
        worst = kl.amax(dim=1)
        value = (answered.probs * kl).sum(dim=1) + answered.outside * worst
        assert loss.item() == pytest.approx(value.mean().item(), rel=1e-4)
    grpo.model.train()
    grpo.train()
    (logged,) = [row["reward"] for row in grpo.state.log_history if "reward" in row]
    assert -7 < logged <= 0
