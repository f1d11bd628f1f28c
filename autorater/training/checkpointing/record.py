"""What a run has behind it, in `run.json` of its output folder, so that the same command can go on with it.

    {"run": "5f0c…", "settings": {…}, "done": ["warm_start", "before"]}

A new run gets a new name (W&B knows it by the same one), and what an earlier run left in the folder is not taken for
its own. A run goes on only with the settings that it began with; those that say what is shown, where, and how often
something is saved are free. Warm start and first evaluation are done once: the second is kept in `before.npz`.

Deliberately left out: the training itself, which checkpoints keep (`autorater.training.checkpointing.checkpoints`).
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from autorater.data.errors import AlreadyFinished
from autorater.judges import Judgments
from autorater.training.checkpointing.checkpoints import CheckpointError, check_settings, checkpoints, write_json

RECORD, BEFORE = "run.json", "before.npz"
# settings that a run may change on its way
_FREE = {
    "output_dir", "run_name", "report_to", "resume_from_checkpoint", "logging_steps", "logging_first_step",
    "log_completions", "num_completions_to_print", "disable_tqdm", "eval_steps", "n_eval_pairs", "save_steps",
    "save_strategy", "save_total_limit",
}  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class RunRecord:
    """A run and the stages that it has behind it.

    Attributes:
        folder: Its output folder.
        run: Its name.
        settings: What its result depends on.
        done: The stages that are complete.
    """

    folder: Path
    run: str
    settings: Mapping[str, object]
    done: list[str]

    @classmethod
    def open(cls, args: TrainingArguments, settings: Mapping[str, object], data: str) -> "RunRecord":
        """Begins a new run, or goes on with the one in the output folder. All processes call it.

        Args:
            args: `output_dir`, an existing folder, and `resume_from_checkpoint`, as `wanted` in `choose_checkpoint`.
            settings: Everything the run was told, as JSON values.
            data: What it trains on, in a line.

        Raises:
            CheckpointError: If the run in the folder began with other settings, or there has to be one and is none.
            AlreadyFinished: If it is finished.
        """
        folder = Path(args.output_dir)
        bound = {name: value for name, value in settings.items() if name not in _FREE}
        bound |= {"data": data, "processes": args.world_size}
        run, done = from_main(lambda: _begin(folder, bound, args.resume_from_checkpoint))
        record = cls(folder, run, bound, done)
        if record.has("report"):
            raise AlreadyFinished(
                f"the run in {folder} is finished, with its report; without --resume_from_checkpoint it begins again"
            )
        return record

    @property
    def about(self) -> dict[str, object]:
        """What checkpoints say of the run that they belong to."""
        return {"run": self.run, "settings": self.settings}

    def has(self, stage: str) -> bool:
        """Whether a stage is complete."""
        return stage in self.done

    def mark(self, stage: str) -> None:
        """Notes that a stage is complete, and everything it left is written."""
        self.done.append(stage)
        if PartialState().is_main_process:
            _write(self.folder, self.run, self.settings, self.done)

    def once(self, stage: str, make: Callable[[], str]) -> str:
        """A folder that a stage leaves in the output folder, under the name of the stage; made once."""
        if not self.has(stage):
            make()
            self.mark(stage)
        return str(self.folder / stage)

    def judged_before(self, ask: Callable[[], Judgments]) -> Judgments:
        """What the judge said before the training: it is asked once, and a resumed run reads it from the file."""
        path = self.folder / BEFORE
        if self.has("before"):
            with np.load(path) as columns:
                return Judgments(**columns)
        said = ask()
        if PartialState().is_main_process:
            np.savez(path, **{name: column for name, column in vars(said).items() if column is not None})
        self.mark("before")
        return said


def from_main(decide: Callable[[], T]) -> T:
    """What the main process finds, in all processes; where it raises, all do."""
    found: list = [None, None]
    if PartialState().is_main_process:
        try:
            found[0] = decide()
        except (ValueError, OSError) as error:
            found[1] = error
    broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]


def _begin(folder: Path, settings: Mapping[str, object], resume: str | bool | None) -> tuple[str, list[str]]:
    path = folder / RECORD
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if resume and earlier:
        check_settings(earlier["settings"], settings, str(path))
        return earlier["run"], earlier["done"]
    if resume == "true":
        raise CheckpointError(f"there is no run in {folder} to go on with ({RECORD})")
    if earlier and "report" not in earlier["done"] and (left := checkpoints(folder, earlier["run"])):
        print(f"beginning anew; --resume_from_checkpoint {left[0]} would have gone on with an earlier run")
    run = secrets.token_hex(4)
    _write(folder, run, settings, [])
    return run, []


def _write(folder: Path, run: str, settings: Mapping[str, object], done: list[str]) -> None:
    write_json(folder / RECORD, {"run": run, "settings": settings, "done": done})
