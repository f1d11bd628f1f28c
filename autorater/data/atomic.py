"""Files that are written in one step: after a crash, or on a full disk, a file has its old content or the new one.

`read_json` reads what `write_json` wrote.
"""

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from autorater.data.errors import UNWRITABLE, UserError


@contextmanager
def open_atomic(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """A new file to write, which replaces `path` once it is on the disk; after an error it is removed.

    Several processes may write the same file; the last one wins. A link stays one, and so does the mode of a file;
    what is no file, such as /dev/stdout, is written directly. `mode` is "w" (UTF-8) or "wb". An OSError names `path`.
    """
    path, encoding = Path(os.path.realpath(path)), None if "b" in mode else "utf-8"
    if path.exists() and not path.is_file():
        with path.open(mode, encoding=encoding) as file:
            yield file
        return
    new = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.new")  # a name has at most 255 bytes
    try:
        with new.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            new.chmod(path.stat().st_mode)
        new.replace(path)
    except BaseException as error:
        with suppress(OSError):
            new.unlink()
        if isinstance(error, OSError):
            is_full = error.filename is None and error.errno in UNWRITABLE
            if is_full or error.filename == str(new):
                raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    with suppress(OSError):  # not every file system can
        flush_to_disk(path.parent)


def check_writable(path: str | Path) -> None:
    """Raises an OSError that names `path` if a file cannot be written there, before the work whose result it holds."""
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not Path(path).exists() or Path(path).is_file():
        with suppress(_Unwritten), open_atomic(path):
            raise _Unwritten


class _Unwritten(Exception):
    """Ends `open_atomic` without a file."""


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in one step."""
    with open_atomic(path) as file:
        file.write(text)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a binary file in one step."""
    with open_atomic(path, "wb") as file:
        file.write(content)


def write_json(path: str | Path, content: Mapping) -> None:
    """Writes an indented JSON file in one step."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: str | Path, advice: str = "expected a JSON object") -> dict:
    """The JSON object in a file; UserError, which ends with the advice, if there is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it is {content!r:.60}")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {advice}") from None
    return content


def flush_to_disk(path: str | Path) -> None:
    """Waits until a file or the entries of a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
