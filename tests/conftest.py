"""Toy tokenizers of both kinds, two-layer models of five families, and pairs, all built on the spot."""

import datetime
import errno
import functools
import gc
import os
import random
import re
import ssl
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on a busy machine wait for each other
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same results with a GPU in the machine

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# neither a slow example nor one that no run before has seen is a failure
settings.register_profile(
    "busy machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machine")

ssl.create_default_context = functools.cache(ssl.create_default_context)  # every client of a server reads certificates

ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = (ROOT / "data", ROOT.parent / "shared" / "data")
DATA = Path(os.environ.get("AUTORATER_DATA") or next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0]))
"""The folder of human judgments (docs/data.md)."""


def needs_data(*names: str):
    """Skips a test where one of the files of human judgments is missing."""
    missing = [name for name in names if not (DATA / f"{name}.jsonl.gz").is_file()]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} in {DATA}; see docs/data.md")


CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = [
    "[Question] Which is better? [Response A] This one, for example, is 0.85. [Response B] That one! [Answer]",
    "The quick brown fox <prob_rb_better>0.25</prob_rb_better> jumps over 1.0 lazy dogs and 0.5 cats; 100 % fun.",
]


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="slow; run with --slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


def pytest_runtest_setup(item):
    """Draws without a seed of their own are the same in whatever order and processes the tests run."""
    _freeze_imports()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (that of libraries)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


_n_modules = 0


def _freeze_imports():
    """What new imports left is not collected again: every training collects, with them in a third of a second."""
    global _n_modules
    if len(sys.modules) > _n_modules + 100:
        gc.collect()
        gc.freeze()
        _n_modules = len(sys.modules)


@pytest.fixture
def undrawn(request, monkeypatch):
    """Figures are built and stay blank, except in tests marked `drawn`: drawing takes most of the time of a page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if "drawn" not in request.keywords:
        monkeypatch.setattr(FigureCanvasAgg, "draw", FigureCanvasAgg.get_renderer)


DATED = "{{ strftime_now('%d %b %Y') }}\n" + CHAT_TEMPLATE


@pytest.fixture
def on_day(monkeypatch):
    """Sets the day that chat templates write."""
    from transformers.utils import chat_template_utils

    def set_day(day):
        class Day(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.datetime.fromisoformat(day)

        monkeypatch.setattr(chat_template_utils, "datetime", Day)

    return set_day


def full_disk(*_, **__):
    """In place of a function that writes."""
    raise OSError(errno.ENOSPC, "No space left on device")


def words_of_prompts() -> list[str]:
    """Those of the layouts and of simulated pairs: as tokens they make a prompt a third as long as letters do."""
    package = ROOT / "autorater"
    files = (package / "data" / "simulated_texts.json", *(package / "prompts" / "layouts").glob("*"))
    return sorted({word for file in files for word in re.findall(r" ?[A-Za-z]+", file.read_text(encoding="utf-8"))})


@functools.cache
def _backend(digits: str, words: bool) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    numbers = {"split": r"\p{N}", "merged": r"\p{N}{1,3}"}[digits]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rf" ?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    numerals = [f"{i:02d} {i:03d} {i}" for i in range(1000)] if digits == "merged" else []
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS + (words_of_prompts() if words else []) + numerals, trainer)
    backend.add_tokens([AddedToken("</think>", special=False), AddedToken("<think>", special=False)])
    return backend.to_str()


def make_tokenizer(digits: str = "split", chat: bool = False, words: bool = True):
    """A byte-level BPE tokenizer; digits one by one as in Qwen and Gemma, or up to three merged as in Llama 3.

    Without `words` those of prompts are spelled in letters.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend(digits, words)),
        eos_token="<|im_end|>" if chat else "<|endoftext|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    return tokenizer


def make_model(family: str, vocab_size: int, seed: int = 0):
    """A two-layer model whose weights are large enough that its answers differ."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config, Qwen3MoeConfig

    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.15,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    config = {
        "qwen": lambda: Qwen2Config(**sizes),
        "llama": lambda: LlamaConfig(**sizes),
        "gemma": lambda: Gemma2Config(**sizes, head_dim=8, sliding_window=16),
        "moe": lambda: Qwen3MoeConfig(
            **sizes, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
        ),
        "gpt2": lambda: GPT2Config(
            vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=1024, initializer_range=0.15,
            bos_token_id=None, eos_token_id=0, pad_token_id=0,
        ),
    }[family]()  # fmt: skip
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(params=["split", "merged"])
def tokenizer(request):
    return make_tokenizer(request.param)


@pytest.fixture
def simulated():
    from autorater.data.population import simulate_pairs

    return simulate_pairs(64, seed=0, n_votes=3)
