"""Training of pointwise judges: rewards as brute-force sums with their gradients, every vote equal, exact resumes."""

import json

import pytest
import torch

from autorater.data.errors import UserError
from autorater.data.pairs import with_sparse_labels
from autorater.judges import Judge
from autorater.judges.pointwise import PointwiseJudge
from autorater.models.distribution import AnswerDistribution
from autorater.models.shared_beginning import shares_beginnings
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact_loss import WeightedReward
from autorater.training.pointwise import PointwiseLoss, PointwiseTrainer, SampledPointwiseLoss, vote_rows
from rewards import BrierReward, KLReward, LogReward, SphericalReward, brier_reward
from tests.conftest import make_model, make_tokenizer

REWARDS = [BrierReward(), LogReward(), SphericalReward(), KLReward()]


def digits_after(n, seed=0):
    logits = torch.randn(
        n, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )  # two are no digits
    return logits.requires_grad_()


def score(reward, p, y):
    """The rule written out in torch, for automatic differentiation."""
    if isinstance(reward, BrierReward):
        return 1 - (p - y) ** 2
    if isinstance(reward, SphericalReward):
        return (y * p + (1 - y) * (1 - p)) / (p**2 + (1 - p) ** 2).sqrt()
    p = p.clamp(reward.epsilon, 1 - reward.epsilon)
    return y * p.log() + (1 - y) * (1 - p).log()  # the label is 0 or 1, so KL is the same


