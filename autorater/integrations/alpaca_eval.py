"""The judge as an evaluator of alpaca_eval: preference = 1 + Pr[the second output preferred], both orders averaged.

    python -m autorater.integrations.alpaca_eval --annotators_config FOLDER --model_outputs A.json \\
        --reference_outputs B.json --fn_metric get_winrate --sort_by win_rate

are the arguments of `alpaca_eval`, with its annotator replaced by `JudgeAnnotator`. FOLDER is like
`alpaca_eval_judge`, beside this file. A pair without an answer of the judge has no preference, and alpaca_eval leaves
it out with a warning. It stores preferences in FOLDER by the name of their annotator, which has a digest of all that
they depend on, so those of another judge, prompt or model are not used.
"""

from __future__ import annotations

import functools
import math

from alpaca_eval import main as alpaca_eval
from alpaca_eval.annotators import PairwiseAnnotator
from alpaca_eval.annotators.pairwise_evaluator import SinglePairwiseAnnotator

from autorater.data.pairs import Pair
from autorater.integrations.preferences import Preferences, opened, pair_of
from autorater.judges.identity import digest
from autorater.judges.opening import judge_settings


class JudgeAnnotator(PairwiseAnnotator):
    """`PairwiseAnnotator` whose configs name a judge instead of a decoder; for `alpaca_eval.evaluate(Annotator=…)`."""

    @property
    def SingleAnnotator(self) -> type[SinglePairwiseAnnotator]:
        return _SingleJudge

    def _initialize_annotators(self, *args, **kwargs) -> dict[str, SinglePairwiseAnnotator]:
        found = super()._initialize_annotators(*args, **kwargs)
        return {f"{name}-{_digest(**annotator.completions_kwargs)}": annotator for name, annotator in found.items()}


class _SingleJudge(SinglePairwiseAnnotator):
    def __init__(self, *args, **kwargs):
        options = {"fn_completions": judge_completions, "fn_completion_parser": preference}
        super().__init__(*args, prompt_template="", **options, **kwargs)

    def _get_prompt_template(self, prompt_template):
        return prompt_template  # the prompt is that of the judge

    def _make_prompts(self, df_to_annotate, prompt_template=None):
        columns = df_to_annotate[["instruction", "output_1", "output_2"]]
        return [pair_of(*texts) for texts in columns.itertuples(index=False)], df_to_annotate


def judge_completions(prompts: list[Pair], judge: str, **options: object) -> dict[str, list[float]]:
    """Pr[output 2 preferred] of every pair, NaN without an answer; arguments as in `Preferences`."""
    return {"completions": opened(Preferences, judge, **options).of(prompts).tolist()}


def _digest(judge: str, **options: object) -> str:
    """A digest of what the judgments depend on beside the pairs."""
    return digest(sorted(judge_settings(judge, opened(Preferences, judge, **options).judge).items()))[:12]


def preference(completion: float) -> list[float | None]:
    """The preference in [1, 2] for a probability."""
    return [None if math.isnan(completion) else 1 + completion]


if __name__ == "__main__":
    import fire

    fire.Fire(functools.partial(alpaca_eval.evaluate, Annotator=JudgeAnnotator))
