"""PPO for judges (Schulman et al., arXiv 1707.06347): a value head in place of the group's mean as the baseline.

One sampled answer a prompt is enough. A rollout's answer of T tokens is paid R at its last one, and with `beta` and
`kl_in: reward` −β log(π_old / π_ref) at every one. Advantages are those of GAE (arXiv 1506.02438), V(s_{T+1}) = 0:

    δ_t = r_t + γ V(s_{t+1}) − V(s_t)          A_t = δ_t + γ λ A_{t+1}          G_t = A_t + V(s_t)

    loss = mean over tokens of  − min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε) A_t)
           + vf_coef · ½ max((V_θ − G)², (clip(V_θ, V ± cliprange_value) − G)²)   − entropy_coef · H

ρ_t = π_θ / π_old. TRL's GRPO loss takes advantages of every token as they are, so rollouts, rewards, both orders,
clipping, entropy bonus and vLLM are those of `autorater.training.grpo`; here are the advantages and the value loss.

Nothing is divided by a group's deviation, ever: that is majority voting (2508.11800). `whiten_advantages` divides
by the deviation over the whole batch, which is one number for all pairs.

Deliberately left out: exact answers (`autorater.training.grpo`), where no baseline is needed; a target KL.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from peft import PeftModel
from trl.models.utils import disable_gradient_checkpointing

from autorater.training.config import JudgeGRPOConfig
from autorater.training.grpo import JudgeGRPOTrainer, by_group, by_row
from autorater.training.prompt_groups import PromptGroups
from autorater.training.value_head import add_value_head, load_value_head, reading_values, save_value_head


@dataclass
class JudgePPOConfig(JudgeGRPOConfig):
    """`JudgeGRPOConfig` for PPO and RLOO: answers are sampled, one a prompt is enough.

    `num_generations` counts the answers to a *prompt*: with `orders="coupled"` a pair gets as many in each of its two
    orders, side by side in a batch. `per_device_train_batch_size` counts answers, as in TRL. What is said of
    the value head (`gamma` to `value_learning_rate`) has no meaning for RLOO.
    """

    algorithm: Literal["ppo", "rloo"] = field(
        default="ppo",
        metadata={
            "help": "`ppo`: advantages from a value head; `rloo`: the baseline of an answer is the mean reward of the "
            "pair's (or prompt's) other answers."
        },
    )
    answers: Literal["exact", "sampled"] = field(default="sampled", metadata={"help": "Kept: answers are sampled."})
    num_generations: int | None = field(
        default=1, metadata={"help": "Sampled answers a prompt; a pair in both orders has twice as many."}
    )
    loss_type: str = field(default="dapo", metadata={"help": "Kept: the mean over the tokens of all processes."})

    gamma: float = field(default=1.0, metadata={"help": "Discount γ a token, in [0, 1]."})
    lam: float = field(default=0.95, metadata={"help": "λ of GAE, in [0, 1]; 1: reward minus value."})
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    cliprange_value: float = field(
        default=0.2, metadata={"help": "Furthest that a value moves from the rollout's before its gradient stops."}
    )
    value_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the value head; by default the policy's. The head starts at zero, and a step of "
            "Adam moves a value by up to this times the hidden size: keep that below 0.1, or values overshoot and the "
            "policy flees from whatever it samples."
        },
    )
    whiten_advantages: bool = field(
        default=False, metadata={"help": "Advantages minus their mean, by their deviation, over the whole batch."}
    )
    kl_in: Literal["reward", "loss"] = field(
        default="reward",
        metadata={"help": "Where `beta` acts: paid at every token of a rollout, or as a term of the loss."},
    )

    def __post_init__(self):
        if self.answers == "exact":
            reason = "the sum over all answers needs no baseline; use recipes/grpo.py"
            raise ValueError(f"answers: exact does not go with {self.algorithm}: {reason}")
        told = self.num_generations
        if told < 1:
            raise ValueError(f"num_generations must be at least 1, got {told}")
        self.num_generations = max(2, self.answers_a_row)  # GRPOConfig wants two: its baseline is the group's mean
        try:
            super().__post_init__()
        except ValueError as error:
            if "divisible by num_generations" not in str(error):
                raise
            raise ValueError(
                f"the {self.generation_batch_size} answers of a rollout over all processes must be a multiple of "
                f"{self.num_generations}"
            ) from None
        self.num_generations = told
        for name, low, high in (("gamma", 0, 1), ("lam", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {getattr(self, name)}")
        for name in ("vf_coef", "cliprange_value"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        self._refuse_what_does_not_fit()

    @property
    def answers_a_row(self) -> int:
        """Answers to a row of the data, which is a pair with both its orders or a single prompt."""
        return self.num_generations * (2 if self.orders == "coupled" else 1)

    def _refuse_what_does_not_fit(self) -> None:
        rloo = self.algorithm == "rloo"
        refused = {
            f"loss_type: {self.loss_type}": (self.loss_type != "dapo", "its losses are means over tokens"),
            "importance_sampling_level: sequence": (
                self.importance_sampling_level != "token",
                "it clips the ratio of a token",
            ),
            f"scale_rewards: {self.scale_rewards}": (
                self.scale_rewards != "none",
                "nothing is divided by a deviation of rewards; whiten_advantages is over the batch",
            ),
            "multi_objective_aggregation": (
                self.multi_objective_aggregation != "sum_then_normalize",
                "nothing is divided by a deviation of rewards",
            ),
            "mask_truncated_completions": (
                self.mask_truncated_completions,
                "an answer that does not end is paid as an invalid one",
            ),
            "num_generations: 1": (rloo and self.answers_a_row < 2, "its baseline is the other answers"),
            "whiten_advantages": (rloo and self.whiten_advantages, "it takes them as they are"),
            "kl_in: reward": (rloo and self.beta != 0 and self.kl_in == "reward", "its KL is in the loss"),
        }
        for name, (is_set, reason) in refused.items():
            if is_set:
                raise ValueError(f"{name} does not go with {self.algorithm}: {reason}")


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimates of answers that end at their last token.

    Args:
        rewards: Paid at every token, shape (N, T).
        values: V before every token, shape (N, T).
        mask: 1 for a token, 0 for padding on the right, shape (N, T).
        gamma, lam: In [0, 1].

    Returns:
        Advantages and returns, shape (N, T) each, 0 at padding.
    """
    values = values * mask
    delta = (rewards - values) * mask
    delta[:, :-1] += gamma * values[:, 1:]  # 0 behind the last token, where nothing is to come
    advantages, following = torch.zeros_like(delta), torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        following = advantages[:, t] = delta[:, t] + gamma * lam * following
    return advantages, advantages + values


