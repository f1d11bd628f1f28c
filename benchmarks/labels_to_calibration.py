"""Training time and votes to a calibration target: exact answers, sampled answers, `trl.GRPOTrainer`.

    python benchmarks/labels_to_calibration.py
    python benchmarks/labels_to_calibration.py --policy_hidden_size 64 --policy_num_layers 2 --warm_start_steps 800

With simulated annotators the truth is known, and so is the excess Brier score relative to p*. All runs of a seed start
from one warm-started policy (built as in recipes/configs/grpo_simulated.yaml), use the same votes, and are evaluated
on the same held-out pairs in both orders every `--eval_every` steps. A run stops at the target or at the end of its
budget.

    exact     our trainer with `answers: exact`, as configured
    sampled   our trainer with `answers: sampled`, shared prefix, both orders of a pair in one group
    stock     `trl.GRPOTrainer`, both orders of a pair as separate rows; the best of `--stock_learning_rates`

Same reward, `scale_rewards="none"`, loss, entropy bonus, temperature, and votes per step. The learning rate is
constant after the warm-up, so that the length of a run need not be known. Only optimizer steps are timed: on a CPU as
CPU time of the process, which does not depend on other load; wall time is reported too. Any other option of the
recipe's config can be given (--n_train, …).
"""

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset
from harness.measure import chosen_dtype, emit, machine, machine_arguments, ratio, say
from harness.trainers import STOCK, StepClock, add_clock
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, TrlParser

import rewards
from autorater.data.errors import UserError
from autorater.evaluation.judge import evaluate
from autorater.judges import Judge
from autorater.models.libraries import quiet_libraries
from autorater.models.loading import load_policy
from autorater.prompts.batching import drop_long
from autorater.training.arguments import JudgeArguments
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import TrainingData, prepare_data, training_rows
from autorater.training.grpo import grpo_trainer
from autorater.training.warm_start import build_warm_policy

CONFIG = Path(__file__).resolve().parents[1] / "recipes" / "configs" / "grpo_simulated.yaml"
_SHARED_SETTINGS = (
    "entropy_coef", "loss_type", "lr_scheduler_type", "scale_rewards", "temperature", "warmup_steps",
    "gradient_checkpointing", "bf16", "use_cpu", "seed", "logging_strategy", "save_strategy", "report_to",
    "disable_tqdm", "dataloader_pin_memory",
)  # fmt: skip
_NO_LIMIT = 1_000_000


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[machine_arguments()]
    )
    parser.add_argument("--target", type=float, default=0.01, help="Excess Brier score to reach.")
    parser.add_argument("--seeds", type=int, default=3, help="Repeats, each with its own policy, votes and pairs.")
    parser.add_argument("--eval_every", type=int, default=10, help="Optimizer steps between measurements.")
    parser.add_argument("--n_eval", type=int, default=500, help="Held-out pairs to measure on.")
    parser.add_argument("--max_steps", type=int, default=1500, help="Longest exact run.")
    parser.add_argument(
        "--budget_ratio", type=float, default=10.0, help="Longest other run, in units of the exact side's seconds."
    )
    parser.add_argument(
        "--against", nargs="+", choices=("sampled", "stock"), default=["sampled", "stock"], help="The other sides."
    )
    parser.add_argument("--num_generations", type=int, default=8, help="Completions a group where they are sampled.")
    parser.add_argument("--stock_learning_rates", type=float, nargs="+", default=[2e-3, 5e-4])
    parser.add_argument(
        "--stock", choices=STOCK, default="trl", help="`sliced`: without TRL's work on prompts in its head on a CPU."
    )
    return parser.parse_known_args(argv)


