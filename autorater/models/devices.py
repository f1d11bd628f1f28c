"""The device that a model on this machine is moved to, and whether it computes in bfloat16."""

import torch

from autorater.data.errors import UserError, first_line
from autorater.models.shares import gpu_of_process


def gpu_has_bf16() -> bool:
    """Whether there is a GPU that computes bfloat16; older ones, such as T4 and V100, emulate it, which is slow."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def usable_device(device: str | torch.device | None = None) -> str | torch.device:
    """The device itself if tensors can be placed on it; by default the GPU of this process, else the CPU.

    Raises:
        UserError: If there is no such device.
    """
    if device is None:
        return f"cuda:{gpu_of_process()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # unknown, not compiled in, a backend not installed
        accelerator = torch.accelerator.current_accelerator()
        expected = f"cpu or {accelerator.type}" if accelerator else "cpu"
        raise UserError(f"device {device}: cannot be used here ({first_line(error)}); expected {expected}") from error
    return device
