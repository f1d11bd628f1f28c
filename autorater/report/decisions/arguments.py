"""The options of the commands `winrate`, `defer` and `gate`; imports neither SciPy nor matplotlib."""

import argparse

from autorater.judges.options import fraction


def add_winrate_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `autorater winrate`."""
    _add_input(parser)
    _add_clusters(parser)
    add = parser.add_argument
    add("--confidence", type=fraction, default=0.95, metavar="C", help="coverage of the intervals (default: 0.95)")
    add("--width", type=fraction, metavar="W", help="also say how many more votes make an interval this narrow")


def add_defer_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `autorater defer`."""
    _add_input(parser)
    add = parser.add_argument
    alpha = "accepted disagreement with the majority (default: 0.1)"
    add("--alpha", type=fraction, default=0.1, metavar="A", help=alpha)
    add("--delta", type=fraction, default=0.05, metavar="D", help="chance that it is exceeded (default: 0.05)")


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `autorater gate`."""
    add = parser.add_argument
    add("baseline", metavar="BASELINE", help="judged pairs of the recorded run, both orders: a table, or its folder")
    add("current", metavar="CURRENT", help="judged pairs of this run, the same ids: a table, or its folder")
    add("--votes", metavar="FILE", help="file with votes and the same ids; default: those of CURRENT")
    level = "chance of a false verdict in any metric (default: 0.05)"
    _add_method(parser)
    add("--level", type=fraction, default=0.05, metavar="L", help=level)
    _add_clusters(parser)
    _add_output_dir(parser)


def _add_input(parser: argparse.ArgumentParser) -> None:
    """The judged pairs, their votes and the folder of the results."""
    parser.add_argument("judged", metavar="JUDGED", help="judged pairs: predictions.jsonl of a run, or a table")
    parser.add_argument(
        "--votes", metavar="FILE", help="file with votes and the same ids; default: JUDGED has the votes"
    )
    _add_method(parser)
    _add_output_dir(parser)


def _add_clusters(parser: argparse.ArgumentParser) -> None:
    clusters = "column of dependent pairs (default: prompt or cluster, if all have it)"
    parser.add_argument("--cluster_by", metavar="COLUMN", help=clusters)


def _add_output_dir(parser: argparse.ArgumentParser) -> None:
    folder = "folder of the results (default: the current one)"
    parser.add_argument("--output_dir", default=".", metavar="DIR", help=folder)


def _add_method(parser: argparse.ArgumentParser) -> None:
    method = "predictions of `autorater evaluate`: the judging method to read, such as answer_mean"
    parser.add_argument("--method", dest="methods", nargs=1, default=(), metavar="NAME", help=method)
