"""Checkpoints: which one is complete, which one to resume from, which ones may be removed.

A checkpoint `checkpoint-STEP` is complete when it has a `manifest.json` and every file has the size recorded there;
files of at most 1 MiB also the SHA-256. The manifest is written last, when all other files are on the disk.

    {"run": "5f0c…", "step": 40, "settings": {…}, "files": {"model.safetensors": {"bytes": 7340032}, …}}

So an interrupted write, a truncated file and a missing file are found. A changed byte in a large file is not: hashing
a hundred gigabytes would keep all processes waiting. `run` identifies the run, since an earlier one may have left its
checkpoints in the same folder. Needs no torch.

Deliberately left out: the content of a checkpoint (`autorater.training.checkpointing.resumable`).
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from autorater.data.atomic import flush_to_disk, write_json
from autorater.data.errors import UserError, disk_problem

MANIFEST = "manifest.json"
FROM_START = "auto"  # resume from the last checkpoint, or from the start if none was ever completed
LENGTHS = ("max_steps", "num_train_epochs")  # settings that may increase when a run is resumed
_CHANGEABLE = {
    "output_dir", "run_name", "report_to", "project", "resume_from_checkpoint", "num_completions_to_print",
    "disable_tqdm", "eval_steps", "n_eval_pairs", "untrained_judgments_dir", "push_to_hub", "dataloader_num_workers",
    # without effect, and refused; runs that began before that are resumed without them
    "per_device_eval_batch_size", "eval_delay", "fp16_full_eval", "num_generations_eval", "trust_remote_code",
}  # fmt: skip
_CHANGEABLE_PREFIXES = ("log_", "logging_", "save_", "hub_", "trackio_")
_LARGEST_HASHED = 2**20  # bytes
logger = logging.getLogger(__name__)


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message names the file and the problem."""


class IncompleteCheckpoint(CheckpointError):
    """A checkpoint whose write was interrupted."""


@contextmanager
def writes_to(folder: str | Path, advice: str = "resume the run with --resume_from_checkpoint auto") -> Iterator[None]:
    """Within it an error of writing, as on a full disk, is a CheckpointError that says how to resume the run."""
    try:
        yield
    except Exception as error:
        if (problem := disk_problem(error)) is None:
            raise
        raise CheckpointError(f"{folder} cannot be written ({problem}); once it can, {advice}") from error


def complete(folder: str | Path, step: int, about: Mapping) -> None:
    """Flushes a checkpoint of a step to the disk and writes its manifest; `about` as in `choose_checkpoint`."""
    folder = Path(folder)
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        flush_to_disk(path)
        files[str(path.relative_to(folder))] = _fingerprint(path)
    write_json(folder / MANIFEST, {**about, "step": step, "files": files})
    flush_to_disk(folder.parent)


def read_manifest(folder: str | Path) -> dict:
    """Returns the manifest of a checkpoint; raises CheckpointError if there is none."""
    path = Path(folder, MANIFEST)
    if not path.parent.is_dir():
        raise CheckpointError(f"there is no checkpoint {path.parent}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IncompleteCheckpoint(f"{path.parent} has no {MANIFEST}: its write was interrupted") from None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object with the entry `files`")
    return manifest


def check_checkpoint(folder: str | Path) -> dict:
    """Returns the manifest of a checkpoint; raises CheckpointError for the first file that differs from it."""
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        path = Path(folder, name)
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        found = _fingerprint(path)
        if found["bytes"] != expected["bytes"]:
            raise CheckpointError(f"{path} has {found['bytes']:,} bytes, expected {expected['bytes']:,}")
        if found != expected:
            raise CheckpointError(f"{path} is damaged: its SHA-256 differs from the one in {MANIFEST}")
    return manifest


def checkpoints(output_dir: str | Path, run: str | None) -> list[Path]:
    """Completed checkpoints of a run, the newest first; their files are not checked."""
    completed = []
    for folder in _newest_first(output_dir):
        try:
            if read_manifest(folder).get("run") == run:
                completed.append(folder)
        except CheckpointError:
            continue
    return completed


def choose_checkpoint(output_dir: str | Path, resume: str | bool | None, about: Mapping) -> Path | None:
    """Chooses the checkpoint to resume from; a damaged one is logged, and the one before it is used.

    Args:
        output_dir: The folder with the checkpoints of the run.
        resume: A folder; `true`: the last complete checkpoint of the run; `auto`: the same, or the start of the run if
            no checkpoint was ever completed; nothing: the start.
        about: `run`, the run to resume, and `settings`, which must agree with those of the checkpoint.

    Returns:
        The folder, or None for the start.

    Raises:
        CheckpointError: If there is no complete checkpoint, or the settings differ.
    """
    if not resume:
        return None
    if resume not in (True, "true", FROM_START):
        check_settings(check_checkpoint(resume).get("settings", {}), about.get("settings", {}), str(resume))
        return Path(resume)
    problems = []
    for folder in _newest_first(output_dir):
        try:
            if read_manifest(folder).get("run") == about.get("run"):
                check_checkpoint(folder)
                logger.info(f"resuming from {folder}")
                return folder
        except CheckpointError as error:
            problems.append(error)
            logger.warning(f"checkpoint skipped: {error}")
    if resume == FROM_START and all(isinstance(problem, IncompleteCheckpoint) for problem in problems):
        return None
    reason = "; ".join(map(str, problems)) or "the run has none"
    raise CheckpointError(f"no complete checkpoint in {output_dir} to resume from: {reason}")


def lasting(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings that must be the same when a run is resumed; older versions wrote others too, and `hub_token`."""
    return {name: value for name, value in settings.items() if not _is_changeable(name)}


def check_settings(earlier: Mapping, now: Mapping, source: str) -> None:
    """Raises CheckpointError if settings changed since a run began, except for `LENGTHS` that increased."""
    earlier = lasting(earlier)
    different = {name for name in earlier | now if earlier.get(name) != now.get(name)}
    increased = {name for name in LENGTHS if 0 < earlier.get(name, 0) < now.get(name, 0)}
    if changed := sorted(different - increased):
        changes = [f"{name} was {_shown(earlier, name)} and is {_shown(now, name)}" for name in changed]
        raise CheckpointError(
            f"{source} belongs to a run with other settings: {', '.join(changes)}. Resume with the same settings "
            f"(only {' and '.join(LENGTHS)} may increase), or start a new run in another output_dir"
        )


def remove_older(output_dir: str | Path, run: str | None, limit: int | None) -> None:
    """Removes the oldest completed checkpoints of a run over a limit; call it when the newest one is complete."""
    for folder in checkpoints(output_dir, run)[limit:] if limit else []:
        (folder / MANIFEST).unlink()  # first: a removal that is interrupted leaves an incomplete checkpoint
        shutil.rmtree(folder)


def _is_changeable(name: str) -> bool:
    return name in _CHANGEABLE or name.startswith(_CHANGEABLE_PREFIXES)


def _newest_first(output_dir: str | Path) -> list[Path]:
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(folders, key=lambda folder: -int(folder.name.split("-")[1]))


def _fingerprint(path: Path) -> dict:
    size = path.stat().st_size
    if size > _LARGEST_HASHED:
        return {"bytes": size}
    return {"bytes": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _shown(settings: Mapping, name: str) -> str:
    return repr(settings[name]) if name in settings else "the default"
