"""Is a trained judge still right where there is one right answer? Accuracy before and after training.

    python recipes/objective.py --judge runs/pointwise_convincing
    python recipes/objective.py --judge runs/mine --before Qwen/Qwen2.5-7B-Instruct --n_pairs 600

Pairs of sums, numbers, letters, spellings, capitals and opposites (`autorater.data.objective`), judged by the judge
and, with the same prompts, by the model it was trained from (--before; by default the one in its run.json). Prints
accuracies by kind and their paired difference, with 95 % intervals; --output FILE writes them as JSON.
"""

import argparse
from pathlib import Path

from autorater.cli import run_script
from autorater.data.atomic import check_writable, write_json
from autorater.data.errors import refuse_several_processes
from autorater.judges.options import CommandParser
from autorater.models.libraries import quiet_libraries


def main() -> None:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="Folder of a trained judge.")
    parser.add_argument("--before", help="The model it was trained from, a folder or Hub name.")
    parser.add_argument("--n_pairs", type=int, default=300, help="Number of pairs, at most 1,000.")
    parser.add_argument("--seed", type=int, default=0, help="Draws the pairs.")
    parser.add_argument("--output", type=Path, help="JSON file of the accuracies.")
    args = parser.parse_args()
    refuse_several_processes()
    if args.output:
        check_writable(args.output)
    quiet_libraries()
    from autorater.alignment.judge import LabelJudge
    from autorater.data.objective import objective_pairs
    from autorater.evaluation import objective
    from autorater.judges.local import Judge
    from autorater.judges.saved import read_format
    from autorater.report.tables import accuracy_table

    base, revision = (args.before, None) if args.before else objective.trained_from(args.judge)
    pairs = objective_pairs(args.n_pairs, args.seed)
    kind = LabelJudge if "label_format" in read_format(args.judge) else Judge
    judge = kind.from_pretrained(args.judge)
    after = objective.judge_objective(judge, pairs, progress=True)
    before = objective.judge_objective(objective.untrained(judge, base, revision), pairs, progress=True)
    accuracy = objective.accuracy_change(pairs, before, after)
    name = f"{base}@{revision}" if revision else base
    print(f"{args.judge}, trained from {name}; {len(pairs)} pairs\n\n{accuracy_table(accuracy)}")
    if args.output:
        write_json(args.output, accuracy)


if __name__ == "__main__":
    run_script(main)
