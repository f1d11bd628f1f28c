"""Completed stages of a run, stored in `run.json` of its output folder, so that the same command can resume it.

    {"run": "5f0c…", "settings": {…}, "completed": ["warm_start", "before"], "warm_start_seconds": 412.0}

A new run gets a new name, which is also its id in W&B, and uses nothing that an earlier run left in the folder. A run
is resumed only with the settings and the data that it began with; settings of logging and saving may change, and
`max_steps` and `num_train_epochs` may increase, which also continues a finished run. The learning-rate schedule is
then that of the new length: with a linear or cosine schedule the rate of the next step is the one that a run of the
new length has there, so it jumps up. Warm start and first evaluation are executed once; the evaluation is stored in
`before.npz` and the prompt layout, as the chat template rendered it, in `run.json`.

Deliberately left out: the state of the training (`autorater.training.checkpointing.checkpoints`).
"""

import fcntl
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from autorater.data.atomic import write_json
from autorater.data.errors import AlreadyFinished
from autorater.evaluation.stored_judgments import read_stored
from autorater.judges import Judgments
from autorater.judges.identity import CONTENTS_OF
from autorater.prompts.templates import SlotFormat
from autorater.training.checkpointing.checkpoints import (
    LENGTHS,
    CheckpointError,
    check_settings,
    checkpoints,
    lasting,
    writes_to,
)
from autorater.training.checkpointing.stages import EVALUATED, RECORD, REPORT, WARM_START, read_record

BEFORE = "before.npz"
REPLACED = f"{RECORD}.before"  # the record of a finished run that a new one will replace
T = TypeVar("T")
_LOCK = "_lock"  # what begins so is not pushed to the Hub
_held: list[int] = []  # the open lock files of the runs of this process
logger = logging.getLogger(__name__)


@dataclass
class RunRecord:
    """A run in its output folder: its name, the settings that its result depends on, and its completed stages.

    `warm_start_seconds` is the time that the warm start or the teaching took, in the process that completed it; the
    `training_seconds` of the results are without it.
    """

    folder: Path
    run: str
    settings: Mapping[str, object]
    completed: list[str]
    prompt: Mapping[str, object] | None = None  # format and pieces of the rendered layout
    warm_start_seconds: float | None = None

    @classmethod
    def open(cls, args: TrainingArguments, settings: Mapping[str, object], data: str) -> "RunRecord":
        """Begins a new run, or resumes the one in the output folder, which exists. All processes call it.

        Args:
            args: Options; `resume_from_checkpoint` as `resume` in `choose_checkpoint`.
            settings: All settings of the run that are not defaults, as JSON values.
            data: A description of its data.

        Raises:
            CheckpointError: If the run in the folder began with other settings, or there is none to resume.
            AlreadyFinished: If it is finished, and no longer training was requested.
        """
        folder = Path(args.output_dir)
        settings = lasting(settings)
        for name, value in settings.items():  # a folder can be moved, also with a judge that the run begins from
            if isinstance(value, str) and Path(value).is_relative_to(folder):
                settings[name] = str(Path(value).relative_to(folder))
        settings |= {name: getattr(args, name) for name in LENGTHS} | {"data": data, "processes": args.world_size}

        return from_main(lambda: _held_record(folder, settings, args.resume_from_checkpoint))

    @property
    def about(self) -> dict[str, object]:
        """The description of the run in its checkpoints."""
        return {"run": self.run, "settings": self.settings}

    def prompt_pieces(self, prompt_format: SlotFormat, render: Callable[[], Sequence[str]]) -> Sequence[str]:
        """The rendered prompt layout: `render` is called once, at the start, and a resumed run uses its result.

        A chat template may write the date, which would change the prompts of a run that is resumed on another day.

        Raises:
            CheckpointError: If the run began with another prompt format.
        """
        saved_format = json.loads(json.dumps(prompt_format.to_dict()))
        if self.prompt is None:
            self.prompt = from_main(lambda: {"format": saved_format, "pieces": list(render())})
            if PartialState().is_main_process:
                self.write()
        elif self.prompt["format"] != saved_format:
            raise CheckpointError(f"{self.folder / RECORD}: the run began with another prompt template or its options")
        return self.prompt["pieces"]

    def mark(self, stage: str) -> None:
        """Records that a stage is completed and all its files are written."""
        self.completed.append(stage)
        if PartialState().is_main_process:
            self.write()
            (self.folder / REPLACED).unlink(missing_ok=True)  # the files that it describes are those of this run now
            if stage == REPORT:
                _release(self.folder)

    def warm_started_policy(self, build: Callable[[], object]) -> str:
        """The folder of the warm-started policy, `warm_start` in the output folder; `build` makes it once."""
        if WARM_START not in self.completed:
            began = time.monotonic()
            build()
            self.warm_start_seconds = round(time.monotonic() - began, 1)
            self.mark(WARM_START)
        return str(self.folder / WARM_START)

    @property
    def warm_start(self) -> str | None:
        """The folder of the warm-started policy, if there is one."""
        return str(self.folder / WARM_START) if WARM_START in self.completed else None

    def judgments_before(self, judge: Callable[[], Judgments]) -> Judgments:
        """The judgments before training; `judge` is called once, and a resumed run reads them from the file."""
        path = self.folder / BEFORE
        if EVALUATED in self.completed:
            return Judgments.load(path)
        judgments = judge()
        if PartialState().is_main_process:
            with writes_to(self.folder):
                judgments.save(path)
        self.mark(EVALUATED)
        return judgments

    def write(self) -> None:
        """Writes `run.json`."""
        content = {"run": self.run, "settings": self.settings, "completed": self.completed}
        content |= {"prompt": self.prompt} if self.prompt else {}
        content |= {} if self.warm_start_seconds is None else {"warm_start_seconds": self.warm_start_seconds}
        with writes_to(self.folder):
            write_json(self.folder / RECORD, content)


