"""The exact objective against a sum over answers written out in plain Python, and its gradient against autograd."""

import numpy as np
import pytest
import torch

from autorater.answers import AnswerDistribution, AnswerTree
from autorater.prompts import PromptEncoder, PromptFormat, pad_prompts
from autorater.training.exact import ExactObjective
from rewards import BrierReward, KLReward, LogReward, SphericalReward
from tests.conftest import make_model, make_tokenizer
from tests.test_answers import brute_force

REWARDS = [BrierReward(), LogReward(), SphericalReward(), KLReward()]


def random_answers(n=4, k=11, seed=0, outside=0.2):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(n, k, generator=generator, dtype=torch.float64)
    probs = (1 - outside) * probs / probs.sum(1, keepdim=True)
    return AnswerDistribution(probs.requires_grad_(), torch.linspace(0, 1, k, dtype=torch.float64))


def scores_of(reward, answers, labels):
    values = answers.values.numpy()
    scores = torch.as_tensor(reward.score(values[None], labels[:, None]))
    return scores, torch.as_tensor(np.broadcast_to(reward.invalid_score(labels), labels.shape).copy())


@pytest.mark.parametrize("reward", REWARDS, ids=lambda r: r.__name__)
def test_value_is_the_expected_reward(reward):
    answers, labels = random_answers(), np.array([0.0, 1.0, 0.0, 1.0])
    scores, invalid = scores_of(reward, answers, labels)
    loss, log = ExactObjective(coupled=False)(answers, scores, invalid)
    for i, y in enumerate(labels):
        pi, values = answers.probs[i].tolist(), answers.values.tolist()
        expected = sum(p * float(reward.score(v, y)) for p, v in zip(pi, values, strict=True))
        expected += (1 - sum(pi)) * float(reward.invalid_score(y))
        assert log["reward"][i].item() == pytest.approx(expected)
    assert loss.item() == pytest.approx(-log["reward"].mean().item())


def test_terms_add_up():
    answers, reference = random_answers(), random_answers(seed=1).probs.detach()
    labels = np.array([0.0, 1.0, 1.0, 0.0])
    scores, invalid = scores_of(BrierReward(), answers, labels)
    loss, log = ExactObjective(entropy_coef=0.3, beta=0.7, symmetry_coef=2.0)(answers, scores, invalid, reference)
    pi = np.column_stack([answers.probs.detach().numpy(), answers.outside.detach().numpy()])
    ref = np.column_stack([reference.numpy(), 1 - reference.numpy().sum(1)])
    kl = (pi * np.log(pi / ref)).sum(1).mean()
    entropy = -(pi[:, :-1] * np.log(pi[:, :-1])).sum(1).mean()
    mean = (pi[:, :-1] @ answers.values.numpy()) / pi[:, :-1].sum(1)
    symmetry = ((mean[0::2] + mean[1::2] - 1) ** 2).mean()
    expected = -log["reward"].mean().item() - 0.3 * entropy + 0.7 * kl + 2 * symmetry
    assert loss.item() == pytest.approx(expected)
    assert log["kl"].mean().item() == pytest.approx(kl)


def test_division_by_the_deviation_votes_with_the_majority():
    """2508.11800: divided by the deviation, the gradient of the mean grows with 2 p* − 1, whatever the mean is."""
    values = torch.linspace(0, 1, 101, dtype=torch.float64)

    def slope(p_star, mean, scale):
        gradient = 0.0
        for y, weight in ((1.0, p_star), (0.0, 1 - p_star)):
            m = torch.tensor(mean, dtype=torch.float64, requires_grad=True)
            probs = torch.softmax(-((values - m) ** 2) / (2 * 0.03**2), dim=0)[None]
            scores = torch.as_tensor(BrierReward().score(values.numpy(), y))[None]
            objective = ExactObjective(coupled=False, scale_by_deviation=scale)
            loss, _ = objective(AnswerDistribution(probs, values), scores, torch.zeros(1, dtype=torch.float64))
            loss.backward()
            gradient -= weight * m.grad.item()
        return gradient

    # the calibrated judge: at rest without the division, pushed on towards 1 with it
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
    labels = np.array([1.0, 0.0, 0.0, 1.0])
    scores = torch.as_tensor(BrierReward().score(tree.values[None], labels[:, None]), dtype=torch.float32)
    # without rescaling an untrained model's answers weigh about nothing, and neither would their gradient
    objective = ExactObjective(entropy_coef=0.1, symmetry_coef=1.0)

    def gradient(probs):
        values = torch.as_tensor(tree.values, dtype=torch.float32)
        objective(AnswerDistribution(probs, values), scores, torch.zeros(4))[0].backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        return grads

    ids, mask = pad_prompts(prompts, tokenizer.pad_token_id)
    got = gradient(tree.distribution(model, ids, mask).probs)
    slow = torch.stack([brute_force(model, tree, tokenizer, encoder, p, differentiable=True) for p in prompts])
    wanted = gradient(slow)
    assert (got - wanted).norm() <= 1e-5 * wanted.norm()


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
