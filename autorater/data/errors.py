"""Errors that a user can fix: a script prints them in one line and exits with status 2."""

import difflib
import errno
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
UNWRITABLE = _OF_DISKS | {errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors of a disk or a folder that cannot be written, such as a full one."""
_OF_NAMES = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}

_OF_TORCH = ("PytorchStreamWriter failed", "unexpected pos", "iostream error")  # torch.save on a full disk


class UserError(ValueError):
    """A mistake in a user's data, options, files or servers; the message says what was got and what was expected."""


class DataError(UserError):
    """Data that is not as described; the message names the file, the line, the column and the value."""


class OptionError(UserError):
    """Options that are not compatible with others; `options` are their names."""

    def __init__(self, message: str, options: Sequence[str]):
        super().__init__(message, options)  # both are pickled
        self.options = options

    def __str__(self) -> str:
        return self.args[0]


class DataWarning(Warning):
    """Unusual data that was read all the same; the message says what and how many."""


class AlreadyFinished(Exception):
    """There is nothing left to do; the message says why. A script prints it and exits with status 0."""


def file_problem(error: OSError) -> str | None:
    """In a line what is wrong with a disk, or with the file that an error names; None for other errors."""
    if error.filename and error.errno in UNWRITABLE | _OF_NAMES:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return error.strerror if error.errno in _OF_DISKS else None


def disk_problem(error: BaseException) -> str | None:
    """As `file_problem`, for all errors: Rust libraries (safetensors, tokenizers) and torch raise no OSError."""
    if isinstance(error, OSError):
        return file_problem(error)
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number and int(number[1]) in UNWRITABLE:
        return os.strerror(int(number[1]))
    of_torch = isinstance(error, RuntimeError) and any(words in str(error) for words in _OF_TORCH)
    return first_line(error) if of_torch else None


def refuse_overwriting(source: object, out: str | os.PathLike[str]) -> None:
    """Raises a `UserError` if a file to write is the one that is read."""
    if not isinstance(source, str | os.PathLike) or not (os.path.exists(source) and os.path.exists(out)):
        return
    if os.path.samefile(source, out):
        raise UserError(
            f"{os.fspath(out)} would be overwritten, and it is the file to read; choose another name or folder"
        )


def refuse_several_processes() -> None:
    """Raises a `UserError` in a process of torchrun or accelerate, if there are others that would do the same work."""
    if (size := int(os.environ.get("WORLD_SIZE") or 1)) > 1:
        raise UserError(
            f"this runs in one process, and was started in {size}; start it with python, without a launcher"
        )


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like a wrong one; None if none is like it."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1)), None)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`; did you mean …?` with the `nearest` name, or nothing if there is none."""
    close = nearest(name, known)
    return f"; did you mean {close}?" if close else ""


def first_line(error: Exception) -> str:
    """The first line of an error of another library, shortened."""
    return str(error).strip().split("\n")[0][:300]


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 row`, `1,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@contextmanager
def located(place: object) -> Iterator[None]:
    """Prefixes a `DataError` raised inside with a place: a file, a line."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from error.__cause__


def ineffective(cases: Iterable[tuple[object, str, Iterable[str]]], given: Collection[str]) -> dict[str, list[str]]:
    """Names of the `given` options that have no effect in a run, by the reason why.

    Args:
        cases: Whether a reason applies, the reason, and the options that then have no effect.
        given: Names of the options that the user set.
    """
    found = {reason: [name for name in names if name in given] for applies, reason, names in cases if applies}
    return {reason: names for reason, names in found.items() if names}


def refuse_ineffective(cases: Iterable[tuple[object, str, Iterable[str]]], given: Collection[str]) -> None:
    """Raises UserError for the first options of `ineffective`."""
    for reason, names in ineffective(cases, given).items():
        raise UserError(f"{', '.join(names)}: no effect, because {reason}")
