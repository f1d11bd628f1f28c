"""Judgment tokens: the distribution of a language model over K labels.

    q_k(x) = Σ_{words w of k} π(w | x) / Σ_j Σ_{words w of j} π(w | x)

A label may have several words (synonyms, such as "yes" for entailment). The probability of a word is the product of
the probabilities of its tokens; a word of a single token counts with and without the space in front of it. All words
form a tree that is evaluated in one forward pass (`autorater.models.token_tree`). q is a softmax over the label set,
as in arXiv 2505.12301; the mass of all labels, Σ π(w | x), is returned too, because q hides it.

Labels must begin with different tokens: if the tokens of one are the beginning of another's ("1" and "10" in single
digits), the probability of the shorter one contains that of the longer one, and q has no meaning.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from numpy.typing import ArrayLike
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.errors import UserError
from autorater.data.items import Task
from autorater.data.messages import Text
from autorater.data.pairs import Pair
from autorater.models.distribution import AnswerDistribution
from autorater.models.token_tree import TokenTree, tokens_after
from autorater.prompts.markers import markers_in
from autorater.prompts.templates import parse_template, unshown

_COMPACT = "{texts}\n[Answer]"
_FULL = """\
{question} They do not all agree. Answer as one of them would, with one of these labels alone: {labels}.

{texts}

