"""The journal of a run: every judgment is appended once, as it arrives, so that a killed run can go on.

What has been written survives the process: a judgment is one `write` of a whole line to a file opened for appending,
with no buffer in between, so `kill -9` loses nothing. Against a power cut the file is synchronized to the disk once a
second at most, and when the journal is closed; for every line, that would be the slowest part of a fast run.
A last line that was cut off is recognized by its missing end and dropped. Lines arrive in whatever order the judge
answers; `sort` puts them into the order of the questions once the run is complete, in a new file that replaces the old
one in one step. A finished run leaves the same bytes however often it was interrupted.

Beside it, `settings.json` holds what the judgments depend on. A run with other settings does not go on with them.

In memory is the place of every line in the file, eight bytes a judgment; texts stay on the disk.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from autorater.data.errors import DataError

JOURNAL_FILE, SETTINGS_FILE = "judgments.jsonl", "settings.json"
_SYNC_SECONDS = 1.0


class Journal:
    """Records by slot, on disk. A slot is the number of a question among all questions of the run.

    Args:
        folder: Existing folder of the run.
        n_slots: Number of questions.
        slot_of: The slot of a record that was read back, and ValueError for what is no record of this run.
        settings: What the judgments depend on, as JSON values.
        drop: Which records of an earlier run are to be forgotten, and asked for again; none by default.

    Attributes:
        torn: Whether the last line of the file was cut off, and dropped.
        n_kept: Records found in the file.

    Raises:
        ValueError: If another process is writing to the folder, or the file belongs to a run with other settings.
        DataError: If a line other than the last is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        n_slots: int,
        slot_of: Callable[[Mapping], int],
        settings: Mapping[str, object],
        drop: Callable[[Mapping], bool] = lambda record: False,
    ):
        self.path = Path(folder, JOURNAL_FILE)
        self._slot_of = slot_of
        self._places = array("q", bytes(8 * n_slots))  # where a record begins, counted from 1; 0 where there is none
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._lock()
            _check_settings(Path(folder, SETTINGS_FILE), settings, has_records=os.fstat(self._file).st_size > 0)
            self.torn = self._cut_torn_line()
            dropped = self._index(drop)
        except BaseException:
            os.close(self._file)
            raise
        if dropped:
            self.sort()
        self.n_kept = self._n_records
        self._synchronized = time.monotonic()

    def __contains__(self, slot: int) -> bool:
        return self._places[slot] > 0

    def __len__(self) -> int:
        """Number of records."""
        return self._n_records

    def __getitem__(self, slot: int) -> dict:
        """The record of a slot, read from the disk.

        Raises:
            KeyError: If there is none.
        """
        if slot not in self:
            raise KeyError(slot)
        with self.path.open("rb") as file:
            file.seek(self._places[slot] - 1)
            return json.loads(file.readline())

    def append(self, slot: int, record: Mapping[str, object]) -> None:
        """Writes the record of a slot.

        Raises:
            ValueError: If the slot has one already.
        """
        if slot in self:
            raise ValueError(f"question {slot} is answered already")
        line = (
            json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        )  # a model may say half a surrogate
        written = os.write(self._file, line)
        while written < len(line):  # a full disk raises here, and leaves a torn line for the next run to drop
            written += os.write(self._file, line[written:])
        self._places[slot] = self._size + 1
        self._size += len(line)
        self._n_records += 1
        self._n_lines += 1
        if time.monotonic() - self._synchronized > _SYNC_SECONDS:
            os.fsync(self._file)
            self._synchronized = time.monotonic()

    def records(self) -> Iterator[dict]:
        """All records in the order of the file."""
        with self.path.open("rb") as file:
            yield from map(json.loads, file)

    def sort(self) -> None:
        """Puts the lines into the order of their slots, in one step."""
        places = (place for place in self._places if place)
        if self._n_lines == self._n_records and all(before < behind for before, behind in pairwise(places)):
            return
        other = self.path.with_suffix(".sorting")
        with self.path.open("rb") as old, other.open("wb") as new:
            for slot, place in enumerate(self._places):
                if place:
                    old.seek(place - 1)
                    self._places[slot] = new.tell() + 1
                    new.write(old.readline())
            new.flush()
            os.fsync(new.fileno())
            self._size, self._n_lines = new.tell(), self._n_records
        other.replace(self.path)
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self._lock()

    def close(self) -> None:
        """Synchronizes and closes the file."""
        os.fsync(self._file)
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{self.path} is being written by another run; wait for it, or choose another folder"
            ) from None

    def _cut_torn_line(self) -> bool:
        size = os.fstat(self._file).st_size
        end = size
        while end:  # back to behind the last line feed
            start = max(0, end - 65_536)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._file, end)
        return end < size

    def _index(self, drop: Callable[[Mapping], bool]) -> bool:
        """Notes where every record is; whether one is to be dropped."""
        self._size = self._n_records = self._n_lines = 0
        dropped = False
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                    slot = self._slot_of(record)
                    if slot in self:
                        raise ValueError("this question has been answered further up")
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{self.path}: line {number}: not a judgment of this run ({error}); expected a file that only "
                        "this script has written; mend it, or choose another output folder"
                    ) from None
                if drop(record):
                    dropped = True
                else:
                    self._places[slot] = self._size + 1
                    self._n_records += 1
                self._size += len(line)
                self._n_lines += 1
        return dropped


def _check_settings(path: Path, settings: Mapping[str, object], has_records: bool) -> None:
    """Writes the settings, or compares them with those of the run that the file belongs to."""
    if not has_records:
        other = path.with_suffix(".writing")
        other.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        other.replace(path)
        return
    folder = path.parent
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} has judgments and no readable {path.name} ({error}); choose another output folder"
        ) from None
    wanted = json.loads(json.dumps(settings))
    for name in (*wanted, *earlier):
        if earlier.get(name) != wanted.get(name):
            raise ValueError(
                f"{folder} holds judgments made with {name} = {_short(earlier.get(name))}, and now it is "
                f"{_short(wanted.get(name))}; choose another output folder, or go back to those settings"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
