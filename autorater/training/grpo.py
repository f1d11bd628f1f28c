"""GRPO for judges: `trl.GRPOTrainer` with exact answers, both orders of a pair in one group, and shared prompts.

A row of the training data is a pair with its prompt in both orders (`training_rows`). From there

- `answers="exact"`: nothing is generated; the loss sums over all answers (`autorater.training.exact_loss`).
- `answers="sampled"`: TRL's GRPO. With `orders="coupled"` half of a group's answers read order ab and half order ba
  (label 1 − y), so the two orders share one baseline.
- `answers="exact"` with `reasoning`: TRL samples G reasonings c, the answers behind each are summed. V(c) is the
  reward of a reasoning, its gradient part of the loss: ∇J = E[(V(c) − b) ∇log π(c|x) + ∇V(c)], b the mean of the
  group's other rewards.

Hooks of TRL that are overridden, and why: `_get_train_sampler` groups prompts by length;
`_generate_and_score_completions` sets the order of every row, keeps groups together through TRL's shuffle, or skips
generation; `_tokenize_prompts` returns the ids that were made when the data was read, because TRL's own tokenization
lets a response speak in control tokens; `_generate_single_turn` and `_get_per_token_logps_and_entropies` read a prompt
once for its whole group (`autorater.models.shared_prefix`); `_generate` cuts reasoning where its answer is read and
`_calculate_rewards` reads it; `_compute_loss` sums exactly.

Deliberately left out: TRL's evaluation loop, which generates; judges are measured by `CalibrationCallback`.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from autorater.data.pairs import Pair
from autorater.models.answers import AnswerDistribution, AnswerTree
from autorater.models.sharding import is_sharded
from autorater.models.shared_prefix import check_shared_prefix
from autorater.models.split_attention import supports_shared_prefix
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import EncodedPrompt
from autorater.prompts.reasoning import close_reasoning
from autorater.training.checkpointing.resumable import ResumableTrainer
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact_loss import ExactObjective, WeightedReward
from autorater.training.faults import check_lengths, check_rewards, guarded
from autorater.training.prompt_groups import PromptGroups, one_prefill, repeats_of
from autorater.training.sampling import LengthGroupedRepeatSampler


def training_rows(
    pairs: Sequence[Pair], prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], orders: str
) -> list[dict]:
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


class JudgeGRPOTrainer(ResumableTrainer, GRPOTrainer):
    """Trains a judge on rows of `training_rows`.

    Args:
        answer_tree: The answers behind this tokenizer's prompts; needed where answers are exact.
        reward_funcs: With exact answers, rewards of `rewards/` (they can score a whole grid); else any reward of TRL.
        kwargs: Everything else as in `trl.GRPOTrainer`.
    """

    _tag_names = ("trl", "grpo", "autorater")

    def __init__(
        self,
        model,
        reward_funcs,
        args: JudgeGRPOConfig,
        answer_tree: AnswerTree | None = None,
        **kwargs,
    ):
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **kwargs)
        self.answer_tree, self.unread_batches = answer_tree, 0
        self.exact = args.answers == "exact" and not args.reasoning
        self.reasoned = args.answers == "exact" and args.reasoning
        self._prompt_ids: list[list[int]] = []
        self._in_reasoned_loss = False
        supported, reason = supports_shared_prefix(self.accelerator.unwrap_model(self.model))
        if args.answers == "sampled":
            self.reward_funcs = list(map(guarded, self.reward_funcs, self.reward_func_names))
        self.share_prefix, self._checked = args.shared_prefix and not self.aux_loss_enabled, False
        if self.share_prefix and not supported:
            self._do_not_share(reason)
        if self.exact:
            self.num_generations = 1  # the sampler repeats no row
        if self.reasoned:
            self.beta *= self.max_completion_length  # dr_grpo divides by it, as it does the advantages
        if self.exact or self.reasoned:
            self._check_exact(args)
            self.objective = ExactObjective(
                WeightedReward(self.reward_funcs, self.reward_weights.tolist()),
                coupled=self.exact and args.orders == "coupled",
                of_mean=args.objective == "score_of_mean",
                entropy_coef=self.entropy_coef,
                beta=0.0 if self.reasoned else self.beta,  # behind reasoning TRL's KL acts on the reasoning
                symmetry_coef=args.symmetry_coef,
                closing_coef=args.closing_coef,
                scale_by_deviation=self.scale_rewards == "group",
            )
        self._check_lengths()

    def _check_lengths(self) -> None:
        tree = self.answer_tree
        behind = tree.depth + tree.closing_tokens if self.exact else self.max_completion_length
        for column in ("prompt_ids", "swapped_prompt_ids"):
            if column in self.train_dataset.column_names:
                check_lengths(self.model, self.train_dataset[column], behind, column)

    def _check_exact(self, args: JudgeGRPOConfig) -> None:
        if self.answer_tree is None:
            raise ValueError("answers: exact needs an answer_tree")
        for reward in self.reward_funcs:
            if not hasattr(reward, "score"):
                name = getattr(reward, "__name__", reward)
                raise ValueError(
                    f"answers: exact needs rewards that score a grid (score, invalid_score); {name} does not"
                )

    def _get_train_sampler(self, dataset=None):
        if self.args.train_sampling_strategy != "group_by_length" or not self.shuffle_dataset:
            return super()._get_train_sampler(dataset)
        return LengthGroupedRepeatSampler(
            [len(ids) for ids in self.train_dataset["prompt_ids"]],
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        if self.exact:
            return self._score_all_answers(inputs)
        if self.args.orders == "coupled":
            # A group may be spread over processes, so its halves are counted from the global position.
            offset = self.accelerator.process_index * len(inputs)
            half = self.num_generations // 2
            inputs = [
                _swap(row) if (offset + i) % self.num_generations >= half else row for i, row in enumerate(inputs)
            ]
        self._prompt_ids = [row["prompt_ids"] for row in inputs]
        batch = super()._generate_and_score_completions(inputs)
        if not self.reasoned:
            self._count_unread()
        else:
            batch["labels"] = self._labels(inputs)
            batch["answered"] = self._answered
            # r − mean of the others = (r − mean) G / (G − 1); and ∇log π(c) is a sum, which dr_grpo divides
            group = self.num_generations if self.model.training else self.num_generations_eval
            batch["advantages"] = batch["advantages"] * group / (group - 1) * self.max_completion_length
        return by_group(batch, self._group_size(len(inputs)))

    def _generate(self, prompts: list):
        prompt_ids, completion_ids, own, *rest = super()._generate(prompts)
        if self.reasoned:
            closed = [close_reasoning(self._tokenizer, ids) for ids in completion_ids]
            completion_ids = [reasoning.ids for reasoning in closed]
            # what TRL calls the tool mask: 1 for the model's own tokens, 0 for tokens put there, which are not learned
            own = [[1] * r.written + [0] * (len(r.ids) - r.written) for r in closed]
            completions, logps, *rest = rest
            if logps is not None:  # vLLM's, of what it has written
                logps = [row[: sum(mine)] + [0.0] * mine.count(0) for row, mine in zip(logps, own, strict=True)]
            rest = [completions, logps, *rest]
            self._answered = torch.tensor([r.closed for r in closed], device=self.accelerator.device)
        return prompt_ids, completion_ids, own, *rest

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """V(c) of every reasoning, by every reward: the same shape and the same gathering as in TRL."""
        if not self.reasoned:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            models = [isinstance(reward, torch.nn.Module) for reward in self.reward_funcs]
            check_rewards(rewards, self.reward_func_names, models, self.state.global_step)
            return rewards
        pad_token_id, device = self._tokenizer.pad_token_id, self.accelerator.device
        prompt_ids, prompt_mask = pad_prompts(self._prompt_ids, pad_token_id, device)
        ids, mask = pad_prompts(completion_ids_list, pad_token_id, device, side="right")
        input_ids, attention_mask = torch.cat([prompt_ids, ids], dim=1), torch.cat([prompt_mask, mask], dim=1)
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            groups = PromptGroups.of(input_ids, attention_mask, ids.shape[1])
            if not self._sharing_is_exact(self.model, groups):
                raise ValueError("answers behind reasoning need a model that can share a prompt; use answers: sampled")
            at_once = self.args.per_device_train_batch_size
            _, _, answers = groups.reason(self.model, self.answer_tree, self._answered, self.temperature, at_once)
        labels = self._labels(inputs)
        values = [
            ExactObjective(WeightedReward([reward], [1.0]), of_mean=self.objective.of_mean).value(answers, labels)[0]
            for reward in self.reward_funcs
        ]
        return self.accelerator.gather(torch.stack(values, dim=1))

    def _labels(self, rows: list[dict]) -> torch.Tensor:
        return torch.tensor([row["label"] for row in rows], dtype=torch.float32, device=self.accelerator.device)

    def _group_size(self, rows: int) -> int:
        """Rows that TRL's shuffle must keep side by side: a group, where every micro-batch holds whole groups."""
        per_step = rows // self.args.steps_per_generation if self.model.training else rows
        return self.num_generations if per_step % self.num_generations == 0 else 1

    def _tokenize_prompts(self, prompts: list):
        return self._prompt_ids, None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        if self.args.orders == "coupled":  # vLLM is sent every num_generations-th prompt, and the halves differ
            num_generations //= 2
        repeats = repeats_of(prompt_ids)
        plain = self.use_vllm or self.use_transformers_continuous_batching or repeats == 1 or not self.share_prefix
        model = self.accelerator.unwrap_model(self.model)
        with nullcontext() if plain else one_prefill(model, repeats):
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images=has_tool_images
            )

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        if self.share_prefix:
            groups = PromptGroups.of(input_ids, attention_mask, logits_to_keep)
            if self._in_reasoned_loss:  # in one module call with what stands behind the reasoning
                closing = self.objective.closing(self.answer_tree, self.state.global_step)
                logps, entropies, self._answers = groups.reason(
                    model, self.answer_tree, self._answered, self.temperature, batch_size, closing
                )
                return logps, entropies, None
            # processes must not take different paths through a sharded model
            if (groups.size > 1 or is_sharded(model)) and self._sharing_is_exact(model, groups):
                logps, entropies = groups.logps(model, self.temperature, batch_size)
                return logps, entropies if compute_entropy else None, None
        return super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
        )

    def _sharing_is_exact(self, model, groups: PromptGroups) -> bool:
        """Compares the shared with the plain path once, on the first group of the first batch."""
        if not self._checked:
            self._checked = True
            try:
                difference = check_shared_prefix(model, *groups.first())
            except (ValueError, RuntimeError, NotImplementedError) as error:
                self._do_not_share(str(error))
            else:
                difference = self.accelerator.gather(torch.tensor(difference, device=self.accelerator.device)).max()
                tolerance = 1e-4 if self.model.dtype == torch.float32 and not self.args.bf16 else 5e-2
                if not difference <= tolerance:
                    self._do_not_share(f"log-probabilities differ by {difference:.1e}, tolerance {tolerance:.0e}")
        return self.share_prefix

    def _do_not_share(self, reason: str) -> None:
        self.share_prefix = False
        warnings.warn(
            f"shared prefix switched off, every answer pays for its whole prompt: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )

    def _compute_loss(self, model, inputs):
        if self.exact:
            return self._compute_exact_loss(model, inputs)
        inputs = by_row(inputs)
        if self.reasoned:
            return self._compute_reasoned_loss(model, inputs)
        return super()._compute_loss(model, inputs)

    def _compute_reasoned_loss(self, model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        mode = "train" if self.model.training else "eval"
        self._answered, self._in_reasoned_loss = inputs["answered"], True
        try:
            loss_of_reasoning = super()._compute_loss(model, inputs)  # leaves the answers of its forward pass
        finally:
            self._in_reasoned_loss = False
        loss, log = self.objective(self._answers, inputs["labels"])
        # reward and entropy are logged by TRL, of the reasonings
        self._log_distributions(mode, self._answers, {name: log[name] for name in log if name.startswith("answers/")})
        return loss_of_reasoning + loss / (self.current_gradient_accumulation_steps if mode == "train" else 1)

    def _score_all_answers(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Instead of completions and their advantages: prompts and labels, one row a pair.

        Returns:
            `prompt_ids`, `prompt_mask` (P, O, L), `labels` (P, O) and, with `beta`, `reference_probs` (P, O, K), for P
            rows in O orders. TRL shuffles and splits along the first dimension, so the orders of a pair stay together.
        """
        device, mode = self.accelerator.device, "train" if self.model.training else "eval"
        sides = [[row, _swap(row)] if self.objective.coupled else [row] for row in rows]
        orders, flat = len(sides[0]), [side for both in sides for side in both]
        prompt_ids, prompt_mask = pad_prompts(
            [side["prompt_ids"] for side in flat], self._tokenizer.pad_token_id, device
        )
        batch = {"prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "labels": self._labels(flat)}
        if self.beta:
            batch["reference_probs"] = self._reference_probs(prompt_ids, prompt_mask)

        if mode == "train":
            self.state.num_input_tokens_seen += self.accelerator.gather(prompt_mask.sum()).sum().item()
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]
        batch = {name: tensor.unflatten(0, (-1, orders)) for name, tensor in batch.items()}
        # lists of sequences follow TRL's shuffle too
        return batch | {"prompts": [[side["prompt"] for side in both] for both in sides]}

    def _reference_probs(self, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            if self.ref_model is not None:
                return self.answer_tree.distribution(self.ref_model, prompt_ids, prompt_mask).probs
            model = self.accelerator.unwrap_model(self.model)
            with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
                return self.answer_tree.distribution(self.model, prompt_ids, prompt_mask).probs

    def _compute_exact_loss(self, model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        mode = "train" if self.model.training else "eval"
        prompts = [prompt for both in inputs["prompts"] for prompt in both]
        inputs = {name: value.flatten(0, 1) for name, value in inputs.items() if name != "prompts"}
        longest = inputs["prompt_mask"].sum(dim=1).max()  # TRL's split leaves padding of longer prompts elsewhere
        ids, mask = inputs["prompt_ids"][:, -longest:], inputs["prompt_mask"][:, -longest:]
        closing = self.objective.closing(self.answer_tree, self.state.global_step)
        with self.accelerator.autocast():
            answers = self.answer_tree.distribution(model, ids, mask, closing)
        loss, log = self.objective(answers, inputs["labels"], inputs.get("reference_probs"))
        logged, modes = self._log_distributions(mode, answers, log)
        if self.log_completions:
            self._logs["prompt"].extend(gather_object(prompts))
            self._logs["extra"]["label"].extend(self.accelerator.gather(inputs["labels"]).tolist())
            self._logs["completion"].extend(f"{m:.4g}" for m in modes)
            self._logs["rewards"]["expected"].extend(logged["reward"].tolist())
            self._logs["advantages"].extend([0.0] * len(modes))
        return loss / (self.current_gradient_accumulation_steps if mode == "train" else 1)

    def _log_distributions(
        self, mode: str, answers: AnswerDistribution, log: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], list[float]]:
        """Logs what an objective said and which answers there were; returns both, of all processes."""
        gathered = {name: self.accelerator.gather(values) for name, values in log.items()}
        for name, values in gathered.items():
            self._metrics[mode][name].append(values.float().mean().item())
        modes, probs = self.accelerator.gather((answers.mode.detach(), answers.probs.detach()))
        self._metrics[mode]["answers/distinct"].append(len(modes.unique()))
        self._metrics[mode]["answers/share_at_0"].append(probs[:, 0].mean().item())
        self._metrics[mode]["answers/share_at_1"].append(probs[:, -1].mean().item())
        self._count_unread()
        return gathered, modes.tolist()

    def _count_unread(self) -> None:
        """Counts batches in which not one answer can be read: nothing is learned from them but the form, if that."""
        mode = "train" if self.model.training else "eval"
        if mode == "train" and self._metrics[mode].get("answers/parse_rate", [])[-1:] == [0]:
            self.unread_batches += 1
            if self.unread_batches == 1:
                warnings.warn(
                    f"step {self.state.global_step + 1}: not one answer of the batch can be read, so none is better "
                    "than another; such batches are counted in answers/unread_batches",
                    RuntimeWarning,
                    stacklevel=2,
                )
        self._metrics[mode]["answers/unread_batches"] = [self.unread_batches]


def _swap(row: dict) -> dict:
    return {
        **row,
        "prompt": row["swapped_prompt"],
        "prompt_ids": row["swapped_prompt_ids"],
        "label": 1 - row["label"],
    }


def by_group(batch: dict, size: int) -> dict:
    """(N, …) tensors as (N / size, size, …), so that TRL's shuffle along the first dimension moves whole groups."""
    return {k: v.unflatten(0, (-1, size)) if torch.is_tensor(v) and v.ndim else v for k, v in batch.items()}


def by_row(batch: dict) -> dict:
    """The other way round."""
    return {k: v.flatten(0, 1) if torch.is_tensor(v) and v.ndim else v for k, v in batch.items()}
