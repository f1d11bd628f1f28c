"""Raw answers: extreme, position-biased, in both orders; and a policy that learns them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import TrainingArguments

from autorater.data.curriculum import with_growing_responses
from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.judges import Judge
from autorater.models.tiny import build_policy
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from autorater.training.arguments import PolicyArguments
from autorater.training.warm_start import (
    learn_answers,
    raw_answer_rows,
    raw_answers,
    save_warm_start,
    warm_started,
)
from rewards import CLOSE_TAG, OPEN_TAG
from tests.conftest import full_disk


def settings(folder, **options):
    policy = PolicyArguments(**{f"warm_start_{name}": value for name, value in options.items()})
    return policy, TrainingArguments(str(folder), seed=0, disable_tqdm=True)


def warm_start(model, encoder, prompts, verdicts, policy, training, answer_step=0.01):
    rows = raw_answer_rows(encoder.tokenizer, prompts, verdicts, policy, training.seed, answer_step)
    learn_answers(model, encoder.tokenizer, rows, policy, training)


def test_answers_are_extreme_and_biased():
    answers = raw_answers(np.tile([0.2, 0.8], 2000), seed=0)
    assert answers.shape == (4000, 2)
    assert answers.min() >= 0
    assert answers.max() <= 1
    ab, ba = answers[1::2].T
    assert ab.mean() > 0.95, "a verdict of 0.8 becomes near certainty"
    assert (ab + ba - 1).mean() > 0.02, "the response shown second is favoured"
    flat = raw_answers(np.full(4000, 0.3), seed=0, sharpness=1, tilt=0)
    np.testing.assert_allclose(np.median(flat, axis=0), [0.3, 0.7], atol=0.01)
    assert np.log(flat / (1 - flat)).std(axis=0) == pytest.approx([0.3, 0.3], abs=0.02)


@pytest.mark.parametrize("step", [0.01, 0.05, 0.1])
def test_answers_are_on_the_grid(step):
    answers = raw_answers(np.linspace(0, 1, 50), seed=0, step=step)
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
    policy, training = settings(tmp_path, steps=60, batch_size=8, learning_rate=1e-2)
    warm_start(model, encoder, prompts, np.full(len(prompts), 0.5), policy, training, answer_step=0.1)
    judgments = judge.judge_prompts(prompts[:16])
    assert judgments.valid.mean() > 0.8
    assert judgments.p_ab.mean() + judgments.p_ba.mean() > 1.1, "the position bias is learned too"
    folder = Path(save_warm_start(model, tokenizer, training))
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1, "who may read one file may read all"


def test_a_full_disk_at_the_warm_start_says_how_to_resume(tmp_path):
    model = SimpleNamespace(save_pretrained=full_disk)
    with pytest.raises(UserError, match=r"warm_start cannot be written .*No space.* --resume_from_checkpoint auto"):
        save_warm_start(model, None, SimpleNamespace(output_dir=str(tmp_path)))


def test_a_limit_that_no_prompt_meets_is_named(tmp_path):
    policy, training = settings(tmp_path, steps=1)
    policy.max_prompt_tokens = 3
    with pytest.raises(UserError, match="no training pair or item has a prompt of at most 3 tokens"):
        warm_started(policy, training, [["a", "b", "c"]], "0123456789", lambda tokenizer: [])
    assert not (tmp_path / "warm_start").exists()


@pytest.mark.parametrize("growing", [True, False])
def test_growing_prompts_are_learned_in_order(simulated, tmp_path, growing):
    layout = PromptFormat("compact")
    model, tokenizer = build_policy([layout.text], vocab_size=300, hidden_size=8, num_layers=1, num_heads=1)
    encoder = PromptEncoder(tokenizer, layout)
    prompts, masks = encoder.encode(with_growing_responses(simulated.pairs, 512, seed=0)), []
    model.register_forward_pre_hook(
        lambda _, __, inputs: masks.append(inputs["attention_mask"].float()), with_kwargs=True
    )
    policy, training = settings(tmp_path, steps=128, batch_size=8, verdicts="lengths" if growing else "opinions")
    warm_start(model, encoder, prompts, np.full(len(prompts), 0.5), policy, training)
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
    prompts = encoder.encode(pairs)
    policy, training = settings(tmp_path, steps=1500, batch_size=16, verdicts="lengths", sharpness=1, tilt=0)
    warm_start(model, encoder, prompts[200:], longer[200:], policy, training, answer_step=0.1)
    judgments = Judge(model, tokenizer, layout, answer_step=0.1).judge_prompts(prompts[:200])
    assert np.corrcoef(judgments.p_ab, longer[:200])[0, 1] > 0.8
    assert np.corrcoef(judgments.p_ba, longer[:200])[0, 1] < -0.8
