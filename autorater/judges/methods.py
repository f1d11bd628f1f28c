"""Judging methods by name: ways to get a probability from one model, all with the interface `PairJudge`.

    verbalized                   the number that greedy decoding writes               Tian et al. 2023 (2305.14975)
    verbalized_reasoning         the same, after reasoning
    self_consistency             the share of N sampled answers that favour a side    Wang et al. 2022 (2203.11171)
    self_consistency_reasoning   the same, each answer after its own reasoning
    letter_logits                the next-token probabilities of the letters A and B
    answer_mean                  the mean of the exact distribution over answers, as in `Judge`
    pointwise                    the difference of two expected scores from 0 to 9, as in `PointwiseJudge`
    linear_probe                 logistic regression on the model's hidden states     `autorater.judges.probe`

To add a method, write a class with `probabilities` and construct it in `judging_method` under a new name of
`autorater.judges.options.METHODS`.
Swap averaging and recalibration are post-processing for every method (`autorater.judges.judgments`).
"""

import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.judges.identity import digest
from autorater.judges.judgments import Judgments, PairJudge
from autorater.judges.local import Judge
from autorater.judges.options import POINTWISE_METHODS, check_methods
from autorater.judges.pointwise import PointwiseJudge
from autorater.judges.probe import LinearProbe
from autorater.metrics.agreement import verdicts
from autorater.models.distribution import AnswerDistribution
from autorater.models.token_tree import TokenTree
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.pointwise import ScoreFormat
from autorater.prompts.tokens import inside_ids

logger = logging.getLogger(__name__)


