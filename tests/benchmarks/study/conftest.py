"""Plans of a few cells, and cells as if they had been run: answers with a known error, no policy."""

import numpy as np
import pytest

from autorater.metrics import judge_metrics
from benchmarks.study.plan import WARM_START, Figures, Ground, Method, Plan
from benchmarks.study.results import Results

NAMES = ("ours", "usual", "half", "dense", "one order")


@pytest.fixture
def plan():
    told = {"half": {"n_train": 50}, "dense": {"n_train": 50, "n_votes": 10}}
    methods = {n: Method(n.title(), "grpo", ["contested"], told.get(n, {})) for n in NAMES}
    figures = Figures(
        ground="contested",
        ours="ours",
        usual="usual",
        overconfidence=("ours", "usual"),
        votes=("ours", "half", "dense"),
        course=("ours", "usual"),
        orders=("one order", "ours"),
        objective=(WARM_START, "ours"),
        cost=("ours", "usual"),
        target=0.01,
    )
    ground = Ground("contested", tests={"objective": {}})
    return Plan("runs/none", (0, 1, 2), {"contested": ground}, methods, figures, {"n_train": 100, "answer_step": 0.05})


@pytest.fixture
def results(plan):
    """Answers are p* + bias · sign(p* − 1/2) + tilt + noise, in either order: the usual recipe errs in all three."""
    errors = {WARM_START: (0.1, 0.1, 0.1), "usual": (0.12, 0.08, 0.1), "ours": (0.0, 0.0, 0.04)}
    cells = {}
    for cell in (*plan.starts, *plan.cells):
        rng = np.random.default_rng(cell.seed)
        truth, right = rng.uniform(0.1, 0.9, 200), rng.integers(0, 2, 50).astype(float)
        bias, tilt, noise = errors.get(cell.method, (0.02, 0.02, 0.05))

        def said(p, bias=bias, tilt=tilt, noise=noise, rng=rng):
            sides = np.stack([p, 1 - p])
            answers = sides + bias * np.sign(sides - 0.5) + tilt + rng.normal(0, noise, sides.shape)
            p_ab, p_ba = np.clip(answers, 0, 1).round(4)
            metrics = judge_metrics(p_ab, p_ba, p, n_votes=10, true_probability=p, n_bootstrap=0)
            return {"p_ab": p_ab.tolist(), "p_ba": p_ba.tolist(), "metrics": metrics}

        result = {
            "ground": cell.ground, "seed": cell.seed, "method": cell.method, "trainer": cell.trainer,
            "hash": cell.hash, "settings": dict(cell.settings), "cpu_seconds": 2.0,
            "left_out": {"test": 0, "objective": 0},
            "readings": {"answer_mean": {"test": said(truth), "objective": said(right)}},
        }  # fmt: skip
        if cell.method == WARM_START:
            result["readings"]["verbalized_reasoning"] = {"test": {"reason": "no words for it"}}
            known = {"id": [], "n_votes": None}
            result["pairs"] = {
                name: {"label": p.tolist(), "true_probability": p.tolist(), **known}
                for name, p in (("test", truth), ("objective", right))
            }
        else:
            steps = np.arange(4)
            excess = 0.03 / (1 + steps * (9 if cell.method == "ours" else 0.1)) + cell.seed * 1e-4
            result["course"] = [
                {"step": int(10 * s), "seconds": float(s), "tokens": int(1000 * s), "excess_brier": float(e),
                 "gap": 0.1 - 0.02 * s, "symmetry_deviation_abs": 0.2 - 0.05 * s}
                for s, e in zip(steps, excess, strict=True)
            ]  # fmt: skip
            result |= {"training_seconds": 3.0, "training_tokens": 3000, "n_train": 100}
        cells[cell] = result
    return Results(plan, cells)
