"""GGUF files as plain models: converted once, with the weights, the tokenizer and the chat template of the file."""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from autorater.data.errors import UserError
from autorater.models import gguf
from autorater.models.loading import load_policy, resolve_model

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
