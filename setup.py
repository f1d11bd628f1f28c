"""Puts recipes/ into the wheel, as package data of `autorater`; everything else is in pyproject.toml."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            ignored = ignore_patterns("__pycache__", "study*")  # it requires benchmarks/
            copytree("recipes", Path(self.build_lib, "autorater", "recipes"), ignore=ignored, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithRecipes})
