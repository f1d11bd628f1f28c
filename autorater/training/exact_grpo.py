"""GRPO with exact answers: nothing is generated, the loss sums over all answers (`autorater.training.exact_loss`).

Hooks of TRL that are overridden: `_generate_and_score_completions` returns prompts and labels instead of completions;
`_compute_loss` computes the exact loss.
"""

import torch
from accelerate.utils import gather_object
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from autorater.models.answers import AnswerTree
from autorater.prompts.batching import pad_prompts
from autorater.training.base_trainer import JudgeTrainer, swapped
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact_loss import ExactLoss, WeightedReward


class ExactGRPOTrainer(JudgeTrainer):
    """`JudgeTrainer` for judges that answer without reasoning; arguments as there."""

    def __init__(self, model, reward_funcs, args: JudgeGRPOConfig, answer_tree: AnswerTree | None = None, **kwargs):
        args.router_aux_loss_coef = 0.0  # by default TRL takes that of the model
        super().__init__(model, reward_funcs, args, answer_tree, **kwargs)
        self._check_scores_grid()
        self.num_generations = 1  # the sampler repeats no row
        self.loss = ExactLoss(
            WeightedReward(self.reward_funcs, self.reward_weights.tolist()),
            coupled=args.orders == "coupled",
            of_mean=args.rewards_mean,
            entropy_coef=self.entropy_coef,
            beta=self.beta,
            symmetry_coef=args.symmetry_coef,
            scale_by_deviation=self.scale_rewards == "group",
        )

    @property
    def suffix_length(self) -> int:
        return 0 if self.answer_tree is None else self.answer_tree.longest

    def _generate_and_score_completions(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Prompts and labels of P rows in O orders.

        Returns:
            `prompt_ids`, `prompt_mask` (P, O, L), `labels` (P, O) and, with `beta`, `reference_probs` (P, O, K). TRL
            shuffles and splits along the first dimension, so the orders of a pair stay together.
        """
        sides = [[row, swapped(row)] if self.loss.coupled else [row] for row in rows]
        orders, flat = len(sides[0]), [side for both in sides for side in both]
        prompt_ids, prompt_mask = pad_prompts(
            [side["prompt_ids"] for side in flat], self._tokenizer.pad_token_id, self.accelerator.device
        )
        batch = {"prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "labels": self._labels(flat)}
        if self.beta:
            batch["reference_probs"] = self._reference_probs(prompt_ids, prompt_mask)
        if self.phase == "train":
            self.state.num_input_tokens_seen += self.accelerator.gather(prompt_mask.sum()).sum().item()
        self._metrics[self.phase]["num_tokens"] = [self.state.num_input_tokens_seen]
        batch = {name: tensor.unflatten(0, (-1, orders)) for name, tensor in batch.items()}
        # TRL shuffles lists of sequences too
        return batch | {"prompts": [[side["prompt"] for side in both] for both in sides]}

    def _reference_probs(self, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
        rows = self.args.per_device_train_batch_size * (2 if self.loss.coupled else 1)  # of a micro-batch

        def probs(model: torch.nn.Module) -> torch.Tensor:
            parts = zip(prompt_ids.split(rows), prompt_mask.split(rows), strict=True)
            return torch.cat([self.answer_tree.distribution(model, *_without_padding(*part)).probs for part in parts])

        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            if self.ref_model is not None:
                return probs(self.ref_model)
            model = self.accelerator.unwrap_model(self.model)
            with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
                return probs(self.model)

    def _compute_loss(self, model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        prompts = [prompt for both in inputs["prompts"] for prompt in both]
        inputs = {name: value.flatten(0, 1) for name, value in inputs.items() if name != "prompts"}
        ids, mask = _without_padding(inputs["prompt_ids"], inputs["prompt_mask"])
        closing = self.loss.closing(self.answer_tree, self.state.global_step)
        with self.accelerator.autocast():
            answers = self.answer_tree.distribution(model, ids, mask, closing)
        loss, log = self.loss(answers, inputs["labels"], inputs.get("reference_probs"))
        logged, modes = self._log_distributions(answers, log)
        if self.log_completions:
            self._logs["prompt"].extend(gather_object(prompts))
            self._logs["extra"]["label"].extend(self.accelerator.gather(inputs["labels"]).tolist())
            self._logs["completion"].extend(f"{m:.4g}" for m in modes)
            self._logs["rewards"]["expected"].extend(logged["reward"].tolist())
            self._logs["advantages"].extend([0.0] * len(modes))
        return loss / self.accumulation_steps


def _without_padding(prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Part of a left-padded batch without the padding that only longer prompts elsewhere need."""
    longest = prompt_mask.sum(dim=1).max()
    return prompt_ids[:, -longest:], prompt_mask[:, -longest:]
