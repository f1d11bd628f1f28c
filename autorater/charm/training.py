"""Bradley–Terry training of a reward model by `trl.RewardTrainer`, from scratch or continued.

    loss = −log σ(s_chosen − s_rejected)

The trainer gets the token ids of `RewardModel.encode`; nothing else of it is changed, so LoRA and DeepSpeed work as in
TRL. Deliberately left out: margins, and labels between 0 and 1, which `trl.RewardTrainer` does not support.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset
from peft import PeftConfig
from trl import RewardConfig, RewardTrainer

from autorater.charm.responses import Preference
from autorater.charm.reward_model import RewardModel
from autorater.data.errors import UserError
from autorater.models.saving import replacing_weights
from autorater.training.arguments import option
from autorater.training.callbacks import show_progress
from autorater.training.checkpointing.checkpoints import writes_to
from autorater.training.config import bf16_by_default, check_values, without_secrets

logger = logging.getLogger(__name__)


@dataclass
class RewardTrainingConfig(RewardConfig):
    """`RewardConfig` with the continued training of the paper for a reward model of 8 B parameters."""

    _argument_group_name = "continued training"

    learning_rate: float = option(2e-6, "Peak learning rate.")
    weight_decay: float = option(1e-3, "Weight decay.")
    lr_scheduler_type: str = option("cosine", "Learning-rate schedule.")
    num_train_epochs: float = option(1.0, "Epochs over the preference set.")
    per_device_eval_batch_size: int = option(32, "Responses scored in one forward pass.")
    gradient_checkpointing: bool = option(False, "Trade compute for memory.")
    bf16: bool | None = option(None, "bfloat16 autocast; by default on with a GPU.")

    def __post_init__(self):
        check_values(self)
        if str(self.resume_from_checkpoint).lower() not in ("none", "false"):  # a YAML file may hold a truth value
            raise UserError(
                f"resume_from_checkpoint: got {self.resume_from_checkpoint}; expected none, because a run has several "
                "trainings, which begin again, and keeps its scores: start the same command without it"
            )
        bf16_by_default(self)
        super().__post_init__()

    def __getstate__(self) -> dict:
        return without_secrets(self)


def train_reward_model(
    reward_model: RewardModel,
    preferences: Sequence[Preference],
    config: RewardConfig,
    *,
    peft_config: PeftConfig | None = None,
) -> None:
    """Trains a reward model in place, or adapters of it, and saves it with its tokenizer and layout in
    `config.output_dir`.

    Preferences with a text that is too long are dropped and counted in the log; `UserError` if none is left.
    """
    chosen, rejected = (
        reward_model.encode([getattr(p, side) for p in preferences]) for side in ("chosen", "rejected")
    )
    rows = [{"chosen_ids": better, "rejected_ids": worse} for better, worse in zip(chosen, rejected, strict=True)]
    limit = reward_model.max_length
    fitting = [row for row in rows if max(map(len, row.values())) <= limit]
    if not fitting:
        raise UserError(f"none of {len(rows)} preferences fits into {limit} tokens; expected at least one to train on")
    if len(fitting) < len(rows):
        logger.info(f"dropped for texts over {limit} tokens: {len(rows) - len(fitting)} preferences")
    trainer = RewardTrainer(
        reward_model.model,
        config,
        train_dataset=Dataset.from_list(fitting),
        processing_class=reward_model.tokenizer,
        peft_config=peft_config,
    )
    show_progress(trainer)
    trainer.train()
    again = "start the same command again"
    with writes_to(config.output_dir, again), replacing_weights(config.output_dir, config.should_save):
        trainer.save_model(config.output_dir)
        if config.should_save:
            reward_model.save_layout(config.output_dir)
    reward_model.model = trainer.accelerator.unwrap_model(trainer.model)
