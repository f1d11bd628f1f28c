"""The new adapter that a run trains, with the layers to adapt where PEFT has no default for the model."""

from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import PreTrainedModel, set_seed
from trl import ModelConfig, get_peft_config

ALL_LINEAR = "all-linear"  # of PEFT: all linear layers but the output head


def adapter_config(model: PreTrainedModel, model_config: ModelConfig) -> PeftConfig | None:
    """The adapter that the options `lora_…` ask for; None without `use_peft`.

    Without `lora_target_modules` it is on the layers that PEFT names for this kind of model, else on all linear ones.
    """
    config = get_peft_config(model_config)
    if config is None:
        return None
    named = config.target_modules or config.target_parameters
    if not named and model.config.model_type not in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING:
        config.target_modules = ALL_LINEAR
    elif isinstance(named, str) and named != ALL_LINEAR and named.isidentifier():
        config.target_modules = [named]  # TRL makes a text of a single name, which PEFT compares with whole paths
    if config.target_modules == ALL_LINEAR and any(map(_is_state_space, model.modules())):
        config.exclude_modules = ["out_proj"]  # their kernels use its weight, without an adapter; PEFT may refuse it
    return config


def with_new_adapter(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """A model with an adapter, whose first weights depend on the seed alone."""
    set_seed(seed)
    return get_peft_model(model, config)


def _is_state_space(module: nn.Module) -> bool:
    """Whether it is a Mamba layer, by its parameters."""
    return all(hasattr(module, name) for name in ("A_log", "D", "out_proj"))
