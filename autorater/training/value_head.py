"""The value head of PPO: V(s_t), the reward still to come behind a token, linear in the policy's last hidden state.

    V(s_t) = w · h_t + b,     h_t the state from which the policy predicts token t

It is a part of the policy (`policy.value_head`), so that one optimizer and one wrapper (DDP, DeepSpeed, FSDP) hold
both. It is read within the policy's own forward pass and leaves it as an output: one module call a micro-batch, as
ZeRO-3's trace wants it, and DDP sees that its parameters are used. A LoRA adapter leaves it trainable.

It is no part of the saved model, which transformers loads as before, but lies beside it (`value_head.safetensors`).
It starts at zero: V = 0 everywhere.

Deliberately left out: a value model of its own, which would cost as much memory as the policy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

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


def add_value_head(policy: PreTrainedModel, dtype: torch.dtype = torch.float32) -> ValueHead:
    """Gives a causal language model a value head; what its folder holds of one, if it was loaded from a folder.

    Args:
        policy: The transformers model itself, without wrappers; an adapter may be around it already.
        dtype: Of the head. DeepSpeed and FSDP want that of the policy.
    """
    head = ValueHead(policy.config.get_text_config().hidden_size, dtype=dtype, device=policy.device)
    policy.value_head = head
    policy._keys_to_ignore_on_save = {*(policy._keys_to_ignore_on_save or ()), f"{_NAME}.weight", f"{_NAME}.bias"}
    if policy.name_or_path and Path(policy.name_or_path, VALUE_HEAD_FILE).is_file():
        load_value_head(head, policy.name_or_path)
    return head


@contextmanager
def reading_values(policy: PreTrainedModel, model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """While it is open, every call of `model` leaves the values of its tokens in the list, (B, T) with gradients.

    Args:
        policy: What has the head.
        model: The same or a wrapper around it.
    """
    states, read = [], []

    def keep_states(_, args, output):
        states.append(output.last_hidden_state)

    def add_values(_, args, output):
        return _WithValues(output, policy.value_head(states.pop()))

    def take_values(_, args, output):
        read.append(output.token_values)
        return output.output

    hooks = [
        policy.base_model.register_forward_hook(keep_states),
        policy.register_forward_hook(add_values),
        model.register_forward_hook(take_values),
    ]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()


def save_value_head(head: ValueHead, folder: str | Path, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
    """Writes the head beside its policy.

    Args:
        head: The head.
        folder: Where the policy is saved.
        state_dict: The whole policy's, under whatever wrapper, where the parameters here are only shards of it.
    """
    if state_dict is None:
        parameters = head.state_dict()
    else:
        parameters = {key.rpartition(".")[2]: value for key, value in state_dict.items() if f"{_NAME}." in key}
    if parameters:  # none where the wrapper gathers nothing: then its own checkpoint has them
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous().cpu() for key, value in parameters.items()}, Path(folder, VALUE_HEAD_FILE))


def load_value_head(head: ValueHead, folder: str | Path) -> None:
    """Reads the head that lies beside a policy.

    Raises:
        ValueError: If there is none, or it is of another size.
    """
    path = Path(folder, VALUE_HEAD_FILE)
    if not path.is_file():
        raise ValueError(f"{path} is missing: nothing that PPO could go on from was saved here")
    try:
        head.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} holds no value head of this policy: {error}") from None


@dataclass
class _WithValues(ModelOutput):
    """What the policy returns, and the values: DDP looks for used parameters in what leaves the module."""

    output: ModelOutput | None = None
    token_values: torch.Tensor | None = None  # `values` is what a dictionary calls its own
