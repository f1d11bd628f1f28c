"""A GGUF file as a plain model folder, so that training, judging and transformers treat it as any other model.

The file is dequantized once, into safetensors with its tokenizer and chat template. transformers refuses to save a
model that it read from a GGUF file, because the config has a quantization entry; so the weights are loaded, strictly,
into the same class built from a config without it.

Deliberately left out: writing GGUF, and training on quantized weights.
"""

import hashlib
import os
import struct
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from autorater.data.errors import UserError


def plain_model(name_or_path: str) -> str:
    """The name itself, or for a `.gguf` file, or a folder that holds one, the folder of its plain model.

    The folder is made by `convert_gguf` on first use, under `$XDG_CACHE_HOME/autorater/gguf` (`~/.cache`); a changed
    file gets a new one.

    Raises:
        UserError: If the folder has several GGUF files, or as in `convert_gguf`.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir() and not any((path / name).exists() for name in ("config.json", "adapter_config.json")):
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            raise UserError(f"{path} has {len(files)} GGUF files; name one: {', '.join(file.name for file in files)}")
        path = files[0] if files else path
    if path.suffix != ".gguf" or not path.is_file():
        return name_or_path
    path, status = path.resolve(), path.stat()
    fingerprint = hashlib.sha256(f"{path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "autorater" / "gguf" / f"{path.stem}-{fingerprint}"
    if not folder.exists():
        convert_gguf(path, folder)
    return str(folder)


def convert_gguf(file: str | Path, folder: str | Path) -> None:
    """Writes the model of a GGUF file to a new folder, in float32 (4 bytes a parameter) with its tokenizer.

    Several processes may convert one file at the same time: the folder appears complete or not at all.

    Raises:
        UserError: If the folder exists, the package gguf is missing, or transformers cannot read the file.
    """
    file, folder = Path(file), Path(folder)
    if find_spec("gguf") is None:
        raise UserError(f"{file}: reading a GGUF file needs the package gguf (pip install gguf, or the extra gguf)")
    if folder.exists():
        raise UserError(f"{folder} exists; expected a new folder for the model of {file}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        try:
            tokenizer = AutoTokenizer.from_pretrained(**source)
            quantized = AutoModelForCausalLM.from_pretrained(**source, dtype="float32")
        except (OSError, ValueError, KeyError, NotImplementedError, struct.error) as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise UserError(f"{file} cannot be read as a causal language model: {reason}") from error
        del quantized.config.quantization_config
        model = type(quantized)(quantized.config)
        model.load_state_dict(quantized.state_dict(), strict=True)
        model.generation_config = quantized.generation_config
        complete = Path(temporary) / folder.name
        model.save_pretrained(complete)
        tokenizer.save_pretrained(complete)
        with suppress(OSError):  # another process was faster
            complete.rename(folder)
