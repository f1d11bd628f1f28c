"""The causal language model inside a model that reads images too, such as Gemma 3 from 4 B on.

A judge reads text. The wrapper builds its own attention masks, so that prompts cannot be shared, and keeps an image
encoder in memory. So its text model is taken out, trained and saved as a model of text, which transformers loads. The
tensors are those of the wrapper, not copies.
"""

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel


def text_only(model: PreTrainedModel) -> PreTrainedModel:
    """The text model of a wrapper whose text model has a class of its own in transformers; any other model itself.

    A model that is quantized or spread over devices stays as it is.
    """
    config = model.config.get_text_config()
    parts = getattr(getattr(model, "model", None), "language_model", None), getattr(model, "lm_head", None)
    if config is model.config or None in parts or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return model
    if hasattr(model, "hf_device_map") or getattr(model, "is_quantized", False):
        return model
    with torch.device("meta"):
        text_model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    text_model.model, text_model.lm_head = parts
    text_model.generation_config = model.generation_config
    text_model.name_or_path = text_model.config._name_or_path = model.name_or_path
    text_model.taken_out = True
    return text_model.train(model.training)


def is_taken_out(model: torch.nn.Module) -> bool:
    """Whether a model, or the base of an adapter, is the text model of a wrapper, whose name it still has."""
    return any(getattr(module, "taken_out", False) for module in model.modules())
