"""The plan of a study: datasets, methods and seeds, read from one YAML file, and the runs that they define.

    dataset   training data with its tests, and the policy that is built and warm-started for it
    method    a trainer with its settings, a text baseline, or a linear probe
    run       a method on a dataset with a seed; a hash of its settings and of the contents of the files that they name
              decides whether a recorded run is still valid

Later settings override earlier ones: `common`, the dataset's, then for trained methods `training`, the dataset's
`training`, the method's. The first run of a dataset and seed is its warm start; all others of that dataset and seed
start from it. With `model_name_or_path` it is that model as it comes. `quick` holds the changes for a small version of
the study; a null removes an entry.

Deliberately left out: the meaning of settings. The configs of the trainers check them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from autorater.data.config_file import as_list, as_mapping, read_config
from autorater.data.errors import UserError
from autorater.judges.identity import file_digests

Trainer = Literal["warm_start", "grpo", "ppo", "sft", "alignment", "text", "probe"]
WARM_START = "warm start"
METHOD = "method:"  # in front of the name of a method, whose judge a setting names
_LISTS = ("overconfidence", "votes", "learning_curve", "orders", "objective", "cost")  # of methods, in `Figures`
_FORMAT = 1  # of a run's file; a new number invalidates all recorded runs


@dataclass(frozen=True)
class StudyDataset:
    """A dataset and its policy.

    Attributes:
        title: Name in tables.
        settings: Settings of the data, the policy and its warm start.
        training: Settings of all methods trained on it.
        tests: Tests in addition to the held-out pairs, by name, see `benchmarks.study.data`.
        seeds: Overrides the seeds of the study.
    """

    title: str
    settings: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    tests: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    seeds: Sequence[int] | None = None


@dataclass(frozen=True)
class Method:
    """A trainer with its settings.

    Attributes:
        title: Name in tables and figures.
        trainer: Name of the trainer.
        datasets: Names of the datasets it is trained on.
        settings: Settings of the trainer.
    """

    title: str
    trainer: Trainer
    datasets: Sequence[str]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Names of the methods in each figure.

    Attributes:
        ours, usual: The two methods of the headline.
        overconfidence: (a) Does dividing by the group's deviation cause overconfidence?
        votes: (b) Exact answers on other numbers of pairs and votes per pair.
        learning_curve: (c) Calibration and bias while training.
        orders: (d) Swap augmentation, coupling, swap averaging.
        objective: (e) Accuracy on pairs with one correct answer.
        cost: (f) Time and tokens to `target`.
        target: Excess Brier score of (f).
        dataset: Name of the dataset of all figures.
    """

    dataset: str
    ours: str
    usual: str
    overconfidence: Sequence[str] = ()
    votes: Sequence[str] = ()
    learning_curve: Sequence[str] = ()
    orders: Sequence[str] = ()
    objective: Sequence[str] = ()
    cost: Sequence[str] = ()
    target: float = 0.01

    @property
    def named(self) -> set[str]:
        """All methods in the figures."""
        return {self.ours, self.usual}.union(*(getattr(self, name) for name in _LISTS))


