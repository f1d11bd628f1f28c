"""Options that the commands `winrate` and `defer` share."""

import argparse


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """The judged pairs, their votes and the folder of the results."""
    parser.add_argument("judged", metavar="JUDGED", help="judged pairs: predictions.jsonl of a run, or a table")
    parser.add_argument(
        "--votes", metavar="FILE", help="file with votes and the same ids; default: JUDGED has the votes"
    )
    parser.add_argument("--output_dir", default=".", metavar="DIR", help="folder of the results (default: this one)")
