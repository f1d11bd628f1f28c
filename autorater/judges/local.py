"""A judge on this machine: a causal language model whose answer distribution is computed exactly, in both orders.

A probability is the mean of the answer distribution. With reasoning the model first generates one greedy or several
sampled reasonings, and the distributions after them are averaged. The prompt format, the layout as the chat template
rendered it, and a fitted recalibration are saved with the model (`autorater.json`). Deliberately left out: generation
of answers; scores of single responses (`autorater.judges.pointwise`).
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Self

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.atomic import read_json, write_json
from autorater.data.errors import UserError
from autorater.data.loading import as_pairs
from autorater.data.messages import Text
from autorater.data.pairs import Pair
from autorater.data.tables import Source
from autorater.judges.calibrators import Recalibration
from autorater.judges.judgments import AnswerArrays, Judgments, NamedJudge
from autorater.judges.options import PAIRWISE, POINTWISE
from autorater.judges.ranking import Ranking, rank
from autorater.judges.saved import FORMAT_FILE, SavedJudge, log_plain_prompt, read_format
from autorater.models.answers import AnswerTree
from autorater.models.distribution import AnswerDistribution
from autorater.models.loading import HUB_OPTIONS, check_has_end, load_on
from autorater.models.modes import evaluating
from autorater.models.prefix_cache import PrefixCache
from autorater.models.repeated_cache import Beginning
from autorater.models.sharding import in_step, is_sharded
from autorater.models.split_attention import supports_shared_prefix, transformer_of
from autorater.models.token_tree import TokenTree
from autorater.progress import progress_bar
from autorater.prompts.batching import batches_by_beginning, longest_prompt, pad_prompts, similar_lengths
from autorater.prompts.beginnings import common_beginning
from autorater.prompts.encoder import EncodedPrompt, PromptEncoder, log_layout_difference
from autorater.prompts.reasoning import close_reasoning
from autorater.prompts.templates import PromptFormat, SlotFormat
from autorater.prompts.tokens import inside
from rewards.answer import OPEN_TAG, THINK_CLOSE

_LEAST_BATCH = 16  # prompts of equal length for which a GPU saves more by a common beginning than it loses
logger = logging.getLogger(__name__)


class Judge(NamedJudge):
    """A causal language model that verbalizes probabilities.

    Args:
        model: Any causal LM; it stays on its device.
        tokenizer: Its (fast) tokenizer.
        prompt_format: The prompt format.
        answer_step: Step of the answer grid.
        max_reasoning_tokens: Maximum tokens of a reasoning; an unfinished one has no answer.
        n_reasonings: Reasonings per prompt: 1 greedy one, or several samples (from torch's global random state).
        max_batch_tokens: Maximum prompt, reasoning and answer tokens in one forward pass.
        recalibration: Applied to every mean, see `autorater.judges.calibrators`.
        pieces: The rendered prompt layout, as in `PromptEncoder`.

    Example:
        >>> judge = Judge.from_pretrained("runs/grpo")
        >>> judge.probabilities([{"prompt": "…", "response_a": "…", "response_b": "…"}]).p_sym
        array([0.71])
    """

    _pairs_at_once = 4096  # encoded prompts of so many pairs are in memory: 140 MB of 1,000 tokens each

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt_format: PromptFormat | None = None,
        answer_step: float = 0.01,
        max_reasoning_tokens: int = 512,
        n_reasonings: int = 1,
        max_batch_tokens: int = 16_384,
        recalibration: Recalibration | None = None,
        pieces: Sequence[str] | None = None,
    ):
        for option, value in (("n_reasonings", n_reasonings), ("max_batch_tokens", max_batch_tokens)):
            if value < 1:
                raise UserError(f"{option} is {value}; expected at least 1")
        self.model, self.tokenizer = model, tokenizer
        self.encoder = self._build_encoder(prompt_format, pieces)
        self.tree = self._build_tree(answer_step)
        self.max_reasoning_tokens = max_reasoning_tokens if self.encoder.format.reasoning else 0
        self.n_reasonings, self.max_batch_tokens = n_reasonings, max_batch_tokens
        self.recalibration = recalibration

    def _build_encoder(self, prompt_format: PromptFormat | None, pieces: Sequence[str] | None) -> PromptEncoder:
        return PromptEncoder(self.tokenizer, prompt_format, pieces)

    def _build_tree(self, answer_step: float) -> AnswerTree:
        return AnswerTree(self.tokenizer, self.encoder.context, answer_step)

    @property
    def prompt_format(self) -> SlotFormat:
        """The prompt format."""
        return self.encoder.format

    @property
    def _reasoning_tokens(self) -> int:
        """Maximum tokens in front of the answer."""
        # the opening tag follows the reasoning, and a token across the end of the reasoning is replaced by several
        tags = inside(self.tokenizer, THINK_CLOSE + OPEN_TAG)
        return self.max_reasoning_tokens + len(tags) if self.encoder.format.reasoning else 0

    @property
    def answer_tokens(self) -> int:
        """Maximum tokens of reasoning and answer."""
        return self._reasoning_tokens + self.tree.depth

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        prompt_template: str | None = None,
        *,
        device: str | torch.device | None = None,
        system_prompt: str | None = None,
        criteria: str | None = None,
        reference: str | None = None,
        reasoning: bool | None = None,
        answer_step: float | None = None,
        max_reasoning_tokens: int | None = None,
        n_reasonings: int = 1,
        max_batch_tokens: int = 16_384,
        judgment: str | None = None,
        **model_init_kwargs,
    ) -> "Judge":
        """Loads a trained judge, or any causal LM as a judge.

        Args:
            name: Output folder of a training run, or any model folder, GGUF file or Hub name.
            prompt_template: A file or the name of a built-in template; by default the saved one, else `full`.
            device: By default where a `device_map` puts the model, else the GPU if there is one.
            system_prompt, criteria, reference, reasoning: As in `PromptFormat`, by default as saved.
            answer_step, max_reasoning_tokens: By default as saved, else 0.01 and 512.
            n_reasonings, max_batch_tokens: As in `Judge`.
            judgment: `pairwise`, or `pointwise` for a `PointwiseJudge`, by default as saved, else `pairwise`.
            model_init_kwargs: As in `load_policy`.

        Raises:
            UserError: If there is no such model or device, the model cannot be loaded, the template does not fit, or
                an option has no effect on the judgment.
        """
        hub = {option: model_init_kwargs[option] for option in HUB_OPTIONS if option in model_init_kwargs}
        saved = SavedJudge.of(name, read_format(name, **hub), judgment)
        pairwise = {
            "reasoning": reasoning,
            "answer_step": answer_step,
            "max_reasoning_tokens": max_reasoning_tokens,
            "n_reasonings": n_reasonings if n_reasonings != 1 else None,
        }
        without_effect = [option for option, value in pairwise.items() if value is not None]
        if saved.judgment == POINTWISE and without_effect:
            raise UserError(f"{name}: {', '.join(without_effect)} has no effect on a pointwise judge")
        prompt = {"system_prompt": system_prompt, "criteria": criteria, "reference": reference, "reasoning": reasoning}
        requested = saved.with_options(prompt_template, answer_step, max_reasoning_tokens, **prompt)
        model, tokenizer = load_on(name, device, **model_init_kwargs)
        if requested.prompt_format.reasoning:
            check_has_end(name, tokenizer)
        if not saved.file:
            log_plain_prompt(name, tokenizer)
        options = {"max_batch_tokens": max_batch_tokens}
        if saved.judgment == POINTWISE:  # its module imports this one
            kind = import_module("autorater.judges.pointwise").PointwiseJudge
        else:
            kind, options = cls, options | {"n_reasonings": n_reasonings}
        judge = kind.from_saved(requested, model, tokenizer, **options)
        if requested.file:
            log_layout_difference(judge.encoder)
        return judge

    @classmethod
    def from_saved(
        cls, saved: SavedJudge, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, **options: int
    ) -> Self:
        """A saved judge with its model, or None for a judge of a server; `options` as in `Judge`."""
        answers = saved.answer_step, saved.max_reasoning_tokens
        layout = {"recalibration": saved.recalibration, "pieces": saved.pieces(tokenizer)}
        return cls(model, tokenizer, saved.prompt_format, *answers, **layout, **options)

    def save_format(self, folder: str | Path) -> None:
        """Writes the prompt format, the rendered layout and the recalibration to the folder of the weights."""
        saved = self._options_to_save()
        saved |= {"prompt_format": self.encoder.format.to_dict(), "pieces": self.encoder.pieces}
        if self.recalibration is not None:
            saved["recalibration"] = asdict(self.recalibration)
        write_json(Path(folder, FORMAT_FILE), saved)

    def _options_to_save(self) -> dict[str, object]:
        options = {"judgment": PAIRWISE, "answer_step": self.tree.step}
        return options | ({"max_reasoning_tokens": self.max_reasoning_tokens} if self.encoder.format.reasoning else {})

    def check_saved_as(self, folder: str | Path) -> None:
        """Raises a UserError if a folder has the format of a judge that asks or answers in another way."""
        path = Path(folder, FORMAT_FILE)
        saved = read_json(path) if path.exists() else {}
        differing = [name for name, value in self._options_to_save().items() if saved.get(name, value) != value]
        if "prompt_format" in saved and not differing:
            format = self.encoder.format
            differing = ["prompt_format"] if type(format).from_dict(saved["prompt_format"]) != format else []
        if differing:
            raise UserError(
                f"{folder} is a judge with another {' and '.join(differing)}; expected its own, without options that "
                "change its prompt or its answers"
            )

    def probabilities(self, pairs: Sequence[Pair] | Source, *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders.

        Many pairs are encoded and judged in parts, because a prompt takes more memory than its texts.

        Args:
            pairs: Pairs, or a source of rows with `prompt`, `response_a` and `response_b`, see `as_pairs`.

        Raises:
            UserError: If a row is no pair, lacks a text for a slot, or a prompt is too long for the model.
        """
        pairs = as_pairs(pairs)
        if len(pairs) <= self._pairs_at_once or is_sharded(self.model):  # processes may have unlike numbers of parts
            return self.judge_prompts(self.encoder.encode(pairs), progress=progress)
        limit = self.longest_prompt()
        for i, pair in enumerate(pairs):
            if self.encoder.most_tokens(pair) > limit:  # an error comes before the first part
                self.check_lengths(self.encoder.encode([pair]), numbers=[i])
        return self._judge_in_parts(pairs, progress)

    def _judge_in_parts(self, pairs: Sequence[Pair], progress: bool) -> Judgments:
        """Judges pairs that have texts for all slots; those that begin alike are in one part, to be read once."""
        first: dict[Text, int] = {}
        for text in (text for pair in pairs for text in (pair.prompt, pair.response_a)):
            first.setdefault(text, len(first))
        order = sorted(range(len(pairs)), key=lambda i: (first[pairs[i].prompt], first[pairs[i].response_a]))
        parts = []
        with progress_bar(2 * len(pairs), "judging", "prompt", progress) as bar:
            for start in range(0, len(order), self._pairs_at_once):
                rows = order[start : start + self._pairs_at_once]
                prompts = self.encoder.encode([pairs[i] for i in rows])
                self.check_lengths(prompts, numbers=rows)
                parts.append(self.judge_prompts(prompts, progress=bar))
        return Judgments.concatenated(parts)[np.argsort(order)]

    def rank(self, prompt: Text, responses: Sequence[Text], **shown: Text | None) -> Ranking:
        """Ranks K responses to a prompt by all pairs in both orders; see `autorater.judges.ranking.rank`."""
        return rank(self, prompt, responses, **shown)

    def scores(self, prompt: Text, responses: Sequence[Text], *, progress: bool = False) -> np.ndarray:
        """Raises UserError: only a `PointwiseJudge` scores single responses."""
        raise UserError("a pairwise judge does not score single responses; expected a pointwise judge, or use rank")

    def judge_prompts(
        self, prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], *, progress: bool | tqdm = False
    ) -> Judgments:
        """Judges N pairs in both orders, from the prompts of `encoder.encode`; errors as in `probabilities`."""
        self.check_lengths(prompts)
        answers = self.read_prompts([prompt for orders in prompts for prompt in orders], progress=progress)
        return Judgments(*(column.reshape(len(prompts), 2) for column in vars(answers).values()))

    def judge_as_shown(self, prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]]) -> AnswerArrays:
        """Judges N pairs in the given order alone; arguments and errors as in `judge_prompts`."""
        return self.read_prompts([ab for ab, _ in prompts])

    def read_prompts(self, prompts: Sequence[EncodedPrompt], *, progress: bool | tqdm = False) -> AnswerArrays:
        """Answers to N single prompts, recalibrated like those of `probabilities`; errors as in `probabilities`."""
        columns = np.zeros((5, len(prompts)))
        for rows, distributions in self.read(prompts, progress=progress):
            answers = distributions[0]
            if len(distributions) > 1:  # the reasonings were sampled, so there is no greedy answer
                probs = torch.stack([distribution.probs for distribution in distributions]).mean(dim=0)
                answers = replace(answers, probs=probs, greedy=torch.full_like(answers.greedy, torch.nan))
            values = torch.stack([answers.mean, answers.mode, answers.spread, answers.valid, answers.greedy])
            columns[:, rows] = values.clamp(0, 1).cpu().double().numpy()
        mean, mode, spread, valid, greedy = columns
        if self.recalibration is not None:
            mean = self.recalibration(mean)
        # answers are decimals: a float32 0.3 would be above the edge of its bin
        return AnswerArrays(mean, mode.round(4), spread, valid, greedy.round(4))

    def read(
        self, prompts: Sequence[EncodedPrompt], *, progress: bool | tqdm = False
    ) -> Iterator[tuple[list[int], list[AnswerDistribution]]]:
        """Yields the indices of a batch and its answer distributions: one, or with reasoning `n_reasonings`."""
        if self.encoder.format.reasoning:
            sizes = [len(prompt.ids) + self._reasoning_tokens + len(self.tree.tokens) for prompt in prompts]
            batches = similar_lengths(sizes, self.max_batch_tokens, padded=not transformer_of(self.model)._is_stateful)
            for rows, batch in self._read_in(batches, prompts, progress):
                yield rows, [self._read_after_reasoning(batch) for _ in range(self.n_reasonings)]
        else:
            for rows, logits in self.logits_after(prompts, self.tree, progress=progress):
                yield rows, [self.tree.answers(logits)]

    def logits_after(
        self, prompts: Sequence[EncodedPrompt], tree: TokenTree, *, progress: bool | tqdm = False
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yields the indices of a batch and `tree.logits` after its prompts, (B, 1 + S, V), without gradients.

        Prompts that begin alike come together, and what they begin with is processed once
        (`autorater.models.prefix_tree`). Of a model that cannot share prompts in this way, what all of them begin with
        is processed once, if its cache can be repeated (`autorater.models.repeated_cache`).
        """
        ids, budget, known, beginning = [prompt.ids for prompt in prompts], self.max_batch_tokens, None, []
        sharded, shared = is_sharded(self.model), supports_shared_prefix(self.model)[0]
        sizes = [len(prompt) + len(tree.tokens) for prompt in ids]
        if shared and not sharded:
            known = PrefixCache(self.model)
            batches = batches_by_beginning(ids, len(tree.tokens), budget)
        elif shared:  # processes that share the parameters call the model equally often
            batches = similar_lengths(sizes, budget)
        elif ids and tree.repeats_cache(self.model, ids[0]):
            like = len(ids) / len(set(map(len, ids)))  # prompts of a length; padding cannot follow a beginning
            if not sharded and (like >= _LEAST_BATCH or self.model.device.type == "cpu"):
                beginning = common_beginning([prompt[:-1] for prompt in ids])
            batches = similar_lengths(sizes, budget, padded=not beginning)
        else:
            sizes = [len(tree.leaf_paths) * (len(prompt) + tree.depth - 1) for prompt in ids]
            batches = similar_lengths(sizes, budget, padded=not transformer_of(self.model)._is_stateful)
        for rows, batch in self._read_in(batches, prompts, progress):
            if beginning and known is None:
                known = Beginning(self.model, beginning)
            yield rows, tree.read_logits(self.model, batch, known, sys.maxsize if sharded else budget)

    def _read_in(
        self, batches: Iterable[list[int]], prompts: Sequence[EncodedPrompt], progress: bool | tqdm
    ) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Yields indices and token ids of batches of prompts, with the model in eval mode.

        Of a sharded model a batch may come twice (`in_step`).
        """
        self.check_lengths([(prompt,) for prompt in prompts], "prompt")
        with evaluating(self.model), progress_bar(len(prompts), "judging", "prompt", progress) as bar:
            for rows in in_step(batches, self.model):
                yield rows, [prompts[i].ids for i in rows]
                bar.update(len(rows))

    @torch.no_grad()
    def _read_after_reasoning(self, prompts: list[list[int]]) -> AnswerDistribution:
        ids, mask = pad_prompts(prompts, self.tokenizer.pad_token_id, next(self.model.parameters()).device)
        generated = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=self.n_reasonings > 1,
            temperature=1.0,  # as in training, whatever the generation_config says
            top_k=0,
            top_p=1.0,
            min_p=None,
            typical_p=1.0,
            epsilon_cutoff=0.0,
            eta_cutoff=0.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            num_beams=1,
            num_return_sequences=1,
            prompt_lookup_num_tokens=None,
            return_dict_in_generate=False,
            max_new_tokens=self.max_reasoning_tokens,
            stop_strings=[THINK_CLOSE],
            tokenizer=self.tokenizer,
            pad_token_id=self.tokenizer.pad_token_id,
            synced_gpus=is_sharded(self.model),  # continue until the reasoning of every process has ended
        )[:, ids.shape[1] :]
        reasonings = [close_reasoning(self.tokenizer, completion) for completion in generated.tolist()]
        reasoned = [prompt + reasoning.ids for prompt, reasoning in zip(prompts, reasonings, strict=True)]
        answers = self.tree.read(
            self.model, reasoned, sys.maxsize if is_sharded(self.model) else self.max_batch_tokens
        )
        closed = torch.tensor([reasoning.closed for reasoning in reasonings], device=ids.device)
        greedy = answers.greedy.masked_fill(~closed, torch.nan)
        return replace(answers, probs=answers.probs * closed[:, None], greedy=greedy)

    def longest_prompt(self, limit: int | None = None) -> int:
        """Longest prompt, in tokens, that leaves the model room for reasoning and answer; at most `limit`."""
        return longest_prompt(self.model, self.answer_tokens, limit)

    def fitting(self, pairs: Sequence[Pair], limit: int | None = None) -> list[bool]:
        """Whether no prompt of a pair is longer than `longest_prompt(limit)`, for N pairs."""
        limit = self.longest_prompt(limit)
        return [max(len(prompt.ids) for prompt in both) <= limit for both in self.encoder.encode(pairs)]

    def check_lengths(
        self, prompts: Sequence[Sequence[EncodedPrompt]], row: str = "pair", numbers: Sequence[int] | None = None
    ) -> None:
        """Raises UserError if a prompt leaves the model no room for reasoning and answer; it names the `row`.

        `numbers` are those of the rows, by default counted from 0.
        """
        limit = self.longest_prompt()
        for i, orders in zip(range(len(prompts)) if numbers is None else numbers, prompts, strict=True):
            longest = max(len(prompt.ids) for prompt in orders)
            if longest > limit:
                raise UserError(f"{row} {i}: its prompt has {longest} tokens; this model has room for {limit}")
