"""The judgment store of a run: every judgment is appended once, as it arrives, so that a killed run can resume.

A judgment is one `write` of a whole line to a file opened for appending, with no buffer in between, so `kill -9` loses
nothing. Against a power cut, the file is synchronized to the disk at most once a second, and when the store is closed;
after every line, that would be the slowest part of a fast run. A truncated last line has no line feed and is dropped.
Lines arrive in any order. Once the run is complete, `sort` writes them in the order of the requests to a new file,
which replaces the old one in one step. A finished run leaves the same bytes however often it was interrupted.

`settings.json` in the same folder holds everything that the judgments depend on. A run with other settings is refused.

Memory: the offset of every line, eight bytes a judgment; texts stay on the disk.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from autorater.data.atomic import open_atomic, read_json, write_json
from autorater.data.errors import DataError, UserError

JUDGMENTS_FILE, SETTINGS_FILE = "judgments.jsonl", "settings.json"
_SYNC_SECONDS = 1.0

logger = logging.getLogger(__name__)


class JudgmentStore:
    """Records on disk, by the number of their request. One process at a time can open a folder.

    Args:
        folder: Existing folder of the run.
        n_requests: Number of requests of the run.
        number_of: Returns the number of a record's request; raises ValueError for a record of another run.
        settings: What the judgments depend on, as JSON values.
        is_refused: Whether a record is a refusal. A folder with refusals only takes new settings.
        drop_refused: Remove the refusals of an earlier run.

    Raises:
        UserError: If another process is writing to the folder, or the file belongs to a run with other settings.
        DataError: If a line other than the last is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        n_requests: int,
        number_of: Callable[[Mapping], int],
        settings: Mapping[str, object],
        is_refused: Callable[[Mapping], bool] = lambda record: False,
        drop_refused: bool = False,
    ):
        self.path = Path(folder, JUDGMENTS_FILE)
        self._starts = array("q", [-1]) * n_requests  # offset of each record in the file; -1: no record
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._lock()
            path, has_records = Path(folder, SETTINGS_FILE), os.fstat(self._file).st_size > 0
            try:
                _check_settings(path, settings, has_records)
            except UserError:
                if not self._all_are(is_refused):
                    raise
                logger.info("all stored judgments are refusals; they are dropped, and the new settings are used")
                os.ftruncate(self._file, 0)
                _check_settings(path, settings, has_records=False)
            self._read_file(number_of, is_refused if drop_refused else lambda record: False)
        except BaseException:
            os.close(self._file)
            raise
        self._synchronized = time.monotonic()

    def __contains__(self, number: int) -> bool:
        return self._starts[number] >= 0

    def __len__(self) -> int:
        """Number of records."""
        return len(self._starts) - self._starts.count(-1)

    def __getitem__(self, number: int) -> dict:
        """The record of a request, read from the disk; `KeyError` if there is none."""
        if number not in self:
            raise KeyError(number)
        with self.path.open("rb") as file:
            file.seek(self._starts[number])
            return json.loads(file.readline())

    def append(self, number: int, record: Mapping[str, object]) -> None:
        """Writes the record of a request; `ValueError` if it has one already."""
        if number in self:
            raise ValueError(f"request {number} has a judgment already")
        start = os.lseek(self._file, 0, os.SEEK_END)
        # ASCII, since a model's text may contain half of a surrogate pair, which UTF-8 cannot encode
        line = json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        try:
            while line:  # one write, except on a full disk; the next run drops the truncated line
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); the same command resumes") from error
        self._starts[number] = start
        if time.monotonic() - self._synchronized > _SYNC_SECONDS:
            os.fsync(self._file)
            self._synchronized = time.monotonic()

    def numbers(self) -> Iterator[int]:
        """The numbers of the requests that have a record, ascending."""
        return (number for number, start in enumerate(self._starts) if start >= 0)

    def records(self) -> Iterator[dict]:
        """All records in the order of the file."""
        with self.path.open("rb") as file:
            yield from map(json.loads, file)

    def sort(self) -> None:
        """Puts the lines into the order of the requests, in one step."""
        if any(start > following for start, following in pairwise(start for start in self._starts if start >= 0)):
            self._rewrite()

    def close(self) -> None:
        """Synchronizes and closes the file."""
        os.fsync(self._file)
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{self.path} is in use by another run; choose another output folder") from None

    def _all_are(self, is_refused: Callable[[Mapping], bool]) -> bool:
        try:
            return all(map(is_refused, self.records()))
        except (ValueError, KeyError, TypeError):  # a damaged line
            return False

    def _read_file(self, number_of: Callable[[Mapping], int], drop: Callable[[Mapping], bool]) -> None:
        end, dropped = 0, False
        with self.path.open("rb") as file:
            for row, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    logger.info(f"the last line of {self.path.name} was truncated; its request is sent again")
                    os.ftruncate(self._file, end)
                    break
                try:
                    record = json.loads(line)
                    number = number_of(record)
                    if number in self:
                        raise ValueError("an earlier line has the same request")
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{self.path}: line {row}: not a judgment of this run ({error}); expected a file that only "
                        "this script has written; fix the line, or choose another output folder"
                    ) from None
                if drop(record):
                    dropped = True
                else:
                    self._starts[number] = end
                end += len(line)
        if dropped:
            self._rewrite()

    def _rewrite(self) -> None:
        """Replaces the file with one that holds the records in the order of the requests."""
        with self.path.open("rb") as old, open_atomic(self.path, "wb") as new:
            for number, start in enumerate(self._starts):
                if start >= 0:
                    old.seek(start)
                    self._starts[number] = new.tell()
                    new.write(old.readline())
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self._lock()


class StoredElsewhere:
    """The requests that have a record in a folder which another process of the same run has opened.

    Args:
        folder, n_requests, number_of: As in `JudgmentStore`.
    """

    def __init__(self, folder: str | Path, n_requests: int, number_of: Callable[[Mapping], int]):
        self._there = bytearray(n_requests)
        with Path(folder, JUDGMENTS_FILE).open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # else it is being written
                    self._there[number_of(json.loads(line))] = 1

    def __contains__(self, number: int) -> bool:
        return self._there[number] == 1


def _check_settings(path: Path, settings: Mapping[str, object], has_records: bool) -> None:
    """Writes the settings of a new run; compares them with the file if there are records."""
    if not has_records:
        write_json(path, settings)
        return
    earlier = read_json(path, "choose another output folder")
    settings = json.loads(json.dumps(settings))
    for name in (*settings, *earlier):
        if earlier.get(name) != settings.get(name):
            raise UserError(
                f"{path.parent} has judgments made with {name} = {json.dumps(earlier.get(name)):.60}, but now it "
                f"is {json.dumps(settings.get(name)):.60}; choose another output folder, or use the earlier setting"
            )
