"""Reports for people: pages, figures, model cards, tables. Needs no torch.

glossary    the metrics shown, with labels and meanings, from glossary.toml
headline    did training help, how calibrated is the judge
tables      tables as text: fixed width, Markdown; the summary printed at the end of a run
breakdown   calibration by topic, worst pairs
plots       reliability and order swap: arrays computed, then drawn
comparison  report of a comparison of judging methods; `comparison_plots`: its figures
systems     win rates of systems in it
evaluate    the command `autorater evaluate`, from its options to this report
page        report.html and reliability.png of a run
card        the model card
decisions/  the commands `autorater winrate`, `defer` and `gate`
rendering   templates filled in, figures embedded
text        texts of unknown origin made safe to show
templates/  the pages and the model card, as Jinja templates

Deliberately left out: metrics (`autorater.metrics`) and machine-readable files (`autorater.evaluation`).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autorater.report.card import write_card, write_model_card
    from autorater.report.comparison import comparison_table, write_comparison_report
    from autorater.report.page import write_report, write_report_page
    from autorater.report.tables import summary_table

_MODULES = {
    "write_card": "card",
    "write_model_card": "card",
    "comparison_table": "comparison",
    "write_comparison_report": "comparison",
    "write_report": "page",
    "write_report_page": "page",
    "summary_table": "tables",
}
__all__ = [*_MODULES]


def __getattr__(name: str):
    if name in _MODULES:  # the commands' help must not wait for matplotlib
        return getattr(import_module(f"autorater.report.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
