"""Folders of weights: without those of an earlier run, and with modes that let other users read them."""

import os
from pathlib import Path

_OF_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*", "adapter_*")


def remove_weights(folder: str | Path) -> None:
    """Removes weights from a folder that gets new ones: an old adapter would be opened in place of a new model."""
    for path in {path for pattern in _OF_WEIGHTS for path in Path(folder).glob(pattern)}:
        path.unlink()


def make_readable(folder: str | Path) -> None:
    """Gives weights the mode of any new file, 0666 without the umask; safetensors creates them with mode 0600."""
    umask = os.umask(0o077)  # it can only be read by setting it
    os.umask(umask)
    for path in Path(folder).glob("*.safetensors"):
        if (mode := path.stat().st_mode) != mode | 0o666 & ~umask:
            path.chmod(mode | 0o666 & ~umask)
