"""A reward model: a sequence classifier with one output, the score of a response to a prompt.

It is loaded from a folder or the Hub, or built small from scratch. A response is data: no text in it can become a
control token (`autorater.prompts.tokens.DataTokenizer`). Training and scoring use the same token ids. Texts are never
truncated: those that are too long are left out.

The layout of the texts is saved with the weights as the chat template rendered it, in `reward_model.json`:

    {"pieces": ["…", "…", "…"]}    before the prompt, between prompt and response, after the response

A template may write the date, which would change the scores of a saved model overnight.

Scoring can be resumed: `score_file` appends to a file and skips the responses in it. Several processes divide the
responses; each has a file of its own in the same folder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2ForSequenceClassification,
    set_seed,
)

from autorater.charm.responses import Response, load_responses
from autorater.data.atomic import read_json, write_json, write_text
from autorater.data.errors import DataError, UserError, counted
from autorater.data.tables import write_rows
from autorater.judges.identity import digest
from autorater.models.devices import gpu_has_bf16, usable_device
from autorater.models.loading import (
    LOAD_FAILURES,
    file_of,
    is_adapter,
    load_adapter,
    load_tokenizer,
    not_loaded,
    resolve_model,
)
from autorater.models.modes import evaluating
from autorater.models.tiny import build_tokenizer, small_config
from autorater.progress import progress_bar
from autorater.prompts.batching import longest_prompt, pad_prompts
from autorater.prompts.tokens import DataTokenizer, inside

LAYOUT_FILE = "reward_model.json"
_MARKS = ("\u2045prompt\u2046", "\u2045response\u2046")
_KIND = "sequence classifier"
_CHUNK = 512  # responses scored between two writes
_VOCABULARY = 1024  # at most, of a tokenizer that is trained here
logger = logging.getLogger(__name__)


class RewardModel:
    """Scores responses.

    Args:
        model: A sequence classification model with one output, on the device to use.
        tokenizer: Its (fast) tokenizer. With a chat template, a prompt and a response are the turns of a user and an
            assistant; without, they are two paragraphs and the end-of-sequence token.
        batch_size: Responses in one forward pass.
        max_length: Longest text, in tokens; at most the context of the model, which is the default.
        pieces: The rendered chat layout, of another day or tokenizer; by default the template renders it now. It is
            None without a template.

    Raises:
        UserError: If the model has several outputs, or the template fails or does not render each turn exactly once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        max_length: int | None = None,
        pieces: Sequence[str] | None = None,
    ):
        if model.config.num_labels != 1:
            raise UserError(f"the model has {model.config.num_labels} outputs; expected a reward model with 1")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        text_config = model.config.get_text_config()
        text_config.pad_token_id = tokenizer.pad_token_id  # marks the end of a text for the model
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.max_length = longest_prompt(model, 0, max_length)
        self._data = DataTokenizer(tokenizer)
        self.pieces = self._rendered_pieces() if pieces is None else tuple(pieces)
        self._layout = self._encoded_layout()

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
        """Loads a sequence classifier with one output, or a LoRA adapter and its base, from the Hub or a folder.

        By default it is on the GPU, if there is one, and in bfloat16 if that computes it, else in float32. A layout
        that was saved with it is used again. Further options are those of transformers. A `UserError` if the model
        cannot be loaded, or as in `RewardModel`.
        """
        name_or_path = resolve_model(name_or_path)
        device = usable_device(device)
        dtype = dtype or ("bfloat16" if torch.device(device).type == "cuda" and gpu_has_bf16() else "float32")
        source = {k: v for k, v in model_init_kwargs.items() if k in ("revision", "trust_remote_code")}
        load = partial(AutoModelForSequenceClassification.from_pretrained, num_labels=1)
        try:
            if is_adapter(name_or_path, source.get("revision")):
                model, tokenizer = _load_adapter(name_or_path, source, load, dtype=dtype, **model_init_kwargs)
            else:
                model, report = load(name_or_path, dtype=dtype, output_loading_info=True, **model_init_kwargs)
                _check_head(name_or_path, report["missing_keys"])
                tokenizer = load_tokenizer(name_or_path, **source)
        except UserError:
            raise
        except LOAD_FAILURES as error:
            raise not_loaded(name_or_path, error, _KIND) from error
        tokenizer.padding_side = "right"
        layout = file_of(name_or_path, LAYOUT_FILE, **model_init_kwargs)
        pieces = read_json(layout).get("pieces") if layout else None
        return cls(model.to(device), tokenizer, batch_size, max_length, pieces)

    def save_layout(self, folder: str | Path) -> None:
        """Writes the rendered layout, if there is one, beside the weights in a folder."""
        path = Path(folder, LAYOUT_FILE)
        if self.pieces is None:
            path.unlink(missing_ok=True)  # of a model that was there before
        else:
            write_json(path, {"pieces": self.pieces})

    def encode(self, responses: Sequence[Response]) -> list[list[int]]:
        """Token ids of prompts with their responses."""
        first, between, last = self._layout
        prompts = self._data.encode(response.prompt for response in responses)
        texts = self._data.encode(response.text for response in responses)
        return [first + prompt + between + text + last for prompt, text in zip(prompts, texts, strict=True)]

    @torch.no_grad()
    def score(self, responses: Sequence[Response]) -> np.ndarray:
        """Scores of N responses, shape (N,); `UserError` if a text is longer than `max_length`."""
        encoded = self.encode(responses)
        for response, ids in zip(responses, encoded, strict=True):
            if len(ids) > self.max_length:
                expected = f"expected at most {self.max_length}"
                raise UserError(f"a response by {response.model!r} has {len(ids)} tokens with its prompt; {expected}")
        scores = np.zeros(len(encoded))
        device = next(self.model.parameters()).device
        by_length = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))  # little padding
        with evaluating(self.model):
            for start in range(0, len(by_length), self.batch_size):
                rows = by_length[start : start + self.batch_size]
                ids, mask = pad_prompts([encoded[i] for i in rows], self.tokenizer.pad_token_id, device, side="right")
                logits = self.model(input_ids=ids, attention_mask=mask).logits  # (B, 1)
                scores[rows] = logits[:, 0].cpu().double().numpy()
        return scores

    def score_file(self, responses: Iterable[Response], folder: str | Path, name: str) -> dict[Response, float]:
        """All scores in a folder, after those of the responses that are not in its files have been added.

        Args:
            responses: Those longer than `max_length` with their prompts are left out, and counted in the log.
            folder: Holds one `.jsonl` file per process, in the format of `load_responses`.
            name: Name of this reward model; a folder holds scores of one reward model with one rendered layout.

        Raises:
            UserError: If the folder holds scores of another reward model or layout, or a score is NaN or infinite.
        """
        state = PartialState()
        folder = Path(folder)
        with state.main_process_first():
            _claim(folder, name, self.pieces)
        done = _scores_in(folder)
        state.wait_for_everyone()  # no process writes before all have read
        todo = [response for response in dict.fromkeys(responses) if response not in done]
        fitting = [r for r, ids in zip(todo, self.encode(todo), strict=True) if len(ids) <= self.max_length]
        if len(fitting) < len(todo):
            logger.info(f"left out for texts over {self.max_length} tokens: {len(todo) - len(fitting)} responses")
        mine = sorted(fitting[state.process_index :: state.num_processes], key=lambda r: len(r.prompt) + len(r.text))
        path = folder / f"part-{state.process_index:03d}.jsonl"
        with (
            path.open("a", encoding="utf-8") as file,
            progress_bar(len(mine), "scoring", "response", state.is_main_process) as bar,
        ):
            for start in range(0, len(mine), _CHUNK):
                chunk = mine[start : start + _CHUNK]
                scores = self.score(chunk)
                if not np.isfinite(scores).all():
                    raise UserError(f"the reward model {name} returned a score that is NaN or infinite")
                for r, score in zip(chunk, scores.tolist(), strict=True):
                    write_rows([{"prompt": r.prompt, "model": r.model, "response": r.text, "score": score}], file)
                file.flush()
                bar.update(len(chunk))
        state.wait_for_everyone()
        return _scores_in(folder)

    def _rendered_pieces(self) -> tuple[str, ...] | None:
        """The texts before the prompt, between prompt and response, and after the response."""
        if self.tokenizer.chat_template is None:
            return None
        turns = [{"role": role, "content": mark} for role, mark in zip(("user", "assistant"), _MARKS, strict=True)]
        try:
            rendered = self.tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception as error:  # a template is a program: it may raise anything
            raise UserError(f"the chat template cannot render a user's and an assistant's turn: {error}") from None
        before, *others = rendered.split(_MARKS[0])
        pieces = (before, *(piece for other in others for piece in other.split(_MARKS[1])))
        if len(others) != 1 or len(pieces) != 3:
            raise UserError("the chat template does not render a user's turn and then an assistant's once each")
        return pieces

    def _encoded_layout(self) -> list[list[int]]:
        """Token ids of the pieces; without a template of two paragraphs."""
        if self.pieces is None:
            eos = self.tokenizer.eos_token_id
            return [self._data.beginning(), inside(self.tokenizer, "\n\n"), [] if eos is None else [eos]]
        before, *others = self.pieces
        first = self.tokenizer(before, add_special_tokens=False)["input_ids"]
        return [first, *(inside(self.tokenizer, piece) for piece in others)]


