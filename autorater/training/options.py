"""The options of a run, together: those of the recipe, of its trainer and of the model."""

from collections.abc import Collection
from typing import NamedTuple

from transformers import TrainingArguments
from trl import ModelConfig

from autorater.training.arguments import PolicyArguments


class RunOptions(NamedTuple):
    """What a recipe parses; `given` holds the names of the options that the user set."""

    args: PolicyArguments
    training: TrainingArguments
    model_config: ModelConfig
    given: Collection[str] = ()

    @property
    def pretrained(self) -> str | None:
        """The name or folder of the model that the run begins from; None if it builds one."""
        return self.model_config.model_name_or_path