def from_main(call: Callable[[], T]) -> T:
    """Calls a function on the main process and returns its result, or raises its exception, on all processes."""
    outcome: list = [None, None]
    if PartialState().is_main_process:
        try:
            outcome[0] = call()
        except Exception as error:  # any: the other processes wait for the outcome
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _begin_or_resume(folder: Path, settings: dict, resume: str | None) -> RunRecord:
    earlier = read_record(folder)
    if earlier:  # older versions did not record contents
        contents = {name: value for name, value in settings.items() if name.startswith(CONTENTS_OF)}
        earlier["settings"] = contents | lasting(earlier["settings"])
    if resume and earlier:
        check_settings(earlier["settings"], settings, str(folder / RECORD))
        if REPORT in earlier["completed"] and settings == earlier["settings"]:
            raise AlreadyFinished(
                f"the run in {folder} is finished, with its report; to continue it, increase max_steps or "
                "num_train_epochs; without --resume_from_checkpoint a new run begins"
            )
        completed = [stage for stage in earlier["completed"] if stage != REPORT]
        if EVALUATED in completed and read_stored(folder / BEFORE) is None:
            completed.remove(EVALUATED)
        kept = earlier.get("prompt"), earlier.get("warm_start_seconds")
        record = RunRecord(folder, earlier["run"], settings, completed, *kept)
    elif resume == "true":
        raise CheckpointError(f"there is no run in {folder} to resume ({RECORD} is missing)")
    else:
        if earlier and REPORT not in earlier["completed"]:
            left, teaching = (checkpoints(place, earlier["run"]) for place in (folder, folder / WARM_START))
            if left or teaching:
                resumed = "auto" if teaching else left[0]
                logger.warning(f"a new run begins; --resume_from_checkpoint {resumed} resumes the earlier one")
        if earlier and REPORT in earlier["completed"]:
            shutil.copyfile(folder / RECORD, folder / REPLACED)
            if settings != earlier["settings"]:
                logger.warning(
                    f"{folder} holds a finished run with other settings, whose judge will be replaced; to keep it, "
                    f"choose another output_dir (until the new run has completed a stage, {REPLACED} is the earlier "
                    f"{RECORD}: rename it to get the run back)"
                )
        record = RunRecord(folder, secrets.token_hex(4), settings, [])
    record.write()
    return record


def _held_record(folder: Path, settings: dict[str, object], resume: str | None) -> RunRecord:
    """`_begin_or_resume` in a folder that no other process uses until the run is finished."""
    _hold(folder)
    try:
        return _begin_or_resume(folder, settings, resume)
    except Exception:
        _release(folder)
        raise


def _hold(folder: Path) -> None:
    """Refuses a folder in which another process has a run; a file system without locks refuses nothing."""
    path = folder.resolve() / _LOCK
    if any(_is_at(file, path) for file in _held):
        return
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, or the process ends
    except BlockingIOError:
        os.close(file)
        raise CheckpointError(
            f"another process has a run in {folder}; wait until it has ended, or choose another output_dir"
        ) from None
    except OSError as error:
        logger.debug(f"{path}: {error}")
        return
    if _is_at(file, path):
        _held.append(file)
    else:  # its owner has just removed it
        os.close(file)
        _hold(folder)


def _release(folder: Path) -> None:
    path = folder.resolve() / _LOCK
    for file in [file for file in _held if _is_at(file, path)]:
        path.unlink()
        os.close(file)
        _held.remove(file)


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one that a path leads to now."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
