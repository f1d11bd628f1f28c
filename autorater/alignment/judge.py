"""A judge that answers with a label: the distribution over the labels of items, Pr[B preferred] of pairs.

If the labels are those of a pair (A, perhaps tie, B), Pr[B preferred] = q_B + q_tie / 2, so such a judge of pairs can
replace one that verbalizes numbers. The label format is saved with the model (`autorater.json`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autorater.alignment.labels import LabelFormat, LabelTree
from autorater.data.atomic import write_json
from autorater.data.errors import UserError
from autorater.data.items import ItemSet, Task, label_values, pair_task
from autorater.judges.local import Judge
from autorater.judges.saved import FORMAT_FILE, read_format, saved_pieces
from autorater.models.devices import usable_device
from autorater.models.loading import load_policy
from autorater.prompts.encoder import EncodedPrompt, log_layout_difference


class LabelJudge(Judge):
    """A causal language model that answers with a label; arguments as in `Judge`, with a `LabelFormat`."""

    def _build_tree(self, answer_step: float) -> LabelTree:
        task = self.encoder.format.task
        of_pairs = task.labels in (pair_task().labels, pair_task(ties=False).labels)
        values = label_values(task.labels) if of_pairs else None
        return LabelTree(self.tokenizer, self.encoder.context, self.encoder.format.words, values)

    @classmethod
    def from_pretrained(cls, name_or_path: str, *, device: str | None = None, **model_init_kwargs) -> "LabelJudge":
        """Loads a judge that `recipes/align.py` trained; raises UserError if there is none."""
        file = read_format(name_or_path)
        saved = file.get("label_format")
        if saved is None:
            raise UserError(f"{name_or_path}: no label_format in {FORMAT_FILE}; expected a judge of recipes/align.py")
        task = Task(**{k: tuple(v) if isinstance(v, list) else v for k, v in saved["task"].items()})
        device = usable_device(device)
        model, tokenizer = load_policy(name_or_path, **model_init_kwargs)
        model.to(device)
        label_format = LabelFormat(task, saved["layout"], saved["synonyms"], saved.get("system_prompt"))
        judge = cls(model, tokenizer, label_format, pieces=saved_pieces(file, tokenizer, label_format))
        log_layout_difference(judge.encoder)
        return judge

    def save_format(self, folder: str | Path) -> None:
        """Writes the label format and the rendered layout to `autorater.json` beside the weights."""
        saved = {"label_format": self.encoder.format.to_dict(), "pieces": self.encoder.pieces}
        write_json(Path(folder, FORMAT_FILE), saved)

    def encode(self, items: ItemSet) -> list[EncodedPrompt]:
        """Prompts of N items."""
        return self.encoder.encode_texts([item.texts for item in items.items])

    def distributions(
        self, prompts: Sequence[EncodedPrompt], *, progress: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The distributions over the labels of N prompts, shape (N, K), and the mass of all labels, shape (N,).

        Raises:
            ValueError: If a prompt is longer than the context of the model.
        """
        probs, valid = np.empty((len(prompts), len(self.tree.names))), np.empty(len(prompts))
        for rows, (labels,) in self.read(prompts, progress=progress):
            probs[rows], valid[rows] = labels.probs.cpu().numpy(), labels.valid.clamp_max(1).cpu().numpy()
        return probs / probs.sum(axis=1, keepdims=True), valid
