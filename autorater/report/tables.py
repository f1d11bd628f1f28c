"""Tables as text: fixed width for the terminal, Markdown for files; the metrics and the settings of a run as rows."""

from collections.abc import Mapping, Sequence

from autorater.evaluation.judge import Evaluation
from autorater.report.glossary import metric_groups
from autorater.report.text import visible_line

_SECRET_ENDINGS = ("token", "key", "secret", "password")
_MAX_CHARACTERS = 1_000  # of an entry of a Markdown table


def percent(share: float) -> str:
    """A share as "95 %", with all of its digits: 0.999 is not "100 %"."""
    return f"{round(100 * share, 10):g} %"


def fixed_width(rows: Sequence[Sequence[str] | str], align: str = "l") -> str:
    """A table for the terminal, columns two spaces apart, without a final newline.

    `rows` start with the header; a row that is a `str` is a heading that spans all columns. `align` has `l` or `r` for
    each column from the left; its last letter also holds for all further columns.
    """
    entries = [row for row in rows if not isinstance(row, str)]
    widths = [max(map(len, column)) for column in zip(*entries, strict=True)]
    pads = [str.rjust if side == "r" else str.ljust for side in align.ljust(len(widths), align[-1])]

    def line(row: Sequence[str]) -> str:
        return "  ".join(pad(text, width) for pad, text, width in zip(pads, row, widths, strict=True)).rstrip()

    return "\n".join(row if isinstance(row, str) else line(row) for row in rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "l") -> str:
    """A Markdown table without a final newline; bars, line feeds and invisible characters in the entries are escaped.

    Other Markdown in the rows takes effect. `align` is as in `fixed_width`.
    """
    lines = [[visible_line(text, _MAX_CHARACTERS).replace("|", "\\|") for text in row] for row in (header, *rows)]
    lines.insert(1, ["---:" if side == "r" else "---" for side in align.ljust(len(header), align[-1])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary_table(before: Evaluation, after: Evaluation) -> str:
    """The metrics before and after training with 95 % intervals, as text of at most 79 columns for the terminal."""
    rows: list[tuple[str, str, str] | str] = [("", "before", "after")]
    for heading, members in metric_groups(before.metrics, after.metrics).items():
        rows += [heading, *((f"  {r.metric.label}", r.before.text, r.after.text) for r in members)]
    return fixed_width(rows)


def accuracy_table(accuracy: Mapping[str, float]) -> str:
    """The keys of `evaluation.objective.accuracy_change` as a Markdown table, and a sentence about the difference."""

    def interval(key: str, sign: str = "") -> str:
        value, low, high = (format(accuracy[name], f"{sign}.3f") for name in (key, f"{key}_low", f"{key}_high"))
        return f"{value} [{low}, {high}]"

    kinds = [key.split("/")[1] for key in accuracy if key.startswith("before/")]
    rows = [(kind, *(f"{accuracy[f'{when}/{kind}']:.3f}" for when in ("before", "after"))) for kind in kinds]
    table = markdown_table(("", "before", "after"), [*rows, ("**all**", interval("before"), interval("after"))])
    low, high = accuracy["change_low"], accuracy["change_high"]
    unclear = "no clear change: the interval includes 0"
    verdict = "lower than before" if high < 0 else "higher than before" if low > 0 else unclear
    return f"{table}\n\nchange: {interval('change', '+')}: {verdict}"


def settings_rows(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """Names and values as text. A report is made to be shared, so values of tokens, keys and passwords are hidden."""
    return [
        (str(name), "(hidden)" if value and str(name).lower().endswith(_SECRET_ENDINGS) else str(value))
        for name, value in settings.items()
    ]
