"""A judge as it is saved beside its weights, in `autorater.json`: how it asks, and how its answers are read.

    {"judgment": "pairwise", "answer_step": 0.01, "prompt_format": {…}, "pieces": […], "recalibration": {…}}

`pieces` are the prompt layout as the chat template rendered it. A model without the file is a judge with the defaults.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from autorater.data.atomic import read_json
from autorater.data.errors import UserError
from autorater.judges.calibrators import Recalibration, from_dict
from autorater.judges.options import PAIRWISE, POINTWISE
from autorater.models.loading import resolve_model
from autorater.prompts.pointwise import ScoreFormat
from autorater.prompts.rendering import render_layout
from autorater.prompts.templates import PromptFormat, SlotFormat

FORMAT_FILE = "autorater.json"
_FORMATS = {PAIRWISE: PromptFormat, POINTWISE: ScoreFormat}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedJudge:
    """A saved judge.

    Attributes:
        name: Its folder or Hub name.
        file: The content of its `autorater.json`; empty if there is none for this judgment and prompt.
        judgment: `pairwise` or `pointwise`.
        prompt_format: Its prompt.
        recalibration: That of its answers to this prompt.
        answer_step, max_reasoning_tokens: Of a pairwise judge, as in `Judge`.
        score_scale: Of a pointwise judge, as in `PointwiseJudge`.
    """

    name: str
    file: Mapping[str, object]
    judgment: str
    prompt_format: PromptFormat | ScoreFormat
    recalibration: Recalibration | None
    answer_step: float
    max_reasoning_tokens: int
    score_scale: float

    @classmethod
    def of(cls, name: str, file: Mapping[str, object], judgment: str | None = None) -> "SavedJudge":
        """The judge of a file; if another `judgment` is requested, what the file holds does not apply.

        Raises:
            UserError: If there is no such judgment.
        """
        saved_judgment = file.get("judgment", PAIRWISE)
        judgment = judgment or saved_judgment
        if judgment not in _FORMATS:
            raise UserError(f"judgment is {judgment!r}; expected {PAIRWISE} or {POINTWISE}")
        if judgment != saved_judgment:
            file = {}
        return cls(
            name,
            file,
            judgment,
            _FORMATS[judgment].from_dict(file.get("prompt_format", {})),
            from_dict(file["recalibration"]) if "recalibration" in file else None,
            file.get("answer_step", 0.01),
            file.get("max_reasoning_tokens", 512),
            file.get("score_scale", 1.0),
        )

    def with_options(
        self,
        prompt_template: str | None,
        answer_step: float | None,
        max_reasoning_tokens: int | None,
        **prompt: object,
    ) -> "SavedJudge":
        """The judge with other options, None for those that stay; `prompt` as in `Judge.from_pretrained`.

        The saved layout and the recalibration do not apply to another prompt.

        Raises:
            UserError: If the template does not fit, or an option has no effect.
        """
        prompt_format = self.prompt_format.with_options(prompt_template, **prompt)
        if max_reasoning_tokens is not None and not prompt_format.reasoning:
            raise UserError(f"{self.name}: max_reasoning_tokens: no effect on a judge that does not reason")
        options = {"answer_step": answer_step, "max_reasoning_tokens": max_reasoning_tokens}
        judge = replace(self, **{name: value for name, value in options.items() if value is not None})
        if prompt_format == self.prompt_format:
            return judge
        if self.recalibration is not None:
            logger.warning(
                f"{self.name}: its recalibration ({self.recalibration.kind}, {self.recalibration}) is not applied, "
                "because it was fitted on answers to another prompt"
            )
        return replace(judge, prompt_format=prompt_format, file={}, recalibration=None)

    def pieces(self, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...] | None:
        """The rendered layout, as in `saved_pieces`."""
        return saved_pieces(self.file, tokenizer, self.prompt_format)


def log_plain_prompt(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Logs that the prompt is no chat, for a model without a chat template; judges saved here were trained so."""
    if tokenizer.chat_template is None:
        logger.info(f"{name} has no chat template; its prompt is plain text")


def pieces_of(name_or_path: str, tokenizer: PreTrainedTokenizerBase, prompt_format: SlotFormat) -> tuple[str, ...]:
    """The rendered layout to train a model with: that of the saved judge, if it has this format; else rendered now."""
    saved = read_format(name_or_path)
    same = json.loads(json.dumps(prompt_format.to_dict())) in (saved.get("prompt_format"), saved.get("label_format"))
    return saved_pieces(saved, tokenizer, prompt_format) if same else render_layout(tokenizer, prompt_format)


def saved_pieces(
    saved: Mapping[str, object], tokenizer: PreTrainedTokenizerBase, prompt_format: SlotFormat
) -> tuple[str, ...] | None:
    """The rendered layout of a judge's `autorater.json`; older files have none, and their judges did not look for the
    place of the answer."""
    if "pieces" in saved:
        return tuple(saved["pieces"])
    return render_layout(tokenizer, prompt_format, find_answer=False) if saved else None


def read_format(name_or_path: str, **hub: object) -> dict:
    """The content of a model's `autorater.json`, or an empty one; UserError if it is no JSON or there is no model.

    `hub`: options of `HUB_OPTIONS`.
    """
    try:
        path = cached_file(resolve_model(name_or_path), FORMAT_FILE, **hub)
    except OSError:  # the folder has no such file, or the Hub has no such file or model
        return {}
    return read_json(path)
