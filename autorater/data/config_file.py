"""A YAML file with options, one `option: value` a line. Requires PyYAML, which transformers brings."""

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path

from autorater.data.errors import UserError


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
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected `option: value` lines, got {type(config).__name__}")
    return config


def check_options(names: Iterable[str], known: Collection[str], source: str) -> None:
    """Raises a `UserError` for a name that is no option; `source` says where it was given."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"unknown option {name} {source}{hint}")
