"""Plans of a few runs, and runs as if they had been run: answers with a known error, no policy."""

from copy import deepcopy

import numpy as np
import pytest

from autorater.metrics import Targets, judge_metrics
from benchmarks.study.plan import WARM_START, Figures, Method, Plan, StudyDataset
from benchmarks.study.results import Results

NAMES = ("ours", "usual", "half", "dense", "one order")


def make_plan():
    settings = {"half": {"n_train": 50}, "dense": {"n_train": 50, "n_votes": 10}}
    methods = {n: Method(n.title(), "grpo", ["contested"], settings.get(n, {})) for n in NAMES}
    figures = Figures(
        dataset="contested",
        ours="ours",
        usual="usual",
        overconfidence=("ours", "usual"),
        votes=("ours", "half", "dense"),
        learning_curve=("ours", "usual"),
        orders=("one order", "ours"),
        objective=(WARM_START, "ours"),
        cost=("ours", "usual"),
        target=0.01,
    )
    dataset = StudyDataset("contested", tests={"objective": {}})
    return Plan(
        "runs/none", (0, 1, 2), {"contested": dataset}, methods, figures, {"n_train": 100, "answer_step": 0.05}
    )


@pytest.fixture
def plan():
    return make_plan()


@pytest.fixture
def results(plan, recorded_runs):
    return Results(plan, deepcopy(recorded_runs))


@pytest.fixture(scope="session")
def recorded_runs():
    """Answers are p* + bias · sign(p* − 1/2) + tilt + noise, in either order: the usual recipe errs in all three."""
    errors = {WARM_START: (0.1, 0.1, 0.1), "usual": (0.12, 0.08, 0.1), "ours": (0.0, 0.0, 0.04)}
    plan, runs = make_plan(), {}
    for run in (*plan.starts, *plan.runs):
        rng = np.random.default_rng(run.seed)
        truth, right = rng.uniform(0.1, 0.9, 200), rng.integers(0, 2, 50).astype(float)
        bias, tilt, noise = errors.get(run.method, (0.02, 0.02, 0.05))

        def predicted(p, bias=bias, tilt=tilt, noise=noise, rng=rng):
            sides = np.stack([p, 1 - p])
            answers = sides + bias * np.sign(sides - 0.5) + tilt + rng.normal(0, noise, sides.shape)
            p_ab, p_ba = np.clip(answers, 0, 1).round(4)
            targets = Targets(p, n_votes=10, true_probability=p)
            metrics = judge_metrics(np.stack([p_ab, p_ba], axis=1), targets, n_bootstrap=0)
            return {"p_ab": p_ab.tolist(), "p_ba": p_ba.tolist(), "metrics": metrics}

        result = {
            "dataset": run.dataset, "seed": run.seed, "method": run.method, "trainer": run.trainer,
            "hash": run.hash, "settings": dict(run.settings), "cpu_seconds": 2.0,
            "left_out": {"test": 0, "objective": 0},
            "predictions": {"answer_mean": {"test": predicted(truth), "objective": predicted(right)}},
        }  # fmt: skip
        if run.method == WARM_START:
            result["predictions"]["verbalized_reasoning"] = {"test": {"reason": "no words for it"}}
            known = {"id": [], "n_votes": None}
            result["pairs"] = {
                name: {"label": p.tolist(), "true_probability": p.tolist(), **known}
                for name, p in (("test", truth), ("objective", right))
            }
        else:
            steps = np.arange(4)
            excess = 0.03 / (1 + steps * (9 if run.method == "ours" else 0.1)) + run.seed * 1e-4
            result["learning_curve"] = [
                {"step": int(10 * s), "seconds": float(s), "tokens": int(1000 * s), "excess_brier": float(e),
                 "gap": 0.1 - 0.02 * s, "symmetry_deviation_abs": 0.2 - 0.05 * s}
                for s, e in zip(steps, excess, strict=True)
            ]  # fmt: skip
            result |= {"training_seconds": 3.0, "training_tokens": 3000, "n_train": 100}
        runs[run] = result
    return runs
