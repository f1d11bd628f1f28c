"""Distribution alignment (arXiv 2505.12301): a judge's distribution over labels is trained towards the annotators'.

    loss = mean over items of  α KL(p ‖ q) + (1 − α) CE(majority, q),     α = 0.8

q is the model's distribution over the labels (`autorater.alignment.labels`). p are the shares p̂ of the votes or, with
the adversary, the worst distribution near them (`autorater.alignment.adversary`). CE(majority, q) is −log q of the
label with most votes, the mean over tied labels. The mixture is the paper's: KL fits the distribution, and a little CE
steadies the training. CE also pulls q towards the majority: with enough items the optimum of α = 1 is the true
distribution, and that of α < 1 is not.

Ablations: `adversary` (p = p̂), `kl` (CE alone: single-point alignment, without an adversary), `ce` (α = 1).

Deliberately left out: a term for the mass outside the labels. The mass of the labels is logged (`mass`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import Trainer, TrainingArguments

from autorater.alignment.adversary import worst_case
from autorater.alignment.labels import LabelTree
from autorater.data.errors import UserError
from autorater.data.items import ItemSet
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.checkpointing.resumable import ResumableTrainer
from autorater.training.compatibility import ALIGNMENT, check_compatible
from autorater.training.config import RunConfig, check_values, option
from autorater.training.faults import check_lengths

TERMS = ("adversary", "kl", "ce")


@dataclass
class AlignmentConfig(RunConfig, TrainingArguments):
    """`TrainingArguments` with the objective of distribution alignment."""

    alpha: float = option(0.8, "Weight of the KL; 1 − alpha is the weight of the CE.")
    radius: float = option(0.1, "L2 radius within which the adversary moves the shares.")
    adversary_steps: int = option(5, "Projected gradient steps of the adversary.")
    adversary_step_size: float = option(0.05, "Size of its steps.")
    ablate: list[str] | None = option(  # noqa: RUF009
        None, "Terms to leave out: adversary, kl, ce; without kl there is no adversary."
    )

    def __post_init__(self):
        check_values(self)
        check_compatible(self, ALIGNMENT)
        ablated = set(self.ablate or [])
        if unknown := sorted(ablated - set(TERMS)):
            raise UserError(f"ablate must be some of {', '.join(TERMS)}; got {unknown[0]!r}")
        if {"kl", "ce"} <= ablated:
            raise UserError("ablate: without kl and ce there is no loss")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha must be in [0, 1], got {self.alpha}")
        if self.radius < 0 or self.adversary_step_size < 0 or self.adversary_steps < 0:
            raise UserError("radius, adversary_steps and adversary_step_size must be >= 0")
        super().__post_init__()

    def objective(self) -> Callable:
        """`alignment_loss` without the ablated terms, of `log_q` and `shares`."""
        ablated = set(self.ablate or [])
        alpha = 0.0 if "kl" in ablated else 1.0 if "ce" in ablated else self.alpha
        radius = 0.0 if "adversary" in ablated or not alpha else self.radius
        steps, step_size = self.adversary_steps, self.adversary_step_size
        return partial(alignment_loss, alpha=alpha, radius=radius, steps=steps, step_size=step_size)


def alignment_loss(
    log_q: torch.Tensor,
    shares: torch.Tensor,
    alpha: float = 0.8,
    radius: float = 0.0,
    steps: int = 5,
    step_size: float = 0.05,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of the module's formula (a scalar) and detached values to log by name, shape (B,) each.

    Args:
        log_q, shares: Logarithms of the model's distributions and shares of the votes, shape (B, K).
        alpha: Weight of the KL, in [0, 1].
        radius: Radius of the adversary's ball; 0 for no adversary.
        steps, step_size: Its steps.
    """
    target = worst_case(shares, log_q.detach(), radius, steps=steps, step_size=step_size) if radius else shares
    at_worst = kl_divergence(target, log_q)
    cross_entropy = -(majority(shares) * log_q).sum(dim=-1)
    loss = alpha * at_worst + (1 - alpha) * cross_entropy
    log = {"kl": kl_divergence(shares, log_q), "kl_at_worst": at_worst, "cross_entropy": cross_entropy}
    return loss.mean(), {name: values.detach() for name, values in log.items()}


def kl_divergence(p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) = Σ_k p_k log(p_k / q_k) in nats, shape (…,); labels without mass in p add nothing."""
    return (torch.special.xlogy(p, p) - p * log_q).sum(dim=-1)


def majority(shares: torch.Tensor) -> torch.Tensor:
    """All mass on the label with most votes, divided equally among tied labels; shape (…, K)."""
    most = (shares == shares.amax(dim=-1, keepdim=True)).to(shares.dtype)
    return most / most.sum(dim=-1, keepdim=True)


def alignment_rows(items: ItemSet, prompts: Sequence[EncodedPrompt]) -> list[dict]:
    """Rows for `datasets.Dataset.from_list`."""
    return [
        {"prompt_ids": prompt.ids, "shares": shares, "length": len(prompt.ids)}
        for prompt, shares in zip(prompts, items.shares.tolist(), strict=True)
    ]


class AlignmentTrainer(ResumableTrainer, Trainer):
    """`transformers.Trainer` on rows of `alignment_rows`, with the loss `alignment_loss`.

    `tree` holds the labels for this tokenizer's prompts, which `pad_token_id` pads.
    """

    def __init__(self, model, args: AlignmentConfig, tree: LabelTree, pad_token_id: int, **kwargs):
        super().__init__(model, args, data_collator=self._collate, **kwargs)
        self.tree, self.pad_token_id, self.objective = tree, pad_token_id, args.objective()
        self.model_accepts_loss_kwargs = False  # the loss is a mean over items: divided by accumulation steps
        self._logged: dict[str, list[float]] = {}
        check_lengths(self.model, self.train_dataset["prompt_ids"], tree.depth, "prompt_ids")

    def _collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        ids, mask = pad_prompts([row["prompt_ids"] for row in rows], self.pad_token_id)
        return {"prompt_ids": ids, "prompt_mask": mask, "shares": torch.tensor([row["shares"] for row in rows])}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        log_mass = self.tree.log_mass(model, inputs["prompt_ids"], inputs["prompt_mask"])
        loss, log = self.objective(log_mass.log_softmax(dim=-1), inputs["shares"])
        for name, values in {**log, "mass": log_mass.detach().exp().sum(dim=-1)}.items():
            self._logged.setdefault(name, []).append(self.accelerator.gather(values).mean().item())
        return self.finite(loss)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training:  # not to an evaluation
            logs |= {name: sum(values) / len(values) for name, values in self._logged.items()}
            self._logged.clear()
        super().log(logs, start_time)
