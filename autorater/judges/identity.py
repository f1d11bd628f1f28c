"""Hashes that tell judges, prompts and data apart, so that stored judgments are not used for others."""

import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b, file_digest
from pathlib import Path

CONTENTS_OF = "contents of "
"""In front of the name of a setting: what the file that it names holds, as a hash."""
_OF_A_MODEL = (".safetensors", ".json", ".bin", ".gguf", ".jinja")


def digest(value: object) -> str:
    """A hash of the value's `repr`, 32 hexadecimal digits."""
    return blake2b(repr(value).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def rows_digest(rows: Iterable[object]) -> str:
    """A hash of the `repr` of every row, one after the other."""
    hasher = blake2b(digest_size=16)
    for row in rows:
        hasher.update(repr(row).encode(errors="surrogatepass"))
    return hasher.hexdigest()


def file_digests(settings: Mapping[str, object]) -> dict[str, str]:
    """SHA-256 of the contents of the files that settings name; a folder or a name on the Hub has none."""
    digests = {}
    for name, value in settings.items():
        if isinstance(value, str) and os.path.isfile(value):  # unlike Path.is_file, False for a long text
            with open(value, "rb") as file:
                digests[name] = file_digest(file, "sha256").hexdigest()
    return digests


def contents_of(settings: Mapping[str, object]) -> dict[str, str]:
    """`file_digests` under the names by which they are recorded among the settings of a run."""
    return {CONTENTS_OF + name: digest for name, digest in file_digests(settings).items()}


def model_digest(name_or_path: str, model: object = None) -> str:
    """A hash of name, size and time of the files of a model folder, or of a GGUF file, which change with the model.

    A Hub name has no files here: its digest is that of the name, and of the commit that the loaded `model` came from.
    """
    path = Path(name_or_path)
    files = [path] if path.is_file() else sorted(file for file in path.glob("*") if file.suffix in _OF_A_MODEL)
    if files:
        return digest([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)
    return digest((name_or_path, commit) if commit else name_or_path)