@dataclass(frozen=True)
class Run:
    """A method on a dataset with a seed.

    Attributes:
        dataset, seed, method: Names and seed.
        trainer: Name of the trainer.
        settings: All settings.
        tests: Additional tests, by name.
        start: The warm start it starts from; None for a warm start.
        needs: The runs whose judges its settings name, as `method:NAME`.
    """

    dataset: str
    seed: int
    method: str
    trainer: Trainer
    settings: Mapping[str, object]
    tests: Mapping[str, Mapping[str, object]]
    start: Run | None = None
    needs: tuple[Run, ...] = ()

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def path(self) -> Path:
        """Path of its file in the folder of the study."""
        return Path("runs", self.dataset, str(self.seed), f"{self.method.replace(' ', '_')}.json")

    @property
    def pretrained(self) -> bool:
        """Whether it begins with a pretrained model, and so without the result of its warm start."""
        return "model_name_or_path" in self.settings

    @property
    def folder(self) -> Path:
        """Path of the output folder of its recipe in the folder of the study, for a pretrained model."""
        return self.path.with_suffix("")

    @property
    def policy(self) -> Path:
        """Path of the warm-started policy in the folder of the study."""
        return Path("policies", self.dataset, str(self.seed), "warm_start")

    @cached_property
    def hash(self) -> str:
        """Hash of settings and data files that the result depends on, also those of the warm start and of `needs`."""
        inputs = [_FORMAT, self.dataset, self.seed, self.trainer, self.settings, self.tests]
        inputs += [digests] if (digests := file_digests(self.settings)) else []
        inputs += [self.start and self.start.hash, *(run.hash for run in self.needs)]
        text = json.dumps(inputs, sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """A whole study.

    Attributes:
        output_dir: Folder of the results.
        seeds: Each seed has its own texts, votes and policy.
        datasets, methods: By name. Runs start in the order of the methods, so long ones should be first; those of a
            pretrained model seed by seed.
        figures: Methods of each figure.
        common: Settings of every run.
        training: Settings of every method that trains.
        processes: Number of concurrent runs.
    """

    output_dir: str
    seeds: Sequence[int]
    datasets: Mapping[str, StudyDataset]
    methods: Mapping[str, Method]
    figures: Figures
    common: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    processes: int = 2

    @property
    def starts(self) -> list[Run]:
        """The warm starts of every dataset and seed; a pretrained model as it comes is the same for all seeds."""
        starts = [self._start(dataset, seed) for dataset in self.datasets for seed in self._seeds(dataset)]
        return [start for start in starts if not self.pretrained or start.seed == self._seeds(start.dataset)[0]]

    @property
    def runs(self) -> list[Run]:
        """All other runs, grouped by method."""
        return [
            self._run(name, method, dataset, seed)
            for name, method in self.methods.items()
            for dataset in method.datasets
            for seed in self._seeds(dataset)
        ]

    @property
    def pretrained(self) -> bool:
        """Whether every dataset names a pretrained model."""
        return all(self._start(dataset, 0).pretrained for dataset in self.datasets)

    def finished(self, runs: Set[Run]) -> Plan:
        """The part of the study whose runs are complete: methods on datasets with all of their seeds.

        Raises:
            UserError: If the dataset or the two methods of the headline are not complete.
        """
        missing = {(c.dataset, c.method) for c in (*self.starts, *self.runs) if c not in runs}
        datasets = {name: dataset for name, dataset in self.datasets.items() if (name, WARM_START) not in missing}
        methods = {}
        for name, method in self.methods.items():
            if left := [g for g in method.datasets if g in datasets and (g, name) not in missing]:
                methods[name] = replace(method, datasets=left)
        there = {WARM_START, *(n for n, method in methods.items() if self.figures.dataset in method.datasets)}
        if not {self.figures.ours, self.figures.usual} <= there:
            raise UserError(f"{self.figures.ours} and {self.figures.usual} are not finished on {self.figures.dataset}")
        lists = {name: [m for m in getattr(self.figures, name) if m in there] for name in _LISTS}
        return replace(self, datasets=datasets, methods=methods, figures=replace(self.figures, **lists))

    def _seeds(self, dataset: str) -> Sequence[int]:
        return self.seeds if self.datasets[dataset].seeds is None else self.datasets[dataset].seeds

    def _start(self, dataset: str, seed: int) -> Run:
        where = self.datasets[dataset]
        settings = {**self.common, **where.settings, "seed": seed}
        return Run(dataset, seed, WARM_START, "warm_start", settings, where.tests)

    def _run(self, name: str, method: Method, dataset: str, seed: int) -> Run:
        start, where = self._start(dataset, seed), self.datasets[dataset]
        trained = {} if method.trainer in ("text", "probe") else {**self.training, **where.training}
        settings = {**start.settings, **trained, **method.settings, "seed": seed}
        named = dict.fromkeys(
            value.removeprefix(METHOD)
            for value in settings.values()
            if isinstance(value, str) and value.startswith(METHOD)
        )
        if name in named or not set(named) <= set(self.methods):
            raise UserError(f"{name}: {METHOD}{next(iter(named))} names no other method of the study")
        needs = tuple(self._run(other, self.methods[other], dataset, seed) for other in named)
        return Run(dataset, seed, name, method.trainer, settings, where.tests, start, needs)


def read_plan(path: str | Path, *, quick: bool = False, **overrides: object) -> Plan:
    """Reads a study from a YAML file.

    Args:
        path: The file.
        quick: Apply the changes under `quick`.
        overrides: Fields of `Plan` that override the file; None keeps the file's value.

    Raises:
        UserError: If the file cannot be read, or a key or a name is unknown, missing or of another kind.
    """
    document = read_config(path)
    changes = as_mapping(document.pop("quick", None), f"{path}: quick")
    if quick:
        document = _merged(document, changes)
    document |= {name: value for name, value in overrides.items() if value is not None}
    for kind, cls in (("datasets", StudyDataset), ("methods", Method)):
        entries = as_mapping(document.get(kind), f"{path}: {kind}")
        document[kind] = {name: _made(cls, entry, f"{path}: {kind}: {name}") for name, entry in entries.items()}
    document["figures"] = _made(Figures, document.get("figures"), f"{path}: figures")
    plan = _made(Plan, document, str(path))
    as_list(plan.seeds, f"{path}: seeds")
    _check_names(plan, path)
    return plan


def _merged(base: Mapping, changes: Mapping) -> dict:
    """`base` with nested changes; a null removes an entry."""
    merged = dict(base)
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = _merged(merged[name], value)
        else:
            merged[name] = value
    return merged


def _made(cls: type, entries: object, where: str):
    entries = as_mapping(entries, where)
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(entries) - known):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
    required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in entries]:
        raise UserError(f"{where}: no {', '.join(missing)}; required: {', '.join(required)}")
    return cls(**entries)


def _check_names(plan: Plan, path: str | Path) -> None:
    for name, method in plan.methods.items():
        if method.trainer not in get_args(Trainer)[1:]:
            raise UserError(f"{path}: {name}: unknown trainer {method.trainer!r}; known: {get_args(Trainer)[1:]}")
        for dataset in as_list(method.datasets, f"{path}: {name}: datasets"):
            if dataset not in plan.datasets:
                raise UserError(f"{path}: {name}: unknown dataset {dataset!r}; known: {', '.join(plan.datasets)}")
    if plan.figures.dataset not in plan.datasets:
        raise UserError(f"{path}: figures: unknown dataset {plan.figures.dataset!r}")
    if missing := sorted(plan.figures.named - {WARM_START} - set(plan.methods), key=str):
        raise UserError(f"{path}: figures: unknown method {missing[0]!r}; known: {', '.join(plan.methods)}")
