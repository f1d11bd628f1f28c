"""Raw verdicts: extreme, tilted, in both orders; and a policy that learns to say them."""

import numpy as np
import pytest

from autorater.judges import Judge
from autorater.policy import build_policy
from autorater.prompts import PromptEncoder, PromptFormat
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
