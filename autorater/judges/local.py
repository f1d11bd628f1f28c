"""A judge that runs on this machine: prompt in both orders, exact distribution over answers, one forward a prompt.

A probability is the mean of the answer distribution; its most likely answer, its spread and the answer that greedy
decoding would write are kept beside it.
How the judge was asked while it was trained is saved with the model (`autorater.json`) and used again; so is a
recalibration that was fitted to it.

A judge that reasons first writes its reasoning, greedily or `n_reasonings` times by chance, and the distribution is
read behind it; the judgment is the mean over its reasonings. Deliberately left out: generation of answers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.pairs import Pair
from autorater.judges.calibrators import Recalibration, from_dict, to_dict
from autorater.judges.judgments import Judgments
from autorater.models.answers import AnswerDistribution, AnswerTree
from autorater.models.loading import check_model_path, load_policy
from autorater.models.sharding import in_step, is_sharded
from autorater.prompts.batching import similar_lengths, longest_prompt, pad_prompts
from autorater.prompts.encoder import EncodedPrompt, PromptEncoder
from autorater.prompts.reasoning import close_reasoning
from autorater.prompts.templates import PromptFormat
from rewards.answer import OPEN_TAG, THINK_CLOSE

FORMAT_FILE = "autorater.json"


class Judge:
    """A causal language model that verbalizes probabilities.

    Args:
        model: Any causal LM; it is used on the device where it is.
        tokenizer: Its (fast) tokenizer.
        prompt_format: How it is asked.
        answer_step: Step of the answer grid it is read on.
        max_reasoning_tokens: Longest reasoning, where the format asks for it; unfinished reasoning has no answer.
        n_reasonings: Reasonings a prompt: 1 greedy one, or several drawn from the model (torch's random state).
        max_batch_tokens: Upper bound of prompt, reasoning and answer tokens in one forward pass.
        recalibration: Applied to every mean, see `autorater.judges.calibrators`.

    Example:
        >>> judge = Judge.from_pretrained("runs/grpo")
        >>> judge.probabilities([{"prompt": "…", "response_a": "…", "response_b": "…"}]).p_sym
        array([0.71])
    """

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
    ):
        self.model, self.tokenizer = model, tokenizer
        self.encoder = PromptEncoder(tokenizer, prompt_format)
        self.tree = self._plant_tree(answer_step)
        self.max_reasoning_tokens = max_reasoning_tokens if self.encoder.format.reasoning else 0
        # behind the reasoning comes the opening tag, and before it perhaps what a token across the end is replaced by
        tags = tokenizer(THINK_CLOSE + OPEN_TAG, add_special_tokens=False)["input_ids"]
        self._behind_prompt = self.max_reasoning_tokens + len(tags) if self.encoder.format.reasoning else 0
        self.n_reasonings, self.max_batch_tokens = n_reasonings, max_batch_tokens
        self.recalibration = recalibration

    def _plant_tree(self, answer_step: float) -> AnswerTree:
        return AnswerTree(self.tokenizer, self.encoder.context, answer_step)

    @property
    def answer_tokens(self) -> int:
        """Room that reasoning and answer take behind a prompt, in tokens."""
        return self._behind_prompt + self.tree.depth

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        device: str | torch.device | None = None,
        prompt_format: PromptFormat | None = None,
        answer_step: float | None = None,
        max_reasoning_tokens: int | None = None,
        n_reasonings: int = 1,
        max_batch_tokens: int = 16_384,
        **model_init_kwargs,
    ) -> "Judge":
        """Loads a judge trained here, or any causal LM to be asked the same way.

        Args:
            name_or_path: Output folder of a training run, or any model folder or Hub name.
            device: Where to run; by default the GPU if there is one.
            prompt_format, answer_step, max_reasoning_tokens: How to ask; by default as saved with the model, else the
                full prompt, 0.01, 512.
            n_reasonings, max_batch_tokens: As in `Judge`.
            model_init_kwargs: As in `load_policy`.

        Raises:
            FileNotFoundError: If a local folder is meant and there is no model in it.
        """
        saved = read_format(name_or_path)
        model, tokenizer = load_policy(name_or_path, **model_init_kwargs)
        if device is None and not hasattr(model, "hf_device_map"):
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device is not None:
            model.to(device)
        return cls(
            model,
            tokenizer,
            prompt_format or PromptFormat(**saved.get("prompt_format", {})),
            answer_step or saved.get("answer_step", 0.01),
            max_reasoning_tokens or saved.get("max_reasoning_tokens", 512),
            n_reasonings,
            max_batch_tokens,
            from_dict(saved["recalibration"]) if "recalibration" in saved else None,
        )

    def save_format(self, folder: str | Path) -> None:
        """Writes how this judge is asked, and its recalibration, beside its weights."""
        saved = {"prompt_format": self.encoder.format.to_dict(), "answer_step": self.tree.step}
        if self.encoder.format.reasoning:
            saved["max_reasoning_tokens"] = self.max_reasoning_tokens
        if self.recalibration is not None:
            saved["recalibration"] = to_dict(self.recalibration)
        Path(folder, FORMAT_FILE).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")

    def probabilities(self, pairs: Sequence[Pair | Mapping[str, str]], *, progress: bool = False) -> Judgments:
        """Judges every pair in both orders.

        Args:
            pairs: N pairs, or mappings with `prompt`, `response_a` and `response_b`.
            progress: Show a progress bar.

        Raises:
            ValueError: If a row is no pair, or a prompt is longer than the model can read.
        """
        pairs = [pair if isinstance(pair, Pair) else _as_pair(pair, i) for i, pair in enumerate(pairs)]
        return self.judge_prompts(self.encoder.encode(pairs), progress=progress)

    def judge_prompts(
        self, prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], *, progress: bool = False
    ) -> Judgments:
        """Judges prompts that `encoder.encode` made; N of them in both orders."""
        columns = np.zeros((2 * len(prompts), 5))
        for rows, readings in self.read(prompts, progress=progress):
            answers = readings[0]
            if len(readings) > 1:  # the reasonings were drawn, so no answer is the greedy one
                probs = torch.stack([reading.probs for reading in readings]).mean(dim=0)
                answers = replace(answers, probs=probs, greedy=torch.full_like(answers.greedy, torch.nan))
            read = torch.stack([answers.mean, answers.mode, answers.spread, answers.valid, answers.greedy], dim=1)
            columns[rows] = read.clamp(0, 1).double().cpu().numpy()
        # answers are decimals: left in single precision, 0.3 would lie above the edge of its bin
        columns[:, [1, 4]] = columns[:, [1, 4]].round(4)
        judgments = Judgments(*columns.reshape(len(prompts), 2, 5).transpose(2, 0, 1))
        return judgments if self.recalibration is None else judgments.recalibrated(self.recalibration)

    def read(
        self, prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], *, progress: bool = False
    ) -> Iterator[tuple[list[int], list[AnswerDistribution]]]:
        """Reads prompts that `encoder.encode` made, batch by batch.

        Yields:
            Rows of a batch of B prompts (2 i is order ab of prompt i, 2 i + 1 its order ba), and their distributions:
            one without reasoning, else one behind each of `n_reasonings` reasonings.
        """
        self.check_lengths(prompts)
        flat = [prompt.ids for both in prompts for prompt in both]
        sizes = [len(ids) + self._behind_prompt + len(self.tree.tokens) for ids in flat]
        was_training = self.model.training
        self.model.eval()
        try:
            with tqdm(total=len(flat), desc="judging", unit="prompt", disable=not progress, leave=False) as bar:
                for rows in in_step(similar_lengths(sizes, self.max_batch_tokens), self.model):
                    batch = [flat[i] for i in rows]
                    if self.encoder.format.reasoning:
                        yield rows, [self._behind_reasoning(batch) for _ in range(self.n_reasonings)]
                    else:
                        yield rows, [self.tree.read(self.model, batch)]
                    bar.update(len(rows))
        finally:
            self.model.train(was_training)

    @torch.no_grad()
    def _behind_reasoning(self, prompts: list[list[int]]) -> AnswerDistribution:
        ids, mask = pad_prompts(prompts, self.tokenizer.pad_token_id, next(self.model.parameters()).device)
        written = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=self.n_reasonings > 1,
            temperature=1.0,  # as the policy is trained, whatever its generation_config says
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            max_new_tokens=self.max_reasoning_tokens,
            stop_strings=[THINK_CLOSE],
            tokenizer=self.tokenizer,
            pad_token_id=self.tokenizer.pad_token_id,
            synced_gpus=is_sharded(self.model),  # go on until the longest reasoning of any process has ended
        )[:, ids.shape[1] :]
        reasonings = [close_reasoning(self.tokenizer, completion) for completion in written.tolist()]
        reasoned = [prompt + reasoning.ids for prompt, reasoning in zip(prompts, reasonings, strict=True)]
        answers = self.tree.read(self.model, reasoned)
        closed = torch.tensor([reasoning.closed for reasoning in reasonings], device=ids.device)
        greedy = answers.greedy.masked_fill(~closed, torch.nan)
        return replace(answers, probs=answers.probs * closed[:, None], greedy=greedy)

    def check_lengths(self, prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]]) -> None:
        """Raises ValueError if the model cannot read one of the prompts and answer it."""
        limit = longest_prompt(self.model, self.answer_tokens)
        for i, both in enumerate(prompts):
            longest = max(len(prompt.ids) for prompt in both)
            if longest > limit:
                raise ValueError(
                    f"pair {i}: its prompt has {longest} tokens, this model reads {limit}; leave the pair out"
                )


def _as_pair(row: Mapping[str, str], index: int) -> Pair:
    missing = [c for c in ("prompt", "response_a", "response_b") if not isinstance(row.get(c), str)]
    if missing:
        raise ValueError(f"pair {index}: {missing[0]!r} must be a text, got {row.get(missing[0])!r}")
    return Pair(str(index), row["prompt"], row["response_a"], row["response_b"], label=0.5)


def read_format(name_or_path: str) -> dict:
    check_model_path(name_or_path)
    path = Path(name_or_path, FORMAT_FILE)
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    if Path(name_or_path).is_dir():
        return {}
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return json.loads(Path(hf_hub_download(name_or_path, FORMAT_FILE)).read_text(encoding="utf-8"))
    except (EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError):
        return {}  # any other model: it is asked in the default way
