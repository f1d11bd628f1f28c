"""GRPO with sampled answers: TRL's GRPO with both orders of a pair in one group, and shared prompts.

With `orders="coupled"` half of a group's answers are to order ab and half to order ba (label 1 − y), so the two orders
share one baseline.

Hooks of TRL that are overridden: `_generate_and_score_completions` sets the order of every row and keeps groups
together through TRL's shuffle; `_generate_single_turn` and `_get_per_token_logps_and_entropies` process a prompt once
for its whole group (`autorater.models.shared_prefix`); `_calculate_rewards` checks the rewards; `_compute_loss` undoes
the grouping.
"""

from contextlib import nullcontext

import torch

from autorater.models.answers import AnswerTree, answer_decimals
from autorater.models.repeated_cache import is_known_to_repeat
from autorater.models.sharding import is_sharded
from autorater.models.split_attention import supports_shared_prefix
from autorater.training.base_trainer import JudgeTrainer, swapped
from autorater.training.config import JudgeGRPOConfig
from autorater.training.faults import check_rewards, guarded
from autorater.training.prompt_groups import PromptGroups, by_group, by_row, one_prefill, repeats_of
from rewards.answer import answer_pattern


class SampledGRPOTrainer(JudgeTrainer):
    """`JudgeTrainer` with sampled answers; arguments as there."""

    _shares_single_answers = False  # process prompts without a second answer on the shared path too

    def __init__(self, model, reward_funcs, args: JudgeGRPOConfig, answer_tree: AnswerTree | None = None, **kwargs):
        if args.structured_answers:
            decimals = answer_decimals(args.answer_step)
            args.vllm_structured_outputs_regex = answer_pattern(decimals, reasoning=args.reasoning)
        super().__init__(model, reward_funcs, args, answer_tree, **kwargs)
        self._guard_rewards()

    def _guard_rewards(self) -> None:
        self.reward_funcs = list(map(guarded, self.reward_funcs, self.reward_func_names))

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        inputs = self._in_both_orders(inputs)
        self._prompt_ids = [row["prompt_ids"] for row in inputs]
        batch = self._complete_batch(super()._generate_and_score_completions(inputs), inputs)
        return by_group(batch, self._rows_to_keep_together(len(inputs)))

    def _complete_batch(self, batch: dict, inputs: list[dict]) -> dict:
        """TRL's batch of completions and advantages, one row per completion, with changes of a subclass."""
        self._count_unparsed()
        return batch

    def _in_both_orders(self, rows: list[dict]) -> list[dict]:
        """The rows with the second half of every group in order ba, if orders are coupled."""
        if self.args.orders != "coupled":
            return rows
        offset = self.accelerator.process_index * len(rows)  # a group may be spread over processes
        group, half = self.num_generations, self.num_generations // 2
        return [swapped(row) if (offset + i) % group >= half else row for i, row in enumerate(rows)]

    def _rows_to_keep_together(self, rows: int) -> int:
        """Group size for TRL's shuffle: a whole group, if every micro-batch holds whole groups."""
        per_step = rows // self.args.steps_per_generation if self.phase == "train" else rows
        return self.num_generations if per_step % self.num_generations == 0 else 1

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        models = [isinstance(reward, torch.nn.Module) for reward in self.reward_funcs]
        check_rewards(rewards, self.reward_func_names, models, self.state.global_step)
        return rewards

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        if self.args.orders == "coupled":  # vLLM receives every num_generations-th prompt, and the halves differ
            num_generations //= 2
        repeats = repeats_of(prompt_ids)
        model = self.accelerator.unwrap_model(self.model)
        shared = repeats > 1 and (self.share_prefix or (self.repeat_prefix and is_known_to_repeat(model)))
        plain = self.use_vllm or self.use_transformers_continuous_batching or not shared
        with nullcontext() if plain else one_prefill(model, repeats):
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images=has_tool_images
            )

    def _shared_groups(self, model, *rows) -> PromptGroups | None:
        """The rows by prompt, if the model is to process a prompt once; `rows` as in `PromptGroups.of`."""
        supported = supports_shared_prefix(model)[0]  # a reference may be of another class
        if not (self.share_prefix if supported else self.repeat_prefix):
            return None
        groups = PromptGroups.of(*rows)
        # gathers: before what depends on a process's rows
        exact = self._sharing_is_exact(model, *groups.first()) if supported else groups.repeats_cache(model)
        # all processes must take the same path through a sharded model
        worthwhile = self._shares_single_answers or groups.size > 1 or is_sharded(model)
        return groups if worthwhile and exact else None

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        groups = self._shared_groups(model, input_ids, attention_mask, logits_to_keep)
        if groups:
            logps, entropies = groups.logps(model, self.temperature, batch_size)
            return logps, entropies if compute_entropy else None, None
        return super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
        )

    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, by_row(inputs))
