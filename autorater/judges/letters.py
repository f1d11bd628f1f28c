"""A/B-token logits: the model is asked for a letter, and the probability is read off its next token.

    p = π(B) / (π(A) + π(B)),   π(A) summed over "A" and " A"

The baseline of most papers ("logits"). What is left, 1 − π(A) − π(B), is the probability of anything else; it is kept
as the validity of the answer, because dividing it away would hide that a model does not answer with a letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from autorater.data.pairs import Pair
from autorater.judges.judgments import Judgments
from autorater.judges.local import Judge
from autorater.prompts.batching import similar_lengths, pad_prompts
from autorater.prompts.encoder import PromptEncoder


class LetterLogits:
    """The probability of the letter B against A, one forward pass a prompt.

    Args:
        judge: The model; it is asked in its prompt layout, for a letter, without reasoning and recalibration.

    Raises:
        ValueError: If its tokenizer writes a letter in several tokens.
    """

    def __init__(self, judge: Judge):
        self.judge = judge
        letter_format = replace(judge.encoder.format, reasoning=False, answer="letter")
        self.encoder = PromptEncoder(judge.tokenizer, letter_format)
        self._letters = [_letter_tokens(judge.tokenizer, letter) for letter in "AB"]

    @torch.no_grad()
    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders; the mode is the likelier letter, 0 for A and 1 for B.

        Raises:
            ValueError: If a prompt is longer than the model can read.
        """
        encoded = self.encoder.encode(pairs)
        self.judge.check_lengths(encoded)
        prompts = [prompt.ids for both in encoded for prompt in both]
        model = self.judge.model
        device = next(model.parameters()).device
        masses = np.empty((len(prompts), 2))
        was_training = model.training
        model.eval()
        with tqdm(total=len(prompts), desc="reading letters", unit="prompt", disable=not progress, leave=False) as bar:
            for rows in similar_lengths([len(ids) for ids in prompts], self.judge.max_batch_tokens):
                ids, mask = pad_prompts([prompts[i] for i in rows], self.judge.tokenizer.pad_token_id, device)
                positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
                logits = model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
                ).logits[:, -1]
                probs = logits.float().softmax(dim=-1)  # (B, V)
                read = torch.stack([probs[:, tokens].sum(dim=1) for tokens in self._letters], dim=1)
                masses[rows] = read.double().cpu().numpy()
                bar.update(len(rows))
        model.train(was_training)
        return _judgments(masses.reshape(len(pairs), 2, 2))


def _judgments(masses: np.ndarray) -> Judgments:
    """From the probabilities of A and B in each order, shape (N, 2, 2)."""
    valid = masses.sum(axis=2)
    share = np.divide(masses[:, :, 1], valid, out=np.full_like(valid, 0.5), where=valid > 0)
    mode = np.where(share == 0.5, 0.5, share > 0.5)
    return Judgments(share, mode, np.sqrt(share * (1 - share)), valid.clip(0, 1))


def _letter_tokens(tokenizer: PreTrainedTokenizerBase, letter: str) -> list[int]:
    """The tokens that are this letter, with or without a space in front of it."""
    written = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (letter, f" {letter}")]
    tokens = sorted({ids[0] for ids in written if len(ids) == 1})
    if not tokens:
        raise ValueError(f"this tokenizer writes the letter {letter} in several tokens, so no single one is read")
    return tokens
