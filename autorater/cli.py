"""The command `autorater`, and the frame of every script: one logger, errors in one line.

    autorater convert SOURCE OUT.jsonl      a command of `COMMANDS`, whose module is imported when it is used

Exit status: 0; 2 after a user's mistake; 3 if a gate fails; 130 after Ctrl-C; 143 after SIGTERM or
SIGUSR1; 141 after the reader of a pipe has ended. Needs no torch.
"""

import logging
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

from autorater.data.errors import AlreadyFinished, DataWarning, UserError, disk_problem
from autorater.judges.options import CommandParser
from autorater.models.shares import leave_group
from autorater.training.preemption import INTERRUPTED, exit_on_signal, is_main

NO_READER = 141  # as of a process that SIGPIPE has ended


class Command(NamedTuple):
    """A command of `autorater`.

    Attributes:
        help: What it does, in a line.
        run: `module:function`, called with the parsed arguments.
        options: `module:function` that adds the options to a parser. Its module imports neither torch nor SciPy, so
            that help is shown at once.
        parse: In place of `options`, `module:function` that parses the command line.
    """

    help: str
    run: str
    options: str = ""
    parse: str = ""


_AUDIT, _DECISIONS = "autorater.audit", "autorater.report.decisions"
COMMANDS = {
    "judge": Command(
        "the judgments of pairs, in both orders, as predictions",
        f"{_AUDIT}.judge_command:run",
        parse=f"{_AUDIT}.arguments:parse_judge_arguments",
    ),
    "rank": Command(
        "the responses to every prompt in order, with strengths",
        f"{_AUDIT}.rank_command:run",
        parse=f"{_AUDIT}.arguments:parse_rank_arguments",
    ),
    "audit": Command(
        "does the order of the responses change a judge's verdicts?",
        f"{_AUDIT}.command:run",
        parse=f"{_AUDIT}.arguments:parse_arguments",
    ),
    "evaluate": Command(
        "judges measured on votes, by every judging method, in one table",
        "autorater.report.evaluate:run",
        parse="autorater.evaluation.arguments:parse_arguments",
    ),
    "winrate": Command(
        "which system is better, from judged pairs and votes on some",
        f"{_DECISIONS}.winrate:run",
        f"{_DECISIONS}.arguments:add_winrate_arguments",
    ),
    "defer": Command(
        "which judgments may stand, and which pairs go to people",
        f"{_DECISIONS}.defer:run",
        f"{_DECISIONS}.arguments:add_defer_arguments",
    ),
    "gate": Command(
        "is a judge worse than a recorded baseline; exit status 3 if so",
        f"{_DECISIONS}.gate:run",
        f"{_DECISIONS}.arguments:add_gate_arguments",
    ),
    "convert": Command(
        "pairs in any layout to JSONL in our columns",
        "autorater.data.convert:run",
        "autorater.data.convert:add_arguments",
    ),
    "splits": Command(
        "the human judgments of the recipes, from public repositories",
        "autorater.data.public_splits:run",
        "autorater.data.public_splits:add_arguments",
    ),
    "merge": Command(
        "an adapter and its base model as one model",
        "autorater.judges.merging:run",
        "autorater.judges.merging:add_arguments",
    ),
    "recipes": Command(
        "the training scripts and their configs, copied to a folder",
        "autorater.data.recipes:run",
        "autorater.data.recipes:add_arguments",
    ),
}


def command(argv: Sequence[str] | None = None) -> None:
    """The console script `autorater`."""
    run_script(lambda: _run_command(sys.argv[1:] if argv is None else list(argv)))


def _run_command(argv: list[str]) -> None:
    chosen = COMMANDS.get(argv[0]) if argv else None
    if chosen is not None and chosen.parse:  # it checks which options were given
        arguments = _imported(chosen.parse)(argv[1:], f"autorater {argv[0]}")
        _imported(chosen.run)(arguments)
        return
    parser = CommandParser(prog="autorater", description="LLM judges that state calibrated probabilities.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, listed in COMMANDS.items():
        subparser = commands.add_parser(name, help=listed.help, description=listed.help, allow_abbrev=False)
        if listed is chosen:
            _imported(listed.options)(subparser)
    arguments = parser.parse_args(argv)
    _imported(COMMANDS[arguments.command].run)(arguments)


def _imported(place: str) -> Callable:
    module, name = place.split(":")
    return getattr(import_module(module), name)


def run_script(main: Callable[[], None], interrupted: str = "interrupted") -> None:
    """Runs `main`. Ctrl-C becomes the line `interrupted` and status 130; an error of the user, a line and status 2.

    Errors of the user are a `UserError`, and those of a disk or of the name of a file (`disk_problem`).
    """
    with _standard_streams():
        try:
            with exit_on_signal(), _logging():
                try:
                    main()
                except AlreadyFinished as message:
                    if is_main():
                        print(message)
                leave_group()
                with suppress(BrokenPipeError):
                    sys.stdout.flush()
        except UserError as error:
            _fail(str(error))
        except BrokenPipeError:
            if not _reader_has_ended():
                raise
            sys.exit(NO_READER)
        except Exception as error:
            if (problem := disk_problem(error)) is None:
                raise
            _fail(problem)
        except KeyboardInterrupt:
            if is_main():
                print(f"\n{interrupted}", file=sys.stderr)
            sys.exit(INTERRUPTED)


def _fail(problem: str) -> NoReturn:
    sys.stderr.write(f"error: {problem}\n")  # one write: several processes may fail at once
    sys.exit(2)


@contextmanager
def _standard_streams() -> Iterator[None]:
    """Output that is closed goes nowhere, characters that its encoding lacks are escaped, a reader may end early."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # else the next file to be opened would have its number
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # Python would try again at its end, and report it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_has_ended() -> bool:
    """Whether nothing reads the output any more, as after `| head`."""
    output = select.poll()
    output.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


@contextmanager
def _logging() -> Iterator[None]:
    """Prints what autorater logs, by the main process only: information as plain lines, warnings on stderr.

    So is a `DataWarning`, and a `RuntimeWarning` of autorater; other Python warnings are shown as always.
    """
    logger, show = logging.getLogger("autorater"), warnings.showwarning
    information, problems = _Lines(sys.stdout), _Lines(sys.stderr)
    information.addFilter(lambda record: record.levelno < logging.WARNING)
    problems.setLevel(logging.WARNING)
    problems.setFormatter(logging.Formatter("warning: %(message)s"))

    def show_warning(message: Warning | str, category: type[Warning], filename: str, *place, **options) -> None:
        is_ours = issubclass(category, RuntimeWarning) and Path(filename).is_relative_to(Path(__file__).parent)
        if is_ours or issubclass(category, DataWarning):
            logger.warning(str(message))
        else:
            show(message, category, filename, *place, **options)

    level, handlers, propagate = logger.level, logger.handlers, logger.propagate
    logger.setLevel(logging.INFO)
    warnings.showwarning = show_warning
    logger.handlers = [information, problems] if is_main() else [logging.NullHandler()]
    logger.propagate = False
    try:
        yield
    finally:
        warnings.showwarning = show
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


class _Lines(logging.StreamHandler):
    """Lines that nobody reads any more are left out: a training does not end with the reader of its log."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), BrokenPipeError):
            super().handleError(record)
