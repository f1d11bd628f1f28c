"""Judgment tokens: the distribution of a language model over K labels.

    q_k(x) = Σ_{words w of k} π(w | x) / Σ_j Σ_{words w of j} π(w | x)

A label may be written in several words (synonyms, as "yes" for entailment), which together are one label. A word of
several tokens has the product of their probabilities; one of a single token counts with and without the space in front
of it. All words of all labels form a tree that is read in one forward pass (`autorater.models.token_tree`). q is a softmax
over the label set, as in arXiv 2505.12301; what the set leaves out, 1 − Σ π(w | x), is kept beside it as the mass that
it hides.

Two labels must not begin alike: where the tokens of one are the beginning of another's ("1" and "10" in single
digits), the probability of the shorter contains the longer, and q would mean nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from numpy.typing import ArrayLike
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.items import Task
from autorater.models.token_tree import TokenTree, tokens_behind
from autorater.prompts.batching import pad_prompts

_COMPACT = "{texts}\n[Answer]"
_FULL = """\
{question} They do not all agree. Answer as one of them would, with one of these labels alone: {labels}.

{texts}

[Answer]"""


@dataclass(frozen=True)
class LabelFormat:
    """How a judge is asked for a label. What a `PromptEncoder` wants of a format.

    Args:
        task: What annotators were asked.
        layout: `full` (explains the task) or `compact` (for small policies from scratch).
        synonyms: More words for a label. The label itself comes first and is the one that is asked for and trained.

    Raises:
        ValueError: If the layout or a label is unknown.
    """

    task: Task
    layout: str = "full"
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reasoning: bool = field(default=False, init=False)

    def __post_init__(self):
        if self.layout not in ("full", "compact"):
            raise ValueError(f"prompt layout must be 'full' or 'compact', got {self.layout!r}")
        for label in self.synonyms:
            if label not in self.task.labels:
                raise ValueError(f"synonyms of unknown label {label!r}; the labels are {', '.join(self.task.labels)}")

    @property
    def words(self) -> list[list[str]]:
        """The words of every label."""
        return [[label, *self.synonyms.get(label, ())] for label in self.task.labels]

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(f"text_{i}" for i in range(len(self.task.titles)))

    @property
    def titles(self) -> tuple[str, ...]:
        return self.task.titles

    @property
    def gap(self) -> str:
        return ""  # a label is written with the space in front of it, as tokenizers have it

    @property
    def prefill(self) -> str:
        return ""

    @property
    def text(self) -> str:
        between = " " if self.layout == "compact" else "\n"
        texts = [
            f"[{_literal(title)}]{between}{{{slot}}}" for title, slot in zip(self.titles, self.slots, strict=True)
        ]
        layout = _COMPACT if self.layout == "compact" else _FULL
        layout = layout.replace("{texts}", ("\n" if self.layout == "compact" else "\n\n").join(texts))
        layout = layout.replace("{question}", _literal(self.task.question))
        return layout.replace("{labels}", _literal(", ".join(self.task.labels)))

    def to_dict(self) -> dict:
        return {"task": self.task.to_dict(), "layout": self.layout, "synonyms": dict(self.synonyms)}


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


class LabelTree(TokenTree):
    """The words of K labels, tokenized behind a prompt.

    Args:
        tokenizer: A fast tokenizer.
        context: The text in front of the label, as `PromptEncoder.context` has it.
        words: Words of every label, at least one each.
        values: The number that each label stands for, shape (K,), where they stand for numbers.

    Attributes:
        label_tokens: Tokens of the first word of every label as it is written behind the prompt.
        string_labels: Label of every string, shape (J,).

    Raises:
        ValueError: If a word tokenizes to nothing, or the tokens of one label are the beginning of another's.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context: str,
        words: Sequence[Sequence[str]],
        values: ArrayLike | None = None,
    ):
        names = [forms[0] for forms in words]
        # behind a chat template's newline no space is written
        gaps = ("", " ") if context[-1:].isspace() else (" ", "")
        owner: dict[tuple[int, ...], int] = {}
        self.label_tokens = []
        for label, forms in enumerate(words):
            for i, word in enumerate(forms):
                written = [tuple(tokens_behind(tokenizer, context, gap + word)) for gap in gaps]
                if not word.strip() or not all(written):
                    raise ValueError(f"label {names[label]!r}: {word!r} tokenizes to nothing")
                if i == 0:
                    self.label_tokens.append(list(written[0]))
                written = [tokens for j, tokens in enumerate(written) if j == 0 or len(tokens) == 1]
                for tokens in written:
                    if owner.setdefault(tokens, label) != label:
                        raise ValueError(
                            f"labels {names[owner[tokens]]!r} and {names[label]!r} have the same tokens ({word!r})"
                        )
        strings = []
        for tokens, label in owner.items():
            shorter = next((tokens[:n] for n in range(1, len(tokens)) if tokens[:n] in owner), None)
            if shorter is not None and owner[shorter] != label:
                raise ValueError(
                    f"the tokens of label {names[owner[shorter]]!r} are the beginning of those of {names[label]!r} "
                    f"({tokenizer.decode(tokens)!r}); expected labels that begin differently, such as letters"
                )
            if shorter is None:  # else it is contained in another word of the same label
                strings.append((tokens, label))
        super().__init__([tokens for tokens, _ in strings])
        self.names = tuple(names)
        self.values = None if values is None else torch.as_tensor(values)
        self.string_labels = torch.tensor([label for _, label in strings])

    def distribution(
        self, model: PreTrainedModel, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor
    ) -> "LabelDistribution":
        """Reads the distribution of every prompt in one forward pass; gradients flow.

        Args:
            prompt_ids, prompt_mask: Left-padded prompts, shape (B, L).
        """
        strings = self.log_probs(self.logits(model, prompt_ids, prompt_mask))  # (B, J)
        of_label = torch.arange(len(self.names))[:, None] == self.string_labels  # (K, J)
        apart = strings[:, None].masked_fill(~of_label.to(strings.device), -torch.inf)
        log_mass = apart.logsumexp(dim=-1)
        return LabelDistribution(log_mass, None if self.values is None else self.values.to(log_mass))

    @torch.no_grad()
    def read(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> "LabelDistribution":
        """The distribution of B prompts, given as token ids; no gradients."""
        return self.distribution(model, *pad_prompts(prompts, 0, next(model.parameters()).device))


@dataclass(frozen=True)
class LabelDistribution:
    """What a model says of B prompts.

    Attributes:
        log_mass: log Σ_{words w of k} π(w | x), shape (B, K).
        values: What number each label stands for, shape (K,), or None.
    """

    log_mass: torch.Tensor
    values: torch.Tensor | None = None

    @property
    def log_probs(self) -> torch.Tensor:
        """log q, shape (B, K)."""
        return self.log_mass.log_softmax(dim=-1)

    @property
    def probs(self) -> torch.Tensor:
        """q, shape (B, K)."""
        return self.log_mass.softmax(dim=-1)

    @property
    def _weights(self) -> torch.Tensor:
        if self.values is None:
            raise ValueError("these labels stand for no number")
        return self.values

    @property
    def mean(self) -> torch.Tensor:
        """Expected value under q, shape (B,); like the three below, where the labels stand for numbers."""
        return self.probs @ self._weights

    @property
    def mode(self) -> torch.Tensor:
        """Value of the likeliest label, shape (B,)."""
        return self._weights[self.log_mass.argmax(dim=-1)]

    @property
    def spread(self) -> torch.Tensor:
        """Standard deviation of the value under q, shape (B,)."""
        return (self.probs * (self._weights - self.mean[:, None]) ** 2).sum(dim=-1).sqrt()

    @property
    def greedy(self) -> torch.Tensor:
        """NaN: nothing is decoded where labels are read. Shape (B,)."""
        return torch.full_like(self.log_mass[:, 0], torch.nan)

    @property
    def valid(self) -> torch.Tensor:
        """Probability that the answer is one of the labels, shape (B,)."""
        return self.log_mass.logsumexp(dim=-1).exp().clamp_max(1)
