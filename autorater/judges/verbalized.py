"""Verbalized probabilities: the number that a model writes, decoded token by token and parsed, as one gets it from a
judge whose distribution over answers is out of reach (Tian et al. 2023, arXiv 2305.14975).

Decoding is greedy; where the prompt asks for reasoning, it is written first. A completion without an answer counts as
1/2 and is invalid. Near work within: `Judge` reads the whole distribution instead, in one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm.auto import tqdm

from autorater.judges.judgments import Judgments
from autorater.judges.local import Judge
from autorater.pairs import Pair
from autorater.prefix import generate_shared, supports_shared_prefix
from autorater.prompts import like_lengths, pad_prompts
from rewards import CLOSE_TAG, parse_probability


class Verbalized:
    """Greedy decoding of the answer, behind greedy reasoning where the judge is asked for it.

    Args:
        judge: The model and how it is asked; its recalibration is not applied.
    """

    def __init__(self, judge: Judge):
        self.judge = judge

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders.

        Raises:
            ValueError: If a prompt is longer than the model can read.
        """
        written = write_answers(self.judge, pairs, progress=progress)[:, :, 0]
        valid = ~np.isnan(written)
        said = np.where(valid, written, 0.5)
        return Judgments(said, said, np.zeros_like(said), valid.astype(np.float64))


def written_tokens(judge: Judge) -> int:
    """Room that reasoning and an answer with its closing tag take behind a prompt, in tokens."""
    return judge.answer_tokens + len(judge.tokenizer(CLOSE_TAG, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def write_answers(
    judge: Judge, pairs: Sequence[Pair], n_samples: int | None = None, *, progress: bool = False
) -> np.ndarray:
    """Lets a model write its answers and parses them.

    Args:
        judge: The model and how it is asked.
        pairs: N pairs.
        n_samples: Completions a prompt, drawn from the model at temperature 1 by torch's random state; None for one
            greedy completion.
        progress: Show a progress bar.

    Returns:
        Pr[response shown second is better] as written in the orders ab and ba, in [0, 1] or NaN where there is no
        answer, shape (N, 2, n_samples or 1).

    Raises:
        ValueError: If a prompt is longer than the model can read.
    """
    room = written_tokens(judge)
    encoded = judge.encoder.encode(pairs)
    judge.check_lengths(encoded, room)
    prompts = [prompt.ids for both in encoded for prompt in both]
    count = n_samples or 1
    written = np.empty((len(prompts), count))
    sizes = [count * (len(ids) + room) for ids in prompts]
    was_training = judge.model.training
    judge.model.eval()
    with tqdm(total=len(prompts), desc="writing", unit="prompt", disable=not progress, leave=False) as bar:
        for rows in like_lengths(sizes, judge.max_batch_tokens):
            completions = _complete(judge, [prompts[i] for i in rows], n_samples, room)
            texts = judge.tokenizer.batch_decode(completions, skip_special_tokens=False)
            prefilled = not judge.encoder.format.reasoning
            answers = [parse_probability(text, prefilled=prefilled) for text in texts]
            written[rows] = np.array(answers, dtype=np.float64).reshape(len(rows), count)  # None becomes NaN
            bar.update(len(rows))
    judge.model.train(was_training)
    return written.reshape(len(pairs), 2, count)


def _complete(judge: Judge, prompts: list[list[int]], n_samples: int | None, room: int) -> torch.Tensor:
    """Completions of every prompt side by side, (B · n, T); those that ended early are filled up with padding."""
    model, tokenizer = judge.model, judge.tokenizer
    ids, mask = pad_prompts(prompts, tokenizer.pad_token_id, next(model.parameters()).device)
    how = {
        "do_sample": n_samples is not None,
        "temperature": 1.0,  # as the policy is trained, whatever its generation_config says
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "max_new_tokens": room,
        "stop_strings": [CLOSE_TAG],
        "tokenizer": tokenizer,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if n_samples and supports_shared_prefix(model)[0]:
        completed = generate_shared(model, ids, mask, n_samples, **how)
    else:
        ids, mask = (x.repeat_interleave(n_samples or 1, dim=0) for x in (ids, mask))
        completed = model.generate(input_ids=ids, attention_mask=mask, **how)
    return completed[:, ids.shape[1] :]
