"""The model card: `README.md` beside the weights, with the calibration table and the prompt format.

The front matter is fixed text, so it is valid whatever the run was told; names and values from the run stand below it,
escaped for Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autorater.report.glossary import metric_groups
from autorater.report.headline import verdict
from autorater.report.tables import settings_rows
from autorater.report.text import visible, visible_line

if TYPE_CHECKING:
    from autorater.evaluation.judge import Evaluation

_MAX_PROMPT = 20_000
_CARD = """\
---
library_name: transformers
tags:
- autorater
- trl
- grpo
- llm-as-a-judge
- calibration
---

# A judge that says how likely it is that response B is preferred

Trained from {base_model} to read a prompt and two responses and to answer with a probability, not a verdict.

{verdict}

## How to use

```python
from autorater import Judge

judge = Judge.from_pretrained("PATH_OR_HUB_NAME_OF_THIS_MODEL")
pairs = [{{"prompt": "…", "response_a": "…", "response_b": "…"}}]
judge.probabilities(pairs).p_sym  # Pr[B is preferred], both orders averaged
```

`p_ab` and `p_ba` of the result are the answers in each order: Pr[the response shown second is better]. Where they do
not add up to 1, the judge favours a slot.

## Calibration

Measured on {n_pairs} held-out pairs, each read in both orders; in brackets, 95 % intervals (bootstrap over pairs).

{metrics}

## Prompt format

Asked in any other way, the judge is not the one that was measured above. `Judge` fills in the slots itself.

{prompt}

## Limits

The answers are about the people whose votes it was trained on. What was measured above holds on
average over pairs like those: not for each single pair, nor for other people, topics, languages or response styles.
Measure again before use elsewhere. A probability near 0.5 may mean that people disagree or that the judge cannot tell;
it does not say which. Preference is not correctness: a response that people like can be wrong. Read both orders and
average them wherever slot bias matters, and do not let the judge decide alone what affects somebody.
{settings}"""


def write_model_card(
    folder: str | Path,
    *,
    base_model: str,
    prompt_text: str,
    before: Evaluation,
    after: Evaluation,
    settings: Mapping[str, object],
) -> None:
    """Writes `README.md`.

    Args:
        folder: The folder of the model.
        base_model: What was trained: a Hub name, a folder, or words.
        prompt_text: The prompt with its slots, see `PromptFormat.text`.
        before: The judge before training.
        after: The judge after training, on the same pairs.
        settings: What the run was told, by name; values are shown as text, those of tokens and keys are hidden.

    Raises:
        ValueError: If before and after are not of the same pairs.
    """
    rows = [(_inline(name), _inline(value)) for name, value in settings_rows(settings)]
    card = _CARD.format(
        base_model=_inline(base_model),
        verdict=verdict(before, after),
        n_pairs=f"{len(after.pairs):,}",
        metrics=_metrics(before, after),
        prompt=_fenced(visible(prompt_text, _MAX_PROMPT)),
        settings="\n## Settings\n\n" + _table(("setting", "value"), rows) + "\n" if rows else "",
    )
    Path(folder, "README.md").write_text(card, encoding="utf-8")


def _metrics(before: Evaluation, after: Evaluation) -> str:
    rows = []
    for heading, group in metric_groups(before.metrics, after.metrics).items():
        rows.append((f"**{heading}**", "", "", ""))
        rows += [
            (_inline(r.metric.label), _inline(r.before.text), _inline(r.after.text), r.metric.direction) for r in group
        ]
    return _table(("metric", "before", "after", ""), rows)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows))


def _inline(text: str) -> str:
    """A text that Markdown shows as it is, in a sentence or in a cell: no markup, no HTML, no link, one line."""
    text = visible_line(text)
    text = re.sub(r"[&<>|@]|:(?=//)|(?<=www)\.", lambda match: f"&#{ord(match[0])};", text, flags=re.IGNORECASE)
    return re.sub(r"[\\`*_~$\[\]]", r"\\\g<0>", text)


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
