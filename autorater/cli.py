"""The command `autorater`, and the frame of every script: options, one logger, errors in one line.

    autorater convert SOURCE OUT.jsonl      a command of `COMMANDS`, whose module is imported when it is used

Exit status: 0; 2 after a user's mistake; 3 if a gate fails; 130 after Ctrl-C; 143 after SIGTERM or
SIGUSR1; 141 after the reader of a pipe has ended. Needs no torch.
"""

import argparse
import logging
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from enum import EnumType
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

from autorater.data.config_file import check_options, on_command_line, read_config
from autorater.data.errors import AlreadyFinished, DataWarning, OptionError, UserError, disk_problem
from autorater.judges.options import CommandParser
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
                main()
                with suppress(BrokenPipeError):
                    sys.stdout.flush()
        except AlreadyFinished as message:
            if is_main():
                print(message)
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


class Arguments(tuple):
    """Parsed dataclasses; `given` holds the names of the options that the user set."""

    given: frozenset[str] = frozenset()


def parse_arguments(dataclasses: Sequence[type], default_config: Path, argv: Sequence[str] | None = None) -> Arguments:
    """Parses the command line, and the YAML file of `--config`, into dataclasses; the command line wins.

    Args:
        dataclasses: Their fields are the options. `--help` shows a field under the `_argument_group_name` of the class
            that defines it; other fields under "objective", or under their library (TRL, transformers).
        default_config: The YAML file to use if the command line names neither a file nor a model.
        argv: The command line; default: that of this process.

    Raises:
        UserError: If the file cannot be read, or an option is unknown or has an invalid value.
    """
    argv = config_arguments(sys.argv[1:] if argv is None else argv, default_config)
    parser = _recipe_parser(dataclasses)
    if argv[-1:] == ["--config"]:
        raise UserError("--config: expected a file")
    config, is_default = {}, False
    if "--config" in argv:
        path = Path(argv[argv.index("--config") + 1])
        config, is_default = read_config(path), path == default_config
        check_options(config, _known(parser), f"in {path}")
    try:
        *parsed, unknown = parser.parse_args_and_config(argv, return_remaining_strings=True)
    except OptionError as error:
        from_config = [name for name in error.options if name in config.keys() - on_command_line(parser, argv)]
        if not from_config:
            raise
        why = ", the settings without --config and --model_name_or_path" if is_default else ""
        defaults = {field.name: field.default for dtype in dataclasses for field in fields(dtype)}
        unset = " ".join(f"--{name} {'null' if defaults[name] is None else defaults[name]}" for name in from_config)
        raise UserError(f"{error}; {', '.join(from_config)} is set in {path}{why}; add {unset}") from error
    except ValueError as error:
        raise UserError(str(error)) from error
    names = [word.lstrip("-").split("=")[0] for word in unknown[:1]]
    check_options(names, _known(parser), "on the command line")
    parsed = Arguments(parsed)
    parsed.given = frozenset((set() if is_default else set(config)) | on_command_line(parser, argv))
    return parsed


def config_arguments(argv: Sequence[str], default_config: Path) -> list[str]:
    """The command line with `--config default_config` if it names neither a config nor a model."""
    # TrlParser does not parse --config=FILE
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    given = {argument.split("=")[0] for argument in argv}
    if given & {"--config", "--model_name_or_path", "-h", "--help"}:
        return argv
    return ["--config", str(default_config), *argv]


def _known(parser: argparse.ArgumentParser) -> set[str]:
    return {action.dest for action in parser._actions} | {"env"}  # `env`: environment variables, set by TrlParser


def _recipe_parser(dataclasses: Sequence[type]):
    from trl import TrlParser

    types = {name: kind for dtype in dataclasses for name, kind in get_type_hints(dtype).items()}
    optional = {name for name, kind in types.items() if NoneType in get_args(kind)}

    class RecipeParser(TrlParser):
        """`TrlParser` with sections in its help, errors of one line, and null as in YAML."""

        def set_defaults_with_config(self, **config: object) -> list[str]:
            return super().set_defaults_with_config(**{
                name: _config_value(name, value, types[name]) if name in types else value
                for name, value in config.items()
            })  # fmt: skip

        def _add_dataclass_arguments(self, dtype: type) -> None:
            for field in fields(dtype):
                if field.init:
                    field.type = types[field.name]
                    self._parse_dataclass_field(self._section(dtype, field.name), field)
            for action in self._actions:
                if isinstance(action, argparse._StoreFalseAction):  # it has the help of its opposite
                    action.help = f"Turns off --{action.dest}."

        def _get_values(self, action: argparse.Action, words: list[str]) -> object:
            unset = words == ["null"] and action.dest in optional
            return None if unset else super()._get_values(action, words)

        def _section(self, dtype: type, name: str) -> argparse._ArgumentGroup:
            title = _section_title(dtype, name)
            groups = {group.title: group for group in self._action_groups}
            return groups.get(title) or self.add_argument_group(title)

        def format_help(self) -> str:
            last = ("transformers", "TRL")
            self._action_groups.sort(key=lambda group: [group.title.startswith(name) for name in last])
            return super().format_help()

        def error(self, message: str) -> None:
            raise UserError(message)

    description = getattr(sys.modules["__main__"], "__doc__", None)
    return RecipeParser(
        dataclasses, usage="%(prog)s [--config FILE] [--option value …]", description=description,
        formatter_class=_HelpFormatter, epilog="--option null unsets an option of the config, as null does in YAML.",
    )  # fmt: skip


def _config_value(name: str, value: object, kind: object) -> object:
    """A value of a YAML file for an option of this type; `UserError` if it is a list or mapping, and should not be."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    kinds = {get_origin(part) or part for part in parts}
    if isinstance(value, list | dict) and type(value) not in kinds:
        words = {list: "a list", dict: "a mapping"}
        expected = next((words[part] for part in words if part in kinds), "one value")
        raise UserError(f"{name}: got {value!r}; expected {expected}")
    if value is False and any(isinstance(part, EnumType) and "no" in [m.value for m in part] for part in kinds):
        return "no"  # which YAML reads as a truth value
    return value


def _section_title(dtype: type, name: str) -> str:
    """The heading of a field: that of the dataclass that defines it first, or its library."""
    owners = [base for base in dtype.__mro__ if name in vars(base).get("__annotations__", {})]
    for owner in reversed(owners):
        if "_argument_group_name" in vars(owner):
            return owner._argument_group_name
    library = owners[0].__module__.split(".")[0]
    if library not in ("trl", "transformers"):
        return "objective"
    public = next(b for b in dtype.__mro__ if b.__module__.startswith(f"{library}.") and b.__name__[0] != "_")
    return f"{'TRL' if library == 'trl' else library} {public.__name__}"


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows one spelling of every option, with the type of its value."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        value = self._format_args(action, getattr(action.type, "__name__", "value").upper().replace("STRING_TO_", ""))
        return f"{action.option_strings[0]} {value}".rstrip()
