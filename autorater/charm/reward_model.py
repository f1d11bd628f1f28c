"""A reward model: a sequence classifier with one output, which scores a response to a prompt.

It is loaded from a folder or the Hub, or built small from scratch. A response is data: what stands in it cannot become
a control token (`autorater.prompts.encoder.DataTokenizer`). Training and scoring read the same token ids, so no difference of
tokenization passes for one of quality. A text that is too long is never cut: `fitting` tells which ones fit.

Scoring goes on where it was cut off: `score_file` appends to a file and skips what is in it. Several processes divide
the responses, each with a file of its own in the same folder.

Deliberately left out: reward models with several outputs, and token-level (process) rewards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2ForSequenceClassification,
    set_seed,
)

from autorater.charm.responses import Response, load_responses
from autorater.data.errors import DataError
from autorater.models.loading import check_model_path
from autorater.models.tiny import build_tokenizer, small_config
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import DataTokenizer

_MARKS = ("\u2045prompt\u2046", "\u2045response\u2046")


class RewardModel:
    """Scores responses.

    Args:
        model: A sequence classification model with one output; it is used on the device where it is.
        tokenizer: Its (fast) tokenizer. With a chat template, a prompt and a response are the turns of a user and an
            assistant; without, they are two paragraphs and the end-of-sequence token.
        batch_size: Responses in one forward pass.
        max_length: Longest text, in tokens; by default what the model can read.

    Raises:
        ValueError: If the model has more than one output, or the template does not show each turn exactly once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        max_length: int | None = None,
    ):
        if model.config.num_labels != 1:
            raise ValueError(f"the model has {model.config.num_labels} outputs; a reward model with 1 is wanted")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        text_config = model.config.get_text_config()
        text_config.pad_token_id = tokenizer.pad_token_id  # by it the model finds the end of a text
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        readable = getattr(text_config, "max_position_embeddings", None)
        self.max_length = min((n for n in (max_length, readable) if n is not None), default=None)
        self._data = DataTokenizer(tokenizer)
        self._layout = self._render_layout()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        dtype: str | None = None,
        **model_init_kwargs,
    ) -> RewardModel:
        """Loads any sequence classifier with one output, from the Hub or a folder, LoRA adapters included.

        Args:
            name_or_path: A Hub name or a folder written by `save_pretrained`.
            device: Where to run; by default the GPU if there is one.
            batch_size, max_length: As in `RewardModel`.
            dtype: A torch dtype name; by default bfloat16 on a GPU and float32 elsewhere.
            model_init_kwargs: Passed to `from_pretrained`.

        Raises:
            FileNotFoundError: If a local folder is meant and there is no model in it.
        """
        check_model_path(name_or_path)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or ("bfloat16" if torch.device(device).type == "cuda" else "float32")
        model = AutoModelForSequenceClassification.from_pretrained(
            name_or_path, num_labels=1, dtype=dtype, **model_init_kwargs
        )
        revision = {k: v for k, v in model_init_kwargs.items() if k == "revision"}
        return cls(model.to(device), AutoTokenizer.from_pretrained(name_or_path, **revision), batch_size, max_length)

    def encode(self, responses: Sequence[Response]) -> list[list[int]]:
        """Token ids of prompts with their responses."""
        first, between, last = self._layout
        prompts = self._data.encode(response.prompt for response in responses)
        texts = self._data.encode(response.text for response in responses)
        return [first + prompt + between + text + last for prompt, text in zip(prompts, texts, strict=True)]

    def fitting(self, responses: Sequence[Response]) -> list[Response]:
        """The responses that the model can read with their prompts, in order."""
        if self.max_length is None:
            return list(responses)
        lengths = map(len, self.encode(responses))
        return [r for r, length in zip(responses, lengths, strict=True) if length <= self.max_length]

    @torch.no_grad()
    def score(self, responses: Sequence[Response], *, progress: bool = False) -> np.ndarray:
        """Scores of N responses, shape (N,).

        Raises:
            ValueError: If a text is longer than the model reads.
        """
        encoded = self.encode(responses)
        for response, ids in zip(responses, encoded, strict=True):
            if self.max_length is not None and len(ids) > self.max_length:
                raise ValueError(
                    f"a response by {response.model!r} has {len(ids)} tokens with its prompt, this model reads "
                    f"{self.max_length}; leave it out"
                )
        was_training = self.model.training
        self.model.eval()
        scores = np.zeros(len(encoded))
        device = next(self.model.parameters()).device
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))  # little padding
        for start in tqdm(range(0, len(order), self.batch_size), desc="scoring", disable=not progress, leave=False):
            rows = order[start : start + self.batch_size]
            ids, mask = pad_prompts([encoded[i] for i in rows], self.tokenizer.pad_token_id, device, side="right")
            logits = self.model(input_ids=ids, attention_mask=mask).logits  # (B, 1)
            scores[rows] = logits[:, 0].double().cpu().numpy()
        self.model.train(was_training)
        return scores

    def score_file(
        self, responses: Sequence[Response], folder: str | Path, name: str, *, chunk: int = 512, progress: bool = False
    ) -> list[Response]:
        """Scores responses into files of a folder; what is there already is not scored again.

        Args:
            responses: N responses.
            folder: Holds one `.jsonl` file a process, in the format of `load_responses`.
            name: Of this reward model; scores of another one are not mixed with its own.
            chunk: Responses between two writes.
            progress: Show a progress bar.

        Returns:
            The N responses with their scores.

        Raises:
            ValueError: If the folder holds scores by another reward model, or a text is too long.
        """
        state = PartialState()
        folder = Path(folder)
        with state.main_process_first():
            _claim(folder, name)
        done = _scores_in(folder)
        state.wait_for_everyone()  # nobody writes before all have read
        todo = [response for response in dict.fromkeys(responses) if response.key not in done]
        mine = sorted(todo[state.process_index :: state.num_processes], key=lambda r: len(r.prompt) + len(r.text))
        path = folder / f"part-{state.process_index:03d}.jsonl"
        with (
            path.open("a", encoding="utf-8") as file,
            tqdm(total=len(mine), desc="scoring", unit="response", disable=not progress, leave=False) as bar,
        ):
            for start in range(0, len(mine), chunk):
                some = mine[start : start + chunk]
                for response, score in zip(some, self.score(some), strict=True):
                    row = {"prompt": response.prompt, "model": response.model, "response": response.text}
                    file.write(json.dumps(row | {"score": float(score)}, ensure_ascii=False, allow_nan=False) + "\n")
                file.flush()
                bar.update(len(some))
        state.wait_for_everyone()
        done = _scores_in(folder)
        return [replace(response, score=done[response.key]) for response in responses]

    def save(self, folder: str | Path) -> None:
        """Writes model and tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _render_layout(self) -> list[list[int]]:
        """Token ids before the prompt, between prompt and response, and behind the response."""
        if self.tokenizer.chat_template is None:
            eos = self.tokenizer.eos_token_id
            between = self.tokenizer("\n\n", add_special_tokens=False)["input_ids"]
            return [self._data.beginning(), between, [] if eos is None else [eos]]
        turns = [{"role": role, "content": mark} for role, mark in zip(("user", "assistant"), _MARKS, strict=True)]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        pieces = text.split(_MARKS[0])
        pieces = [pieces[0], *pieces[1].split(_MARKS[1])] if len(pieces) == 2 else pieces
        if len(pieces) != 3:
            raise ValueError("the chat template does not show a turn of the user and one of the assistant once each")
        return [self.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]


def build_reward_model(
    texts: Iterable[str],
    *,
    vocab_size: int = 1024,
    hidden_size: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    max_length: int = 1024,
    seed: int = 0,
) -> RewardModel:
    """A small Qwen2 classifier with random weights, tokenizer trained on `texts`; arguments as in `build_policy`."""
    tokenizer = build_tokenizer(texts, vocab_size)
    set_seed(seed)
    config = small_config(tokenizer, hidden_size, num_layers, num_heads, max_length, num_labels=1)
    return RewardModel(Qwen2ForSequenceClassification(config), tokenizer)


def _claim(folder: Path, name: str) -> None:
    """Marks the folder as holding scores by `name`, and takes off the line that a killed process left unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / "reward_model.txt"
    if owner.exists() and (by := owner.read_text(encoding="utf-8").strip()) != name:
        raise ValueError(f"{folder} holds scores by {by!r}, not by {name!r}; remove it or choose another output_dir")
    owner.write_text(name + "\n", encoding="utf-8")
    if PartialState().is_main_process:
        for path in folder.glob("part-*.jsonl"):
            content = path.read_bytes()
            path.write_bytes(content[: content.rfind(b"\n") + 1])


def _scores_in(folder: Path) -> dict[tuple[str, str, str], float]:
    parts = [path for path in sorted(folder.glob("part-*.jsonl")) if path.stat().st_size]
    scored = [response for path in parts for response in load_responses(path)]
    if missing := [response for response in scored if response.score is None]:
        raise DataError(f"{folder}: a response by {missing[0].model!r} has no score; remove the folder to score anew")
    return {response.key: response.score for response in scored}
