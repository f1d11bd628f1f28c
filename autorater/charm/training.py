"""Bradley–Terry training of a reward model by `trl.RewardTrainer`: from scratch, or going on with a debiased set.

    loss = −log σ(s_chosen − s_rejected)

The trainer gets token ids as `RewardModel` makes them and is not changed otherwise; LoRA and DeepSpeed are its own.
Deliberately left out: margins, and labels between 0 and 1 (`trl.RewardTrainer` knows neither of a tie).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from peft import PeftConfig
from trl import RewardConfig, RewardTrainer

from autorater.charm.responses import Response
from autorater.charm.reward_model import RewardModel
from autorater.data.pairs import Pair
from autorater.training.callbacks import show_progress


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two responses to a prompt, which is the better."""

    chosen: Response
    rejected: Response


def voted_preferences(pairs: Sequence[Pair]) -> list[Preference]:
    """What the majorities of pairs with named models prefer; pairs that are split evenly are left out."""
    preferences = []
    for pair in pairs:
        a = Response(pair.prompt, pair.model_a, pair.response_a)
        b = Response(pair.prompt, pair.model_b, pair.response_b)
        if pair.label != 0.5:
            preferences.append(Preference(b, a) if pair.label > 0.5 else Preference(a, b))
    return preferences


def train_reward_model(
    reward_model: RewardModel,
    preferences: Sequence[Preference],
    config: RewardConfig,
    *,
    peft_config: PeftConfig | None = None,
) -> int:
    """Trains a reward model in place and saves it, with its tokenizer, in `config.output_dir`.

    Args:
        reward_model: The model to start from.
        preferences: N preferences. Those with a text that is too long are left out.
        config: As for `trl.RewardTrainer`.
        peft_config: Train adapters only; they are what is saved.

    Returns:
        How many preferences were left out because a text is too long.

    Raises:
        ValueError: If none is left.
    """
    sides = [reward_model.encode([getattr(p, side) for p in preferences]) for side in ("chosen", "rejected")]
    rows = [{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in zip(*sides, strict=True)]
    limit = reward_model.max_length
    fitting = [row for row in rows if limit is None or max(map(len, row.values())) <= limit]
    if not fitting:
        raise ValueError(
            f"none of {len(rows)} preferences fits into {limit} tokens; at least one is wanted to train on"
        )
    trainer = RewardTrainer(
        reward_model.model,
        config,
        train_dataset=Dataset.from_list(fitting),
        processing_class=reward_model.tokenizer,
        peft_config=peft_config,
    )
    show_progress(trainer)
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    trainer.save_model(str(Path(config.output_dir)))
    reward_model.model = trainer.accelerator.unwrap_model(trainer.model)
    return len(rows) - len(fitting)
