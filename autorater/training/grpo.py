"""GRPO for judges: `trl.GRPOTrainer` with exact answers, both orders of a pair in one group, and shared prompts.

A row of the training data is a pair with its prompt in both orders (`training_rows`). From there

- `answers="exact"`: nothing is generated; the loss sums over all answers (`autorater.training.exact`).
- `answers="sampled"`: TRL's GRPO. With `orders="coupled"` half of a group's answers read order ab and half order ba
  (label 1 − y), so the two orders share one baseline.

Hooks of TRL that are overridden, and why: `_get_train_sampler` groups prompts by length;
`_generate_and_score_completions` sets the order of every row, keeps groups together through TRL's shuffle, or skips
generation; `_tokenize_prompts` returns the ids that were made when the data was read, because TRL's own tokenization
lets a response speak in control tokens; `_generate_single_turn` and `_get_per_token_logps_and_entropies` read a prompt
once for its whole group (`autorater.prefix`); `_compute_loss` sums exactly.

Deliberately left out: TRL's evaluation loop, which generates; judges are measured by `CalibrationCallback`.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from autorater.answers import AnswerDistribution, AnswerTree
from autorater.pairs import Pair
from autorater.prefix import check_shared_prefix, generate_shared, shared_prefix_logps, supports_shared_prefix
from autorater.prompts import EncodedPrompt, pad_prompts
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact import ExactObjective
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


class JudgeGRPOTrainer(GRPOTrainer):
    """Trains a judge on rows of `training_rows`.

    Args:
        answer_tree: The answers behind this tokenizer's prompts; needed where answers are exact.
        reward_funcs: With exact answers, rewards of `rewards/` (they can score a whole grid); else any reward of TRL.
        kwargs: Everything else as in `trl.GRPOTrainer`.
    """

    _tag_names = ("trl", "grpo", "autorater")

    def __init__(self, model, reward_funcs, args: JudgeGRPOConfig, answer_tree: AnswerTree | None = None, **kwargs):
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **kwargs)
        self.answer_tree = answer_tree
        self.exact = args.answers == "exact"
        self._prompt_ids: list[list[int]] = []
        supported, reason = supports_shared_prefix(self.accelerator.unwrap_model(self.model))
        self.share_prefix, self._checked = args.shared_prefix and not self.aux_loss_enabled, False
        if self.share_prefix and not supported:
            self._do_not_share(reason)
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
                raise ValueError(
                    f"answers: exact needs rewards that score a grid (score, invalid_score); {name} does not"
                )
        refused = {
            "use_vllm": args.use_vllm,
            "use_adaptive_entropy": args.use_adaptive_entropy,
            "scale_rewards: batch": args.scale_rewards == "batch",
            "top_entropy_quantile": args.top_entropy_quantile < 1,
        }
        for name, is_set in refused.items():
            if is_set:
                raise ValueError(f"{name} has no meaning with answers: exact, where nothing is sampled")

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
        return _by_group(super()._generate_and_score_completions(inputs), self._group_size(len(inputs)))

    def _group_size(self, rows: int) -> int:
        """Rows that TRL's shuffle must keep side by side: a group, where every micro-batch holds whole groups."""
        per_step = rows // self.args.steps_per_generation if self.model.training else rows
        return self.num_generations if per_step % self.num_generations == 0 else 1

    def _tokenize_prompts(self, prompts: list):
        return self._prompt_ids, None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        repeats = _repeats(prompt_ids)
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
            if groups.size > 1 and self._sharing_is_exact(model, groups):
                logps, entropies = groups.logps(model, self.temperature, batch_size)
                return logps, entropies if compute_entropy else None, None
        return super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
        )

    def _sharing_is_exact(self, model, groups: "PromptGroups") -> bool:
        """Compares the shared with the plain path once, on the first group of the first batch."""
        if not self._checked:
            self._checked = True
            try:
                difference = check_shared_prefix(model, *groups.first())
            except (ValueError, RuntimeError, NotImplementedError) as error:
                self._do_not_share(str(error))
            else:
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
        return super()._compute_loss(model, _by_row(inputs))

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
        scores = sum(
            w * r.score(values[None], labels[:, None]) for w, r in zip(weights, self.reward_funcs, strict=True)
        )
        invalid = sum(w * r.invalid_score(labels) for w, r in zip(weights, self.reward_funcs, strict=True))
        batch = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "scores": torch.as_tensor(scores, dtype=torch.float32, device=device),
            "invalid_scores": torch.as_tensor(
                np.broadcast_to(invalid, labels.shape).copy(), dtype=torch.float32, device=device
            ),
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
        loss, log = self.objective(answers, inputs["scores"], inputs["invalid_scores"], inputs.get("reference_probs"))
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


