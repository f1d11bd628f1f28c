"""Any causal language model that transformers can load, with its tokenizer.

Deliberately left out: quantization and device maps, which `model_init_kwargs` passes through to transformers.
"""

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from autorater.data.atomic import read_json
from autorater.data.errors import UserError, first_line
from autorater.models.devices import gpu_has_bf16, usable_device
from autorater.models.gguf import gguf_file, plain_model
from autorater.models.text_only import text_only

_ADAPTER = "adapter_config.json"
_TEMPLATE_OF_PROCESSOR = "chat_template.json"  # of models that read images too; newer ones have chat_template.jinja
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
"""Options of `from_pretrained` that say where the files are."""
LOAD_FAILURES = (OSError, ValueError, ImportError, SafetensorError)
"""What `from_pretrained` of transformers raises; an ImportError for a package that an option needs."""
CAUSAL = "causal language model"
_SCALES = re.compile(r"(weight|proj)_scale(_2|_inv)?$|\.(qweight|qzeros|scales)$")
_NOT_TEXT = re.compile("vision|visual|image|audio")  # parts that a judge does not have
_LAYER = re.compile(r"(.*?\.)(\d+)\.")  # the first number in a name
logger = logging.getLogger(__name__)


def load_policy(
    name_or_path: str, *, dtype: str | None = None, **model_init_kwargs
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model of the Hub or of a local path, with its tokenizer padded on the left.

    Args:
        name_or_path: A Hub name, a folder written by `save_pretrained`, or a GGUF file. For an adapter its base model
            is loaded too, and a `PeftModel` is returned whose adapter can be trained further.
        dtype: A torch dtype name or `auto`; by default bfloat16 on a GPU that computes it and float32 elsewhere. Its
            older name `torch_dtype` is the same.
        model_init_kwargs: Passed to `from_pretrained` (revision, attn_implementation, quantization_config, …).

    Raises:
        UserError: If there is no such model, or it cannot be loaded; the message says why.
    """
    file, name_or_path = gguf_file(name_or_path), resolve_model(name_or_path)
    if (older := model_init_kwargs.pop("torch_dtype", None)) is not None:
        if dtype is not None:
            raise UserError(f"dtype is {dtype!r} and torch_dtype, its older name, {older!r}; expected dtype alone")
        dtype = older
    if dtype is None:
        dtype = "bfloat16" if gpu_has_bf16() else "float32"
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"dtype is {dtype!r}; expected auto or a torch dtype such as float32 or bfloat16")
    model_init_kwargs.setdefault("trust_remote_code", False)  # if it is left open, transformers asks on the terminal
    source = {
        name: model_init_kwargs[name] for name in (*HUB_OPTIONS, "trust_remote_code") if name in model_init_kwargs
    }
    try:
        if is_adapter(name_or_path, source.get("revision")):
            model, tokenizer = load_adapter(name_or_path, source, dtype=dtype, **model_init_kwargs)
        else:
            tokenizer = load_tokenizer(name_or_path, **source)
            model = text_only(_whole_model(name_or_path, dtype=dtype, **model_init_kwargs))
            model.gguf_file = file and str(file)  # its `name_or_path` is that of the plain model in the cache
    except UserError:
        raise
    except LOAD_FAILURES as error:
        raise not_loaded(name_or_path, error) from error
    if tokenizer.eos_token is None:
        tokenizer.eos_token = _end_of_sequence(model, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    without_router_logits(model)
    return model, tokenizer


def load_on(
    name_or_path: str, device: str | torch.device | None = None, **model_init_kwargs
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_policy`, on a device that is checked before anything is loaded.

    By default the model is where a `device_map` puts it, else on the GPU if there is one.
    """
    usable = usable_device(device)
    model, tokenizer = load_policy(name_or_path, **model_init_kwargs)
    if device is not None or not hasattr(model, "hf_device_map"):
        model.to(usable)
    return model, tokenizer


def without_router_logits(model: PreTrainedModel) -> None:
    """Turns the logits of the routers off in the config of a mixture of experts, where its training turned them on.

    Only a router loss uses them, and trainers request them in the calls that have one. Requested in every call, they
    keep a judge from sharing prompts.
    """
    config = model.config.get_text_config()
    if getattr(config, "output_router_logits", False):
        config.output_router_logits = False


def load_tokenizer(name_or_path: str, **source) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, padded on the left; UserError if it has none."""
    tokenizer = AutoTokenizer.from_pretrained(name_or_path, padding_side="left", **source)
    if len(tokenizer) == len(tokenizer.all_special_tokens):  # transformers builds an empty one if there are no files
        raise UserError(f"{name_or_path} has no tokenizer; expected the files that its save_pretrained writes")
    if tokenizer.chat_template is None and (file := file_of(name_or_path, _TEMPLATE_OF_PROCESSOR, **source)):
        tokenizer.chat_template = read_json(file).get("chat_template")
    return tokenizer


def file_of(name_or_path: str, file: str, **source) -> str | None:
    """The path of a file of a model; None if it has none."""
    try:
        return cached_file(name_or_path, file, **{key: source[key] for key in HUB_OPTIONS if key in source})
    except OSError:
        return None


def _end_of_sequence(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The end-of-sequence token by a model's configs, for a tokenizer that has none."""
    configs = model.generation_config, model.config.get_text_config()
    named = next((config.eos_token_id for config in configs if config.eos_token_id is not None), None)
    first = named[0] if isinstance(named, list) else named
    is_token = first is not None and 0 <= first < len(tokenizer)
    return tokenizer.convert_ids_to_tokens(first) if is_token else None


def check_has_end(name_or_path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises a UserError if a loaded tokenizer has no end-of-sequence token: training and reasoning require one."""
    if tokenizer.eos_token is None:
        raise UserError(
            f"{name_or_path}: no eos_token in its tokenizer, nor eos_token_id in its generation_config.json or "
            "config.json; expected the token that ends an answer, in one of them"
        )


def not_loaded(name: str, error: Exception, kind: str = CAUSAL, place: str = "") -> UserError:
    """The error about a model of this kind, one of `LOAD_FAILURES` being the reason, in one line.

    `place` says where the name was found. A name in an existing folder may be a mistyped path.
    """
    path, why = Path(name), f"cannot be loaded as a {kind}: {first_line(error)}"
    if "trust_remote_code" in str(error) and "trust_remote_code" not in why:
        why += " (Judge.from_pretrained(…, trust_remote_code=True) in Python executes it)"
    if len(path.parts) > 1 and path.parent.is_dir() and not path.exists():
        return UserError(f"{place}{name}: no such folder or file, and as a Hub name it {why}")
    return UserError(f"{place}{name} {why}")


def is_adapter(name_or_path: str, revision: str | None = None) -> bool:
    """Whether a folder or Hub name holds an adapter of another model; `UserError` as in `resolve_model`."""
    return find_adapter_config_file(resolve_model(name_or_path), revision=revision) is not None


def _whole_model(name_or_path: str, **model_init_kwargs) -> PreTrainedModel:
    """As transformers loads it; it would draw weights at random that the files lack or have in another shape."""
    options = model_init_kwargs | {"ignore_mismatched_sizes": True}  # else an error that names no weight
    model, report = AutoModelForCausalLM.from_pretrained(name_or_path, output_loading_info=True, **options)
    fewer_layers = not {"num_hidden_layers", "config"}.isdisjoint(model_init_kwargs)  # on purpose
    _check_unread(name_or_path, model, sorted(report["unexpected_keys"]), fewer_layers)
    if other := sorted(report["mismatched_keys"]):
        weight, got, expected = other[0]
        raise UserError(
            f"{name_or_path}: the shapes of {len(other)} weights are not those of its config, such as {weight}: got "
            f"{tuple(got)}; expected {tuple(expected)}"
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{name_or_path} lacks {len(missing)} weights of a causal language model, such as {missing[0]}; is it a "
            "reward model, an encoder or one of several parts?"
        )
    return model


def _check_unread(name_or_path: str, model: PreTrainedModel, unread: Sequence[str], fewer_layers: bool) -> None:
    """Refuses weights in the files that a model cannot do without; a warning about others."""
    beyond = _beyond_last_layer(model, unread)
    fields = model.config.get_text_config().to_dict()
    predicts_further = fewer_layers or any(value and re.search("mtp|nextn", field) for field, value in fields.items())
    if beyond and not predicts_further and not any("mtp" in name or "eh_proj" in name for name in beyond):
        raise UserError(
            f"{name_or_path} has {len(beyond)} weights of layers that its config leaves out, such as {beyond[0]}; "
            "expected as many layers in the config (num_hidden_layers) as in the files"
        )
    others = [name for name in unread if name not in beyond and "mtp" not in name]
    if scales := [name for name in others if _SCALES.search(name) and not _NOT_TEXT.search(name)]:
        raise UserError(
            f"{name_or_path} has weights that are quantized in a way that transformers does not read: {len(scales)} "
            f"scales, such as {scales[0]}, are not part of the model; expected weights that are not quantized, or a "
            "quantization of transformers"
        )
    if unread:
        logger.warning(
            f"{name_or_path}: {len(unread)} weights in its files are not part of the model and are left out, such as "
            f"{unread[0]}"
        )


def _beyond_last_layer(model: PreTrainedModel, names: Collection[str]) -> list[str]:
    """The names of weights whose layer has a number that the model's stack of layers does not have."""
    layers = {found.groups() for name, _ in model.named_parameters() if (found := _LAYER.match(name))}
    stacks = {stack for stack, _ in layers}
    numbered = [(name, found.groups()) for name in names if (found := _LAYER.match(name))]
    return [name for name, layer in numbered if layer[0] in stacks and layer not in layers]


def load_adapter(
    name_or_path: str,
    source: Mapping[str, object],
    load_base: Callable[..., PreTrainedModel] = _whole_model,
    kind: str = CAUSAL,
    *,
    revision: str | None = None,
    **model_init_kwargs,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A `PeftModel`; transformers would load the adapter frozen, in a form that peft neither trains nor merges.

    The tokenizer is that of the base model if peft saved the adapter without one.

    Args:
        name_or_path: A Hub name or folder, from `resolve_model`.
        source: Options of `from_pretrained` that say where the files are, and `trust_remote_code`.
        load_base: Loads the base model, a model of this `kind`, from its name with `revision` and `model_init_kwargs`.

    Raises:
        UserError: If the base model cannot be loaded, or the adapter is not one of it. Other problems with the files
            raise one of `LOAD_FAILURES`.
    """
    from peft import PeftConfig, PeftModel, load_peft_weights

    config = PeftConfig.from_pretrained(name_or_path, revision=revision)
    base = base_of(name_or_path, config.base_model_name_or_path)
    tokenizer = None
    if file_of(name_or_path, TOKENIZER_CONFIG_FILE, **source):
        tokenizer = load_tokenizer(name_or_path, **source)
    try:
        place = resolve_model(base)
        if file_of(place, _ADAPTER, **{**source, "revision": config.revision}):  # transformers would leave it out
            raise UserError("it is an adapter itself; merge it first (autorater merge), or name its own base model")
        if tokenizer is None:
            tokenizer = load_tokenizer(place, **{**source, "revision": config.revision})
        whole = load_base(place, revision=config.revision, **model_init_kwargs)
    except LOAD_FAILURES as error:
        raise not_loaded(base, error, kind, f"{Path(name_or_path, _ADAPTER)}: the base model ") from error
    model = text_only(whole)
    weights = load_peft_weights(name_or_path, device="cpu", revision=revision)
    if any("language_model." in name for name in weights):
        model = whole  # an adapter that was made elsewhere may be for the model that reads images
    if n_tokens := _adapted_tokens(model, weights, len(tokenizer)):
        model.resize_token_embeddings(n_tokens)  # as before the adapter was made
    if not hasattr(model, "prepare_inputs_for_generation") and config.task_type == "CAUSAL_LM":
        config.task_type = None  # of a classifier, by an older transformers, in which every model could generate
    try:
        adapted = PeftModel.from_pretrained(model, name_or_path, is_trainable=True, config=config, revision=revision)
    except RuntimeError as error:  # weights of another shape
        raise not_loaded(name_or_path, error, f"LoRA adapter of {base}") from error
    for adapter in adapted.peft_config.values():  # it may be saved to another folder
        adapter.base_model_name_or_path = base
    adapted.loaded_from = name_or_path  # its `name_or_path` is that of the base model
    return adapted, tokenizer


def _adapted_tokens(model: PreTrainedModel, weights: Mapping[str, torch.Tensor], n_tokens: int) -> int | None:
    """The tokens that a model had when its adapter was made; None if the adapter does not say, or it has as many.

    Of embeddings or a head in the adapter it is the number of their rows, of single trained tokens that of the
    tokenizer, `n_tokens`, if it has more than the model.
    """
    of_tokens = model.get_input_embeddings(), model.get_output_embeddings()
    paths = [path for path, module in model.named_modules() if any(module is other for other in of_tokens)]
    adapted = {name: weight for name, weight in weights.items() for path in paths if f".{path}." in name}
    present = model.get_input_embeddings().num_embeddings
    rows = [
        len(weight) for name, weight in adapted.items() if name.endswith(tuple(f".{path}.weight" for path in paths))
    ]
    wanted = rows[0] if rows else max(n_tokens, present) if adapted else present
    return wanted if wanted != present else None


def resolve_model(name_or_path: str) -> str:
    """The Hub name or the folder to load: itself, or for a GGUF file the folder of its plain model.

    Raises:
        UserError: If a path holds no model, a GGUF file cannot be converted, or an adapter is of no kind that peft has
            or its local base model does not exist.
    """
    name_or_path = plain_model(name_or_path)
    path = Path(name_or_path)
    adapter = path / _ADAPTER
    if path.is_file():
        raise UserError(f"{path} is a file; expected a model folder written by save_pretrained, or a .gguf file")
    if not path.exists():
        if _is_local(name_or_path):
            raise UserError(f"{path}: no such folder or file")
    elif adapter.exists():
        from peft import PeftType

        settings = read_json(adapter)
        if (kind := settings.get("peft_type")) not in [*PeftType]:
            raise UserError(f"{adapter}: peft_type is {kind!r}; expected one of {', '.join(PeftType)}")
        base_of(path, settings.get("base_model_name_or_path"))
    elif not (path / "config.json").exists():
        raise UserError(f"{path}: no config.json or adapter_config.json, so this folder holds no model")
    return name_or_path


def base_of(adapter: str | Path, base: object) -> str:
    """The base model that an adapter names, as in `named_model`."""
    return named_model(Path(adapter, _ADAPTER), "base_model_name_or_path", base, "base model")


def named_model(file: Path, field: str, name: object, kind: str = "model") -> str:
    """The model that a field of a JSON file names: a path from the working directory, or a Hub name.

    A path that was found from the file's folder is absolute.

    Raises:
        UserError: If it is no text, or a path that does not exist.
    """
    if not isinstance(name, str) or not name:
        raise UserError(f"{file}: {field} is {name!r}; expected the Hub name or the folder of the {kind}")
    if Path(name).exists():
        return name
    if (beside := file.parent / name).exists():
        return str(beside.resolve())
    if _is_local(name):
        raise UserError(
            f"{file} names the {kind} {name}, which is not there; move it back, or change {field} in that file to its "
            "new place"
        )
    return name


def _is_local(name_or_path: str) -> bool:
    """Whether a name cannot be a Hub name."""
    return (
        name_or_path.startswith((".", "/", "~"))
        or name_or_path.count("/") > 1
        or "\\" in name_or_path
        or name_or_path.endswith(".gguf")
    )


def train_only(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Freezes every parameter whose name contains none of `names`, such as `embed_tokens` or `layers.1.`.

    Raises:
        UserError: If one of them is in no parameter's name.
    """
    parameters = dict(model.named_parameters())
    for part in names:
        if not any(part in name for name in parameters):
            raise UserError(
                f"train_only: no parameter's name contains {part!r}; expected part of {', '.join(parameters)[:400]}, …"
            )
    for name, parameter in parameters.items():
        parameter.requires_grad_(any(part in name for part in names))
