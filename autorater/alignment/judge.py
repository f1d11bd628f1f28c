"""A judge that is asked for a label: of items the distribution over the labels, of pairs the probability of B.

Where the labels are those of a pair (A, perhaps tie, B), Pr[B preferred] = q_B + q_tie / 2 in either order, so such a
judge stands in wherever one that verbalizes numbers does. How it was asked is saved with the model (`autorater.json`).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.alignment.labels import LabelFormat, LabelTree
from autorater.data.items import ItemSet, Task, label_values, pair_task
from autorater.judges.local import FORMAT_FILE, Judge, read_format
from autorater.models.loading import load_policy
from autorater.prompts.encoder import EncodedPrompt


class LabelJudge(Judge):
    """A causal language model that is read at its judgment token.

    Args:
        model: Any causal LM; it is used on the device where it is.
        tokenizer: Its (fast) tokenizer.
        label_format: The task, the prompt's layout and the words of the labels.
        max_batch_tokens: Upper bound of prompt and label tokens in one forward pass.

    Raises:
        ValueError: If the words of the labels cannot be told apart by their tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        label_format: LabelFormat,
        max_batch_tokens: int = 16_384,
    ):
        super().__init__(model, tokenizer, label_format, max_batch_tokens=max_batch_tokens)

    def _plant_tree(self, answer_step: float) -> LabelTree:
        task = self.encoder.format.task
        of_pairs = task.labels in (pair_task().labels, pair_task(ties=False).labels)
        values = label_values(task.labels) if of_pairs else None
        return LabelTree(self.tokenizer, self.encoder.context, self.encoder.format.words, values)

    @classmethod
    def from_pretrained(cls, name_or_path: str, *, device: str | None = None, **model_init_kwargs) -> "LabelJudge":
        """Loads a judge that was trained here.

        Raises:
            ValueError: If the folder holds a model that is not asked for labels.
        """
        saved = read_format(name_or_path).get("label_format")
        if saved is None:
            raise ValueError(
                f"{name_or_path}: no label_format in {FORMAT_FILE}; expected a judge from recipes/align.py"
            )
        task = Task(**{k: tuple(v) if isinstance(v, list) else v for k, v in saved["task"].items()})
        model, tokenizer = load_policy(name_or_path, **model_init_kwargs)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, tokenizer, LabelFormat(task, saved["layout"], saved["synonyms"]))

    def save_format(self, folder: str | Path) -> None:
        """Writes how this judge is asked beside its weights."""
        saved = {"label_format": self.encoder.format.to_dict()}
        Path(folder, FORMAT_FILE).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")

    def encode(self, items: ItemSet) -> list[EncodedPrompt]:
        """Prompts of N items."""
        return self.encoder.encode_texts([item.texts for item in items.items])

    def distributions(
        self, prompts: Sequence[EncodedPrompt], *, progress: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads N prompts that `encode` made.

        Returns:
            The distributions over the labels, shape (N, K), and the probability that there is a label at all, (N,).

        Raises:
            ValueError: If a prompt is longer than the model can read.
        """
        probs, valid = np.empty((len(prompts), len(self.tree.names))), np.empty(len(prompts))
        for rows, (labels,) in self.read([(prompt,) for prompt in prompts], progress=progress):
            probs[rows], valid[rows] = labels.probs.double().cpu().numpy(), labels.valid.double().cpu().numpy()
        return probs / probs.sum(axis=1, keepdims=True), valid
