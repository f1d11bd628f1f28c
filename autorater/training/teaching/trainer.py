"""Supervised training on a teacher's probabilities, in batches of a few texts with many pairs among them.

One forward pass of a pointwise judge over K texts has K (K − 1) / 2 targets. A pairwise judge reads every pair in both
orders, as a tree in which prompts with the same response A share it (`autorater.models.packing`): four texts make
twelve prompts with four beginnings; where prompts have two responses, six pairs. Texts are drawn in turn, each once an
epoch; a teacher of single pairs decides the pairs (`autorater.training.vote_batches`).

The batches of all steps are drawn in advance from the seed, so a resumed training takes the same ones, and the
processes divide them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import torch
from datasets import Dataset
from scipy.special import expit, logit
from transformers import Trainer, TrainingArguments

import rewards
from autorater.data.errors import UserError
from autorater.judges import Judge
from autorater.judges.pointwise import PointwiseJudge
from autorater.metrics.clusters import rows_by_number
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.checkpointing.resumable import ResumableTrainer
from autorater.training.exact_loss import WeightedReward
from autorater.training.pointwise import PointwiseLoss
from autorater.training.teaching.loss import TargetLoss
from autorater.training.teaching.teachers import PairTeacher, Teacher
from autorater.training.teaching.texts import TrainingTexts
from autorater.training.vote_batches import VoteBatches, VoteGraph

_KL = WeightedReward([rewards.kl_reward], [1.0])


def teaching_rows(
    texts: TrainingTexts,
    teacher: Teacher,
    sizes: Sequence[int],
    budget: int,
    n_rows: int,
    seed: int,
    pairs_a_row: int | None = None,
    fits: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    sharpness: float = 1.0,
) -> Dataset:
    """Rows of pairs of texts: the lists `a`, `b` and `target`, and the share of `symmetry_coef`, `symmetry`.

    Args:
        sizes: What every text costs, shape (T,).
        budget: What the texts of a cluster may cost together; two texts may cost more.
        n_rows: Rows to draw.
        seed: Seed of all draws.
        pairs_a_row: Small clusters share a row of at most so many pairs; by default of texts within the budget.
        fits: Whether a prompt of two texts fits; pairs that do not are left out.
        sharpness: Factor on the logits of the targets in the first quarter of the rows; it falls to 1 by half of them.
            If it is not 1, `symmetry` is 0 in the first quarter and rises to 1 as the factor falls: the same answer to
            every pair has no position bias, so the term would keep a judge from leaving it.

    Raises:
        UserError: If the teacher has no pair that fits.
    """
    if isinstance(teacher, PairTeacher):
        known = list(teacher.known)
        graph = VoteGraph([[]] * len(texts), texts.group, sizes, [0] * len(texts.examples), known)
        batches = VoteBatches(graph, budget, seed=seed)
        epochs = ([[known[i] for i in batch] for batch in batches] for _ in range(n_rows))
    else:
        random = Random(f"teaching/{seed}")
        epochs = (_clusters(texts.group, sizes, budget, random) for _ in range(n_rows))
    rows: list[dict] = []
    while len(rows) < n_rows:
        before = len(rows)
        for pairs in _merged(next(epochs), sizes, budget, pairs_a_row):
            a, b = np.array(pairs).T
            target = teacher.between(a, b)
            usable = ~np.isnan(target) & (True if fits is None else fits(a, b))
            if usable.any():
                sharpened = min(1.0, max(0.0, 2 - 4 * len(rows) / n_rows)) if sharpness != 1 else 0.0
                targets = expit((1 + (sharpness - 1) * sharpened) * logit(target[usable]))
                rows.append({"a": a[usable], "b": b[usable], "target": targets, "symmetry": 1 - sharpened})
        if len(rows) == before:
            raise UserError("warm_start_verdicts: the teacher has no probability of a pair of texts that fits")
    return Dataset.from_list(rows[:n_rows])


def _clusters(group: np.ndarray, sizes: Sequence[int], budget: int, random: Random) -> list[list[tuple[int, int]]]:
    """All pairs among few texts of a group at a time; every text is in one cluster, or alone and left out."""
    clusters: list[list[int]] = []
    for members in map(np.ndarray.tolist, rows_by_number(group)):
        random.shuffle(members)
        cluster: list[int] = []
        for text in members:
            if len(cluster) > 1 and sum(sizes[t] for t in cluster) + sizes[text] > budget:
                clusters.append(cluster)
                cluster = []
            cluster.append(text)
        clusters.append(cluster)
    random.shuffle(clusters)
    return [list(combinations(cluster, 2)) for cluster in clusters if len(cluster) > 1]


def _merged(
    clusters: Iterable[list[tuple[int, int]]], sizes: Sequence[int], budget: int, pairs_a_row: int | None
) -> Iterator[list[tuple[int, int]]]:
    """Joins consecutive clusters of pairs as long as their pairs or their texts are not too many."""
    row: list[tuple[int, int]] = []
    for cluster in clusters:
        joined = row + cluster
        cost = len(joined) if pairs_a_row else sum(sizes[text] for text in {text for pair in joined for text in pair})
        if row and cost > (pairs_a_row or budget):
            yield row
            joined = cluster
        row = joined
    yield row


class TeachingTrainer(ResumableTrainer, Trainer):
    """Trains a judge on rows of `teaching_rows`, one row a micro-batch.

    Args:
        judge: A local judge; its model is trained.
        texts: The texts that the rows are about.
        rows: Rows of all steps.
        args: Options; `per_device_train_batch_size` is 1.
        symmetry_coef: As in `ExactLoss`, for a pairwise judge.
        entropy_coef: Weight of the entropy of the scores of a pointwise judge.
    """

    def __init__(
        self,
        judge: Judge,
        texts: TrainingTexts,
        rows: Dataset,
        args: TrainingArguments,
        symmetry_coef: float = 0.0,
        entropy_coef: float = 0.0,
    ):
        super().__init__(judge.model, args=args, train_dataset=rows, data_collator=_collate)
        self.judge, self.texts, self.entropy_coef = judge, texts, entropy_coef
        self.loss = TargetLoss(_KL, symmetry_coef=symmetry_coef)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        sides = zip(inputs["a"].tolist(), inputs["b"].tolist(), strict=True)
        prompts = self.judge.encoder.encode([self.texts.pair(a, b) for a, b in sides])
        of_pairs = self._by_scores if isinstance(self.judge, PointwiseJudge) else self._in_words
        return self.finite(of_pairs(model, prompts, inputs))

    def _in_words(self, model, prompts: list[tuple[EncodedPrompt, EncodedPrompt]], row: dict) -> torch.Tensor:
        q = row["target"]
        closing = self.loss.closing(self.judge.tree, self.state.global_step)
        flat = [prompt.ids for both in prompts for prompt in both]
        answers = self.judge.tree.distribution(model, *pad_prompts(flat, 0, q.device), closing)
        loss = replace(self.loss, symmetry_coef=row["symmetry"] * self.loss.symmetry_coef)
        return loss(answers, torch.stack([q, 1 - q], dim=1).flatten())[0]

    def _by_scores(self, model, prompts: list[tuple[EncodedPrompt, EncodedPrompt]], row: dict) -> torch.Tensor:
        q = row["target"]
        place: dict[tuple[int, ...], int] = {}
        sides = [[place.setdefault(tuple(prompt.ids), len(place)) for prompt in both] for both in prompts]
        answers = self.judge.tree.distribution(model, list(map(list, place)))
        a, b = torch.tensor(sides, device=q.device).T
        divergence = -PointwiseLoss(_KL, self.judge.scale).value(answers, a, b, q).mean()
        return divergence - self.entropy_coef * answers.entropy.mean()


def _collate(rows: list[dict]) -> dict[str, torch.Tensor | float]:
    (row,) = rows
    target = torch.tensor(row["target"], dtype=torch.float32)
    return row | {"a": torch.tensor(row["a"]), "b": torch.tensor(row["b"]), "target": target}
