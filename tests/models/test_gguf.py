"""GGUF files as plain models: converted once, with the weights, the tokenizer and the chat template of the file."""

import json
import os
from functools import cache as cache_results
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import get_tensor_name_map
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Starcoder2Config,
)

from autorater.data.errors import UserError
from autorater.models import gguf
from autorater.models.loading import load_policy, resolve_model
from autorater.models.tiny import build_tokenizer

FILE = os.environ.get("AUTORATER_GGUF", "")  # SmolLM2-135M-Instruct, see recipes/README.md
QUESTIONS = ("What is the capital of France?", "Why is the sky blue? Answer in one sentence.")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "autorater" / "gguf"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "models" / "small.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF")
    return path


def converter(calls):
    def convert(file, folder):
        calls.append(Path(file).name)
        Path(folder).mkdir(parents=True)
        Path(folder, "config.json").write_text("{}")

    return convert


def test_a_file_is_converted_once(cache, file, monkeypatch):
    calls = []
    monkeypatch.setattr(gguf, "convert_gguf", converter(calls))
    folder = resolve_model(str(file))
    assert Path(folder).parent == cache
    assert resolve_model(str(file)) == resolve_model(str(file.parent)) == folder, "a folder with one file is that file"
    assert calls == ["small.gguf"]
    file.write_bytes(b"GGUF, another model")
    assert resolve_model(str(file)) != folder
    assert len(calls) == 2


def test_other_names_are_unchanged(file):
    (file.parent / "config.json").write_text("{}")
    for name in ("Qwen/Qwen2.5-7B-Instruct", str(file.parent)):
        assert gguf.plain_model(name) == name


def test_a_folder_with_several_files_is_ambiguous(file):
    (file.parent / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"has 2 GGUF files; name one: other\.gguf, small\.gguf"):
        load_policy(str(file.parent))


def test_a_missing_package_is_named(cache, file, monkeypatch):
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"small\.gguf: .* the package gguf"):
        load_policy(str(file))


def test_a_broken_file_is_named(cache, file):
    pytest.importorskip("gguf")
    with pytest.raises(UserError, match=r"small\.gguf cannot be read as a causal language model") as caught:
        load_policy(str(file))
    assert "\n" not in str(caught.value)
    assert not list(cache.iterdir()), "nothing is left behind"


TOKENIZER = build_tokenizer(["hello world, this is a text: 0123456789 good bad"] * 3, 300)
LLAMA31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SIZES = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}


def untrained(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.2)
    return model


def llama(rope: dict, **options) -> LlamaForCausalLM:
    """Two layers, with a theta for which the divisors of Llama 3.1 are 1, 1, a number in between, and 8."""
    return untrained(LlamaConfig(**SIZES, rope_parameters={"rope_theta": 500_000.0, **rope}, **options))


