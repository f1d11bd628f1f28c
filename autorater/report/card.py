"""The model card: `README.md` beside the weights, with the calibration table and the prompt format.

Everything that comes from the run is escaped for Markdown. The front matter holds only fixed tags, so it is always
valid.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from autorater.data.atomic import write_text
from autorater.evaluation.judge import Evaluation
from autorater.report.glossary import Row, metric_groups
from autorater.report.headline import headline, measured_on
from autorater.report.rendering import TEMPLATES, render
from autorater.report.tables import markdown_table, settings_rows
from autorater.report.text import markdown_line

METHODS = ("grpo", "ppo", "rloo", "sft", "alignment", "pointwise")


def write_model_card(
    folder: str | Path,
    *,
    before: Evaluation,
    after: Evaluation,
    method: str = "grpo",
    pointwise: bool = False,
    **values: object,
) -> None:
    """Writes `README.md` for a judge of pairs, measured on the same pairs `before` and `after` training.

    `pointwise` as in `write_card`; so are `values`: `base_model`, `prompt_text`, `settings`, `labels`, `warning`.
    """
    write_card(
        folder,
        headline=headline(before, after),
        groups=metric_groups(before.metrics, after.metrics),
        measured_on=measured_on(len(after.pairs), pointwise),
        method=method,
        of_pairs=True,
        pointwise=pointwise,
        simulated=after.truth is not None,
        **values,
    )


def write_card(
    folder: str | Path,
    *,
    headline: str,
    groups: Mapping[str, Sequence[Row]],
    measured_on: str,
    base_model: str,
    prompt_text: str,
    settings: Mapping[str, object],
    method: str,
    of_pairs: bool = False,
    pointwise: bool = False,
    simulated: bool = False,
    labels: Sequence[str] = (),
    warning: str = "",
) -> None:
    """Writes `README.md` for any judge.

    Args:
        folder, headline, groups, settings, warning: As in `write_report_page`.
        measured_on: The held-out data in a phrase: "1,000 held-out items".
        base_model: The model before training: a Hub name, a folder, or a description.
        prompt_text: The prompt with its slots, see `PromptFormat.text`.
        method: The training method, one of `METHODS`; it becomes a tag.
        of_pairs: Whether the judge compares the two responses of a pair.
        pointwise: Whether it scores single responses.
        simulated: Whether the annotators of the held-out data are simulated.
        labels: The labels of a judge that answers with a distribution over labels (`LabelJudge`).

    Raises:
        ValueError: If the method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"expected a method among {', '.join(METHODS)}, got {method!r}")
    rows = []
    for heading, members in groups.items():
        rows.append((f"**{markdown_line(heading)}**", "", "", ""))
        for row in members:
            shown = row.metric.label, row.before.text, row.after.text, row.metric.direction
            rows.append(tuple(map(markdown_line, shown)))
    settings = [tuple(map(markdown_line, row)) for row in settings_rows(settings)]
    card = render(
        TEMPLATES / "card.md.j2",
        tags=("autorater", "trl", method, "llm-as-a-judge", "calibration"),
        headline=headline,
        metrics=markdown_table(("metric", "before", "after", ""), rows),
        measured_on=measured_on,
        base_model=base_model,
        prompt_text=prompt_text,
        settings=markdown_table(("setting", "value"), settings) if settings else "",
        of_pairs=of_pairs,
        pointwise=pointwise,
        simulated=simulated,
        warning=warning,
        labels=labels,
    )
    write_text(Path(folder, "README.md"), card)
