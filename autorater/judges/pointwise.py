"""A pointwise judge: it says how good one response is, and a pair's probability follows from the two scores.

    s(x) = Σ_d d π(d | x) / Σ_d π(d | x)            d = 0 … 9, the digits after `Score: `, summed exactly
    Pr[B better] = σ(scale · (s(B) − s(A)))

So it cannot depend on the order of the responses (p_ab + p_ba = 1), and K responses cost K forward passes, whatever
the number of pairs among them. The scale is fixed and saved; fitted on votes, it is the recalibration
`odd_temperature`, which `recipes/evaluate.py --save_recalibration` saves too.

Deliberately left out: reasoning, and digits that are sampled.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from scipy.special import expit
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.messages import Text
from autorater.data.pairs import Pair
from autorater.judges.calibrators import Recalibration
from autorater.judges.judgments import AnswerArrays, Judgments
from autorater.judges.local import Judge
from autorater.judges.options import POINTWISE
from autorater.judges.ranking import Ranking, texts_of
from autorater.judges.saved import SavedJudge
from autorater.models.distribution import AnswerDistribution
from autorater.models.shared_beginning import last_logits
from autorater.models.token_tree import TokenTree
from autorater.progress import progress_bar
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import EncodedPrompt
from autorater.prompts.pointwise import ScoreEncoder, ScoreFormat

_DIFFERENCES = np.subtract.outer(np.arange(10), np.arange(10)).T  # [d, e] = e − d


class DigitTree(TokenTree):
    """The ten digits after a prompt; `digits` as in `ScoreEncoder`."""

    step, closing_tokens = 1, 0

    def distribution(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> AnswerDistribution:
        """The digits after N distinct prompts, in one forward pass, with gradients."""
        if self.tokens:  # digits of several tokens: rare, and not packed
            logits = self.logits(model, *pad_prompts(prompts, 0, next(model.parameters()).device))
        else:
            logits = last_logits(model, prompts)[:, None]
        return self.answers(logits)

    def answers(self, logits: torch.Tensor) -> AnswerDistribution:
        """The digits, as in `TokenTree`."""
        probs = self.log_probs(logits).exp()  # (N, 10)
        return AnswerDistribution(probs, torch.arange(10, dtype=probs.dtype, device=probs.device))


class PointwiseJudge(Judge):
    """A causal language model that scores single responses.

    Args:
        model: Any causal LM; it stays on its device.
        tokenizer: Its (fast) tokenizer.
        scale: Factor on the difference of two scores, > 0.
        max_batch_tokens: Maximum tokens of one forward pass.
        recalibration: Applied to every probability.
        prompt_format: The prompt format.
        pieces: The rendered prompt layout, as in `PromptEncoder`.

    Example:
        >>> judge = Judge.from_pretrained("runs/pointwise")
        >>> judge.scores("Why is the sky blue?", ["Rayleigh scattering.", "No idea."])
        array([7.2, 1.9])
    """

    is_pointwise = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scale: float = 1.0,
        max_batch_tokens: int = 16_384,
        recalibration: Recalibration | None = None,
        prompt_format: ScoreFormat | None = None,
        pieces: Sequence[str] | None = None,
    ):
        options = {"max_batch_tokens": max_batch_tokens, "recalibration": recalibration, "pieces": pieces}
        super().__init__(model, tokenizer, prompt_format, **options)
        self.scale = scale

    def _build_encoder(self, prompt_format: ScoreFormat | None, pieces: Sequence[str] | None) -> ScoreEncoder:
        return ScoreEncoder(self.tokenizer, prompt_format, pieces)

    def _build_tree(self, answer_step: float) -> DigitTree:
        return DigitTree(self.encoder.digits)

    def _options_to_save(self) -> dict[str, object]:
        return {"judgment": POINTWISE, "score_scale": self.scale}

    @classmethod
    def from_saved(
        cls, saved: SavedJudge, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, **options: int
    ) -> Self:
        """As in `Judge`."""
        layout = {"prompt_format": saved.prompt_format, "pieces": saved.pieces(tokenizer)}
        return cls(model, tokenizer, saved.score_scale, recalibration=saved.recalibration, **layout, **options)

    def scores(self, prompt: Text, responses: Sequence[Text], *, progress: bool = False) -> np.ndarray:
        """The scores of K responses to a prompt, shape (K,), in [0, 9]; arguments and errors as in `rank`."""
        probs = self.read_digits(self.encoder.encode_responses(*texts_of(prompt, responses)), progress=progress)
        return expected_scores(probs)

    def rank(self, prompt: Text, responses: Sequence[Text], **shown: Text | None) -> Ranking:
        """As in `Judge`, from one forward pass per distinct response."""
        n_judgments = len({str(text) for text in responses})
        return replace(super().rank(prompt, responses, **shown), n_judgments=n_judgments)

    def _judge_in_parts(self, pairs: Sequence[Pair], progress: bool) -> Judgments:
        """As in `Judge`; every distinct response is read once, whatever the parts of its pairs."""
        responses, both = self.encoder.responses(pairs)
        pair_of: dict[int, int] = {}  # the first one with a response
        for i, numbers in enumerate(both):
            for number in numbers:
                pair_of.setdefault(number, i)
        digits, size = [], 2 * self._pairs_at_once
        with progress_bar(len(responses), "judging", "prompt", progress) as bar:
            for start in range(0, len(responses), size):
                prompts = self.encoder.encode_texts(responses[start : start + size])
                numbers = [pair_of[row] for row in range(start, start + len(prompts))]
                self.check_lengths([(prompt,) for prompt in prompts], numbers=numbers)
                digits.append(self.read_digits(prompts, progress=bar))
        digits = np.concatenate(digits)
        parts = [both[start : start + self._pairs_at_once] for start in range(0, len(both), self._pairs_at_once)]
        return Judgments.concatenated([self.from_digits(*digits[np.array(part).T]) for part in parts])

    def judge_prompts(
        self, prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], *, progress: bool | tqdm = False
    ) -> Judgments:
        """Judges N pairs from the prompts of their responses; every distinct response is read once."""
        self.check_lengths(prompts)
        probs = self.read_digits([prompt for pair in prompts for prompt in pair], progress=progress)
        return self.from_digits(probs[0::2], probs[1::2])

    def from_digits(self, a: np.ndarray, b: np.ndarray) -> Judgments:
        """Judgments of N pairs from the probabilities of the ten digits for A and for B, shape (N, 10) each."""
        p = expit(self.scale * (expected_scores(b) - expected_scores(a)))
        joint = _normalized(a)[:, :, None] * _normalized(b)[:, None, :]  # (N, 10, 10)
        of_digits = expit(self.scale * _DIFFERENCES)
        mean = (joint * of_digits).sum(axis=(1, 2))
        spread = np.sqrt((joint * (of_digits - mean[:, None, None]) ** 2).sum(axis=(1, 2)))
        mode = expit(self.scale * (b.argmax(axis=1) - a.argmax(axis=1)))
        valid = a.sum(axis=1) * b.sum(axis=1)
        judgments = Judgments.mirrored(p, mode=mode, spread=spread, valid=valid)
        return judgments if self.recalibration is None else judgments.recalibrated(self.recalibration)

    def judge_as_shown(self, prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]]) -> AnswerArrays:
        judgments = self.judge_prompts(prompts)
        return AnswerArrays(*(getattr(judgments, name)[:, 0] for name in ("mean", "mode", "spread", "valid")))

    def read_digits(self, prompts: Sequence[EncodedPrompt], *, progress: bool | tqdm = False) -> np.ndarray:
        """Probabilities of the ten digits after N prompts, not normalized, shape (N, 10); equal prompts read once."""
        keys = [tuple(prompt.ids) for prompt in prompts]
        distinct = dict(zip(keys, prompts, strict=True))
        row_of = {key: row for row, key in enumerate(distinct)}
        probs = np.empty((len(distinct), 10))
        for rows, logits in self.logits_after(list(distinct.values()), self.tree, progress=progress):
            probs[rows] = self.tree.answers(logits).probs.cpu().double().numpy()
        return probs[[row_of[key] for key in keys]].clip(0, 1)


def _normalized(probs: np.ndarray) -> np.ndarray:
    return probs / np.maximum(probs.sum(axis=1, keepdims=True), 1e-12)


def expected_scores(probs: np.ndarray) -> np.ndarray:
    """Expected digits, given that the answer is a digit, shape (N,), from the probabilities of the digits, (N, 10)."""
    return _normalized(probs) @ np.arange(10)
