"""A YAML file with options, one `option: value` a line. Requires PyYAML, which transformers brings."""

import argparse
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from autorater.data.errors import UserError, did_you_mean


def read_config(path: str | Path) -> dict[str, object]:
    """The options of a file, by name.

    Raises:
        UserError: If it cannot be read, or holds something else.
    """
    try:
        import yaml
    except ImportError:
        raise UserError(f"config {path}: reading YAML requires PyYAML; pip install pyyaml") from None
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if config is None:
        raise UserError(f"{path} is empty")
    return as_mapping(config, str(path))


def as_mapping(value: object, where: str) -> dict[str, object]:
    """A part of a config that has names; an empty part (null) has none.

    Raises:
        UserError: If it is something else, or a name is no text; `where` says what.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected `name: value` lines, got {type(value).__name__} {value!r:.60}")
    if others := [name for name in value if not isinstance(name, str)]:
        raise UserError(f"{where}: got {others[0]!r} as a name, which YAML does not read as text; put it in quotes")
    return value


def as_list(value: object, where: str) -> list[object]:
    """A part of a config that is a list.

    Raises:
        UserError: If it is something else; `where` says what.
    """
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a list, got {type(value).__name__} {value!r:.60}")
    return value


def config_arguments(argv: Sequence[str], default_config: Path) -> list[str]:
    """The command line with `--config default_config` if it names neither a config nor a model."""
    # TrlParser does not parse --config=FILE
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    given = {argument.split("=")[0] for argument in argv}
    if given & {"--config", "--model_name_or_path", "-h", "--help"}:
        return argv
    return ["--config", str(default_config), *argv]


def check_options(names: Iterable[str], known: Collection[str], source: str) -> None:
    """Raises a `UserError` for a name that is no option; `source` says where it was given."""
    for name in names:
        if name not in known:
            raise UserError(f"unknown option {name} {source}{did_you_mean(name, known)}")


def on_command_line(parser: argparse.ArgumentParser, argv: Sequence[str]) -> set[str]:
    """The names of the arguments that the user gave; afterwards the parser has no defaults."""
    for action in parser._actions:
        action.default, action.required = argparse.SUPPRESS, False
    parser._defaults.clear()  # those of `set_defaults`
    return set(vars(parser.parse_known_args(argv)[0]))
