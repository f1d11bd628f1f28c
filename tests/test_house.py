"""The docstring of a package is its map: it names every module."""

import re
from pathlib import Path

import pytest

import autorater

ROOMS = sorted(path.parent for path in Path(autorater.__file__).parent.glob("*/__init__.py"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_module_is_on_the_map(room):
    rooms = (path.parent.name for path in room.glob("*/__init__.py"))
    modules = {path.stem for path in room.glob("[!_]*.py")}.union(rooms)
    text = (room / "__init__.py").read_text()
    assert [name for name in sorted(modules) if not re.search(rf"\b{name}\b", text)] == []
