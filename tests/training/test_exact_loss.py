"""The exact loss against a sum over answers written out in plain Python, and its gradient against autograd."""

import numpy as np
import pytest
import torch

from autorater.models.answers import AnswerTree
from autorater.models.distribution import AnswerDistribution
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from autorater.training.exact_loss import ExactLoss, WeightedReward
from rewards import BrierReward, KLReward, LogReward, SphericalReward, VotesReward
from tests.conftest import make_model, make_tokenizer
from tests.models.test_answers import brute_force

REWARDS = [BrierReward(), LogReward(), SphericalReward(), KLReward()]


def random_answers(n=4, k=11, seed=0, outside=0.2):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(n, k, generator=generator, dtype=torch.float64)
    probs = (1 - outside) * probs / probs.sum(1, keepdim=True)
    return AnswerDistribution(probs.requires_grad_(), torch.linspace(0, 1, k, dtype=torch.float64))


def loss_of(reward, **terms):
    return ExactLoss(WeightedReward([reward], [1.0]), **terms)


@pytest.mark.parametrize("reward", REWARDS, ids=lambda r: r.__name__)
def test_value_is_the_expected_reward(reward):
    answers, labels = random_answers(), torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    loss, log = loss_of(reward, coupled=False)(answers, labels)
    for i, y in enumerate(labels.tolist()):
        pi, values = answers.probs[i].tolist(), answers.values.tolist()
        expected = sum(p * float(reward.score(v, y)) for p, v in zip(pi, values, strict=True))
        expected += (1 - sum(pi)) * float(reward.invalid_score(y))
        assert log["reward"][i].item() == pytest.approx(expected)
    assert loss.item() == pytest.approx(-log["reward"].mean().item())


@pytest.mark.parametrize("reward", REWARDS, ids=lambda r: r.__name__)
def test_the_reward_over_votes_is_the_weighted_sum_of_single_votes(reward):
    """Label 3/4: three of four votes for B. The gradient of linear rules is that of the share as label."""
    answers, share = random_answers(), torch.full((4,), 0.75, dtype=torch.float64)
    loss, log = loss_of(VotesReward(reward), coupled=False)(answers, share)
    parts = {y: loss_of(reward, coupled=False)(answers, torch.full_like(share, y))[1]["reward"] for y in (0.0, 1.0)}
    torch.testing.assert_close(log["reward"], 0.25 * parts[0.0] + 0.75 * parts[1.0])
    if type(reward) is LogReward:
        dense = loss_of(reward, coupled=False)(answers, share)[0]
        gradients = [torch.autograd.grad(value, answers.probs)[0] for value in (loss, dense)]
        torch.testing.assert_close(*gradients)


def test_rewards_are_weighted():
    answers, labels = random_answers(), torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    both = ExactLoss(WeightedReward([BrierReward(), LogReward()], [0.5, 2.0]), coupled=False)
    parts = [loss_of(r, coupled=False)(answers, labels)[1]["reward"] for r in (BrierReward(), LogReward())]
    torch.testing.assert_close(both(answers, labels)[1]["reward"], 0.5 * parts[0] + 2 * parts[1])


def test_terms_add_up():
    answers, reference = random_answers(), random_answers(seed=1).probs.detach()
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    exact_loss = loss_of(BrierReward(), entropy_coef=0.3, beta=0.7, symmetry_coef=2.0)
    loss, log = exact_loss(answers, labels, reference)
    pi = np.column_stack([answers.probs.detach().numpy(), answers.outside.detach().numpy()])
    ref = np.column_stack([reference.numpy(), 1 - reference.numpy().sum(1)])
    kl = (pi * np.log(pi / ref)).sum(1).mean()
    entropy = -(pi[:, :-1] * np.log(pi[:, :-1])).sum(1).mean()
    mean = (pi[:, :-1] @ answers.values.numpy()) / pi[:, :-1].sum(1)
    symmetry = ((mean[0::2] + mean[1::2] - 1) ** 2).mean()
    grid = 1 - (answers.values.numpy() - labels.numpy()[:, None]) ** 2
    parsed = (pi[:, :-1] * grid).sum(1) / pi[:, :-1].sum(1)
    np.testing.assert_allclose(log["answers/parsed_reward"].numpy(), parsed, rtol=1e-9)
    expected = -log["reward"].mean().item() - 0.3 * entropy + 0.7 * kl + 2 * symmetry
    assert loss.item() == pytest.approx(expected)
    assert log["kl"].mean().item() == pytest.approx(kl)


