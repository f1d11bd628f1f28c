"""What a study is made of: grounds, methods and seeds, read from one YAML file, and the cells they make.

    ground    data with a way to measure on it, and the policy that is built and warm-started there
    method    a way to train that policy (or to read it as it is), with its settings
    cell      a method on a ground with a seed; its settings, hashed, say whether a recorded one is still good

Later settings win: `common`, the ground's, then for trained methods `training`, the ground's `training`, the method's.
The first cell of a ground and a seed is its warm start, from which all the others of that ground and seed go on.
`quick` holds what is different in a small version of the study; a null there takes an entry out.

Deliberately left out: what the settings mean. They are checked where they are used, by the configs of the trainers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

import yaml

Trainer = Literal["warm_start", "grpo", "ppo", "sft", "alignment", "text"]
WARM_START = "warm start"
_LISTS = ("overconfidence", "votes", "course", "orders", "objective", "cost")  # of methods, in `Figures`
_FORMAT = 1  # of a cell's file; another number runs everything again


@dataclass(frozen=True)
class Ground:
    """Data, and the policy on it.

    Attributes:
        title: In tables.
        settings: Of the data, the policy and its warm start.
        training: Of all methods that train here.
        tests: More tests than the held-out pairs, by name, see `benchmarks.study.grounds`.
        seeds: In place of the study's.
    """

    title: str
    settings: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    tests: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    seeds: Sequence[int] | None = None


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        title: In tables and figures.
        trainer: What trains.
        grounds: Where.
        settings: Of the trainer.
    """

    title: str
    trainer: Trainer
    grounds: Sequence[str]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Names of methods, by the question they answer.

    Attributes:
        ours, usual: The two sides of the headline.
        overconfidence: (a) Is the group's deviation to blame?
        votes: (b) Exact answers on other numbers of pairs and of votes a pair.
        course: (c) Calibration and bias while training.
        orders: (d) Swap augmentation, coupling, swap averaging.
        objective: (e) Accuracy where there is one right answer.
        cost: (f) Time and tokens to `target`.
        target: Excess Brier score to reach.
        ground: Where all that is looked at.
    """

    ground: str
    ours: str
    usual: str
    overconfidence: Sequence[str] = ()
    votes: Sequence[str] = ()
    course: Sequence[str] = ()
    orders: Sequence[str] = ()
    objective: Sequence[str] = ()
    cost: Sequence[str] = ()
    target: float = 0.01

    @property
    def named(self) -> set[str]:
        """All methods that are named."""
        return {self.ours, self.usual}.union(*(getattr(self, name) for name in _LISTS))


@dataclass(frozen=True)
class Cell:
    """A method on a ground with a seed.

    Attributes:
        ground, seed, method: Which.
        trainer: What trains.
        settings: What it is told.
        tests: More tests, by name.
        start: The warm start that it goes on from; None of a warm start itself.
    """

    ground: str
    seed: int
    method: str
    trainer: Trainer
    settings: Mapping[str, object]
    tests: Mapping[str, Mapping[str, object]]
    start: Cell | None = None

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def path(self) -> Path:
        """Of its file, within the study's folder."""
        return Path("cells", self.ground, str(self.seed), f"{self.method.replace(' ', '_')}.json")

    @property
    def policy(self) -> Path:
        """Of the warm-started policy, within the study's folder."""
        return Path("policies", self.ground, str(self.seed), "warm_start")

    @cached_property
    def hash(self) -> str:
        """Of everything that decides what comes out, the warm start included."""
        told = [_FORMAT, self.ground, self.seed, self.trainer, self.settings, self.tests]
        text = json.dumps([*told, self.start and self.start.hash], sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """A whole study.

    Attributes:
        output_dir: Where everything goes.
        seeds: Repeats, each with its own texts, votes and policy.
        grounds, methods: By name; cells run in the order of the methods, so the long ones belong first.
        figures: Which methods answer which question.
        common: Settings of every cell.
        training: Settings of every method that trains.
        processes: Cells at a time.
    """

    output_dir: str
    seeds: Sequence[int]
    grounds: Mapping[str, Ground]
    methods: Mapping[str, Method]
    figures: Figures
    common: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    processes: int = 2

    @property
    def starts(self) -> list[Cell]:
        """The warm starts of every ground and seed."""
        return [self._start(ground, seed) for ground in self.grounds for seed in self._seeds(ground)]

    @property
    def cells(self) -> list[Cell]:
        """All the others, those of a method side by side."""
        return [
            self._cell(name, method, ground, seed)
            for name, method in self.methods.items()
            for ground in method.grounds
            for seed in self._seeds(ground)
        ]

    def finished(self, cells: Set[Cell]) -> Plan:
        """The part of the study whose cells are all among these: methods on grounds with all of their seeds.

        Raises:
            ValueError: If the ground or the two methods of the headline are not in it.
        """
        missing = {(c.ground, c.method) for c in (*self.starts, *self.cells) if c not in cells}
        grounds = {name: ground for name, ground in self.grounds.items() if (name, WARM_START) not in missing}
        methods = {}
        for name, method in self.methods.items():
            if left := [g for g in method.grounds if g in grounds and (g, name) not in missing]:
                methods[name] = replace(method, grounds=left)
        there = {WARM_START, *(n for n, method in methods.items() if self.figures.ground in method.grounds)}
        if not {self.figures.ours, self.figures.usual} <= there:
            raise ValueError(f"{self.figures.ours} and {self.figures.usual} are not finished on {self.figures.ground}")
        lists = {name: [m for m in getattr(self.figures, name) if m in there] for name in _LISTS}
        return replace(self, grounds=grounds, methods=methods, figures=replace(self.figures, **lists))

    def _seeds(self, ground: str) -> Sequence[int]:
        return self.seeds if self.grounds[ground].seeds is None else self.grounds[ground].seeds

    def _start(self, ground: str, seed: int) -> Cell:
        where = self.grounds[ground]
        settings = {**self.common, **where.settings, "seed": seed}
        return Cell(ground, seed, WARM_START, "warm_start", settings, where.tests)

    def _cell(self, name: str, method: Method, ground: str, seed: int) -> Cell:
        start, where = self._start(ground, seed), self.grounds[ground]
        trained = {} if method.trainer == "text" else {**self.training, **where.training}
        settings = {**start.settings, **trained, **method.settings, "seed": seed}
        return Cell(ground, seed, name, method.trainer, settings, where.tests, start)


def read_plan(path: str | Path, *, quick: bool = False, **told: object) -> Plan:
    """Reads a study from a YAML file.

    Args:
        path: The file.
        quick: Apply what stands under `quick`.
        told: Fields of `Plan` in place of the file's; None leaves the file's.

    Raises:
        ValueError: If a key or a name is unknown or missing; says which.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a mapping with {', '.join(f.name for f in fields(Plan))}")
    changes = document.pop("quick", {})
    if quick:
        document = _merged(document, changes)
    document |= {name: value for name, value in told.items() if value is not None}
    for kind, cls in (("grounds", Ground), ("methods", Method)):
        entries = document.get(kind) or {}
        document[kind] = {name: _made(cls, entry, f"{path}: {kind}: {name}") for name, entry in entries.items()}
    document["figures"] = _made(Figures, document.get("figures") or {}, f"{path}: figures")
    plan = _made(Plan, document, str(path))
    _check_names(plan, path)
    return plan


def _merged(base: Mapping, changes: Mapping) -> dict:
    """`base` with the changes, mapping by mapping; a null takes an entry out."""
    merged = dict(base)
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = _merged(merged[name], value)
        else:
            merged[name] = value
    return merged


def _made(cls: type, told: Mapping, where: str):
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(told) - known):
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
    try:
        return cls(**told)
    except TypeError as error:
        raise ValueError(f"{where}: {str(error).split('() ')[-1]}") from None


def _check_names(plan: Plan, path: str | Path) -> None:
    for name, method in plan.methods.items():
        if method.trainer not in get_args(Trainer)[1:]:
            raise ValueError(f"{path}: {name}: unknown trainer {method.trainer!r}; known: {get_args(Trainer)[1:]}")
        for ground in method.grounds:
            if ground not in plan.grounds:
                raise ValueError(f"{path}: {name}: unknown ground {ground!r}; known: {', '.join(plan.grounds)}")
    if plan.figures.ground not in plan.grounds:
        raise ValueError(f"{path}: figures: unknown ground {plan.figures.ground!r}")
    if missing := sorted(plan.figures.named - {WARM_START} - set(plan.methods)):
        raise ValueError(f"{path}: figures: unknown method {missing[0]!r}; known: {', '.join(plan.methods)}")
