"""PPO for judges (Schulman et al., arXiv 1707.06347): a value head replaces the group mean as the baseline.

One sampled answer per prompt is enough. An answer of T tokens is rewarded with R at its last token, and with `beta`
and `kl_in: reward` with −β log(π_old / π_ref) at every token. Advantages are those of GAE (arXiv 1506.02438)
without discount (γ = 1), V(s_{T+1}) = 0:

    δ_t = r_t + V(s_{t+1}) − V(s_t)          A_t = δ_t + λ A_{t+1}          G_t = A_t + V(s_t)

    loss = mean over tokens of  − min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε) A_t)
           + vf_coef · ½ max((V_θ − G)², (clip(V_θ, V ± cliprange_value) − G)²)   − entropy_coef · H

ρ_t = π_θ / π_old. TRL's GRPO loss accepts advantages per token, so rollouts, rewards, both orders, clipping, entropy
bonus and vLLM are those of `autorater.training.sampled_grpo`; this module adds the advantages and the value loss.

Nothing is divided by the deviation of a group, which would be majority voting (2508.11800). `whiten_advantages`
divides by the deviation over the whole batch, one number for all pairs.

Deliberately left out: exact answers (`autorater.training.exact_grpo`), which need no baseline; a target KL.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from peft import PeftModel
from trl.models.utils import disable_gradient_checkpointing

from autorater.data.errors import UserError
from autorater.models.shared_beginning import share_beginnings
from autorater.training.config import JudgeGRPOConfig, option
from autorater.training.prompt_groups import by_group, by_row
from autorater.training.sampled_grpo import SampledGRPOTrainer
from autorater.training.value_head import (
    add_value_head,
    collecting_values,
    load_value_head,
    save_value_head,
    without_value_head,
)


@dataclass
class JudgePPOConfig(JudgeGRPOConfig):
    """`JudgeGRPOConfig` for PPO and RLOO: answers are sampled, one per prompt is enough.

    `num_generations` is the number of answers per *prompt*: with `orders="coupled"` a pair has that many in each of
    its two orders, adjacent in a batch. `per_device_train_batch_size` counts answers, as in TRL.
    """

    algorithm: Literal["ppo", "rloo"] = option(
        "ppo",
        "`ppo`: advantages from a value head; `rloo`: the baseline of an answer is the mean reward of the "
        "other answers to the pair (or prompt).",
    )
    answers: Literal["exact", "sampled"] = option("sampled", "Must be `sampled`.")
    num_generations: int | None = option(1, "Sampled answers per prompt; a pair in both orders has twice as many.")
    loss_type: str = option("dapo", "Must be `dapo`: the mean over the tokens of all processes.")

    lam: float = option(0.95, "λ of GAE, in [0, 1]; 1: reward minus value.")
    vf_coef: float = option(0.1, "Weight of the value loss.")
    cliprange_value: float = option(0.2, "Distance from the rollout's value beyond which its gradient is 0.")
    value_learning_rate: float | None = option(
        None,
        "Learning rate of the value head; by default that of the policy. The head starts at zero, and a "
        "step of Adam changes a value by up to this times the hidden size: keep that below 0.1, or values "
        "overshoot and the policy moves away from every sampled token.",
    )
    whiten_advantages: bool = option(False, "Standardize the advantages over the whole batch.")
    kl_in: Literal["reward", "loss"] = option(
        "reward", "Where `beta` acts: as a reward at every token of a rollout, or as a term of the loss."
    )

    @property
    def mode(self) -> str:
        return self.algorithm

    @property
    def answers_per_row(self) -> int:
        """Answers to a row of the data, which is a pair in both orders or a single prompt."""
        return self.num_generations * (2 if self.orders == "coupled" else 1)

    def __post_init__(self):
        if self.num_generations < 1:
            raise UserError(f"num_generations: got {self.num_generations}; expected at least 1")
        super().__post_init__()
        if self.generation_batch_size % self.answers_per_row:
            raise UserError(
                f"a rollout of all processes has {self.generation_batch_size} answers; expected a multiple of "
                f"{self.answers_per_row}, the answers to a {'pair' if self.orders == 'coupled' else 'prompt'}"
            )
        if not 0 <= self.lam <= 1:
            raise UserError(f"lam: got {self.lam}; expected a number in [0, 1]")
        for name in ("vf_coef", "cliprange_value"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: got {getattr(self, name)}; expected a number above 0")


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimates of answers that end at their last token.

    Args:
        rewards: Reward at every token, shape (N, T).
        values: V before every token, shape (N, T).
        mask: 1 for a token, 0 for padding on the right, shape (N, T).
        lam: In [0, 1].

    Returns:
        Advantages and returns, shape (N, T) each, 0 at padding.
    """
    values = values * mask
    delta = (rewards - values) * mask
    delta[:, :-1] += values[:, 1:]  # V is 0 after the last token
    advantages, following = torch.zeros_like(delta), torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        following = advantages[:, t] = delta[:, t] + lam * following
    return advantages, advantages + values


def clipped_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, cliprange: float
) -> torch.Tensor:
    """½ max((V − G)², (clip(V, V_old ± cliprange) − G)²) of every token, shape (N, T)."""
    clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
    return torch.max((values - returns) ** 2, (clipped - returns) ** 2) / 2


