"""A policy trained with the judge as its reward: does calibration help it? Measured by the true population.

    python benchmarks/judge_as_reward.py --judge runs/grpo_simulated      # a folder of recipes/grpo.py; resumes
    python benchmarks/judge_as_reward.py --judge runs/grpo_simulated --figure .github/assets/judge_as_reward.png

A small policy from scratch first learns to write simulated responses with random traits (supervised), then trains by
TRL's GRPOTrainer with `JudgeReward` against a reference response, of random traits too: 2 K judgments for K
completions, where a group would cost K (K − 1), and the mean reward is a win rate. Its tokens are the pieces that
simulated texts are made of, so a response has about eight. Arms, all from the same start:

    raw_one_order  the judge before its votes (overconfident, favours the second position), reference first, once
    raw            the same judge, both orders averaged, as `JudgeReward` does
    recalibrated   the same, with a temperature fitted on votes: calibrated, but it knows no more
    trained        the judge after training on votes
    truth          the population itself: the most that a judge can give

On new questions, `preferred` is the population's probability p* that a response of the trained policy is
preferred over one of its start; `won` the same against new references, and `claimed` what the judge says of those.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from harness.measure import emit, say
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM, TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from autorater.data.messages import plain_text
from autorater.data.pairs import Pair
from autorater.data.population import CORES, PHRASES, QUESTIONS, Population, simulate_pairs, subjects
from autorater.integrations import JudgeReward
from autorater.judges import Judge, Judgments, PairJudge
from autorater.judges.calibrators import fit_recalibration
from autorater.models.libraries import quiet_libraries
from autorater.models.loading import load_policy
from autorater.models.tiny import EOS_TOKEN, small_config
from autorater.training.callbacks import show_progress

COLOURS = {
    "raw_one_order": "#E69F00", "raw": "#D55E00", "recalibrated": "#CC79A7", "trained": "#0072B2", "truth": "#000000",
}  # fmt: skip
_N_VOTES, _MAX_TOKENS = 500, 12
_POPULATION = Population()
_COMMON = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
_COMMON |= {"gradient_checkpointing": False}


class Truth:
    """The population as a judge; the traits of a response are those whose phrases it holds."""

    def probabilities(self, pairs: list[Pair], *, progress: bool = False) -> Judgments:
        p = preferred([pair.response_a for pair in pairs], [pair.response_b for pair in pairs])
        mean = np.stack([p, 1 - p], axis=1)
        return Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


class OneOrder:
    """A judge that reads only the given order."""

    def __init__(self, judge: Judge):
        self.judge, self.fitting = judge, judge.fitting

    def probabilities(self, pairs: list[Pair], *, progress: bool = False) -> Judgments:
        read = self.judge.judge_as_shown(self.judge.encoder.encode(pairs))
        columns = (read.mean, read.mode, read.spread, read.valid)
        mean, mode, spread, valid = (np.stack([column, column], axis=1) for column in columns)
        mean[:, 1] = 1 - mean[:, 1]
        return Judgments(mean, mode, spread, valid)


def traits(response: str) -> list[int]:
    return [int(any(phrase in response for phrase in phrases)) for phrases in PHRASES.values()]


def preferred(over: list[str], responses: list[str]) -> np.ndarray:
    """The population's probability that each response is preferred over the other, shape (N,)."""
    a, b = (np.array([traits(plain_text(text)) for text in texts]) for texts in (over, responses))
    return _POPULATION.preference(a, b)


def judges(folder: Path, arms: list[str], seed: int) -> dict[str, PairJudge]:
    """The judges of the arms, from a folder of recipes/grpo.py."""
    trained = Judge.from_pretrained(str(folder), device="cpu")

    def raw() -> Judge:
        model, tokenizer = load_policy(str(folder / "warm_start"))
        layout = {"prompt_format": trained.encoder.format, "pieces": trained.encoder.pieces}
        return Judge(model, tokenizer, answer_step=trained.tree.step, **layout)

    recalibrated = raw()
    if "recalibrated" in arms:
        votes = simulate_pairs(_N_VOTES, seed=1_000 + seed).pairs
        read = recalibrated.probabilities(votes)
        labels = [pair.label for pair in votes]
        recalibrated.recalibration = fit_recalibration("odd_temperature", read.p_ab, read.p_ba, labels)
    return {
        "raw_one_order": OneOrder(raw()), "raw": raw(), "recalibrated": recalibrated, "trained": trained,
        "truth": Truth(),
    }  # fmt: skip


