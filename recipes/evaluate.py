"""Evaluate judges by every judging method, with swap averaging and recalibrations on top, in one table.

    python recipes/evaluate.py                                                        # what `make train` left
    python recipes/evaluate.py --judge runs/grpo --dataset_name votes.jsonl           # your judge, your votes
    python recipes/evaluate.py --judge runs/a runs/b --methods answer_mean            # several judges
    python recipes/evaluate.py --judge Qwen/Qwen2.5-7B-Instruct --dataset_name votes.jsonl --n_samples 30
    python recipes/evaluate.py --save_recalibration odd_temperature                   # and keep it with the judge

With neither --config nor a data set it measures on the simulated pairs that recipes/grpo.py holds out. Part of the
pairs, divided off by topic or prompt, is used to fit recalibrations and for nothing else. In --output_dir it leaves
metrics.json, predictions.jsonl, report.html and reliability.png.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from autorater.cli import config_arguments, run_script
from autorater.evaluation.results import prepare_output_dir
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "evaluate.yaml"


@dataclass
class EvaluationArguments:
    """Judges, pairs, methods."""

    judge: list[str] = field(metadata={"help": "Folders or Hub names of judges, or of any causal LM."})
    output_dir: str = field(metadata={"help": "Where the results go."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "Pairs with labels or votes, as in recipes/grpo.py; else they are simulated."}
    )
    allow_odd_responses: bool = field(default=False, metadata={"help": "Keep blank responses, as `load_pairs` says."})
    split: str = field(default="test", metadata={"help": "Split of a Hub data set."})
    n_pairs: int = field(default=1000, metadata={"help": "Simulated pairs."})
    n_votes: int = field(default=10, metadata={"help": "Simulated votes a pair."})
    split_by: str | None = field(
        default=None,
        metadata={
            "help": "Column that divides calibration pairs off; by default topic, or prompt where there is none."
        },
    )
    calibration_fraction: float = field(
        default=0.3, metadata={"help": "Share of the pairs that recalibrations are fitted on."}
    )
    methods: list[str] | None = field(default=None, metadata={"help": "Judging methods; all by default."})
    variants: list[str] | None = field(
        default=None, metadata={"help": "What is put on top: none, swap, temperature, swap+isotonic, …; see the docs."}
    )
    n_samples: int = field(default=10, metadata={"help": "Answers that self-consistency draws for a prompt."})
    max_reasoning_tokens: int = field(default=512, metadata={"help": "Longest reasoning, where a method asks for it."})
    prompt_layout: str | None = field(
        default=None, metadata={"help": "`full` or `compact`; by default as saved with the judge."}
    )
    answer_step: float | None = field(default=None, metadata={"help": "Step of the answer grid; as saved."})
    max_prompt_tokens: int = field(default=2048, metadata={"help": "Longer prompts are left out and counted."})
    n_bootstrap: int = field(default=1000, metadata={"help": "Rounds of the bootstrap."})
    seed: int = field(default=0, metadata={"help": "Draws the split, the simulated texts, the sampled answers."})
    device: str | None = field(default=None, metadata={"help": "By default the GPU if there is one."})
    save_recalibration: str | None = field(
        default=None, metadata={"help": "Kind of the recalibration of answer_mean that is saved with a local judge."}
    )


def main() -> None:
    quiet_libraries()
    from trl import TrlParser

    from autorater.data.loading import load_pairs
    from autorater.data.population import simulate_pairs
    from autorater.evaluation.methods import (
        VARIANTS,
        best_entry,
        calibration_split,
        compare_methods,
        group_column,
        grouped,
        judge_names,
        model_win_rates,
        save_recalibration,
        write_comparison,
    )
    from autorater.judges import Judge
    from autorater.judges.methods import METHODS
    from autorater.prompts.batching import drop_long, longest_prompt
    from autorater.prompts.templates import PromptFormat
    from autorater.report import comparison_table, write_comparison_report

    parser = TrlParser((EvaluationArguments,))
    (args,) = parser.parse_args_and_config(config_arguments(sys.argv[1:], DEFAULT_CONFIG))
    output_dir = prepare_output_dir(args.output_dir)
    if args.dataset_name is None:
        pairs = simulate_pairs(args.n_pairs, n_votes=args.n_votes, seed=args.seed, held_out=True).pairs
    else:
        pairs = load_pairs(args.dataset_name, split=args.split, allow_odd_responses=args.allow_odd_responses)

    prompt_format = None if args.prompt_layout is None else PromptFormat(args.prompt_layout)
    judges = {
        name: Judge.from_pretrained(
            path, device=args.device, prompt_format=prompt_format, answer_step=args.answer_step
        )
        for name, path in judge_names(args.judge).items()
    }
    total = len(pairs)
    for judge in judges.values():  # all are measured on the same pairs
        longest = longest_prompt(judge.model, judge.answer_tokens, args.max_prompt_tokens)
        pairs, _, _ = drop_long(pairs, judge.encoder.encode(pairs), longest)
    column = group_column(pairs, args.split_by)
    calibration, measured = calibration_split(pairs, column, args.calibration_fraction, args.seed)
    summary = (
        f"{args.dataset_name or 'Simulated annotators'}: {len(measured):,} pairs to measure on, {len(calibration):,} "
        f"to fit recalibrations on (divided by {column}); left out for their length: {total - len(pairs):,}"
    )
    print(summary)

    entries = []
    for name, judge in judges.items():
        entries += compare_methods(
            judge,
            measured,
            calibration,
            methods=args.methods or METHODS,
            variants=args.variants or VARIANTS,
            name=name,
            n_samples=args.n_samples,
            max_reasoning_tokens=args.max_reasoning_tokens,
            seed=args.seed,
            clusters=[getattr(pair, column) for pair in measured],
            n_bootstrap=args.n_bootstrap,
            progress=True,
        )
    write_comparison(output_dir, entries)
    best = best_entry(entries)
    write_comparison_report(
        output_dir,
        entries,
        best,
        groups=grouped(best.evaluation, n_bootstrap=args.n_bootstrap),
        win_rates=model_win_rates(best.evaluation, n_bootstrap=args.n_bootstrap),
        title="Judging methods compared",
        summary=summary,
    )
    print(f"\n{comparison_table(entries, best)}\n\nreport: {output_dir / 'report.html'}")
    if args.save_recalibration:
        for name, path in judge_names(args.judge).items():
            saved = save_recalibration(args.save_recalibration, entries, judges[name], path, name)
            print(f"saved with {path}: {saved.kind}, {saved}")


if __name__ == "__main__":
    run_script(main)