class JudgePPOTrainer(SampledGRPOTrainer):
    """`SampledGRPOTrainer` with the advantages and the value loss of PPO; arguments as there."""

    _tag_names = ("trl", "ppo", "autorater")
    can_repeat = False  # values are those of rows in which completions share a prompt
    _shares_single_answers = True  # without a GPU, TRL's fused head scores every token of the prompt

    def __init__(self, model, reward_funcs, args: JudgePPOConfig, *other, **kwargs):
        super().__init__(model, reward_funcs, args, *other, **kwargs)
        self.num_generations = args.answers_per_row
        self.policy = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        folder = getattr(self.model, "loaded_from", self.policy.name_or_path)
        add_value_head(self.policy, folder, dtype=self.policy.dtype if sharded else torch.float32)
        if self.use_vllm:  # which knows no head
            parameters = self.vllm_generation._iter_named_params
            self.vllm_generation._iter_named_params = lambda: without_value_head(parameters())
        share_beginnings(self.policy, False)  # values are found at the positions of whole prompts
        self._forward_passes: list[tuple[torch.Tensor, torch.Tensor]] = []  # log-probabilities and values of each

    def create_optimizer(self, model=None):
        is_given = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        head = list(self.policy.value_head.parameters())
        if self.args.value_learning_rate is not None:
            if is_given and self.lr_scheduler is not None:
                raise UserError(
                    "value_learning_rate: the schedule was made for other groups of weights; leave one of them out"
                )
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if all(p is not of_head for of_head in head)]
            options = {"lr": self.args.value_learning_rate, "weight_decay": self.args.weight_decay}
            optimizer.add_param_group({"params": head} | options)
        elif is_given and not any(p is head[0] for group in optimizer.param_groups for p in group["params"]):
            optimizer.param_groups[0]["params"].extend(head)  # made before the head; a new group may have no schedule
        return optimizer

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        groups = self._shared_groups(model, input_ids, attention_mask, logits_to_keep)  # first: it may call the model
        with nullcontext([]) if model is self.ref_model else collecting_values(self.policy, model) as collected:
            result = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        if collected:
            values = torch.cat(collected)
            values = groups.before_tokens(values) if groups else values[:, -logits_to_keep - 1 : -1]
            self._forward_passes.append((result[0], values))
        return result

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        offset = self.accelerator.process_index * len(prompts)
        own = rewards[offset : offset + len(prompts)]
        self._rewards = (own * self.reward_weights.to(own.device)).nansum(dim=1)  # NaN: not scored by this reward
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        self._forward_passes.clear()
        batch = super()._generate_and_score_completions(inputs)
        mode, rows = self.phase, by_row(batch)
        mask = rows["completion_mask"]
        if "old_per_token_logps" in rows:
            logps, values = self._forward_passes[0]  # TRL evaluates the policy first, then the reference
        else:
            logps, values = self._evaluate_rollout(rows)
        rewards = torch.zeros_like(logps)
        if self.beta and self.args.kl_in == "reward":
            log_ratio = logps - rows["ref_per_token_logps"]
            self._metrics[mode]["kl"].append(self._moments(log_ratio, mask)[0].item())
            rewards = -self.beta * log_ratio
        rewards[torch.arange(len(mask)), mask.sum(dim=1) - 1] += self._rewards
        advantages, returns = gae(rewards, values, mask, self.args.lam)
        _, unexplained = self._moments(returns - values, mask)
        _, variance = self._moments(returns, mask)
        explained = (1 - unexplained / variance).where(variance > 0, torch.nan)  # TRL's mean ignores NaN
        self._metrics[mode]["value/explained_variance"].append(explained.item())
        self._metrics[mode]["value/mean"].append(self._moments(values, mask)[0].item())
        if self.args.whiten_advantages:
            mean, variance = self._moments(advantages, mask)
            advantages = (advantages - mean) / (variance.sqrt() + 1e-8)
        # in the table of completions, instead of TRL's advantages, which are those of groups
        self._logs["advantages"].extend(self.accelerator.gather(advantages[:, 0]).tolist())
        columns = {"advantages": advantages, "values": values, "returns": returns}
        return batch | by_group(columns, batch["completion_ids"].shape[1])

    def _evaluate_rollout(self, rows: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and values of a rollout under the policy that generated it, shape (N, C) each."""
        ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
        mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            self._get_per_token_logps_and_entropies(
                self.model, ids, mask, rows["completion_ids"].shape[1], self.args.per_device_train_batch_size
            )
        return self._forward_passes[-1]

    def _compute_loss(self, model, inputs):
        mode, beta = self.phase, self.beta
        self._forward_passes.clear()
        try:
            if self.args.kl_in == "reward":
                self.beta = 0.0  # it is part of the reward
            loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
        (logps, values), rows = self._forward_passes.pop(), by_row(inputs)
        mask = rows["completion_mask"]
        value_loss = clipped_value_loss(values, rows["values"], rows["returns"], self.args.cliprange_value)
        log_ratio = (logps - rows.get("old_per_token_logps", logps)).detach()
        self._metrics[mode]["value/loss"].append(self._moments(value_loss.detach(), mask)[0].item())
        self._metrics[mode]["approx_kl"].append(self._moments(log_ratio.exp() - 1 - log_ratio, mask)[0].item())
        # divided as TRL's policy loss: by the tokens of the rollout per update and process
        tokens = rows["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
        if mode == "train":
            tokens = tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return loss + self.args.vf_coef * (value_loss * mask).sum() / tokens

    def _moments(self, numbers: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance over the tokens of all processes."""
        sums = torch.stack([mask.sum().float(), (numbers * mask).sum()])
        count, total = self.accelerator.reduce(sums, reduction="sum")
        squares = self.accelerator.reduce(((numbers - total / count) ** 2 * mask).sum(), reduction="sum")
        return total / count, squares / count

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            save_value_head(self.policy.value_head, output_dir or self.args.output_dir, state_dict)
        super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not self.is_fsdp_enabled:  # FSDP checkpoints contain the head, as DeepSpeed's do
            load_value_head(self.policy.value_head, resume_from_checkpoint)
