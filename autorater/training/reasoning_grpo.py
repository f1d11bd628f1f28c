"""GRPO for judges that reason: TRL samples G reasonings c, the answers after each are summed.

    ∇J = E[(V(c) − b) ∇log π(c|x) + ∇V(c)],     b the mean reward of the group's other reasonings

V(c), the expected reward of the answers after c (`autorater.training.exact_loss`), is the reward of a reasoning, and
its gradient is a part of the loss.

Hooks of TRL that are overridden: `_generate` truncates reasoning where its answer begins; `_calculate_rewards`
computes V(c); `_get_per_token_logps_and_entropies` computes reasoning and answers in one module call; `_compute_loss`
adds ∇V(c).
"""

from dataclasses import dataclass, replace

import torch
from trl.models.utils import disable_gradient_checkpointing

from autorater.data.errors import UserError
from autorater.models.answers import AnswerTree
from autorater.models.distribution import AnswerDistribution
from autorater.models.split_attention import supports_shared_prefix
from autorater.prompts.batching import pad_prompts
from autorater.prompts.reasoning import close_reasoning
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact_loss import ExactLoss, WeightedReward
from autorater.training.prefix_sharing import NOT_AT_ONCE, check_answers_at_once
from autorater.training.prompt_groups import PromptGroups, by_row
from autorater.training.sampled_grpo import SampledGRPOTrainer
from rewards.answer import THINK_CLOSE


@dataclass
class _LossPass:
    """Which rows (N,) have an answer in a loss computation, and their distributions after its forward pass.

    TRL's loss calls the forward pass and has no place to return them.
    """

    answered: torch.Tensor
    answers: AnswerDistribution | None = None


class ReasoningGRPOTrainer(SampledGRPOTrainer):
    """`JudgeTrainer` with sampled reasonings and exact answers; arguments as there."""

    def __init__(self, model, reward_funcs, args: JudgeGRPOConfig, answer_tree: AnswerTree | None = None, **kwargs):
        if args.use_vllm:
            stop = {"stop": [THINK_CLOSE], "include_stop_str_in_output": True}
            args.generation_kwargs = stop | (args.generation_kwargs or {})
        args.router_aux_loss_coef = 0.0  # by default TRL takes that of the model
        super().__init__(model, reward_funcs, args, answer_tree, **kwargs)
        self._check_scores_grid()
        self.beta *= self.max_completion_length  # dr_grpo divides by it, as it does the advantages
        self.loss = ExactLoss(
            WeightedReward(self.reward_funcs, self.reward_weights.tolist()),
            coupled=False,
            of_mean=args.rewards_mean,
            entropy_coef=self.entropy_coef,
        )  # without beta: TRL's KL acts on the reasoning
        self._rollout_answered: torch.Tensor | None = None  # which reasonings of the current rollout ended
        self._loss_pass: _LossPass | None = None

    def _guard_rewards(self) -> None:
        """Rewards are evaluated on grids, which `WeightedReward` checks."""

    def _generate(self, prompts: list):
        prompt_ids, completion_ids, _, *rest = super()._generate(prompts)
        closed = [close_reasoning(self._tokenizer, ids) for ids in completion_ids]
        completion_ids = [reasoning.ids for reasoning in closed]
        # TRL's tool mask: 1 for generated tokens, 0 for appended tokens, which are not learned
        generated = [[1] * r.written + [0] * (len(r.ids) - r.written) for r in closed]
        completions, logps, *rest = rest
        if logps is not None:  # vLLM's, of the tokens that it generated
            logps = [row[: sum(own)] + [0.0] * own.count(0) for row, own in zip(logps, generated, strict=True)]
        self._rollout_answered = torch.tensor([r.closed for r in closed], device=self.accelerator.device)
        return prompt_ids, completion_ids, generated, completions, logps, *rest

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """V(c) of every reasoning by every reward, with the shape and the gathering of TRL."""
        pad_token_id, device = self._tokenizer.pad_token_id, self.accelerator.device
        prompt_ids, prompt_mask = pad_prompts(self._prompt_ids, pad_token_id, device)
        ids, mask = pad_prompts(completion_ids_list, pad_token_id, device, side="right")
        input_ids, attention_mask = torch.cat([prompt_ids, ids], dim=1), torch.cat([prompt_mask, mask], dim=1)
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            groups = PromptGroups.of(input_ids, attention_mask, ids.shape[1])
            checkpointing = self.args.gradient_checkpointing
            check_answers_at_once(self.model, self.answer_tree, self._prompt_ids[0], checkpointing)
            if supports_shared_prefix(self.model)[0] and not self._sharing_is_exact(self.model, *groups.first()):
                raise UserError(NOT_AT_ONCE)
            batch_size = self.args.per_device_train_batch_size
            _, _, answers = self._reason(self.model, groups, self._rollout_answered, batch_size)
        labels = self._labels(inputs)
        values = [
            ExactLoss(WeightedReward([reward], [1.0]), of_mean=self.loss.of_mean).value(answers, labels)[0]
            for reward in self.reward_funcs
        ]
        return self.accelerator.gather(torch.stack(values, dim=1))

    def _complete_batch(self, batch: dict, inputs: list[dict]) -> dict:
        batch["labels"], batch["answered"] = self._labels(inputs), self._rollout_answered
        # r − mean of the others = (r − mean) G / (G − 1); and ∇log π(c) is a sum, which dr_grpo divides
        group = self.num_generations if self.phase == "train" else self.num_generations_eval
        batch["advantages"] = batch["advantages"] * group / (group - 1) * self.max_completion_length
        return batch

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        if self._loss_pass is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        groups = PromptGroups.of(input_ids, attention_mask, logits_to_keep)
        closing = self.loss.closing(self.answer_tree, self.state.global_step)
        logps, entropies, self._loss_pass.answers = self._reason(
            model, groups, self._loss_pass.answered, batch_size, closing
        )
        return logps, entropies, None

    def _reason(
        self, model, groups: PromptGroups, answered: torch.Tensor, rows_at_once: int | None, closing: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, AnswerDistribution]:
        """`PromptGroups.logps`, and the distribution of the answers after every row; a row not `answered` has none."""
        tree = self.answer_tree if closing is None else self.answer_tree.closed(closing)
        logps, entropies, logits = groups.logps(model, self.temperature, rows_at_once, tree)
        answers = self.answer_tree.from_logits(logits, closing)
        return logps, entropies, replace(answers, probs=answers.probs * answered[:, None])

    def _compute_loss(self, model, inputs):
        rows = by_row(inputs)
        self._loss_pass = current = _LossPass(rows["answered"])
        try:
            loss_of_reasoning = super()._compute_loss(model, inputs)
        finally:
            self._loss_pass = None
        loss, log = self.loss(current.answers, rows["labels"])
        # TRL logs reward and entropy of the reasonings
        self._log_distributions(current.answers, {name: log[name] for name in log if name.startswith("answers/")})
        return loss_of_reasoning + loss / self.accumulation_steps
