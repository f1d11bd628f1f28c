"""The command line of a training recipe, with the YAML file of `--config`, as dataclasses."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from enum import EnumType
from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from trl import TrlParser

from autorater.data.config_file import check_options, config_arguments, on_command_line, read_config
from autorater.data.errors import OptionError, UserError


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
    parser = RecipeParser(dataclasses)
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


def _known(parser: argparse.ArgumentParser) -> set[str]:
    return {action.dest for action in parser._actions} | {"env"}  # `env`: environment variables, set by TrlParser


class RecipeParser(TrlParser):
    """`TrlParser` with sections in its help, errors of one line, and null as in YAML."""

    def __init__(self, dataclasses: Sequence[type]):
        self.types = {name: kind for dtype in dataclasses for name, kind in get_type_hints(dtype).items()}
        self.optional = {name for name, kind in self.types.items() if NoneType in get_args(kind)}
        super().__init__(
            dataclasses, usage="%(prog)s [--config FILE] [--option value …]",
            description=getattr(sys.modules["__main__"], "__doc__", None), formatter_class=_HelpFormatter,
            epilog="--option null unsets an option of the config, as null does in YAML.",
        )  # fmt: skip

    def set_defaults_with_config(self, **config: object) -> list[str]:
        return super().set_defaults_with_config(**{
            name: _config_value(name, value, self.types[name]) if name in self.types else value
            for name, value in config.items()
        })  # fmt: skip

    def _add_dataclass_arguments(self, dtype: type) -> None:
        for field in fields(dtype):
            if field.init:
                field.type = self.types[field.name]
                self._parse_dataclass_field(self._section(dtype, field.name), field)
        for action in self._actions:
            if isinstance(action, argparse._StoreFalseAction):  # it has the help of its opposite
                action.help = f"Turns off --{action.dest}."

    def _get_values(self, action: argparse.Action, words: list[str]) -> object:
        unset = words == ["null"] and action.dest in self.optional
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