def clipped_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, cliprange: float
) -> torch.Tensor:
    """½ max((V − G)², (clip(V, V_old ± cliprange) − G)²) of every token, shape (N, T)."""
    clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
    return torch.max((values - returns) ** 2, (clipped - returns) ** 2) / 2


class JudgePPOTrainer(JudgeGRPOTrainer):
    """`JudgeGRPOTrainer` with the advantages and the value loss of PPO.

    Args:
        args: With `algorithm="ppo"`.
        kwargs: Everything else as in `JudgeGRPOTrainer`.
    """

    _tag_names = ("trl", "ppo", "autorater")

    def __init__(self, model, reward_funcs, args: JudgePPOConfig, *other, **kwargs):
        super().__init__(model, reward_funcs, args, *other, **kwargs)
        self.num_generations = args.answers_a_row
        self.policy = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        add_value_head(self.policy, dtype=self.policy.dtype if sharded else torch.float32)
        self._read: list[tuple[torch.Tensor, torch.Tensor]] = []  # log-probabilities and values, one a forward pass

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if self.args.value_learning_rate is not None:
            head = list(self.policy.value_head.parameters())
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if all(p is not of_head for of_head in head)]
            optimizer.add_param_group({"params": head, "lr": self.args.value_learning_rate})
        return optimizer

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        reading = nullcontext([]) if model is self.ref_model else reading_values(self.policy, model)
        groups = PromptGroups.of(input_ids, attention_mask, logits_to_keep) if self.share_prefix else None
        if groups is not None and self._sharing_is_exact(model, groups):
            # for a single answer too: off a GPU, TRL's fused head scores every token of the prompt
            with reading as read:
                result = (*groups.logps(model, self.temperature, batch_size), None)
        else:
            groups = None
            with reading as read:
                result = super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
                )
        if read:
            values = torch.cat(read)
            values = groups.before_tokens(values) if groups else values[:, -logits_to_keep - 1 : -1]
            self._read.append((result[0], values))
        return result

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        offset = self.accelerator.process_index * len(prompts)
        own = rewards[offset : offset + len(prompts)]
        self._rewards = (own * self.reward_weights.to(own.device)).nansum(dim=1)  # NaN: does not judge this one
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        self._read.clear()
        batch = super()._generate_and_score_completions(inputs)
        mode, rows = "train" if self.model.training else "eval", by_row(batch)
        mask = rows["completion_mask"]
        if "old_per_token_logps" in rows:
            logps, values = self._read[0]  # TRL reads the policy first, then the reference
        else:
            logps, values = self._read_rollout(rows)
        rewards = torch.zeros_like(logps)
        if self.beta and self.args.kl_in == "reward":
            log_ratio = logps - rows["ref_per_token_logps"]
            self._metrics[mode]["kl"].append(self._moments(log_ratio, mask)[0].item())
            rewards = -self.beta * log_ratio
        rewards[torch.arange(len(mask)), mask.sum(dim=1) - 1] += self._rewards
        advantages, returns = gae(rewards, values, mask, self.args.gamma, self.args.lam)
        _, unexplained = self._moments(returns - values, mask)
        _, variance = self._moments(returns, mask)
        explained = (1 - unexplained / variance).where(variance > 0, torch.nan)  # NaN is left out of the mean
        self._metrics[mode]["value/explained_variance"].append(explained.item())
        self._metrics[mode]["value/mean"].append(self._moments(values, mask)[0].item())
        if self.args.whiten_advantages:
            mean, variance = self._moments(advantages, mask)
            advantages = (advantages - mean) / (variance.sqrt() + 1e-8)
        # in the table of completions, in the place of TRL's, which are those of groups
        self._logs["advantages"].extend(self.accelerator.gather(advantages[:, 0]).tolist())
        told = {"advantages": advantages, "values": values, "returns": returns}
        return batch | by_group(told, batch["completion_ids"].shape[1])

    def _read_rollout(self, rows: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and values of a rollout under the policy that wrote it, shape (N, C) each."""
        ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
        mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            self._get_per_token_logps_and_entropies(
                self.model, ids, mask, rows["completion_ids"].shape[1], self.args.per_device_train_batch_size
            )
        return self._read[-1]

    def _compute_loss(self, model, inputs):
        mode, beta = "train" if self.model.training else "eval", self.beta
        self._read.clear()
        try:
            if self.args.kl_in == "reward":
                self.beta = 0.0  # it was paid
            loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
        (logps, values), rows = self._read.pop(), by_row(inputs)
        mask = rows["completion_mask"]
        value_loss = clipped_value_loss(values, rows["values"], rows["returns"], self.args.cliprange_value)
        log_ratio = (logps - rows.get("old_per_token_logps", logps)).detach()
        self._metrics[mode]["value/loss"].append(self._moments(value_loss.detach(), mask)[0].item())
        self._metrics[mode]["approx_kl"].append(self._moments(log_ratio.exp() - 1 - log_ratio, mask)[0].item())
        # divided as TRL divides the policy's part: by the tokens of the rollout that fall to one update and process
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
        if not self.is_fsdp_enabled:  # whose checkpoint holds the head with the rest, as DeepSpeed's does
            load_value_head(self.policy.value_head, resume_from_checkpoint)
