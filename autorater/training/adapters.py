"""The new adapter that a run trains, with the layers to adapt where PEFT has no default for the model."""

import re
from collections.abc import Collection

from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import PreTrainedModel, set_seed
from trl import ModelConfig, get_peft_config

from autorater.data.errors import UserError, did_you_mean

ALL_LINEAR = "all-linear"  # of PEFT: all linear layers but the output head
OF_ADAPTER = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters",
    "lora_modules_to_save": "modules_to_save",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
"""Options of TRL to those of PEFT."""


def adapter_config(model: PreTrainedModel, model_config: ModelConfig) -> PeftConfig | None:
    """The adapter that the options `lora_…` ask for; None without `use_peft`.

    Without `lora_target_modules` it is on the layers that PEFT names for this kind of model, else on all linear ones.

    Raises:
        UserError: If the model has no module of a name in `lora_target_modules`, or it is the output head.
    """
    config = get_peft_config(model_config)
    if config is None:
        return None
    named = config.target_modules or config.target_parameters
    if not named and model.config.model_type not in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING:
        config.target_modules = ALL_LINEAR
    elif isinstance(named, str) and named != ALL_LINEAR and named.isidentifier():
        config.target_modules = [named]  # TRL makes a text of a single name, which PEFT compares with whole paths
    _check_names(model, config.target_modules)
    if config.target_modules == ALL_LINEAR and any(map(_is_state_space, model.modules())):
        config.exclude_modules = ["out_proj"]  # their kernels use its weight, without an adapter; PEFT may refuse it
    return config


def _check_names(model: PreTrainedModel, names: str | Collection[str] | None) -> None:
    """PEFT ignores a name that no module has, as long as another has one."""
    paths = [path for path, _ in model.named_modules()]
    if isinstance(names, str):  # a pattern of whole paths
        missing = [] if names == ALL_LINEAR or any(re.fullmatch(names, path) for path in paths) else [names]
    else:
        missing = [name for name in sorted(names or ()) if not any(f".{path}".endswith(f".{name}") for path in paths)]
    if missing:
        known = sorted(
            {path.rpartition(".")[2] for path, part in model.named_modules() if isinstance(part, nn.Linear)}
        )
        raise UserError(
            f"lora_target_modules: no layer of this model ({model.config.model_type}) is called {missing[0]}"
            f"{did_you_mean(missing[0], known)}; its linear layers are {', '.join(known)}"
        )
    if not isinstance(names, str) and "lm_head" in (names or ()):
        raise UserError("lora_target_modules: lm_head: TRL reads its weight, so an adapter of it would not be trained")


def new_adapter(model: PreTrainedModel, model_config: ModelConfig, given: Collection[str] = ()) -> PeftConfig | None:
    """The adapter to add; None without `use_peft`, and for a model that is an adapter, which is trained further.

    Raises:
        UserError: If the adapter that is trained further is another than `lora_…` ask for: by a value that is not the
            default, or by an option that is `given`.
    """
    if not isinstance(model, PeftModel):
        config = adapter_config(model, model_config)
        if config is not None:
            config.revision = model_config.model_revision  # of the base model, saved with the adapter
        return config
    if not model_config.use_peft:
        return None
    adapter, defaults = model.peft_config[model.active_adapter], ModelConfig()
    for option, theirs in OF_ADAPTER.items():
        value = getattr(model_config, option)
        if value in (None, ALL_LINEAR) or (value == getattr(defaults, option) and option not in given):
            continue  # PEFT saves which layers all linear ones are
        asked, has = _names(value), _names(getattr(adapter, theirs, None))
        is_same = asked <= (has or set()) if theirs == "modules_to_save" else asked == has  # PEFT adds a reward's head
        if not is_same:
            asked, has = (sorted(names) if isinstance(names, set) else names for names in (asked, has))
            raise UserError(
                f"{option}: got {asked}, but the adapter of {model_config.model_name_or_path}, which is trained "
                f"further, has {has}; leave it out, or merge the adapter first (autorater merge) to add another"
            )
    return None


def _names(value: object) -> object:
    """Names as a set, of which one may be a text; any other value as it is."""
    return {value} if isinstance(value, str) else set(value) if isinstance(value, Collection) else value


def with_new_adapter(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """A model with an adapter, whose first weights depend on the seed alone."""
    set_seed(seed)
    adapted = get_peft_model(model, config)
    name_gguf(adapted)
    return adapted


def name_gguf(model: PreTrainedModel | PeftModel) -> None:
    """Makes the adapters of a model of a GGUF file name this file as their base; PEFT names its copy in the cache."""
    file = getattr(model.get_base_model(), "gguf_file", None) if isinstance(model, PeftModel) else None
    if file is not None:
        for adapter in model.peft_config.values():
            adapter.base_model_name_or_path = file


def _is_state_space(module: nn.Module) -> bool:
    """Whether it is a Mamba layer, by its parameters."""
    return all(hasattr(module, name) for name in ("A_log", "D", "out_proj"))