@contextmanager
def one_prefill(model, repeats: int) -> Iterator[None]:
    """While it is open, `model.generate` reads rows that repeat a prompt `repeats` times with one prefill a prompt."""

    def generate(input_ids, attention_mask, **kwargs):
        del model.generate  # generate_shared calls the model's own
        return generate_shared(model, input_ids[::repeats], attention_mask[::repeats], repeats, **kwargs)

    model.generate = generate
    try:
        yield
    finally:
        model.__dict__.pop("generate", None)


@dataclass(frozen=True)
class PromptGroups:
    """Rows `[prompt | completion]` regrouped by equal prompts.

    Attributes:
        prompt_ids, prompt_mask: The U distinct prompts, shape (U, L).
        completion_ids, completion_mask: Their completions, filled up with empty ones, shape (U, G, C).
        prompt_of, place: For every row its prompt and its place among that prompt's completions, shape (N,) each.
    """

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    completion_ids: torch.Tensor
    completion_mask: torch.Tensor
    prompt_of: torch.Tensor
    place: torch.Tensor

    @classmethod
    def of(cls, input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_length: int) -> "PromptGroups":
        """Groups N rows of L + C tokens, whatever their order."""
        split = input_ids.shape[1] - completion_length
        prompts = torch.cat([input_ids[:, :split], attention_mask[:, :split]], dim=1)
        distinct, prompt_of = torch.unique(prompts, dim=0, return_inverse=True)
        same = prompt_of[:, None] == prompt_of[None, :]
        place = same.tril(-1).sum(dim=1)  # rows before this one with the same prompt
        shape = (len(distinct), int(place.max()) + 1, completion_length)
        ids, mask = input_ids.new_zeros(shape), attention_mask.new_zeros(shape)
        ids[prompt_of, place] = input_ids[:, split:]
        mask[prompt_of, place] = attention_mask[:, split:]
        longest = int(distinct[:, split:].sum(dim=1).max())  # left padding that no prompt needs is cut off
        return cls(
            distinct[:, split - longest : split], distinct[:, 2 * split - longest :], ids, mask, prompt_of, place
        )

    @property
    def size(self) -> int:
        """Completions a prompt, G."""
        return self.completion_ids.shape[1]

    def first(self) -> tuple[torch.Tensor, ...]:
        return self.prompt_ids[:1], self.prompt_mask[:1], self.completion_ids[:1], self.completion_mask[:1]

    def logps(self, model, temperature: float, rows_at_once: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies of the rows in their order, shape (N, C) each."""
        tensors = (self.prompt_ids, self.prompt_mask, self.completion_ids, self.completion_mask)
        at_once = max(1, (rows_at_once or self.completion_ids.shape[:2].numel()) // self.size)
        chunks = zip(*(tensor.split(at_once) for tensor in tensors), strict=True)
        logps, entropies = zip(*(shared_prefix_logps(model, *chunk, temperature) for chunk in chunks), strict=True)
        return torch.cat(logps)[self.prompt_of, self.place], torch.cat(entropies)[self.prompt_of, self.place]


def _repeats(prompts: list[list[int]]) -> int:
    """How often every prompt comes in a row, if all come equally often; else 1."""
    runs = {len(list(run)) for _, run in groupby(prompts)}
    return runs.pop() if len(runs) == 1 else 1


def _by_group(batch: dict, size: int) -> dict:
    """(N, …) tensors as (N / size, size, …), so that TRL's shuffle along the first dimension moves whole groups."""
    return {k: v.unflatten(0, (-1, size)) if torch.is_tensor(v) and v.ndim else v for k, v in batch.items()}


def _by_row(batch: dict) -> dict:
    return {k: v.flatten(0, 1) if torch.is_tensor(v) and v.ndim else v for k, v in batch.items()}