@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.__name__)
@pytest.mark.parametrize("of_mean", [True, False])
def test_value_and_gradient_are_those_of_the_sums(reward, of_mean):
    logits, scale = digits_after(4), 0.7
    a, b, labels = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 3, 0, 0]), torch.tensor([1.0, 0.0, 1.0, 0.0]).double()
    probs = logits.softmax(dim=-1)[:, :10]
    loss = PointwiseLoss(WeightedReward([reward], [1.0]), scale, of_mean)
    answers = AnswerDistribution(probs, torch.arange(10.0).double())
    value = loss.value(answers, a, b, labels)

    expected, parsed = [], []
    for i, j, y in zip(a, b, labels, strict=True):
        valid = probs[i].sum() * probs[j].sum()
        worst = float(reward.invalid_score(y.numpy()))
        if of_mean:
            s, t = ((probs[k] * torch.arange(10)).sum() / probs[k].sum() for k in (i, j))
            total = valid * score(reward, (scale * (t - s)).sigmoid(), y)
        else:
            total = sum(
                probs[i, d] * probs[j, e] * score(reward, torch.tensor(scale * (e - d)).double().sigmoid(), y)
                for d in range(10)
                for e in range(10)
            )
        expected.append(total + (1 - valid) * worst)
        parsed.append(total / valid)
    expected = torch.stack(expected)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(loss.parsed(value, answers, a, b, labels), torch.stack(parsed), rtol=1e-6, atol=1e-8)
    (got,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("divided", [False, True])
def test_sampled_scores_have_the_gradient_of_the_exact_sum(divided):
    torch.manual_seed(0)
    logits, n = digits_after(3), 4
    a, b, labels = torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([1.0, 0.0]).double()
    answers = AnswerDistribution(logits.softmax(dim=-1)[:, :10], torch.arange(10.0).double())
    reward = WeightedReward([brier_reward], [1.0])
    exact = PointwiseLoss(reward, 0.7, of_mean=False)
    sampled = SampledPointwiseLoss(reward, 0.7, False, n, divided)
    votes = torch.arange(2).repeat(20_000)  # many draws of the same two votes
    many = AnswerDistribution(answers.probs.repeat(20_000, 1), answers.values)
    offset = 3 * torch.arange(20_000).repeat_interleave(2)
    at_once = a[votes] + offset, b[votes] + offset, labels[votes]
    values = sampled.value(many, *at_once)
    expected = exact.value(answers, a, b, labels)
    torch.testing.assert_close(values.view(-1, 2).mean(dim=0), expected, rtol=0, atol=0.01)
    torch.testing.assert_close(
        sampled.parsed(values, many, *at_once)[:2], exact.parsed(expected, answers, a, b, labels)
    )
    (got,) = torch.autograd.grad(values.view(-1, 2).mean(dim=0).sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    if divided:
        assert torch.nn.functional.cosine_similarity(got.flatten(), wanted.flatten(), dim=0) > 0.9
    else:
        torch.testing.assert_close(got, wanted * (n - 1) / n, rtol=0, atol=0.02 * float(wanted.abs().max()))


def test_mass_off_the_digits_is_the_worst_answer():
    loss = PointwiseLoss(WeightedReward([brier_reward], [1.0]))
    answers = AnswerDistribution(torch.zeros(2, 10), torch.arange(10.0))
    value = loss.value(answers, torch.tensor([0]), torch.tensor([1]), torch.tensor([1.0]))
    assert value.item() == 0.0


@pytest.fixture
def make_trainer(tmp_path, simulated):
    def make(folder="out", digits="split", model=None, **options):
        tokenizer = make_tokenizer(digits)
        judge = PointwiseJudge(model or make_model("qwen", len(tokenizer)), tokenizer)
        pairs = with_sparse_labels(simulated.pairs[:24], 0)
        rows, graph = vote_rows(pairs, judge.encoder.encode(pairs))
        defaults = {
            "max_steps": 6,
            "learning_rate": 1e-2,
            "batch_tokens": 400,
            "entropy_coef": 0.0,
            "logging_steps": 1,
        }
        args = JudgeGRPOConfig(
            output_dir=str(tmp_path / folder), judgment="pointwise", report_to="none", use_cpu=True, disable_tqdm=True,
            **{"save_strategy": "no", "seed": 3} | defaults | options,
        )  # fmt: skip
        return PointwiseTrainer(
            judge.model, brier_reward, args, judge.tree, graph, train_dataset=rows, processing_class=tokenizer
        )

    return make


@pytest.mark.parametrize("digits", ["split", "merged"])
@pytest.mark.parametrize("options", [{}, {"objective": "expected_score"}])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_raises_the_reward(make_trainer, digits, options, accumulation):
    trainer = make_trainer(
        digits=digits, max_steps=30, gradient_accumulation_steps=accumulation, logging_steps=10, **options
    )
    trainer.train()
    rewards = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    assert rewards[-1] > rewards[0] + 0.2
    log = trainer.state.log_history[0]
    assert {"batch/votes", "num_tokens"} <= log.keys()
    assert 0 <= log["answers/parsed_reward"] <= 1
    assert log["reward"] < log["answers/parsed_reward"] or log["answers/parse_rate"] == pytest.approx(1)


@pytest.mark.parametrize("scale_rewards", ["none", "group"])
def test_sampled_scores_go_on_where_exact_ones_have_taught_the_form(make_trainer, scale_rewards):
    first = make_trainer(max_steps=30)
    first.train()
    trainer = make_trainer(
        model=first.model, answers="sampled", num_generations=4, scale_rewards=scale_rewards, max_steps=20,
        logging_steps=5, learning_rate=1e-3,
    )  # fmt: skip
    trainer.train()
    logs = [log for log in trainer.state.log_history if "reward" in log]
    assert max(log["grad_norm"] for log in logs) > 0, "0 where all samples have the same reward"
    assert all(0.5 < log["reward"] < 1 for log in logs)


def test_a_mixture_of_experts_shares_what_prompts_begin_with(make_trainer, recwarn):
    trainer = make_trainer(model=make_model("moe", len(make_tokenizer("split"))), max_steps=1)
    trainer.train()
    assert shares_beginnings(trainer.model)
    assert not any("shared" in str(warned.message) for warned in recwarn)


def test_accumulated_batches_give_the_gradient_of_all_votes(make_trainer):
    """Every vote has the same weight, whatever its batch: one batch of all votes against an epoch of small ones."""
    whole = make_trainer(batch_tokens=100_000, max_steps=1)
    small = make_trainer(batch_tokens=300, max_steps=1)
    gradients = []
    for trainer in (whole, small):
        trainer.current_gradient_accumulation_steps = len(trainer.batches)
        trainer.model.train()
        for votes in trainer.batches:
            trainer.compute_loss(trainer.model, [trainer.train_dataset[i] for i in votes]).backward()
        gradients.append({name: p.grad for name, p in trainer.model.named_parameters()})
    assert len(whole.batches) == 1 < len(small.batches)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_an_epoch_uses_every_vote_once(make_trainer):
    trainer, used = make_trainer(max_steps=-1, num_train_epochs=2), []
    compute = trainer._compute_loss
    trainer._compute_loss = lambda model, rows: used.append(len(rows)) or compute(model, rows)
    trainer.train()
    assert sum(used) == 2 * 24
    assert trainer.state.epoch == 2


@pytest.mark.parametrize("accumulation", [1, 2])
def test_resumed_is_uninterrupted(make_trainer, tmp_path, accumulation):
    options = {"save_strategy": "steps", "save_steps": 7, "max_steps": 10, "gradient_accumulation_steps": accumulation}
    whole = make_trainer(**options)
    whole.train()
    torch.manual_seed(99)
    resumed = make_trainer(**options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-7"))
    for (name, p), q in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q), name
    seconds = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}
    logs = [[{k: v for k, v in e.items() if k not in seconds} for e in t.state.log_history] for t in (whole, resumed)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_generations": 4}, "no answer is sampled; answers: sampled does"),
        ({"answers": "sampled", "num_generations": 1}, "expected at least 2"),
        ({"answers": "sampled", "objective": "score_of_mean"}, "sampled scores are rewarded, not their mean"),
        ({"answers": "sampled", "scale_rewards": "batch"}, "divided"),
        ({"reasoning": True}, "a score is one digit"),
        ({"symmetry_coef": 1.0}, "a score has no order"),
        ({"per_device_train_batch_size": 4}, "see batch_tokens"),
        ({"steps_per_generation": 4}, "steps_per_generation: 4, .* see batch_tokens"),
        ({"generation_batch_size": 16}, "generation_batch_size: 16 .* see batch_tokens"),
        ({"dataloader_num_workers": 2}, "its batches need no loading"),
        ({"beta": 0.1}, "no reference model"),
        ({"scale_rewards": "group"}, "divided"),
        ({"score_scale": 0.0}, "above 0"),
        ({"judgment": "pairwise", "score_scale": 2.0}, "requires judgment: pointwise"),
        ({"judgment": "both"}, "expected one of pairwise, pointwise"),
        ({"objective": "mean"}, "expected one of expected_score, score_of_mean"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        JudgeGRPOConfig(output_dir=str(tmp_path), report_to="none", **{"judgment": "pointwise"} | options)


def test_a_run_leaves_a_pointwise_judge(tmp_path, simulated):
    from trl import ModelConfig

    from autorater.training.arguments import JudgeArguments
    from autorater.training.grpo import train_on_votes

    tokenizer = make_tokenizer("split", chat=True)
    make_model("qwen", len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data, test = tmp_path / "votes.jsonl", tmp_path / "test.jsonl"
    rows = [
        {"prompt": f"{p.prompt} {i}", "response_a": p.response_a, "response_b": p.response_b, "label": p.label}
        for i, p in enumerate(simulated.pairs)
    ]
    for path, some in ((data, rows[:-3]), (test, rows[-5:])):
        path.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    args = JudgeArguments(dataset_name=str(data), eval_dataset_name=str(test), n_eval_pairs=4)
    training = JudgeGRPOConfig(
        output_dir=str(tmp_path / "run"), judgment="pointwise", report_to="none", use_cpu=True, disable_tqdm=True,
        max_steps=3, eval_steps=2, learning_rate=1e-3, batch_tokens=400, score_scale=0.5, save_strategy="no",
    )  # fmt: skip
    train_on_votes(args, training, ModelConfig(model_name_or_path=str(tmp_path / "model")), (), "grpo")
    judge = Judge.from_pretrained(str(tmp_path / "run"), device="cpu")
    assert (type(judge), judge.scale) == (PointwiseJudge, 0.5)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["after/symmetry_deviation_abs"] == pytest.approx(0, abs=1e-12)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "# A judge that scores single responses" in card
    assert "**Warning:** 2 of 5 held-out pairs are training pairs" in card
    assert "Warning: 2 of 5 held-out pairs are training pairs" in (tmp_path / "run" / "report.html").read_text()