def _load_adapter(
    name_or_path: str, source: Mapping[str, object], load: Callable[..., tuple[PreTrainedModel, dict]], **options
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_adapter`; the base model may be a causal language model if the adapter has the weights of the score."""
    from peft import load_peft_weights

    missing = []

    def load_base(place: str, **options) -> PreTrainedModel:
        model, report = load(place, output_loading_info=True, **options)
        missing.extend(report["missing_keys"])
        return model

    loaded = load_adapter(name_or_path, source, load_base, _KIND, **options)
    if missing:
        adapted = load_peft_weights(name_or_path, device="cpu", revision=source.get("revision"))
        _check_head(name_or_path, [key for key in missing if not any(name.endswith(f".{key}") for name in adapted)])
    return loaded


def _check_head(name_or_path: str, missing: Collection[str]) -> None:
    """Refuses a model without weights of its own for the score, which transformers would draw at random."""
    if missing:
        raise UserError(
            f"{name_or_path} lacks {counted(len(missing), 'weight')} of a reward model, such as {min(missing)}; is it "
            "a causal language model or an adapter of one?"
        )


def build_reward_model(
    texts: Iterable[str],
    *,
    hidden_size: int = 64,
    num_layers: int = 2,
    max_length: int = 1024,
    seed: int = 0,
) -> RewardModel:
    """A small Qwen2 classifier with random weights, tokenizer trained on `texts`; arguments as in `build_policy`."""
    tokenizer = build_tokenizer(texts, _VOCABULARY)
    set_seed(seed)
    config = small_config(tokenizer, hidden_size, num_layers, 4, max_length, num_labels=1)
    return RewardModel(Qwen2ForSequenceClassification(config), tokenizer)


def _claim(folder: Path, name: str, pieces: Sequence[str] | None) -> None:
    """Marks the folder as holding scores of `name`, and removes the incomplete last line of a killed process."""
    folder.mkdir(parents=True, exist_ok=True)
    owner, claim = folder / "reward_model.txt", name if pieces is None else f"{name}, layout {digest(pieces)}"
    if owner.exists() and (other := owner.read_text(encoding="utf-8").strip()) != claim:
        if other != name:
            raise UserError(
                f"{folder} holds scores of {other!r}, not of {claim!r}; remove it or choose another output_dir"
            )
        logger.warning(f"{folder}: its scores are used; an older version did not note their chat layout")
    write_text(owner, claim + "\n")
    if PartialState().is_main_process:
        for path in folder.glob("part-*.jsonl"):
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)  # in place: written anew, a full disk loses all


def _scores_in(folder: Path) -> dict[Response, float]:
    parts = [path for path in sorted(folder.glob("part-*.jsonl")) if path.stat().st_size]
    scored = [response for path in parts for response in load_responses(path)]
    if missing := [response for response in scored if response.score is None]:
        raise DataError(f"{folder}: a response by {missing[0].model!r} has no score; remove the folder to score again")
    return {response: response.score for response in scored}
