"""Raw verdicts: extreme, tilted, in both orders; and a policy that learns to say them."""

import numpy as np
import pytest

from autorater.data.curriculum import with_growing_responses
from autorater.data.pairs import Pair
from autorater.judges import Judge
from autorater.models.tiny import build_policy
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from autorater.training.warm_start import RawVerdicts, warm_start
from rewards import CLOSE_TAG, OPEN_TAG


def test_verdicts_are_extreme_and_tilted():
    verdicts = np.tile([0.2, 0.8], 2000)
    answers = RawVerdicts(jitter=0.5).answers(verdicts, seed=0)
    assert answers.shape == (4000, 2)
    assert answers.min() >= 0
    assert answers.max() <= 1
    ab, ba = answers[1::2].T
    assert ab.mean() > 0.95 > 0.8, "0.8 is told as near certainty"
    assert (ab + ba - 1).mean() > 0.02, "the response shown second is favoured"
    flat = RawVerdicts(sharpness=1, tilt=0, jitter=0).answers(np.array([0.3]), seed=0)
    np.testing.assert_allclose(flat, [[0.3, 0.7]])


@pytest.mark.parametrize("step", [0.01, 0.05, 0.1])
def test_verdicts_are_on_the_grid(step):
    answers = RawVerdicts(step=step).answers(np.linspace(0, 1, 50), seed=0)
    np.testing.assert_allclose(answers / step, np.round(answers / step), atol=1e-9)


def test_policy_learns_the_format(simulated, tmp_path):
    layout = PromptFormat("compact")
    texts = [
        t for p in simulated.pairs for t in (p.prompt, p.response_a, p.response_b, layout.text, OPEN_TAG + CLOSE_TAG)
    ]
    model, tokenizer = build_policy(texts, vocab_size=600, hidden_size=32, num_layers=1, num_heads=2)
    encoder = PromptEncoder(tokenizer, layout)
    judge = Judge(model, tokenizer, layout, answer_step=0.1)
    prompts = encoder.encode(simulated.pairs)
    assert judge.judge_prompts(prompts[:4]).valid.mean() < 0.01
    warm_start(
        model, encoder, prompts, np.full(len(prompts), 0.5), style=RawVerdicts(step=0.1), steps=60, batch_size=8,
        learning_rate=1e-2, output_dir=tmp_path,
    )  # fmt: skip
    said = judge.judge_prompts(prompts[:16])
    assert said.valid.mean() > 0.8
    assert said.p_ab.mean() + said.p_ba.mean() > 1.1, "the tilt is learned too"


@pytest.mark.parametrize("growing", [True, False])
def test_growing_prompts_come_in_their_order(simulated, tmp_path, growing):
    layout = PromptFormat("compact")
    model, tokenizer = build_policy([layout.text], vocab_size=300, hidden_size=8, num_layers=1, num_heads=1)
    encoder = PromptEncoder(tokenizer, layout)
    prompts, masks = encoder.encode(with_growing_responses(simulated.pairs, 512, seed=0)), []
    model.register_forward_pre_hook(
        lambda _, __, inputs: masks.append(inputs["attention_mask"].float()), with_kwargs=True
    )
    warm_start(
        model, encoder, prompts, np.full(len(prompts), 0.5), steps=128, batch_size=8, growing=growing,
        output_dir=tmp_path,
    )  # fmt: skip
    assert (np.mean([mask.mean() for mask in masks]) > 0.9) == growing, "little of a batch is padding"
    lengths = [mask.sum(dim=1).mean() for mask in masks]
    assert (np.corrcoef(np.arange(128), lengths)[0, 1] > 0.4) == growing


@pytest.mark.slow
def test_policy_from_scratch_learns_to_compare_lengths(tmp_path):
    rng, layout = np.random.default_rng(0), PromptFormat("compact")
    numbers = np.exp(rng.uniform(1, 4, size=(2000, 2))).round().astype(int)  # of words, 3 to 55
    texts = [[" ".join(rng.choice(["so", "it", "is", "he"], size=n)) for n in both] for both in numbers]
    pairs = [Pair(str(i), "Which?", *both, 0.5) for i, both in enumerate(texts)]
    pairs = [*pairs[:200], *with_growing_responses(pairs[200:], 12_000, seed=0)]
    longer = np.array([len(p.response_b) / (len(p.response_a) + len(p.response_b)) for p in pairs])
    model, tokenizer = build_policy(
        [layout.text + "so it is he 0123456789" + OPEN_TAG + CLOSE_TAG],
        vocab_size=400,
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        rope_theta=1e6,
    )
    encoder = PromptEncoder(tokenizer, layout)
    prompts, style = encoder.encode(pairs), RawVerdicts(sharpness=1, tilt=0, step=0.1)
    warm_start(
        model, encoder, prompts[200:], longer[200:], style=style, steps=1500, batch_size=16, learning_rate=2e-3,
        growing=True, output_dir=tmp_path,
    )  # fmt: skip
    said = Judge(model, tokenizer, layout, answer_step=0.1).judge_prompts(prompts[:200])
    assert np.corrcoef(said.p_ab, longer[:200])[0, 1] > 0.8
    assert np.corrcoef(said.p_ba, longer[:200])[0, 1] < -0.8
