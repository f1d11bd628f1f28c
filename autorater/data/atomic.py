"""Files that are written in one step: after a crash, or on a full disk, a file has its old content or the new one."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_atomic(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """A new file to write, which replaces `path` once it is on the disk; after an error it is removed.

    Several processes may write the same file; the last one wins. `mode` is "w" (UTF-8) or "wb".
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with new.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in one step."""
    with open_atomic(path) as file:
        file.write(text)


def write_json(path: str | Path, content: Mapping) -> None:
    """Writes an indented JSON file in one step."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def flush_to_disk(path: str | Path) -> None:
    """Waits until a file or the entries of a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
