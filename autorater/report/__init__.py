"""What a run looks like to a person: pictures, a page, a model card, a table for the terminal. Needs no torch.

glossary    the metrics that are shown, their names and what they mean
verdict     one sentence: did training help?
tables      calibration by topic, worst pairs, settings
text        texts of unknown origin made safe to look at
plots       reliability and order swap: prepared as numbers, then drawn
template    the HTML of the pages
rendering   a page in one harmless file
page        report.html and reliability.png of a training run
comparison  the same of judging methods compared, and their table for the terminal; with its own plots and template
card        the model card
terminal    the table at the end of a run

Deliberately left out: measuring (`autorater.metrics`) and the machine-readable files (`autorater.evaluation.judge`).
"""

from autorater.report.card import write_model_card
from autorater.report.comparison import comparison_table, write_comparison_report
from autorater.report.page import write_report
from autorater.report.plots import order_swap_figure, reliability_figure
from autorater.report.terminal import summary_table

__all__ = [
    "comparison_table",
    "order_swap_figure",
    "reliability_figure",
    "summary_table",
    "write_comparison_report",
    "write_model_card",
    "write_report",
]
