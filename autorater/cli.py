"""What a script prints: few lines, in order, from one process, and an error in one line.

Deliberately left out: logging set-up of other libraries beyond asking them to be quiet.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from autorater.data.errors import AlreadyFinished
from autorater.training.preemption import is_main, leaving_when_asked


def run_script(main: Callable[[], None]) -> None:
    """Runs `main` so that a mistake of the user ends in one line on stderr and exit status 2, not in a traceback.

    A signal that asks the process to leave ends in another line and status 143 (`autorater.training.preemption`).
    """
    try:
        with leaving_when_asked():
            main()
    except AlreadyFinished as told:
        if is_main():
            print(told)
    except (ValueError, OSError) as error:
        if os.environ.get("AUTORATER_TRACEBACK"):
            raise
        print(f"error: {error}\n(AUTORATER_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(2)


def config_arguments(argv: list[str], default_config: Path) -> list[str]:
    """The command line, with `--config default_config` in front where it names neither a config nor a model.

    `--config=FILE`, which `TrlParser` does not know, becomes `--config FILE`.

    Raises:
        ValueError: If the config that it names is not YAML.
    """
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if "--config" in argv[:-1]:
        _check_yaml(Path(argv[argv.index("--config") + 1]))
    given = {argument.split("=")[0] for argument in argv}
    if given & {"--config", "--model_name_or_path", "-h", "--help"}:
        return argv
    return ["--config", str(default_config), *argv]


def _check_yaml(path: Path) -> None:
    import yaml

    try:
        yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
