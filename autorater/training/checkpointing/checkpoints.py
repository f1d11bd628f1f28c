"""Checkpoints that are known to be whole: which file is damaged and how, which one to resume from, which may go.

A checkpoint `checkpoint-STEP` is whole when it has a `manifest.json` and all its files are what the manifest says: the
size and the SHA-256 of each. The manifest is written last, when everything else is on the disk, in one step. So one
that a crash cut short has none, and one that the disk, a copy or a hand has changed does not agree with it.

    {"run": "5f0c…", "step": 40, "settings": {…}, "files": {"model.safetensors": {"bytes": 812, "sha256": "…"}, …}}

`run` tells the checkpoints of a run from those that an earlier run left in the same folder. An older checkpoint is
removed only when a newer one is whole, and its manifest goes first. Needs no torch.

Deliberately left out: what is in a checkpoint (`autorater.training.checkpointing.resumable`), and protection against somebody who
changes the manifest too.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MANIFEST = "manifest.json"
FROM_START = "auto"  # resume from the last checkpoint, and where none was ever completed from the start


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file and what is wrong with it."""


class Unfinished(CheckpointError):
    """A checkpoint was never completed."""


def write_json(path: str | Path, content: Mapping) -> None:
    """Writes a JSON file in one step: whoever reads it finds all of it or what was there before."""
    path = Path(path)
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    _synchronize(path.parent)


def seal(folder: str | Path, step: int, about: Mapping) -> None:
    """Brings a checkpoint to the disk and writes its manifest: from then on it is whole.

    Args:
        folder: The checkpoint.
        step: Optimizer steps taken.
        about: `run` and `settings`, see `choose_checkpoint`; may be empty.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        files = dict(zip([str(path.relative_to(folder)) for path in paths], pool.map(_measure, paths), strict=True))
    write_json(folder / MANIFEST, {**about, "step": step, "files": files})
    _synchronize(folder.parent)


def read_manifest(folder: str | Path) -> dict:
    """The manifest of a checkpoint.

    Raises:
        Unfinished: If it has none.
        CheckpointError: If there is no such checkpoint, or the manifest is damaged.
    """
    path = Path(folder, MANIFEST)
    if not path.parent.is_dir():
        raise CheckpointError(f"there is no checkpoint {path.parent}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["files"], dict):
            raise TypeError
    except FileNotFoundError:
        raise Unfinished(f"{path.parent} has no {MANIFEST}: it was not written to its end") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} is damaged: it is no manifest of a checkpoint") from None
    return manifest


def check_checkpoint(folder: str | Path) -> dict:
    """Compares every file with the manifest.

    Returns:
        The manifest.

    Raises:
        CheckpointError: If a file is missing, has another size or other content, named with what is wrong.
    """
    manifest = read_manifest(folder)
    with ThreadPoolExecutor() as pool:
        said = [(Path(folder, name), wanted) for name, wanted in manifest["files"].items()]
        for problem in pool.map(lambda file: _problem(*file), said):
            if problem:
                raise CheckpointError(problem)
    return manifest


def checkpoints(output_dir: str | Path, run: str | None) -> list[Path]:
    """Completed checkpoints of a run, the newest first; their files are not looked at."""
    folders = []
    for folder in _by_step(output_dir):
        try:
            if read_manifest(folder).get("run") == run:
                folders.append(folder)
        except CheckpointError:
            continue  # it is not a completed one
    return folders


def choose_checkpoint(
    output_dir: str | Path, wanted: str | bool | None, about: Mapping, say: Callable[[str], None] = print
) -> Path | None:
    """The checkpoint that a run resumes from; one that is not whole is named, and the one before it is taken.

    Args:
        output_dir: Where the run keeps its checkpoints.
        wanted: A folder; `true`: the last whole checkpoint of the run; `auto`: the same, or the start of the run where
            no checkpoint was ever completed; nothing: the start.
        about: `run`, the run that goes on, and `settings`, which a checkpoint must have been made with.
        say: Takes a line for a person.

    Returns:
        Its folder, or None for the start.

    Raises:
        CheckpointError: If there is none to resume from, the one that was named is not whole, or the settings differ.
    """
    if not wanted:
        return None
    if wanted not in (True, "true", FROM_START):
        check_settings(check_checkpoint(wanted).get("settings", {}), about.get("settings", {}), str(wanted))
        return Path(wanted)
    problems = []
    for folder in _by_step(output_dir):
        try:
            if read_manifest(folder).get("run") == about.get("run"):
                check_checkpoint(folder)
                say(f"resuming from {folder}")
                return folder
        except CheckpointError as error:
            problems.append(error)
            say(f"not whole: {error}")
    if wanted != FROM_START or any(not isinstance(problem, Unfinished) for problem in problems):
        found = "; ".join(map(str, problems)) or "it has none of this run"
        raise CheckpointError(f"no whole checkpoint in {output_dir} to resume from: {found}")
    return None


def check_settings(earlier: Mapping, now: Mapping, where: str) -> None:
    """Raises CheckpointError, with every difference, if a run would go on with other settings than it began with."""
    different = [name for name in sorted(earlier | now) if earlier.get(name) != now.get(name)]
    if different:
        changes = ", ".join(f"{name} was {_told(earlier, name)} and is {_told(now, name)}" for name in different)
        raise CheckpointError(
            f"{where} belongs to a run with other settings: {changes}. Resume with the same ones, or start a new run "
            "in another output_dir"
        )


def remove_older(output_dir: str | Path, run: str | None, limit: int | None) -> None:
    """Removes the oldest completed checkpoints of a run over a limit; to be called when the newest is whole."""
    for folder in checkpoints(output_dir, run)[limit:] if limit else []:
        (folder / MANIFEST).unlink()  # removal takes a while, and half a checkpoint must not pass for a whole one
        shutil.rmtree(folder)


def _by_step(output_dir: str | Path) -> list[Path]:
    steps = {
        folder: re.fullmatch(r"checkpoint-(\d+)", folder.name) for folder in Path(output_dir).glob("checkpoint-*")
    }
    return sorted((folder for folder, step in steps.items() if step), key=lambda folder: -int(steps[folder][1]))


def _measure(path: Path) -> dict:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _problem(path: Path, wanted: Mapping) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != wanted["bytes"]:
        return f"{path} has {size:,} bytes, it was written with {wanted['bytes']:,}"
    if _measure(path)["sha256"] != wanted["sha256"]:
        return f"{path} is not what was written: its SHA-256 is another one"
    return None


def _synchronize(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(settings: Mapping, name: str) -> str:
    return repr(settings[name]) if name in settings else "the default"