def judging_method(
    name: str,
    judge: Judge,
    train: Sequence[Pair] = (),
    *,
    n_samples: int = 10,
    max_reasoning_tokens: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> PairJudge:
    """A method applied to a model.

    Args:
        name: One of `METHODS`.
        judge: The model and its prompt format. Its recalibration is not applied, so that methods are comparable.
        train: Labelled pairs that the linear probe is fitted to; other methods do not use them.
        n_samples: Answers per prompt of self-consistency.
        seed: Seed of self-consistency and of the probe's folds.
        max_reasoning_tokens: Maximum reasoning tokens, for a judge whose format has no reasoning; others keep theirs.
        progress: Show a progress bar if something is fitted.

    Raises:
        UserError: If there is no such method, or the model cannot be used with it; the message says why.
    """
    check_methods([name])
    judge = judge.without_recalibration()
    if judge.is_pointwise and name not in POINTWISE_METHODS:
        raise UserError("this judge is pointwise: its scores are answer_mean or pointwise")
    if name == "pointwise" and not judge.is_pointwise:
        return _pointwise(judge)
    if name == "letter_logits":
        return LetterLogits(judge)
    if name in ("answer_mean", "pointwise"):
        return judge
    if name == "linear_probe":
        return LinearProbe.fit_model(judge.model, judge.tokenizer, train, seed, progress=progress)
    reasoning = name.endswith("_reasoning")
    if judge.encoder.format.reasoning != reasoning:
        judge = Judge(
            judge.model,
            judge.tokenizer,
            replace(judge.encoder.format, reasoning=reasoning),
            judge.tree.step,
            max_reasoning_tokens,
            max_batch_tokens=judge.max_batch_tokens,
        )
    return Verbalized(judge) if name.startswith("verbalized") else SelfConsistency(judge, n_samples, seed)


def _pointwise(judge: Judge) -> PointwiseJudge:
    """The model of a pairwise judge with its system prompt, which asks for scores."""
    asked, score_format = judge.encoder.format, ScoreFormat(system_prompt=judge.encoder.format.system_prompt)
    hidden = [name for name in ("criteria", "reference") if getattr(asked, name, None) is not None]
    if hidden:
        logger.warning(
            f"the method pointwise does not show {' and '.join(hidden)} of the judge: prompt template "
            f"{score_format.template} has no {' and '.join(f'{{{name}}}' for name in hidden)}"
        )
    return PointwiseJudge(
        judge.model, judge.tokenizer, max_batch_tokens=judge.max_batch_tokens, prompt_format=score_format
    )


@dataclass(frozen=True)
class Verbalized:
    """The greedily decoded answer, read off the answer tree; off the grid it is invalid and counts as 1/2.

    `judge` has no recalibration; with reasoning, its `n_reasonings` must be 1.
    """

    judge: Judge

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders; errors as in `Judge`."""
        return self.of(self.judge.probabilities(pairs, progress=progress))

    @staticmethod
    def of(judgments: Judgments) -> Judgments:
        """The greedy answers of judgments that have them."""
        greedy = judgments.greedy
        valid = ~np.isnan(greedy)
        answers = np.where(valid, greedy, 0.5)
        return Judgments(answers, answers, np.zeros_like(answers), valid.astype(np.float64), greedy)


class SelfConsistency:
    """The share of N sampled answers that favour the response shown second; 1/2 if none parses.

        p = (#{answers > 1/2} + #{answers = 1/2} / 2) / #{answers that parse}

    Without reasoning the answers are drawn from the exact distribution; with it, each after its own reasoning. Wang et
    al. sample letters instead of numbers. The seed leaves torch's global random state unchanged.
    """

    def __init__(self, judge: Judge, n_samples: int = 10, seed: int = 0):
        least = 2 if judge.encoder.format.reasoning else 1  # a judge does not sample a single reasoning
        if n_samples < least:
            raise UserError(f"n_samples is {n_samples}; expected at least {least}")
        self.judge, self.n_samples, self.seed = copy(judge), n_samples, seed
        self.judge.n_reasonings = n_samples

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders; errors as in `Judge`."""
        encoded = self.judge.encoder.encode(pairs)
        self.judge.check_lengths(encoded)
        prompts = [prompt for orders in encoded for prompt in orders]
        samples = np.empty((len(prompts), self.n_samples))
        seed = self.seed
        if self.judge.encoder.format.reasoning:  # an evaluation has many small parts, each with its own draws
            seed = int(digest((seed, [prompt.ids for prompt in prompts]))[:15], 16)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for rows, distributions in self.judge.read(prompts, progress=progress):
                count = self.n_samples // len(distributions)  # all from one distribution, or one from each
                drawn = torch.cat([_sample(answers, count) for answers in distributions], dim=1)
                samples[rows] = drawn.cpu().double().numpy()
        return vote_shares(samples.reshape(len(pairs), 2, self.n_samples))


def _sample(answers: AnswerDistribution, count: int) -> torch.Tensor:
    """Sampled answers for B prompts, (B, count); NaN outside the grid."""
    weights = torch.cat([answers.probs, answers.outside[:, None]], dim=1)
    values = torch.cat([answers.values, answers.values.new_tensor([torch.nan])])
    return values[weights.multinomial(count, replacement=True)]


def vote_shares(samples: np.ndarray) -> Judgments:
    """Judgments from sampled answers in [0, 1], NaN if unparsed, shape (N, 2, n_samples).

    Mean and mode are the share of votes, the spread is the standard deviation of a vote, valid the share that parses.
    """
    parsed = ~np.isnan(samples)
    votes = np.where(parsed, (1 + verdicts(np.where(parsed, samples, 0.5))) / 2, 0.0)
    count = parsed.sum(axis=2)
    share = np.where(count > 0, votes.sum(axis=2) / np.maximum(count, 1), 0.5)
    squares = (parsed * (votes - share[:, :, None]) ** 2).sum(axis=2)
    return Judgments(share, share, np.sqrt(squares / np.maximum(count, 1)), parsed.mean(axis=2))


class LetterLogits:
    """The probability of the letter B against A as the next token, one forward pass per prompt.

        p = π(B) / (π(A) + π(B)),   π(A) summed over "A" and " A"

    The validity of an answer is π(A) + π(B). The judge's reasoning and recalibration are not used. A `UserError` if
    its tokenizer splits a letter into several tokens.
    """

    def __init__(self, judge: Judge):
        self.judge = judge
        letter_format = replace(judge.encoder.format, reasoning=False, answer="letter")
        self.encoder = PromptEncoder(judge.tokenizer, letter_format)
        self._letters = [_letter_tokens(judge.tokenizer, letter) for letter in "AB"]

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders; the mode is 0 for A, 1 for B. Errors as in `Judge`."""
        encoded = self.encoder.encode(pairs)
        self.judge.check_lengths(encoded)
        prompts = [prompt for orders in encoded for prompt in orders]
        tree = TokenTree([[token] for tokens in self._letters for token in tokens])
        masses = np.empty((len(prompts), 2))  # π(A) and π(B)
        for rows, logits in self.judge.logits_after(prompts, tree, progress=progress):
            of_a, of_b = tree.log_probs(logits).exp().split([len(tokens) for tokens in self._letters], dim=1)
            masses[rows] = torch.stack([of_a.sum(dim=1), of_b.sum(dim=1)], dim=1).cpu().double().numpy()
        valid = masses.sum(axis=1)
        share = np.divide(masses[:, 1], valid, out=np.full_like(valid, 0.5), where=valid > 0)
        mode = np.where(share == 0.5, 0.5, share > 0.5)
        columns = (share, mode, np.sqrt(share * (1 - share)), valid.clip(0, 1))
        return Judgments(*(column.reshape(len(pairs), 2) for column in columns))


def _letter_tokens(tokenizer: PreTrainedTokenizerBase, letter: str) -> list[int]:
    """The tokens of a letter, with and without a space in front of it."""
    encoded = inside_ids(tokenizer, (letter, f" {letter}"))
    tokens = sorted({ids[0] for ids in encoded if len(ids) == 1})
    if not tokens:
        raise UserError(f"this tokenizer splits the letter {letter} into several tokens; expected one token")
    return tokens
