"""Saved weights that other users of a machine may read, as the servers of containers do."""

import os
from pathlib import Path


def make_readable(folder: str | Path) -> None:
    """Gives weights the mode of any new file, 0666 without the umask; safetensors creates them with mode 0600."""
    umask = os.umask(0o077)  # it can only be read by setting it
    os.umask(umask)
    for path in Path(folder).glob("*.safetensors"):
        if (mode := path.stat().st_mode) != mode | 0o666 & ~umask:
            path.chmod(mode | 0o666 & ~umask)