[Answer]"""
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class LabelFormat:
    """The prompt format of a judge that answers with a label; see `autorater.prompts.templates.SlotFormat`.

    Args:
        layout: `full` (explains the task) or `compact` (for small policies from scratch).
        synonyms: More words for a label. The label itself is its first word, which is requested and trained.
        system_prompt: A system message in front of the prompt.

    Raises:
        UserError: If the layout or a label is unknown.
    """

    task: Task
    layout: str = "full"
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    system_prompt: str | None = None
    reasoning: bool = field(default=False, init=False)
    gap: str = field(default="", init=False)  # a label includes the space in front of it, as in tokenizers
    prefill: str = field(default="", init=False)

    def __post_init__(self):
        if self.layout not in ("full", "compact"):
            raise UserError(f"the prompt templates of labels are 'full' and 'compact', got {self.layout!r}")
        for label in self.synonyms:
            if label not in self.task.labels:
                raise UserError(f"synonyms of unknown label {label!r}; the labels are {', '.join(self.task.labels)}")

    @property
    def words(self) -> list[list[str]]:
        """The words of every label."""
        return [[label, *self.synonyms.get(label, ())] for label in self.task.labels]

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(f"text_{i}" for i in range(len(self.task.titles)))

    @property
    def responses(self) -> tuple[int, int]:
        """Places of the responses among the slots, if the items are pairs."""
        return 1, 2

    def values(self, pair: Pair) -> list[Text]:
        """The text of every slot, if the items are pairs."""
        return [pair.prompt, pair.response_a, pair.response_b]

    def unshown(self, pairs: Sequence[Pair]) -> str | None:
        """As in `PromptFormat`."""
        return unshown(pairs, (), "the layout of labels")

    @property
    def pieces(self) -> tuple[str, ...]:
        return tuple(parse_template(self.text, "the layout of labels", self.slots)[0])

    @property
    def markers(self) -> re.Pattern[str] | None:
        return markers_in(f"[{title}]" for title in self.task.titles)

    @property
    def text(self) -> str:
        layout, space, line = (_COMPACT, " ", "\n") if self.layout == "compact" else (_FULL, "\n", "\n\n")
        texts = [
            f"[{_literal(title)}]{space}{{{slot}}}" for title, slot in zip(self.task.titles, self.slots, strict=True)
        ]
        parts = {"texts": line.join(texts), "question": _literal(self.task.question)}
        return layout.format(**parts, labels=_literal(", ".join(self.task.labels)))

    def to_dict(self) -> dict:
        saved = {"task": self.task.to_dict(), "layout": self.layout, "synonyms": dict(self.synonyms)}
        return saved | ({"system_prompt": self.system_prompt} if self.system_prompt else {})


def _literal(text: str) -> str:
    return re.sub(r"(\{[^\W\d]\w*\})", r"{\1}", text)


class LabelTree(TokenTree):
    """The words of K labels, tokenized after a prompt.

    Args:
        context: The text in front of the label, see `PromptEncoder.context`.
        words: Words of every label, at least one each.
        values: The number of each label, shape (K,), if the labels are numbers.

    Attributes:
        names: First word of every label.
        label_tokens: Tokens of the first word of every label.
        string_labels: Label of every string, shape (J,).

    Raises:
        UserError: If a word has no token, or the tokens of one label are the beginning of another's.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context: str,
        words: Sequence[Sequence[str]],
        values: ArrayLike | None = None,
    ):
        self.names = tuple(forms[0] for forms in words)
        spellings = [_spellings(tokenizer, context, forms) for forms in words]
        label_of = self._distinct(tokenizer, spellings)
        super().__init__(list(label_of))
        self.label_tokens = [list(of_label[0]) for of_label in spellings]
        self.string_labels = torch.tensor(list(label_of.values()))
        self.values = torch.full((len(words),), torch.nan) if values is None else torch.as_tensor(values)

    def _distinct(self, tokenizer: PreTrainedTokenizerBase, spellings: list[list[Tokens]]) -> dict[Tokens, int]:
        """The label of every token sequence; those that begin with another word of the same label are left out."""
        label_of: dict[Tokens, int] = {}
        for label, of_label in enumerate(spellings):
            for tokens in of_label:
                if label_of.setdefault(tokens, label) != label:
                    other, text = self.names[label_of[tokens]], tokenizer.decode(tokens)
                    raise UserError(f"labels {other!r} and {self.names[label]!r} have the same tokens ({text!r})")
        distinct = {}
        for tokens, label in label_of.items():
            prefix = next((tokens[:n] for n in range(1, len(tokens)) if tokens[:n] in label_of), None)
            if prefix is None:
                distinct[tokens] = label
            elif label_of[prefix] != label:
                raise UserError(
                    f"the tokens of label {self.names[label_of[prefix]]!r} are the beginning of those of "
                    f"{self.names[label]!r} ({tokenizer.decode(tokens)!r}); expected labels that begin differently, "
                    "such as letters"
                )
        return distinct

    def log_mass(self, model: PreTrainedModel, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
        """log Σ_{words w of k} π(w | x) of left-padded prompts (B, L), shape (B, K); one pass, gradients flow."""
        return self._log_mass(self.logits(model, prompt_ids, prompt_mask))

    def _log_mass(self, logits: torch.Tensor) -> torch.Tensor:
        strings = self.log_probs(logits)  # (B, J)
        of_label = torch.arange(len(self.names))[:, None] == self.string_labels  # (K, J)
        return strings[:, None].masked_fill(~of_label.to(strings.device), -torch.inf).logsumexp(dim=-1)

    def answers(self, logits: torch.Tensor) -> AnswerDistribution:
        """The distributions over the labels, as in `TokenTree`; no greedy answer."""
        probs = self._log_mass(logits).double().exp()  # in single precision a label of many tokens could be 0
        return AnswerDistribution(probs, self.values.to(probs), greedy=torch.full_like(probs[:, 0], torch.nan))


def _spellings(tokenizer: PreTrainedTokenizerBase, context: str, words: Sequence[str]) -> list[Tokens]:
    gaps = ("", " ") if context[-1:].isspace() else (" ", "")  # no space after the newline of a chat template
    spellings = []
    for word in words:
        usual, other = (tuple(tokens_after(tokenizer, context, gap + word)) for gap in gaps)
        if not (word.strip() and usual and other):
            raise UserError(f"label {words[0]!r}: {word!r} tokenizes to nothing")
        spellings += [usual, other] if len(other) == 1 else [usual]
    return spellings
