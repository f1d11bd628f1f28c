"""`autorater recipes DIR`: the training scripts and their configs, copied out of the installed package.

In a wheel they are in the folder `recipes` of this package (setup.py); in a checkout they are its `recipes/`.
"""

import argparse
import shutil
from pathlib import Path

from autorater.data.errors import UserError

_PACKAGE = Path(__file__).parents[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", metavar="DIR", help="new or empty folder for the scripts and configs")


def run(args: argparse.Namespace) -> None:
    """Copies and says how to start; errors as in `copy_recipes`."""
    names = copy_recipes(args.folder)
    print(f"{args.folder}: {len(names)} files; start with accelerate launch {Path(args.folder, 'grpo.py')} --help")


def copy_recipes(folder: str | Path) -> list[str]:
    """Copies the recipes; returns the names of the files, relative to the folder.

    Raises:
        UserError: If the folder is not empty or cannot be written, or there are no recipes.
    """
    places = [_PACKAGE / "recipes", _PACKAGE.parent / "recipes"]
    source = next((place for place in places if (place / "grpo.py").is_file()), None)
    if source is None:
        raise UserError(f"no recipes in {places[0]}; expected an installed wheel, or a checkout")
    folder = Path(folder)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; nothing is overwritten, choose a new folder")
        ignored = shutil.ignore_patterns("__pycache__", "study*")  # the study requires benchmarks/ of a checkout
        shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
