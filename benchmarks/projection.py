"""Projection onto simplex ∩ ball: exact and batched, against CVXPY; and the cost of the adversary that uses it.

    python benchmarks/projection.py
    python benchmarks/projection.py --batch 4096 --classes 101 --cvxpy_rows 64

    exact     `project_simplex_ball` on the whole batch
    cvxpy     `CvxpyProjection`: CVXPY with Clarabel, compiled once, point, centre and radius as parameters (DPP), one
              row at a time; `--cvxpy_rows` of the batch are timed and extrapolated

The points are those of an adversary: vote shares moved by a gradient of the KL, and a ball around the shares.
`error` is the largest L2 distance between the two results.

`adversary_share`: five steps of the adversary on 32 items, over one training step (forward, backward, optimizer) of
recipes/align.py including the adversary, both in CPU seconds of this process. The share depends on the policy; the
default has the size of that of recipes/grpo.py.
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import torch
from datasets import Dataset
from harness.cvxpy_projection import CvxpyProjection
from harness.measure import alternate, emit, machine, machine_arguments, ratio, say, timed

from autorater.alignment.adversary import worst_case
from autorater.alignment.judge import LabelJudge
from autorater.alignment.labels import LabelFormat
from autorater.alignment.trainer import AlignmentConfig, AlignmentTrainer, alignment_rows
from autorater.data.population import simulate_items
from autorater.models.libraries import quiet_libraries
from autorater.models.tiny import build_policy
from autorater.projection import project_simplex_ball
from autorater.training.callbacks import show_progress


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[machine_arguments()]
    )
    parser.add_argument("--batch", type=int, default=1024, help="Rows.")
    parser.add_argument("--classes", type=int, default=5, help="K.")
    parser.add_argument("--votes", type=int, default=5, help="Votes per row.")
    parser.add_argument("--radius", type=float, default=0.1, help="Of the ball.")
    parser.add_argument("--cvxpy_rows", type=int, default=1024, help="Rows that CVXPY is timed on.")
    parser.add_argument("--repeats", type=int, default=3, help="Rounds that count.")
    parser.add_argument("--hidden_size", type=int, default=96, help="Of the policy of the training step.")
    parser.add_argument("--num_layers", type=int, default=3, help="Its layers.")
    parser.add_argument("--steps", type=int, default=20, help="Training steps to take the mean of.")
    return parser.parse_args(argv)


def instances(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and centres, float64, shape (batch, classes) each."""
    generator = torch.Generator().manual_seed(0)
    truth, q = torch.rand(2, args.batch, args.classes, dtype=torch.float64, generator=generator).pow(2) + 1e-3
    votes = torch.multinomial(truth, args.votes, replacement=True, generator=generator)
    centers = torch.nn.functional.one_hot(votes, args.classes).double().mean(dim=1)
    ascent = centers.clamp_min(1e-12).log() - (q / q.sum(dim=-1, keepdim=True)).log()
    return (centers + 0.05 * ascent).to(args.device), centers.to(args.device)


def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    """Mean CPU seconds of a call, after a warm-up call."""
    run()
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def adversary_cost(args: argparse.Namespace) -> tuple[float, float]:
    """CPU seconds of the adversary on 32 items, and of a training step with it."""
    items = simulate_items(32 * args.steps, seed=0).items
    label_format = LabelFormat(items.task, "compact")
    texts = [text for item in items.items for text in (*item.texts, label_format.text + " 1 2 3 4 5")]
    sizes = {"hidden_size": args.hidden_size, "num_layers": args.num_layers, "max_length": 256}
    model, tokenizer = build_policy(texts, **sizes)
    judge = LabelJudge(model, tokenizer, label_format)
    shares = torch.tensor(items.shares[:32], dtype=torch.float32)
    log_q = torch.randn(shares.shape, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)
    adversary = cpu_seconds(lambda: worst_case(shares, log_q, args.radius), 50)
    with tempfile.TemporaryDirectory() as folder:
        training = AlignmentConfig(
            output_dir=folder, max_steps=args.steps, per_device_train_batch_size=32, radius=args.radius,
            use_cpu=True, report_to="none", logging_strategy="no", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        rows = Dataset.from_list(alignment_rows(items, judge.encode(items)))
        trainer = AlignmentTrainer(model, training, judge.tree, tokenizer.pad_token_id, train_dataset=rows)
        show_progress(trainer)  # on stderr; stdout is for the JSON line
        return adversary, cpu_seconds(trainer.train, 1) / args.steps


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    points, centers = instances(args)
    solver, timed_rows = CvxpyProjection(args.classes), min(args.cvxpy_rows, args.batch)
    some = slice(None, timed_rows)
    error = solver(points[some], centers[some], args.radius) - project_simplex_ball(
        points[some], centers[some], args.radius
    )
    sides = {
        "exact": timed(lambda: project_simplex_ball(points, centers, args.radius), args.device),
        "cvxpy": timed(lambda: solver(points[some], centers[some], args.radius), "cpu"),
    }
    seconds = alternate(sides, args.repeats)
    cvxpy = seconds["cvxpy"] * args.batch / timed_rows
    say("training steps with the adversary")
    adversary, step = adversary_cost(args)
    emit(
        {
            "benchmark": "projection",
            "batch": args.batch,
            "classes": args.classes,
            "radius": args.radius,
            "exact_seconds": seconds["exact"],
            "cvxpy_seconds": cvxpy,
            "cvxpy_rows": timed_rows,
            "ratio": ratio(cvxpy, seconds["exact"]),
            "error": error.norm(dim=-1).max().item(),
            "adversary_cpu_seconds": adversary,
            "step_cpu_seconds": step,
            "adversary_share": adversary / step,
            **machine(args.device, torch.float64),
        }
    )


if __name__ == "__main__":
    main()
