"""Align a judge's distribution over labels with that of its annotators, with an adversary; for items or pairs.

    accelerate launch recipes/align.py                                             # simulated grades 1–5, on a CPU
    accelerate launch recipes/align.py --ablate adversary                          # or kl, ce, several
    accelerate launch recipes/align.py --dataset_name chaosNLI_snli.jsonl --model_name_or_path Qwen/Qwen2.5-7B-Instruct
    accelerate launch recipes/align.py --data pairs --dataset_name votes.jsonl --split_by topic     # A, tie, B

Files of SNLI, MNLI, ChaosNLI, SummEval and MT-Bench are read in their published formats, others with the columns
labels, counts and prompt. Without --config and --model_name_or_path the settings are those of
recipes/configs/align_simulated.yaml; the command line overrides every key. It writes to --output_dir: metrics.json,
predictions.jsonl, report.html, reliability.png and the judge with its model card (README.md), for
`autorater.alignment.judge.LabelJudge`.
"""

from pathlib import Path

from autorater.cli import run_script
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "align_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from trl import ModelConfig

    from autorater.alignment.arguments import AlignmentArguments
    from autorater.alignment.run import run_alignment
    from autorater.alignment.trainer import AlignmentConfig
    from autorater.training.recipe_parser import parse_arguments

    parsed = parse_arguments((AlignmentArguments, AlignmentConfig, ModelConfig), DEFAULT_CONFIG)
    run_alignment(*parsed, parsed.given)


if __name__ == "__main__":
    run_script(main)
