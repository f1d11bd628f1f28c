"""What a script prints: few lines, in order, from one process, and an error in one line.

Deliberately left out: logging set-up of other libraries beyond asking them to be quiet.
"""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from autorater.preemption import is_main, leaving_when_asked


class Finished(Exception):
    """There is nothing left to do, and the message says why."""


def run_script(main: Callable[[], None]) -> None:
    """Runs `main` so that a mistake of the user ends in one line on stderr and exit status 2, not in a traceback.

    A signal that asks the process to leave ends in another line and status 143 (`autorater.preemption`).
    """
    try:
        with leaving_when_asked():
            main()
    except Finished as told:
        if is_main():
            print(told)
    except (ValueError, OSError) as error:
        if os.environ.get("AUTORATER_TRACEBACK"):
            raise
        print(f"error: {error}\n(AUTORATER_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(2)


def quiet_libraries() -> None:
    """Asks the training libraries to print only errors; call before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)

    import datasets
    import torch
    import transformers

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would search for one, and warn
        if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
            import deepspeed

            # DeepSpeed would compile it in the first run, for two minutes or in vain where there is no compiler
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()


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


def prepare_output_dir(path: str | Path) -> Path:
    """Makes the output folder and writes to it once, so that a run does not find out at its end that it cannot.

    Raises:
        ValueError: If it cannot be made or written.
    """
    path = Path(path)
    probe = path / f".writable-{os.getpid()}"  # several processes may try at once
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"output_dir {str(path)!r} cannot be written: {error.strerror or error}") from None
    return path