def write_gguf(path: Path, model, *, architecture=None, n_tensors=None, divisors=None, fields=()) -> str:
    """Writes a model as llama.cpp's converter does.

    Neighbouring rows of the queries and keys of a Llama form a rotated pair; the norms of Gemma have their 1 added.
    """
    library = pytest.importorskip("gguf")
    config, vocabulary = model.config, json.loads(TOKENIZER._tokenizer.to_str())["model"]
    writer = library.GGUFWriter(path, architecture or config.model_type)
    names = library.get_tensor_name_map(library.MODEL_ARCH[config.model_type.upper()], config.num_hidden_layers)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", 0.0))
    writer.add_layer_norm_eps(getattr(config, "norm_epsilon", 0.0))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == TOKENIZER.eos_token else 1 for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in vocabulary["merges"]])
    writer.add_eos_token_id(TOKENIZER.eos_token_id)
    for add, *values in fields:
        getattr(writer, add)(*values)
    for name, tensor in list(model.state_dict().items())[:n_tensors]:
        array = tensor.numpy()
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        if config.model_type == "gemma2" and name.endswith("norm.weight"):
            array = array + 1
        name = names.get_name(name, (".weight", ".bias"))
        if config.model_type == "llama" and ("attn_q." in name or "attn_k." in name):
            heads = len(array) // head_dim
            array = array.reshape(heads, 2, head_dim // 2, -1).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(name, np.ascontiguousarray(array))
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", np.asarray(divisors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def divisors_of(model: LlamaForCausalLM) -> np.ndarray:
    unscaled = llama({"rope_type": "default"}).model.rotary_emb.inv_freq
    return (unscaled / model.model.rotary_emb.inv_freq).numpy()


LINEAR = (
    ("add_key_value", "llama.rope.scaling.type", "linear", 8),  # 8: the GGUF type of a string
    ("add_float32", "llama.rope.scaling.factor", 4.0),
)


@pytest.mark.parametrize("rope", [{"rope_type": "default"}, LLAMA31, {"rope_type": "linear", "factor": 4.0}])
def test_a_file_has_the_logits_of_its_model(cache, tmp_path, rope):
    model = llama(rope)
    divisors = divisors_of(model) if rope is LLAMA31 else None
    file = write_gguf(
        tmp_path / "m.gguf", model, divisors=divisors, fields=LINEAR if rope["rope_type"] == "linear" else ()
    )
    if divisors is not None:
        assert len(set(divisors.round(3))) == 3, "unchanged, in between and divided by 8"
    loaded, _ = load_policy(file)
    ids = torch.arange(3, 203)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (Starcoder2Config(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 1e6}), ()),
        (Phi3Config(**SIZES, sliding_window=7), [("add_sliding_window", 7)]),
        (Phi3Config(**SIZES), [("add_sliding_window", 0)]),
        (
            Gemma2Config(
                **SIZES | {"num_hidden_layers": 46, "tie_word_embeddings": True},
                head_dim=4,
                query_pre_attn_scalar=8,
                sliding_window=7,
            ),
            [("add_sliding_window", 7)],
        ),
    ],
    ids=["starcoder2", "phi3", "phi3-full", "gemma2-27b"],
)
def test_base_window_and_scale_are_those_of_the_file(cache, tmp_path, monkeypatch, config, fields):
    # transformers asks for the same map of names once for each module: half a minute with 46 layers
    monkeypatch.setattr("gguf.get_tensor_name_map", cache_results(get_tensor_name_map))
    model = untrained(config)
    file = write_gguf(tmp_path / "m.gguf", model, fields=[("add_pad_token_id", 0), *fields])
    loaded, _ = load_policy(file)
    ids = torch.arange(3, 203)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n_tensors": 15}, r"m\.gguf lacks \d+ tensors of its model, such as (model|lm_head)\."),
        ({"fields": [("add_uint16", "split.count", 2)]}, r"m\.gguf is one of 2 files of a model; merge them first"),
        ({"divisors": [1, 1, 2, 7]}, r"a RoPE scaling that is not supported \(rope_freqs\.weight\)"),
        ({"fields": [("add_key_value", "llama.rope.scaling.type", "yarn", 8)]}, r"not supported \(yarn\); use the"),
        ({"fields": [("add_sliding_window", 7)]}, r"a sliding window of 7 tokens, which is not supported for llama"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(cache, tmp_path, options, reason):
    file = write_gguf(tmp_path / "m.gguf", llama({"rope_type": "default"}), **options)
    with pytest.raises(UserError, match=reason) as caught:
        load_policy(file)
    assert "cannot be read" not in str(caught.value)
    assert not list(cache.iterdir())


def test_tensors_that_the_model_lacks_are_refused(cache, tmp_path):
    file = write_gguf(tmp_path / "m.gguf", llama({"rope_type": "default"}, attention_bias=True, mlp_bias=True))
    with pytest.raises(UserError, match=r"m\.gguf has 14 tensors that its model lacks, such as blk\.0\.attn_k\.bias"):
        load_policy(file)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("fields", [(), [("add_key_value", "gpt-oss.rope.scaling.type", "yarn", 8)]])
def test_a_file_that_makes_transformers_fail_is_named(cache, tmp_path, fields):
    file = write_gguf(tmp_path / "m.gguf", llama({"rope_type": "default"}), architecture="gpt-oss", fields=fields)
    with pytest.raises(UserError, match=r"m\.gguf cannot be read as a causal language model"):
        load_policy(file)


@pytest.mark.slow
@pytest.mark.skipif(not FILE, reason="AUTORATER_GGUF names no GGUF file of SmolLM2-135M-Instruct")
def test_the_reference_model_answers_as_its_file(cache):
    model, tokenizer = load_policy(FILE)
    assert len(tokenizer) == 49_152
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(tokenizer("2024.85", add_special_tokens=False)["input_ids"]) == 7, "digits come one by one"
    assert model.config.max_position_embeddings == 8192
    folder, name = os.path.split(FILE)
    of_file = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    tokenizer_of_file = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    for question in QUESTIONS:
        answers = [answer(*pair, question) for pair in ((model, tokenizer), (of_file, tokenizer_of_file))]
        assert answers[0] == answers[1]


def answer(model, tokenizer, question: str) -> str:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    generated = model.generate(**ids, do_sample=False, max_new_tokens=60)
    return tokenizer.decode(generated[0, ids["input_ids"].shape[1] :])