def rows(pairs: list[Pair]) -> Dataset:
    """Prompts, completions to imitate, and references."""
    return Dataset.from_dict(
        {
            "prompt": [f"{pair.prompt}\n" for pair in pairs],
            "completion": [pair.response_a for pair in pairs],
            "best": [pair.response_b for pair in pairs],
        }
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token for every phrase, subject, and part of a question or core around the subject."""
    frames = [part for text in (*QUESTIONS, *CORES) for part in text.split("{s}")]
    phrases = [f" {phrase}" for options in PHRASES.values() for phrase in options]
    # the same order in every process, longest first: a saved start policy is loaded again
    pieces = sorted({*frames, *phrases, *subjects(False), "\n"}, key=lambda piece: (-len(piece), piece))
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate([EOS_TOKEN, *pieces])}, EOS_TOKEN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, pieces))), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS_TOKEN, pad_token=EOS_TOKEN, padding_side="left",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def start_policy(folder: Path, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> None:
    """Trains a policy from scratch to write responses with random traits, and saves it."""
    set_seed(0)
    model = Qwen2ForCausalLM(small_config(tokenizer, hidden_size=64, num_layers=2, num_heads=4, max_length=64))
    config = SFTConfig(
        str(folder), **_COMMON, per_device_train_batch_size=32, num_train_epochs=1, learning_rate=3e-3,
        warmup_steps=20, lr_scheduler_type="linear", logging_steps=50,
    )  # fmt: skip
    data = rows(simulate_pairs(args.start_steps * 32, seed=1).pairs).remove_columns("best")
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    show_progress(trainer, "start")
    trainer.train()
    model.save_pretrained(folder)


class Curve(TrainerCallback):
    """Measures the policy on new questions every `every` steps."""

    def __init__(self, tokenizer, judge: PairJudge, args: argparse.Namespace, seed: int):
        self.tokenizer, self.judge, self.every, self.seed = tokenizer, judge, args.eval_steps, seed
        test = simulate_pairs(args.n_test, seed=500 + seed).pairs
        self.pairs, self.start, self.points = test, None, []

    def write(self, model) -> list[str]:
        """A sampled response to every question."""
        batch = self.tokenizer([f"{pair.prompt}\n" for pair in self.pairs], return_tensors="pt", padding=True)
        was_training = model.training
        model.eval()
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            ids = model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=_MAX_TOKENS)
        model.train(was_training)
        return self.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.start = self.write(model)
        self.measure(model, 0)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every == 0:
            self.measure(model, state.global_step)

    def measure(self, model, step: int) -> None:
        written = self.write(model)
        references = [pair.response_b for pair in self.pairs]
        shown = [
            Pair(pair.id, pair.prompt, reference, text, None)
            for pair, reference, text in zip(self.pairs, references, written, strict=True)
        ]
        point = {
            "step": step,
            "preferred": float(preferred(self.start, written).mean()),
            "won": float(preferred(references, written).mean()),
            "claimed": float(self.judge.probabilities(shown).p_sym.mean()),
            "words": float(np.mean([len(text.split()) for text in written])),
            "traits": np.mean([traits(text) for text in written], axis=0).round(3).tolist(),
            "distinct": len(set(written)) / len(written),
        }
        self.points.append(point)
        say(json.dumps(point))


def run_arm(arm: str, judge: PairJudge, args: argparse.Namespace, seed: int) -> dict[str, object]:
    """Trains and measures a policy, once; the result is stored in the output folder."""
    folder = args.output_dir / f"seed{seed}"
    path, start = folder / f"{arm}.json", args.output_dir / "start"
    if path.exists():
        return json.loads(path.read_text())
    say(f"seed {seed}, {arm}")
    tokenizer = build_tokenizer()  # saved and loaded, it would be rebuilt as that of a Qwen2
    if not (start / "config.json").exists():
        start_policy(start, tokenizer, args)
    set_seed(seed)
    model = Qwen2ForCausalLM.from_pretrained(start)
    curve = Curve(tokenizer, judge, args, seed)
    config = GRPOConfig(
        str(folder / arm), **_COMMON, per_device_train_batch_size=args.prompts * args.num_generations,
        num_generations=args.num_generations, max_completion_length=_MAX_TOKENS, max_steps=args.max_steps,
        learning_rate=args.learning_rate, lr_scheduler_type="constant", scale_rewards="none", beta=0.0,
        logging_steps=args.eval_steps, seed=seed,
    )  # fmt: skip
    data = rows(simulate_pairs(args.prompts * args.max_steps, seed=100 + seed).pairs).remove_columns("completion")
    trainer = GRPOTrainer(
        model=model, reward_funcs=JudgeReward(judge, against="best"), args=config, train_dataset=data,
        processing_class=tokenizer, callbacks=[curve],
    )  # fmt: skip
    show_progress(trainer, f"seed {seed}, {arm}")
    trainer.train()
    record = {"benchmark": "judge_as_reward", "arm": arm, "seed": seed, "curve": curve.points}
    record["examples"] = curve.write(model)[:3]
    path.write_text(json.dumps(record))
    return record


def plot(records: list[dict], path: Path) -> None:
    """Left: p* over the start by step. Right: what the judge claims against what is true, over the references."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for arm, colour in COLOURS.items():
        curves = [record["curve"] for record in records if record["arm"] == arm]
        if not curves:
            continue
        steps = [point["step"] for point in curves[0]]
        values = {
            name: np.array([[p[name] for p in curve] for curve in curves]) for name in ("preferred", "claimed", "won")
        }
        for row in values["preferred"]:
            left.plot(steps, row, color=colour, alpha=0.3, linewidth=0.8)
        left.plot(steps, values["preferred"].mean(axis=0), color=colour, label=arm.replace("_", " "))
        right.plot(values["won"].mean(axis=0), values["claimed"].mean(axis=0), color=colour, marker=".")
        right.plot(values["won"][:, -1], values["claimed"][:, -1], "o", color=colour, markersize=4)
    left.set(xlabel="GRPO steps", ylabel="p*: preferred over its start", title="What the population says")
    left.legend(frameon=False)
    right.plot([0.4, 1], [0.4, 1], color="#6E6E6E", linestyle="--", linewidth=0.8, label="claimed = true")
    right.legend(frameon=False, loc="lower right")
    right.set(
        xlabel="true win rate over the references",
        ylabel="win rate that the judge claims",
        title="What the judge says",
    )
    figure.savefig(path, dpi=130)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", type=Path, default=Path("runs/grpo_simulated"), help="Folder of recipes/grpo.py.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", choices=COLOURS, nargs="+", default=list(COLOURS))
    parser.add_argument("--start_steps", type=int, default=200, help="Supervised, 32 responses each.")
    parser.add_argument("--max_steps", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=4, help="A step.")
    parser.add_argument("--num_generations", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--eval_steps", type=int, default=10)
    parser.add_argument("--n_test", type=int, default=100)
    parser.add_argument("--figure", type=Path, help="PNG to write.")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/judge_as_reward"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    records = []
    for seed in args.seeds:
        opened = judges(args.judge, args.arms, seed)
        records += [run_arm(arm, opened[arm], args, seed) for arm in args.arms]
    for record in records:
        emit({name: record[name] for name in ("benchmark", "arm", "seed")} | record["curve"][-1])
    for arm in args.arms:
        last = [record["curve"][-1] for record in records if record["arm"] == arm]
        means = {
            name: float(np.mean([point[name] for point in last])) for name in ("preferred", "won", "claimed", "words")
        }
        emit({"benchmark": "judge_as_reward", "arm": arm, "seeds": args.seeds} | means)
    if args.figure:
        plot(records, args.figure)


if __name__ == "__main__":
    main()
