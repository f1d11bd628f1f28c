"""The value head of PPO: V(s_t), the expected remaining reward, linear in the policy's last hidden state.

    V(s_t) = w · h_t + b,     h_t the state from which the policy predicts token t

It is a module of the policy (`policy.value_head`), so that one optimizer and one wrapper (DDP, DeepSpeed, FSDP) hold
both. Values are computed in the policy's forward pass and returned with its output: one module call per micro-batch,
as ZeRO-3's trace requires, and DDP detects that its parameters are used. With a LoRA adapter it remains trainable.

It is not part of the saved model, which transformers loads as usual, but saved beside it (`value_head.safetensors`).
It starts at zero: V = 0 everywhere.

Deliberately left out: a separate value model, which would cost as much memory as the policy.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from autorater.data.errors import UserError

VALUE_HEAD_FILE = "value_head.safetensors"
_NAME = "value_head"


class ValueHead(nn.Linear):
    """Values of hidden states: (…, H) to (…,), float32."""

    def __init__(self, hidden_size: int, **options):
        super().__init__(hidden_size, 1, **options)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return super().forward(states.to(self.weight.dtype)).squeeze(-1).float()


def add_value_head(
    policy: PreTrainedModel, folder: str | None = None, dtype: torch.dtype = torch.float32
) -> ValueHead:
    """Adds a value head to a model without wrappers.

    Args:
        folder: Where the model or its adapter was loaded from. The head is that of the folder, if there is one.
        dtype: DeepSpeed and FSDP require that of the policy.
    """
    head = ValueHead(policy.config.get_text_config().hidden_size, dtype=dtype, device=policy.device)
    policy.value_head = head
    policy._keys_to_ignore_on_save = {*(policy._keys_to_ignore_on_save or ()), f"{_NAME}.weight", f"{_NAME}.bias"}
    if folder and Path(folder, VALUE_HEAD_FILE).is_file():
        load_value_head(head, folder)
    return head


@contextmanager
def collecting_values(policy: PreTrainedModel, model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within it, every call of `model`, the policy or its wrapper, appends the values of its tokens, (B, T)."""
    states, collected = [], []

    def keep_states(_, args, output):
        states.append(output.last_hidden_state)

    def add_values(_, args, output):
        return _WithValues(output, policy.value_head(states.pop()))

    def take_values(_, args, output):
        collected.append(output.token_values)
        return output.output

    hooks = [
        policy.base_model.register_forward_hook(keep_states),
        policy.register_forward_hook(add_values),
        model.register_forward_hook(take_values),
    ]
    try:
        yield collected
    finally:
        for hook in hooks:
            hook.remove()


def without_value_head(parameters: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The named parameters of a policy without those of the head."""
    return ((name, parameter) for name, parameter in parameters if _NAME not in name.split("."))


def save_value_head(head: ValueHead, folder: str | Path, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
    """Saves the head in the folder of its policy; from the state of the whole policy, if the head has only shards."""
    if state_dict is None:
        parameters = head.state_dict()
    else:
        parameters = {key.rpartition(".")[2]: value for key, value in state_dict.items() if f"{_NAME}." in key}
    if parameters:  # none if the wrapper gathers nothing: then its own checkpoint has them
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous().cpu() for key, value in parameters.items()}, Path(folder, VALUE_HEAD_FILE))


def load_value_head(head: ValueHead, folder: str | Path) -> None:
    """Loads the head from the folder of a policy; UserError if there is none, or it has another size."""
    path = Path(folder, VALUE_HEAD_FILE)
    if not path.is_file():
        raise UserError(f"{path} is missing; expected the value head of a PPO run")
    try:
        head.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path} is not the value head of this policy: {error}") from None


@dataclass
class _WithValues(ModelOutput):
    """The output of the policy and the values: DDP searches the output of a module for used parameters."""

    output: ModelOutput | None = None
    token_values: torch.Tensor | None = None  # not `values`, which is a method of dictionaries
