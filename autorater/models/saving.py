"""Folders of weights: without those of an earlier run, and with modes that let other users read them."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WEIGHTS = re.compile(
    r"(pytorch_)?model(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?"
    r"|adapter_config\.json|adapter_model\.(safetensors|bin)|value_head\.safetensors"
)


def weights_in(folder: str | Path) -> list[Path]:
    """The files of a folder that hold weights or say where they are."""
    return [path for path in Path(folder).glob("*") if _WEIGHTS.fullmatch(path.name) and path.is_file()]


@contextmanager
def replacing_weights(folder: str | Path, is_main: bool = True) -> Iterator[None]:
    """Within it weights are written; then older ones are removed: an adapter would be opened in place of a model.

    The new ones are readable, as by `make_readable`. All processes may enter; the main one does this.
    """
    if not is_main:
        yield
        return
    older = {path: path.stat().st_mtime_ns for path in weights_in(folder)}
    yield
    for path, time in older.items():
        if path.exists() and path.stat().st_mtime_ns == time:
            path.unlink()
    make_readable(folder)


def make_readable(folder: str | Path) -> None:
    """Gives weights the mode of any new file, 0666 without the umask; safetensors creates them with mode 0600."""
    umask = os.umask(0o077)  # it can only be read by setting it
    os.umask(umask)
    for path in Path(folder).glob("*.safetensors"):
        if (mode := path.stat().st_mode) != mode | 0o666 & ~umask:
            path.chmod(mode | 0o666 & ~umask)
