"""GRPO for judges: `trl.GRPOTrainer` with exact answers, both orders of a pair in one group, and shared prompts.

A row of the training data is a pair with its prompt in both orders (`training_rows`). From there

- `answers="exact"`: nothing is generated; the loss sums over all answers (`autorater.training.exact`).
- `answers="sampled"`: TRL's GRPO. With `orders="coupled"` half of a group's answers read order ab and half order ba
  (label 1 − y), so the two orders share one baseline.

Hooks of TRL that are overridden, and why: `_get_train_sampler` is not, but `num_generations` is 1 where nothing is
generated; `_generate_and_score_completions` sets the order of every row, keeps groups together through TRL's shuffle, or
skips generation; `_tokenize_prompts` returns the ids that were made when the data was read, because TRL's own
tokenization lets a response speak in control tokens; `_compute_loss` sums exactly.

Deliberately left out: TRL's evaluation loop, which generates; judges are measured by `CalibrationCallback`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from autorater.answers import AnswerDistribution, AnswerTree
from autorater.pairs import Pair
from autorater.prompts import EncodedPrompt, pad_prompts
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact import ExactObjective


def training_rows(pairs: Sequence[Pair], prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], orders: str) -> list[dict]:
    """Rows for `datasets.Dataset.from_list`: with `coupled` orders one a pair, with `separate` orders one a prompt."""
    rows = []
    for pair, both in zip(pairs, prompts, strict=True):
        sides = [
            {"prompt": prompt.text, "prompt_ids": prompt.ids, "label": label}
            for prompt, label in zip(both, (pair.label, 1 - pair.label), strict=True)
        ]
        if orders == "coupled":
            ab, ba = sides
            rows.append({**ab, "swapped_prompt": ba["prompt"], "swapped_prompt_ids": ba["prompt_ids"]})
        else:
            rows.extend(sides)
    return rows


class JudgeGRPOTrainer(GRPOTrainer):
    """Trains a judge on rows of `training_rows`.

    Args:
        answer_tree: The answers behind this tokenizer's prompts; needed where answers are exact.
        reward_funcs: With exact answers, rewards of `rewards/` (they can score a whole grid); else any reward of TRL.
        kwargs: Everything else as in `trl.GRPOTrainer`.
    """

    _tag_names = ["trl", "grpo", "autorater"]

    def __init__(self, model, reward_funcs, args: JudgeGRPOConfig, answer_tree: AnswerTree | None = None, **kwargs):
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **kwargs)
        self.answer_tree = answer_tree
        self.exact = args.answers == "exact"
        self._prompt_ids: list[list[int]] = []
        if self.exact:
            self._check_exact(args)
            self.num_generations = 1  # the sampler repeats no row
            self.objective = ExactObjective(
                coupled=args.orders == "coupled",
                entropy_coef=self.entropy_coef,
                beta=self.beta,
                symmetry_coef=args.symmetry_coef,
                scale_by_deviation=self.scale_rewards == "group",
            )

    def _check_exact(self, args: JudgeGRPOConfig) -> None:
        if self.answer_tree is None:
            raise ValueError("answers: exact needs an answer_tree")
        for reward in self.reward_funcs:
            if not hasattr(reward, "score"):
                name = getattr(reward, "__name__", reward)
                raise ValueError(f"answers: exact needs rewards that score a grid (score, invalid_score); {name} does not")
        refused = {
            "use_vllm": args.use_vllm,
            "use_adaptive_entropy": args.use_adaptive_entropy,
            "scale_rewards: batch": args.scale_rewards == "batch",
            "top_entropy_quantile": args.top_entropy_quantile < 1,
        }
        for name, is_set in refused.items():
            if is_set:
                raise ValueError(f"{name} has no meaning with answers: exact, where nothing is sampled")

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        if self.exact:
            return self._score_all_answers(inputs)
        if self.args.orders == "coupled":
            # A group may be spread over processes, so its halves are counted from the global position.
            offset = self.accelerator.process_index * len(inputs)
            half = self.num_generations // 2
            inputs = [_swap(row) if (offset + i) % self.num_generations >= half else row for i, row in enumerate(inputs)]
        self._prompt_ids = [row["prompt_ids"] for row in inputs]
        return super()._generate_and_score_completions(inputs)

    def _tokenize_prompts(self, prompts: list):
        return self._prompt_ids, None, {}

    def _compute_loss(self, model, inputs):
        return self._compute_exact_loss(model, inputs) if self.exact else super()._compute_loss(model, inputs)

    def _score_all_answers(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Instead of completions and their advantages: prompts and the reward of every answer, one row a pair.

        Returns:
            `prompt_ids`, `prompt_mask` (P, O, L), `scores` (P, O, K), `invalid_scores` (P, O) and, with `beta`,
            `reference_probs` (P, O, K), for P rows in O orders. TRL shuffles and splits along the first dimension, so
            the orders of a pair stay together.
        """
        device, mode = self.accelerator.device, "train" if self.model.training else "eval"
        sides = [[row, _swap(row)] if self.objective.coupled else [row] for row in rows]
        orders, flat = len(sides[0]), [side for both in sides for side in both]
        ids = [side["prompt_ids"] for side in flat]
        prompt_ids, prompt_mask = pad_prompts(ids, self._tokenizer.pad_token_id, device)

        labels = np.array([side["label"] for side in flat])
        values, weights = self.answer_tree.values, self.reward_weights.tolist()
        scores = sum(w * r.score(values[None], labels[:, None]) for w, r in zip(weights, self.reward_funcs, strict=True))
        invalid = sum(w * r.invalid_score(labels) for w, r in zip(weights, self.reward_funcs, strict=True))
        batch = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "scores": torch.as_tensor(scores, dtype=torch.float32, device=device),
            "invalid_scores": torch.as_tensor(np.broadcast_to(invalid, labels.shape).copy(), dtype=torch.float32, device=device),
        }
        if self.beta:
            batch["reference_probs"] = self._reference_probs(prompt_ids, prompt_mask)

        if mode == "train":
            self.state.num_input_tokens_seen += self.accelerator.gather(prompt_mask.sum()).sum().item()
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]
        batch = {name: tensor.unflatten(0, (-1, orders)) for name, tensor in batch.items()}
        # lists of sequences follow TRL's shuffle too
        return batch | {"sides": [[(side["prompt"], side["label"]) for side in both] for both in sides]}

    def _reference_probs(self, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            if self.ref_model is not None:
                return self.answer_tree.distribution(self.ref_model, prompt_ids, prompt_mask).probs
            model = self.accelerator.unwrap_model(self.model)
            with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
                return self.answer_tree.distribution(self.model, prompt_ids, prompt_mask).probs

    def _compute_exact_loss(self, model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        mode = "train" if self.model.training else "eval"
        sides = [side for both in inputs["sides"] for side in both]
        inputs = {name: value.flatten(0, 1) for name, value in inputs.items() if name != "sides"}
        longest = inputs["prompt_mask"].sum(dim=1).max()  # TRL's split leaves padding of longer prompts elsewhere
        with self.accelerator.autocast():
            answers = self.answer_tree.distribution(
                model, inputs["prompt_ids"][:, -longest:], inputs["prompt_mask"][:, -longest:]
            )
        loss, log = self.objective(
            answers, inputs["scores"], inputs["invalid_scores"], inputs.get("reference_probs")
        )
        self._log_answers(mode, sides, answers, log)
        return loss / (self.current_gradient_accumulation_steps if mode == "train" else 1)

    def _log_answers(
        self, mode: str, sides: list[tuple[str, float]], answers: AnswerDistribution, log: dict[str, torch.Tensor]
    ) -> None:
        gathered = {name: self.accelerator.gather(values) for name, values in log.items()}
        for name, values in gathered.items():
            self._metrics[mode][name].append(values.float().mean().item())
        modes, probs = self.accelerator.gather((answers.mode.detach(), answers.probs.detach()))
        self._metrics[mode]["answers/distinct"].append(len(modes.unique()))
        self._metrics[mode]["answers/share_at_0"].append(probs[:, 0].mean().item())
        self._metrics[mode]["answers/share_at_1"].append(probs[:, -1].mean().item())
        if not self.log_completions:
            return
        prompts, labels = zip(*gather_object(sides), strict=True)
        self._logs["prompt"].extend(prompts)
        self._logs["extra"]["label"].extend(labels)
        self._logs["completion"].extend(f"{m:.4g}" for m in modes.tolist())
        self._logs["rewards"]["expected"].extend(gathered["reward"].tolist())
        self._logs["advantages"].extend([0.0] * len(modes))


def _swap(row: dict) -> dict:
    return {
        **row,
        "prompt": row["swapped_prompt"],
        "prompt_ids": row["swapped_prompt_ids"],
        "label": 1 - row["label"],
    }
