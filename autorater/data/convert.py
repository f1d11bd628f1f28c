"""`autorater convert`: pairs in any layout to JSONL in our columns; says what was read, kept and left out."""

from __future__ import annotations

import argparse

from autorater.data.errors import counted, refuse_overwriting
from autorater.data.layouts import LAYOUTS, OWN
from autorater.data.loading import LoadReport, check_pairs_file, load_pairs, write_pairs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="file, `save_to_disk` folder or Hub name; docs/data.md lists what is read")
    add("out", metavar="OUT", help="file to write, .jsonl or .jsonl.gz")
    add("--columns", type=named_columns, metavar="OURS=THEIRS,…", help="names of columns, such as prompt=instruction")
    add("--layout", metavar="NAME", help=f"default: the one that the columns show; one of {OWN}, {', '.join(LAYOUTS)}")
    add("--split", default="train", metavar="NAME", help="split of a Hub dataset (default: train)")
    add("--seed", type=int, default=0, metavar="N", help="draws which of chosen and rejected is A (default: 0)")
    add("--unlabelled", action="store_true", help="keep pairs without a label, to be judged")
    add(
        "--allow_odd_responses",
        action="store_true",
        help="keep blank responses, those that are not text, and half characters",
    )


def run(args: argparse.Namespace) -> None:
    """Reads, writes and prints the counts.

    Raises:
        UserError: If the source or an option is invalid, or the name of OUT ends otherwise.
    """
    refuse_overwriting(args.source, args.out)
    check_pairs_file(args.out)
    report = LoadReport()
    pairs = load_pairs(
        args.source,
        args.columns,
        split=args.split,
        labelled=not args.unlabelled,
        layout=args.layout,
        seed=args.seed,
        allow_odd_responses=args.allow_odd_responses,
        report=report,
    )
    write_pairs(pairs, args.out)
    votes = sum(pair.n_votes or 0 for pair in pairs)
    print(f"{args.source}: {counted(report.rows, 'row')} in the layout {report.layout}")
    for line in report.lines(len(pairs)):
        print(line)
    unlabelled = sum(pair.label is None for pair in pairs)
    without = f", {unlabelled:,} without a label" if unlabelled else ""
    print(f"{args.out}: {counted(len(pairs), 'pair')} with {counted(votes, 'known vote')}{without}")


def named_columns(text: str) -> dict[str, str]:
    """`prompt=instruction,label=score` as a mapping of our names to theirs."""
    parts = [part.partition("=") for part in text.split(",")]
    if not all(ours.strip() and theirs.strip() for ours, _, theirs in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected OURS=THEIRS with commas between, such as prompt=question"
        )
    return {ours.strip(): theirs.strip() for ours, _, theirs in parts}