@pytest.mark.parametrize(
    ("reward", "rule"),
    [
        (BrierReward(), lambda p, y: 1 - (p - y) ** 2),
        (LogReward(), lambda p, y: y * p.log() + (1 - y) * (1 - p).log()),
        (SphericalReward(), lambda p, y: (y * p + (1 - y) * (1 - p)) / (p**2 + (1 - p) ** 2).sqrt()),
    ],
    ids=["brier", "log", "spherical"],
)
def test_score_of_the_mean_and_its_gradient(reward, rule):
    answers, labels = random_answers(), torch.tensor([0.0, 1.0, 0.3, 1.0], dtype=torch.float64)
    loss, log = loss_of(reward, coupled=False, of_mean=True)(answers, labels)
    (got,) = torch.autograd.grad(loss, answers.probs)

    probs = answers.probs
    valid = probs.sum(1)
    mean = (probs @ answers.values) / valid
    invalid = torch.as_tensor(reward.invalid_score(labels.numpy()))
    value = valid * rule(mean, labels) + (1 - valid) * invalid
    (expected,) = torch.autograd.grad(-value.mean(), answers.probs)
    torch.testing.assert_close(log["reward"], value.detach())
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("reward", [LogReward(), KLReward(), BrierReward()], ids=["log", "kl", "brier"])
def test_single_votes_behind_a_label_have_the_gradient_of_their_rule_beyond_its_clip(reward):
    mean = torch.tensor([1e-5, 5e-4, 0.01, 0.9999], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    (plain, of_votes) = (
        torch.autograd.grad(WeightedReward([rule], [1.0]).of_mean(mean, labels).sum(), mean)[0]
        for rule in (reward, VotesReward(reward))
    )
    torch.testing.assert_close(of_votes, plain, rtol=1e-6, atol=1e-9)
    assert (of_votes * torch.tensor([1, 1, 1, -1]) > 0).all()


def test_the_two_objectives_differ_if_answers_spread():
    """At the same mean, E[S(k, y)] penalizes spread; S(E[k], y) does not."""
    values = torch.linspace(0, 1, 11, dtype=torch.float64)
    probs = torch.zeros(2, 11, dtype=torch.float64)
    probs[0, 7] = 1
    probs[1, [4, 10]] = 0.5
    answers, labels = AnswerDistribution(probs, values), torch.ones(2, dtype=torch.float64)
    each, _ = loss_of(BrierReward()).value(answers, labels)
    mean, _ = loss_of(BrierReward(), of_mean=True).value(answers, labels)
    assert mean[0].item() == pytest.approx(mean[1].item())
    assert each[0] - each[1] == pytest.approx(0.3**2)


def test_division_by_the_deviation_is_majority_voting():
    """2508.11800: divided by the deviation, the gradient of the mean grows with 2 p* − 1, whatever the mean is."""
    values = torch.linspace(0, 1, 101, dtype=torch.float64)

    def slope(p_star, mean, scale):
        gradient = 0.0
        for y, weight in ((1.0, p_star), (0.0, 1 - p_star)):
            m = torch.tensor(mean, dtype=torch.float64, requires_grad=True)
            probs = torch.softmax(-((values - m) ** 2) / (2 * 0.03**2), dim=0)[None]
            exact_loss = loss_of(BrierReward(), coupled=False, scale_by_deviation=scale)
            loss, _ = exact_loss(AnswerDistribution(probs, values), torch.tensor([y], dtype=torch.float64))
            loss.backward()
            gradient -= weight * m.grad.item()
        return gradient

    # a calibrated judge has no gradient without the division; with it, a gradient towards 1
    assert abs(slope(0.7, 0.7, scale=False)) < 1e-3
    assert slope(0.7, 0.7, scale=True) > 1
    assert slope(0.7, 0.9, scale=False) < 0 < slope(0.7, 0.9, scale=True)


@pytest.mark.parametrize("digits", ["split", "merged"])
@pytest.mark.parametrize("family", ["qwen", "llama", "gemma", "gpt2"])
def test_gradient_equals_autograd_on_the_brute_force_sum(family, digits, simulated):
    tokenizer = make_tokenizer(digits)
    encoder = PromptEncoder(tokenizer, PromptFormat("compact"))
    tree = AnswerTree(tokenizer, encoder.context, 0.25)
    prompts = [p.ids for both in encoder.encode(simulated.pairs[:2]) for p in both]
    model = make_model(family, len(tokenizer))
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0])
    # the gradient of an untrained model's answers is about 0 without rescaling
    exact_loss = loss_of(BrierReward(), entropy_coef=0.1, symmetry_coef=1.0)

    def gradient(probs):
        values = torch.as_tensor(tree.values, dtype=torch.float32)
        exact_loss(AnswerDistribution(probs, values), labels)[0].backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        return grads

    ids, mask = pad_prompts(prompts, tokenizer.pad_token_id)
    got = gradient(tree.distribution(model, ids, mask).probs)
    slow = torch.stack([brute_force(model, tree, tokenizer, encoder, p, differentiable=True) for p in prompts])
    expected = gradient(slow)
    assert (got - expected).norm() <= 1e-5 * expected.norm()


def test_plain_branches_equal_the_shared_tree(simulated):
    tokenizer = make_tokenizer("split")
    encoder = PromptEncoder(tokenizer, PromptFormat("compact"))
    tree = AnswerTree(tokenizer, encoder.context, 0.05)
    model = make_model("gpt2", len(tokenizer))
    prompts = [p.ids for both in encoder.encode(simulated.pairs[:2]) for p in both]
    ids, mask = pad_prompts(prompts, tokenizer.pad_token_id)
    with torch.no_grad():
        plain = tree.from_logits(tree.plain_logits(model, ids, mask))
        torch.testing.assert_close(plain.probs, tree.distribution(model, ids, mask).probs, rtol=1e-5, atol=1e-12)
