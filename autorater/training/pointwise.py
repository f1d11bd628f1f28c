"""Pointwise judges trained on single pairwise votes, through exact sums over the digits of both responses, or samples.

    S(E)   V = v S(σ(scale · (s_B − s_A)), y) + (1 − v) S_invalid                       objective: score_of_mean
    E[S]   V = Σ_d Σ_e π_A(d) π_B(e) S(σ(scale · (e − d)), y) + (1 − v) S_invalid       objective: expected_score

with s = E[d | valid] and v = v_A v_B the probability that both answers are digits: mass elsewhere is rewarded as the
worst answer. The judge answers by the difference of the expected scores, so S(E) is the default. E[S] is the expected
reward of two independent, sampled scores, and constrains single digits too. With `answers: sampled` it is estimated as
in GRPO, from `num_generations` scores of each response, drawn from the exact digits: nothing is generated.

    loss = − Σ over votes of V / (mean number of votes in a batch)  −  entropy_coef · mean over responses of H(π)

Every vote has the same weight, whatever batch it is in. A batch reads each of its responses once
(`autorater.training.vote_batches`, `autorater.models.packing`).

Hooks of TRL that are overridden: `get_train_dataloader`, for the batches; `_prepare_inputs`, since nothing is
generated; `_compute_loss`. Deliberately left out: a reference model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from autorater.data.messages import plain_text
from autorater.data.pairs import Pair
from autorater.judges.pointwise import DigitTree
from autorater.metrics.validation import LEAST_VALID
from autorater.models.distribution import AnswerDistribution
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.base_trainer import JudgeTrainer
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact_loss import WeightedReward
from autorater.training.faults import check_lengths
from autorater.training.vote_batches import VoteBatches, VoteGraph


@dataclass(frozen=True)
class PointwiseLoss:
    """The reward of votes; see the module's formulas.

    Args:
        reward: The reward of a probability.
        scale: Factor on the difference of two scores.
        of_mean: S(E) in place of E[S].
    """

    reward: WeightedReward
    scale: float = 1.0
    of_mean: bool = True

    def value(
        self, answers: AnswerDistribution, a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """V of every vote, differentiable, shape (P,).

        Args:
            answers: Digits after N responses.
            a, b: Indices of the two responses of every vote, shape (P,) each.
            labels: Pr[B preferred], shape (P,).
        """
        valid, invalid = self._unparsed(answers, a, b, labels)
        if self.of_mean:
            p = (self.scale * (answers.mean[b] - answers.mean[a])).sigmoid()
            return valid * self.reward.of_mean(p, labels) + invalid
        joint = answers.probs[a][:, :, None] * answers.probs[b][:, None, :]  # (P, 10, 10)
        return (joint.flatten(1) * self.rewards_of_digits(answers, labels)).sum(dim=1) + invalid

    def rewards_of_digits(self, answers: AnswerDistribution, labels: torch.Tensor) -> torch.Tensor:
        """The reward of every two scores, 10 · A's + B's, shape (P, 100)."""
        of_digits = (self.scale * (answers.values[None, :] - answers.values[:, None])).sigmoid()
        return self.reward.of_grid(of_digits.flatten(), labels)

    def parsed(
        self, value: torch.Tensor, answers: AnswerDistribution, a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The expected reward where both scores are digits, shape (P,), from the `value` of all."""
        valid, invalid = self._unparsed(answers, a, b, labels)
        return (value - invalid) / valid.clamp_min(LEAST_VALID)

    def _unparsed(
        self, answers: AnswerDistribution, a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The probability that both scores are digits, and what the rest is rewarded with; shape (P,) each."""
        valid = answers.valid[a] * answers.valid[b]
        return valid, (1 - valid).clamp_min(0) * self.reward.of_invalid(labels)


@dataclass(frozen=True)
class SampledPointwiseLoss(PointwiseLoss):
    """E[S] by samples: for every vote G pairs of scores with rewards r_g, and the gradient of GRPO,

        1/G Σ_g (r_g − mean of r) ∇ (log π_A(d_g) + log π_B(e_g)),

    whose expectation is (G − 1)/G of the exact one, because a reward is part of its own baseline.

    Args:
        n_samples: G, at least 2.
        divided: Divide by the deviation of the G rewards, as in TRL.
    """

    n_samples: int = 8
    divided: bool = False

    def value(
        self, answers: AnswerDistribution, a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The mean reward of every vote's samples, shape (P,), with that gradient; arguments as in `PointwiseLoss`."""
        probs = torch.cat([answers.probs, answers.outside[:, None]], dim=1)  # (N, 11), the last one: no digit
        drawn = torch.multinomial(probs.detach().float(), self.n_samples, replacement=True)  # (N, G)
        log_probs = probs.clamp_min(1e-30).log().gather(1, drawn)
        d, e = drawn[a], drawn[b]  # (P, G)
        of_digits = self.rewards_of_digits(answers, labels).gather(1, (d * 10 + e).clamp(max=99))
        rewards = torch.where((d < 10) & (e < 10), of_digits, self.reward.of_invalid(labels)[:, None]).to(probs.dtype)
        mean = rewards.mean(dim=1)
        advantages = rewards - mean[:, None]
        if self.divided:
            advantages = advantages / (rewards.std(dim=1, keepdim=True) + 1e-4)
        surrogate = (advantages * (log_probs[a] + log_probs[b])).mean(dim=1)
        return mean + surrogate - surrogate.detach()

    def parsed(
        self, value: torch.Tensor, answers: AnswerDistribution, a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """As in `PointwiseLoss`, from all digits in place of the samples."""
        return super().parsed(super().value(answers, a, b, labels), answers, a, b, labels)


class PointwiseTrainer(JudgeTrainer):
    """Trains a pointwise judge on rows of `vote_rows`.

    Args:
        answer_tree: The digits for this tokenizer's prompts.
        graph: Responses and votes; vote i is row i of `train_dataset`.
        model, reward_funcs, args, kwargs: As in `JudgeTrainer`.
    """

    def __init__(self, model, reward_funcs, args: JudgeGRPOConfig, answer_tree: DigitTree, graph: VoteGraph, **kwargs):
        args.router_aux_loss_coef = 0.0  # by default TRL takes that of the model
        super().__init__(model, reward_funcs, args, answer_tree, **kwargs)
        self._check_scores_grid()
        self.graph = graph
        check_lengths(self.model, graph.prompts, answer_tree.depth, "the prompt of a response")
        reward = WeightedReward(self.reward_funcs, self.reward_weights.tolist())
        common = reward, args.score_scale, args.rewards_mean
        sampled, divided = args.answers == "sampled", args.scale_rewards == "group"
        self.loss = SampledPointwiseLoss(*common, args.num_generations, divided) if sampled else PointwiseLoss(*common)
        self.batches = VoteBatches(graph, args.batch_tokens, args.world_size, args.seed)
        self.accelerator.even_batches = False  # the batches are a multiple of the processes

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=list)
        return self.accelerator.prepare(loader)

    def _prepare_inputs(self, rows: list[dict]) -> list[dict]:
        return rows

    def _compute_loss(self, model, rows: list[dict]) -> torch.Tensor:
        nodes = sorted({row[side] for row in rows for side in ("a", "b")})
        index = {node: i for i, node in enumerate(nodes)}
        device = self.accelerator.device
        a, b = (torch.tensor([index[row[side]] for row in rows], device=device) for side in ("a", "b"))
        with self.accelerator.autocast():
            answers = self.answer_tree.distribution(model, [self.graph.prompts[node] for node in nodes])
        labels = self._labels(rows)
        value = self.loss.value(answers, a, b, labels)
        entropy = answers.entropy.mean()
        mean_votes = len(self.train_dataset) / len(self.batches)
        loss = -value.sum() / mean_votes - self.entropy_coef * entropy
        tokens = self.graph.tokens(nodes)
        self._log(
            {
                "reward": value.mean(),
                "entropy": entropy,
                "answers/parse_rate": answers.valid.mean(),
                "answers/parsed_reward": self.loss.parsed(value, answers, a, b, labels).mean(),
                "answers/spread": answers.spread.mean(),
                "scores/mean": answers.mean.mean(),
                "scores/deviation": answers.mean.std(correction=0),
                "batch/votes": len(rows),
                "batch/responses": len(nodes),
            },
            tokens,
        )
        return loss / self.accumulation_steps

    def _log(self, values: dict[str, torch.Tensor | float], tokens: int) -> None:
        device = self.accelerator.device
        row = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=device).detach() for v in values.values()])
        metrics = self._metrics[self.phase]
        for name, value in zip(values, self.accelerator.gather(row[None]).mean(dim=0).tolist(), strict=True):
            metrics[name].append(value)
        if self.phase == "train":
            self.state.num_input_tokens_seen += int(self.accelerator.gather(torch.tensor(tokens, device=device)).sum())
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        self._count_unparsed()


def vote_rows(
    pairs: Sequence[Pair], prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]]
) -> tuple[Dataset, VoteGraph]:
    """Rows of V votes, the two responses as indices, and the graph of all; `prompts` of a `ScoreEncoder`."""
    names = [plain_text(pair.prompt) for pair in pairs]
    graph = VoteGraph.of(names, [(a.ids, b.ids) for a, b in prompts])
    a, b = np.array(graph.votes).T
    return Dataset.from_dict({"a": a, "b": b, "label": [pair.label for pair in pairs]}), graph
