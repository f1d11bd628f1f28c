"""Published layouts of pairs, found by the columns of a file or by name (docs/data.md has the table).

preferences  TRL's chosen and rejected, HH-RLHF, UltraFeedback, RewardBench 1 and 2, RM-Bench, Orca, UltraInteract,
             LLaMA-Factory
arenas       Chatbot Arena (33k, Kaggle's 55k, 100k, 140k), Search Arena, compar:IA, MT-Bench
benchmarks   HelpSteer 2 and 3, SHP, JudgeBench, AlpacaEval, Auto-J, JudgeLM, PandaLM
exports      Argilla, Label Studio and Mechanical Turk
comparisons  PKU-SafeRLHF, MultiPref, OpenAI's summaries and WebGPT, OffsetBias, LLMBar, Preference Collection, RMB,
             and preference data with other names: Argilla's, Stack Exchange in pairs, CValues, LitBench,
             OpenAI's fine-tuning, ms-swift, DPO-En-Zh
rankings     K ranked responses: Nectar, Stack Exchange, UltraFeedback before it was binarized, PRISM, OpenAssistant,
             Community Alignment, CoVal
votes        the words for a winner

A file in our own columns, one row an annotator included (Kaggle's WSDM cup is one), has no layout here: it is read by
`autorater.data.loading`. Verdicts of judges in both orders are read by `autorater.judges.recorded`.
"""

from collections.abc import Collection

from autorater.data.errors import UserError
from autorater.data.layouts import arenas, benchmarks, comparisons, exports, preferences, rankings
from autorater.data.layouts.exports import lifted
from autorater.data.layouts.layout import Layout

_KINDS = (arenas, benchmarks, preferences, exports, comparisons, rankings)  # the first that fits is taken
LAYOUTS = {layout.name: layout for kind in _KINDS for layout in kind.LAYOUTS}
OWN = "pairs"
"""The name of our own columns."""

__all__ = ["LAYOUTS", "OWN", "Layout", "layout_named", "layout_of", "lifted"]


def layout_named(name: str) -> Layout | None:
    """The layout of this name; None for our own columns.

    Raises:
        UserError: If there is none.
    """
    if name == OWN:
        return None
    if name not in LAYOUTS:
        raise UserError(f"unknown layout {name!r}; expected one of {OWN}, {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def layout_of(columns: Collection[str]) -> Layout | None:
    """The first layout that fits; None if there is none."""
    if any(name.endswith(".responses") for name in columns):  # Argilla puts the name of a question in front
        return LAYOUTS["argilla"]
    return next((layout for layout in LAYOUTS.values() if layout.fits(columns)), None)
