"""A GGUF file as a plain model folder, so that training, judging and transformers treat it as any other model.

The file is dequantized once, into safetensors with its tokenizer and chat template. transformers refuses to save a
model that it read from a GGUF file, because the config has a quantization entry; so the weights are loaded, strictly,
into the same class built from a config without it. transformers does not read the RoPE scaling of most architectures:
that of Llama 3.1 and a linear one are added here, others are refused. Of a few architectures it reads neither the RoPE
base, nor the sliding window, nor the scale of the attention; they are set here.

Deliberately left out: writing GGUF, models in several files, and training on quantized weights.
"""

import hashlib
import os
import struct
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from autorater.data.errors import UserError, first_line

if TYPE_CHECKING:
    from gguf import GGUFReader

_VERSION = 3  # of the conversion: folders of an earlier one are made anew
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # 3.1 to 3.3
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}  # layers of the 27B models; others scale attention by the head's size


def plain_model(name_or_path: str) -> str:
    """The name itself, or for a `.gguf` file, or a folder that holds one, the folder of its plain model.

    The folder is made by `convert_gguf` on first use, under `$XDG_CACHE_HOME/autorater/gguf` (`~/.cache`); a changed
    file gets a new one.

    Raises:
        UserError: If the folder has several GGUF files, or as in `convert_gguf`.
    """
    path = gguf_file(name_or_path)
    if path is None:
        return name_or_path
    status = path.stat()
    fingerprint = hashlib.sha256(f"{path} {status.st_size} {status.st_mtime_ns} {_VERSION}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "autorater" / "gguf" / f"{path.stem}-{fingerprint}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = Path(f"{folder}.lock")
        with FileLock(lock):  # one process converts, which takes 8 bytes of memory a parameter
            try:
                if not folder.exists():
                    convert_gguf(path, folder)
            finally:
                lock.unlink(missing_ok=True)
    return str(folder)


def gguf_file(name_or_path: str) -> Path | None:
    """The absolute path of a `.gguf` file, or of the one in a folder that holds no other model; else None.

    Raises:
        UserError: If the folder has several.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir() and not any((path / name).exists() for name in ("config.json", "adapter_config.json")):
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            raise UserError(f"{path} has {len(files)} GGUF files; name one: {', '.join(file.name for file in files)}")
        path = files[0] if files else path
    return path.resolve() if path.suffix == ".gguf" and path.is_file() else None


def convert_gguf(file: str | Path, folder: str | Path) -> None:
    """Writes the model of a GGUF file to a new folder, in float32 (4 bytes a parameter) with its tokenizer.

    Several processes may convert one file at the same time: the folder appears complete or not at all.

    Raises:
        UserError: If the folder exists, the package gguf is missing, transformers cannot read the file, or the file is
            one of several parts, lacks weights, or has tensors, a RoPE scaling or a sliding window that are not
            supported.
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
            reader = _read_header(file)
            quantized, report = AutoModelForCausalLM.from_pretrained(
                **source, dtype="float32", output_loading_info=True
            )
        except UserError:
            raise
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, struct.error) as error:
            raise UserError(f"{file} cannot be read as a causal language model: {first_line(error)}") from error
        if missing := sorted(report["missing_keys"]):  # transformers has drawn them at random
            raise UserError(f"{file} lacks {len(missing)} tensors of its model, such as {missing[0]}")
        if unread := _unread_tensors(quantized, reader, report["unexpected_keys"]):
            raise UserError(f"{file} has {len(unread)} tensors that its model lacks, such as {unread[0]}")
        _set_attention(quantized.config, reader, file)
        _set_rope(quantized.config, reader, file)
        del quantized.config.quantization_config
        model = type(quantized)(quantized.config)
        model.load_state_dict(quantized.state_dict(), strict=True)
        model.generation_config = quantized.generation_config
        complete = Path(temporary) / folder.name
        model.save_pretrained(complete)
        tokenizer.save_pretrained(complete)
        with suppress(OSError):  # another process was faster
            complete.rename(folder)


def _read_header(file: Path) -> "GGUFReader":
    from gguf import GGUFReader

    reader = GGUFReader(file)
    parts = int(_value(reader, "split.count", 1))
    if parts > 1:
        raise UserError(f"{file} is one of {parts} files of a model; merge them first (llama-gguf-split --merge)")
    return reader


def _value(reader: "GGUFReader", name: str, default: object) -> object:
    field = reader.get_field(name)
    return default if field is None else field.contents()


def _unread_tensors(model: PreTrainedModel, reader: "GGUFReader", unexpected: set[str]) -> list[str]:
    """The tensors of a file that transformers skipped without a word, other than those of a RoPE scaling."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    processor = TENSOR_PROCESSORS.get(_value(reader, "general.architecture", ""), TensorProcessor)()
    try:
        read = get_gguf_hf_weights_map(model, processor)
    except NotImplementedError:  # an architecture of transformers' newer reader, which reports them
        return sorted(unexpected)
    names = sorted(tensor.name for tensor in reader.tensors if not tensor.name.startswith("rope_"))
    return [name for name in names if name.replace("_exps.weight", "_exps") not in read]  # stacked experts


def _set_attention(config: PreTrainedConfig, reader: "GGUFReader", file: Path) -> None:
    """Sets the sliding window of Phi-3 and the scale of Gemma, which llama.cpp derives from the number of layers."""
    architecture = _value(reader, "general.architecture", "")
    window = int(_value(reader, f"{architecture}.attention.sliding_window", 0)) or None
    if architecture == "phi3":
        config.sliding_window = window
    elif window and window != getattr(config, "sliding_window", None):
        raise UserError(
            f"{file} has a sliding window of {window} tokens, which is not supported for {architecture}; "
            "use the model's own folder or Hub name"
        )
    if _SCALED_BY_WIDTH.get(architecture) == config.num_hidden_layers:
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads


def _set_rope(config: PreTrainedConfig, reader: "GGUFReader", file: Path) -> None:
    """Sets the RoPE base and scaling of a file in the config of its model where transformers did not read them.

    llama.cpp writes the scaling of Llama 3.1 as a tensor of divisors of frequencies, others as a kind with a factor.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)  # layers with a window are not scaled
    architecture = _value(reader, "general.architecture", "")
    if "rope_theta" in rope:
        rope["rope_theta"] = float(_value(reader, f"{architecture}.rope.freq_base", rope["rope_theta"]))
    if rope.get("rope_type", "default") != "default":
        return
    kind = _value(reader, f"{architecture}.rope.scaling.type", "none")
    tensors = {tensor.name: tensor.data for tensor in reader.tensors if tensor.name.startswith("rope_")}
    if "rope_freqs.weight" in tensors and rope is config.rope_parameters:
        divisors = np.asarray(tensors["rope_freqs.weight"], dtype=np.float64)
        unscaled = rope["rope_theta"] ** (-np.arange(len(divisors)) / len(divisors))
        rope |= {"rope_type": "llama3", "factor": float(divisors.max()), **_LLAMA3}
        scaled = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
        if len(scaled) == len(divisors) and np.allclose(unscaled / scaled, divisors, rtol=1e-3):
            return
    if kind == "linear" and not tensors:
        rope |= {"rope_type": "linear", "factor": float(_value(reader, f"{architecture}.rope.scaling.factor", 1.0))}
    elif kind != "none" or tensors:
        raise UserError(
            f"{file} has a RoPE scaling that is not supported ({', '.join([*tensors] or [kind])}); "
            "use the model's own folder or Hub name"
        )
