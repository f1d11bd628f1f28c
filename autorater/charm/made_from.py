"""What the reward models of a run were made from, noted beside each: is what is there what would be made now?

made_from.txt    what the weights of a version depend on, a line each; written last, when the model is complete
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from trl import ModelConfig

from autorater.charm.arguments import BaseModelArguments, CharmArguments
from autorater.charm.responses import Preference
from autorater.charm.training import RewardTrainingConfig
from autorater.data.errors import UserError
from autorater.judges.identity import digest, model_digest
from autorater.models.saving import weights_in
from autorater.training.config import non_default_settings

MADE_FROM = "made_from.txt"
OF_THE_WEIGHTS = {  # options of a training that its weights depend on; not those that say where it is executed
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "auto_find_batch_size", "gradient_accumulation_steps", "dataloader_drop_last",
    "train_sampling_strategy", "seed", "data_seed", "optim", "optim_args", "optim_target_modules", "weight_decay",
    "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "neftune_noise_alpha", "disable_dropout",
    "center_rewards_coefficient", "max_length", "chat_template_path", "eos_token", "pad_token", "dtype",
    "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters",
    "lora_modules_to_save", "lora_task_type", "use_rslora", "use_dora", "load_in_8bit", "load_in_4bit",
    "bnb_4bit_quant_type", "use_bnb_nested_quant",
}  # fmt: skip


def built_from(args: CharmArguments, training: RewardTrainingConfig, preferences: Sequence[Preference]) -> str:
    """What an original that is trained from scratch depends on."""
    options = sorted([*BaseModelArguments.__annotations__, "dataset_name", "held_out_fraction", "n_pairs"])
    made_from = {name: getattr(args, name) for name in options}
    made_from |= {"seed": training.seed, "max_length": training.max_length}
    return _lines(made_from | {"preferences": digest(preferences)})  # the held-out prompts decide which they are


def continued_from(
    training: RewardTrainingConfig,
    model_config: ModelConfig,
    overvalued: str,
    preferences: Sequence[Preference],
    base: str,
) -> str:
    """What a version with continued training depends on; `base` as in `identity_of`."""
    options = non_default_settings(training, model_config)
    settings = {name: value for name, value in sorted(options.items()) if name in OF_THE_WEIGHTS}
    return _lines({"overvalued": overvalued, "preferences": digest(preferences), "base": base} | settings)


def holds_model_of(folder: Path, now: str, *, refuse: bool) -> bool:
    """Whether a folder holds the model that would be made now.

    Raises:
        UserError: If `refuse`, and it holds another one or one without a note. The message names what differs.
    """
    note = folder / MADE_FROM
    earlier = note.read_text(encoding="utf-8") if note.exists() else None
    if refuse and earlier is None and weights_in(folder):
        raise UserError(
            f"{folder} holds a model without {MADE_FROM}, so it is not known what it was made from: copy that file "
            "too, move the model away, or train it again"
        )
    if earlier in (None, now) or not refuse:
        return earlier == now
    if "\nbase: " in now and "\nbase: " not in earlier:
        raise UserError(f"{folder} was trained by an older version, which did not note its base model: train it again")
    notes = earlier.splitlines(), now.splitlines()
    before, after = (", ".join(line for line in a if line not in b) or "the defaults" for a, b in (notes, notes[::-1]))
    raise UserError(
        f"{folder} was trained with {before}, and now it is {after}: train it again, or use the options of that run"
    )


def forget(folder: Path, version: str) -> None:
    """Removes what the output folder knows of the model of a version, before another one is written over it."""
    (folder / version / MADE_FROM).unlink(missing_ok=True)
    shutil.rmtree(folder / "scores" / version, ignore_errors=True)


def name_of(model: str, folder: Path, model_config: ModelConfig) -> str:
    """What identifies a reward model in the files of the run in a folder."""
    path = Path(model)
    if path.parent == folder:
        return path.name  # its version, since the output folder may be moved
    if path.is_dir():
        return f"{model}, {model_digest(model)}"  # it may be trained again there
    revision = model_config.model_revision
    is_default = path.exists() or revision in (None, ModelConfig.model_revision)
    return model if is_default else f"{model}@{revision}"


def identity_of(model: str, folder: Path, model_config: ModelConfig) -> str:
    """What identifies the weights of a reward model: its note, else its files, else `name_of`."""
    path = Path(model)
    if (note := path / MADE_FROM).exists():  # a copy of the output folder may have other times of the files
        return digest(note.read_text(encoding="utf-8"))
    return model_digest(model) if path.exists() else name_of(model, folder, model_config)


def _lines(values: Mapping[str, object]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in values.items())