@dataclass
class Run:
    """Result of a training run.

    Attributes:
        seconds, wall_seconds, steps: Training until the target, or None.
        best: Lowest excess Brier score seen.
        spent, wall_spent: Seconds of training altogether.
        curve: (steps, seconds, excess Brier score) of every measurement.
    """

    learning_rate: float
    votes_per_step: int
    seconds: float | None = None
    wall_seconds: float | None = None
    steps: int | None = None
    spent: float = 0.0
    wall_spent: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(excess for _, _, excess in self.curve)

    def summary(self) -> dict[str, object]:
        return {
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            "wall_seconds": self.wall_seconds,
            "votes": None if self.steps is None else self.steps * self.votes_per_step,
            "steps": self.steps,
            "seconds_spent": self.spent,
            "wall_seconds_spent": self.wall_spent,
            "best_excess_brier": self.best,
            "curve": self.curve,
        }


class TargetCallback(TrainerCallback):
    """Evaluates the policy and stops training at the target or at the end of the budget.

    The judge has a model of its own, which takes the weights over: to judge changes how a model's attention is
    called, and the training of TRL's trainer should not be touched.
    """

    def __init__(self, run: Run, clock: StepClock, lab: "Lab", budget: float | None):
        self.run, self.clock, self.lab, self.budget = run, clock, lab, budget

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._measure(state, control, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.lab.args.eval_every == 0:
            self._measure(state, control, model)
        if self.budget is not None and self.clock.spent >= self.budget:
            control.should_training_stop = True

    def on_train_end(self, args, state, control, model=None, **kwargs):
        if self.run.curve[-1][0] < state.global_step:
            self._measure(state, control, model)

    def _measure(self, state, control, model) -> None:
        run = self.run
        run.spent, run.wall_spent = self.clock.spent, self.clock.wall_spent
        excess = self.lab.excess_brier(model)
        run.curve.append((state.global_step, run.spent, excess))
        say(f"  step {state.global_step}: {run.spent:.1f} s, excess Brier {excess:.4f}")
        if excess <= self.lab.args.target and run.steps is None:
            run.seconds, run.wall_seconds, run.steps = run.spent, run.wall_spent, state.global_step
            control.should_training_stop = True


class Lab:
    """Votes, held-out pairs and warm-started policy of one seed, and the runs that start from it."""

    def __init__(
        self, args: argparse.Namespace, judging: JudgeArguments, training: JudgeGRPOConfig, data: TrainingData
    ):
        self.args, self.judging, self.training = args, judging, training
        self.base = build_warm_policy(judging, training, data)
        self.judge = Judge(*self._policy(), judging.prompt_format, training.answer_step)
        encode, longest = self.judge.encoder.encode, judging.max_prompt_tokens
        self.train, self.prompts, _ = drop_long(data.train, encode(data.train), longest)
        held_out = data.held_out[: args.n_eval]
        self.held_out, self.held_out_prompts, _ = drop_long(held_out, encode(held_out), longest)

    def _policy(self):
        model, tokenizer = load_policy(self.base, dtype=str(chosen_dtype(self.args)).removeprefix("torch."))
        return model.to(self.args.device), tokenizer

    def excess_brier(self, model: torch.nn.Module) -> float:
        """Excess Brier score of the current policy, over both orders."""
        self.judge.model.load_state_dict(model.state_dict())
        return evaluate(self.judge, self.held_out, self.held_out_prompts, n_bootstrap=0).metrics["excess_brier"]

    def run(self, side: str, learning_rate: float, budget: float | None = None) -> Run:
        """Trains one side until the target, its budget in seconds, or without one `--max_steps`."""
        say(f"seed {self.training.seed}, {side}, learning rate {learning_rate:g}, budget {budget or 'none'}")
        trainer = self._trainer(side, learning_rate, self.args.max_steps if budget is None else _NO_LIMIT)
        run = Run(learning_rate, self.training.per_device_train_batch_size)
        trainer.add_callback(TargetCallback(run, add_clock(trainer, self.args.device), self, budget))
        trainer.train()
        return run

    def _trainer(self, side: str, learning_rate: float, max_steps: int) -> GRPOTrainer:
        batch, group = self.training.per_device_train_batch_size, self.args.num_generations
        options = {name: getattr(self.training, name) for name in _SHARED_SETTINGS} | {
            "output_dir": self.training.output_dir,
            "learning_rate": learning_rate,
            "max_steps": max_steps,
            "per_device_train_batch_size": batch if side == "exact" else batch * group,
        }
        if side != "exact":
            options |= {"num_generations": group, "max_completion_length": self.training.max_completion_length}
        model, tokenizer = self._policy()
        orders = "separate" if side == "stock" else "coupled"
        everything = {
            "model": model,
            "reward_funcs": getattr(rewards, f"{self.training.reward}_reward"),
            "train_dataset": Dataset.from_list(training_rows(self.train, self.prompts, orders)),
            "processing_class": tokenizer,
        }
        if side == "stock":
            return STOCK[self.args.stock](args=GRPOConfig(**options), **everything)
        ours = {"answers": side, "orders": orders, "answer_step": self.training.answer_step}
        if side == "exact":
            ours["symmetry_coef"] = self.training.symmetry_coef
        return grpo_trainer(args=JudgeGRPOConfig(**options, **ours), answer_tree=self.judge.tree, **everything)


def build_lab(args: argparse.Namespace, rest: list[str], seed: int, folder: str) -> Lab:
    """Parses the recipe's config, simulates the pairs and warm-starts the policy."""
    fixed = {
        "output_dir": folder, "seed": seed, "lr_scheduler_type": "constant_with_warmup", "report_to": "none",
        "logging_strategy": "no", "disable_tqdm": True, "use_cpu": args.device == "cpu", "answers": "exact",
        "bf16": chosen_dtype(args) is torch.bfloat16, "dataloader_pin_memory": args.device == "cuda",
    }  # fmt: skip
    overrides = [text for name, value in fixed.items() for text in (f"--{name}", str(value))]
    parser = TrlParser((JudgeArguments, JudgeGRPOConfig))
    judging, training = parser.parse_args_and_config(["--config", str(CONFIG), *rest, *overrides])
    if judging.dataset_name is not None:
        raise UserError("the truth must be known: leave dataset_name out")
    return Lab(args, judging, training, prepare_data(judging, seed))


def best_of(runs: list[Run]) -> Run:
    """The run that reached the target first, or came nearest."""
    return min(runs, key=lambda run: (run.seconds is None, run.seconds or run.best))


def measure(args: argparse.Namespace, rest: list[str], seed: int) -> dict[str, object]:
    """All sides of one seed."""
    with tempfile.TemporaryDirectory() as folder:
        lab = build_lab(args, rest, seed, folder)
        rate = lab.training.learning_rate
        exact = lab.run("exact", rate)
        budget = args.budget_ratio * (exact.spent if exact.seconds is None else exact.seconds)
        runs = {"exact": exact}
        if "sampled" in args.against:
            runs["sampled"] = lab.run("sampled", rate, budget)
        if "stock" in args.against:
            runs["stock"] = best_of([lab.run("stock", rate, budget) for rate in args.stock_learning_rates])
    return {
        "benchmark": "labels_to_calibration",
        "seed": seed,
        "target": args.target,
        "votes_per_step": exact.votes_per_step,
        "num_generations": args.num_generations,
        "clock": "process CPU time" if args.device == "cpu" else "wall time",
        "budget_seconds": budget,
        "stock_head": args.stock,
        "n_eval": len(lab.held_out),
        **{side: run.summary() for side, run in runs.items()},
        **{f"ratio_{side}_to_exact": ratio(runs[side].seconds, exact.seconds) for side in args.against},
        "parameters": sum(p.numel() for p in lab.judge.model.parameters()),
        **machine(args.device, chosen_dtype(args)),
    }


def main(argv: list[str] | None = None) -> None:
    args, rest = parse(argv)
    quiet_libraries()
    for seed in range(args.seeds):
        emit(measure(args, rest, seed))


if __name__ == "__main__":
    main()
