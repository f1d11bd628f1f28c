"""Post-stratified votes: a judge trained on one mix of annotators, weighted to another, and one trained on the other.

    python benchmarks/populations.py                     # about 20 minutes on one quiet core; the same command resumes
    python benchmarks/populations.py --seeds 1 --arms group
    python benchmarks/populations.py --regression        # logistic regression on TF-IDF and length, no judge; 20 s

Simulated annotators, one vote per pair, the method and the sizes of recipes/configs/study.yaml. All judges start from
one warm-started policy (`group` from one with its own prompt); seeds differ in texts, votes and order. They are
measured on 1,000 held-out pairs against the true probability of the requested mix: excess Brier score and symmetry
deviation.

    requested     trained on votes of the requested mix
    weighted      trained on as many votes of the mix at hand, with `population`
    unweighted    the same without `population`
    group         the same votes, with {group} in the prompt: one judge for all groups, asked for every persona; its
                  mean over personas by their requested shares is the probability for the mix

`ratio` is the excess Brier score of an arm divided by that of `requested`, by seed and, in the last line, of the means
over the seeds. `group` also has the excess Brier score against each persona's own truth, and that of the judge
`unweighted` against the same, which is what a judge that ignores groups can know.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness.measure import emit, say
from transformers import set_seed

from autorater.data.pairs import Pair, with_sparse_labels
from autorater.data.population import Population, SimulatedPairs, simulate_pairs
from autorater.evaluation.judge import evaluate
from autorater.judges import Judge, Judgments
from autorater.metrics.position import symmetrize
from autorater.models.libraries import quiet_libraries
from autorater.prompts.batching import drop_long
from autorater.training.data import TrainingData, prepare_data
from autorater.training.warm_start import build_warm_policy
from benchmarks.study.baselines import baseline_probabilities
from benchmarks.study.training import TrainingSpec, open_judge, parse_settings, train

ARMS = ("requested", "weighted", "unweighted", "group")
AT_HAND = [4, 1, 1, 1, 1, 1, 1]  # shares of the personas, in the order of PERSONAS
REQUESTED = [2, 1, 3, 1, 1, 2, 1]
_TEMPLATE = "[Reader] {group}\n[Question] {prompt}\n[Response A] {response_a}\n[Response B] {response_b}\n"
_ANSWER = "[Answer] <prob_rb_better>"
_COMMON = {
    "answer_step": 0.05, "max_prompt_tokens": 256, "policy_hidden_size": 64, "policy_num_layers": 2,
    "warm_start_batch_size": 32, "warm_start_learning_rate": 3e-3,
}  # fmt: skip
_TRAINING = {
    "answers": "exact", "orders": "coupled", "symmetry_coef": 1.5, "entropy_coef": 0.02, "learning_rate": 1e-3,
    "lr_scheduler_type": "linear", "warmup_steps": 20, "adam_beta2": 0.98, "per_device_train_batch_size": 16,
}  # fmt: skip


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=list(ARMS))
    parser.add_argument("--n_train", type=int, default=3_200, help="Pairs, one vote each.")
    parser.add_argument("--n_test", type=int, default=1_000)
    parser.add_argument("--max_steps", type=int, default=200, help="Of 16 pairs in both orders.")
    parser.add_argument("--warm_start_steps", type=int, default=700)
    parser.add_argument("--regression", action="store_true", help="The text baseline of the study, not a judge.")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/populations"))
    return parser.parse_args(argv)


def mix() -> tuple[Population, Population]:
    """The annotators at hand and the requested ones."""
    return Population().with_shares(AT_HAND), Population().with_shares(REQUESTED)


def settings(arm: str, args: argparse.Namespace, seed: int, folder: Path) -> dict[str, object]:
    """Settings of the data and the trainer of an arm."""
    template = folder / "group.txt"
    template.write_text(_TEMPLATE + _ANSWER, encoding="utf-8")
    _, requested = mix()
    shares = {p.name: float(s) for p, s in zip(requested.personas, requested.shares, strict=True)}
    return {
        **_COMMON,
        **_TRAINING,
        "n_train": args.n_train,
        "n_test": args.n_test,
        "max_steps": args.max_steps,
        "warm_start_steps": args.warm_start_steps,
        "seed": seed,
        "prompt_template": str(template) if arm == "group" else "compact",
        "persona_shares": REQUESTED if arm == "requested" else AT_HAND,
        "population": shares if arm == "weighted" else None,
    }


def run_arm(arm: str, args: argparse.Namespace, seed: int) -> dict[str, object]:
    """Trains and measures a judge, once; the result is stored in the output folder."""
    folder = args.output_dir / f"seed{seed}"
    path = folder / f"{arm}{'_regression' if args.regression else ''}.json"
    if path.exists():
        return json.loads(path.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    judge_args, _, _ = parse_settings("grpo", settings(arm, args, seed, folder), folder)
    at_hand, requested = mix()
    test = simulate_pairs(args.n_test, requested, seed=seed, held_out=True)
    data = prepare_data(judge_args, seed)
    if arm == "group":
        votes = simulate_pairs(args.n_train, at_hand, seed=seed, by_group=True)
        data = replace(data, train=with_sparse_labels(votes.pairs, seed), warm_start=votes.pairs)
    say(f"seed {seed}, {arm}: {data.summary}")
    if args.regression:
        record = regression_excess(data.train, test.pairs)
    else:
        record = judge_excess(arm, args, seed, data, test, requested)
    record |= {"benchmark": "populations", "arm": arm, "seed": seed, "rows": len(data.train)}
    path.write_text(json.dumps(record))
    return record


def judge_excess(
    arm: str,
    args: argparse.Namespace,
    seed: int,
    data: TrainingData[list[Pair]],
    test: SimulatedPairs,
    requested: Population,
) -> dict[str, object]:
    """Trains a judge and measures it on the test."""
    folder = args.output_dir / f"seed{seed}"
    judge_args, study, training = parse_settings("grpo", settings(arm, args, seed, folder), folder)
    start = args.output_dir / ("group" if arm == "group" else "compact")
    training.output_dir = str(start)
    set_seed(seed)
    if not (start / "warm_start" / "config.json").exists():
        build_warm_policy(judge_args, training, data)
    judge = open_judge("grpo", start / "warm_start", judge_args, _COMMON["answer_step"], ties=False)
    pairs, prompts, _ = drop_long(data.train, judge.encoder.encode(data.train), judge_args.max_prompt_tokens)
    set_seed(seed)
    train("grpo", TrainingSpec(judge, judge_args, study, training, pairs, prompts), pairs[:1])  # no learning curve
    if arm == "group":
        return of_groups(judge, test, requested)
    evaluated = evaluate(judge, test.pairs, n_bootstrap=0)
    keys = ("excess_brier", "excess_brier_symmetrized", "symmetry_deviation_abs", "ece")
    record = {key: evaluated.metrics[key] for key in keys}
    return record | persona_excess({p.name: evaluated.judgments for p in requested.personas}, test, requested)


def regression_excess(train_pairs: list[Pair], test_pairs: list[Pair]) -> dict[str, object]:
    """Excess Brier score of the text baseline."""
    answers = baseline_probabilities(train_pairs, test_pairs)["tfidf"]
    truth = np.array([pair.true_probability for pair in test_pairs])
    return {"excess_brier": float(((answers - truth) ** 2).mean())}


def of_groups(judge: Judge, test: SimulatedPairs, requested: Population) -> dict[str, object]:
    """A judge whose prompt names the persona, measured against the mix and against every persona."""
    read = {}
    for persona in requested.personas:
        shown: list[Pair] = [replace(pair, group=persona.name) for pair in test.pairs]
        read[persona.name] = judge.probabilities(shown)
    both = sum(s * judged.mean for s, judged in zip(requested.shares, read.values(), strict=True))  # (N, 2)
    truth = np.array([pair.true_probability for pair in test.pairs])
    errors = (both - np.stack([truth, 1 - truth], axis=1)) ** 2
    record = {
        "excess_brier": float(errors.mean()),
        "excess_brier_symmetrized": float(((symmetrize(*both.T) - truth) ** 2).mean()),
        "symmetry_deviation_abs": float(np.abs(both.sum(axis=1) - 1).mean()),
    }
    return record | persona_excess(read, test, requested)


def persona_excess(read: dict[str, Judgments], test: SimulatedPairs, requested: Population) -> dict[str, object]:
    """Excess Brier score of the symmetrized answers against the truth of each persona, and its mean over personas."""
    truths = requested.preference_by_persona(test.traits_a, test.traits_b).T
    excess = {
        name: float(((judged.p_sym - truth) ** 2).mean())
        for (name, judged), truth in zip(read.items(), truths, strict=True)
    }
    return {"persona_excess": excess, "persona_excess_mean": float(np.mean(list(excess.values())))}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    records = [run_arm(arm, args, seed) for seed in args.seeds for arm in args.arms]
    means = {arm: np.mean([r["excess_brier"] for r in records if r["arm"] == arm]) for arm in args.arms}
    direct = {record["seed"]: record["excess_brier"] for record in records if record["arm"] == "requested"}
    for record in records:
        ratio = {"ratio": record["excess_brier"] / direct[record["seed"]]} if direct else {}
        emit(record | ratio)
    for arm, mean in means.items():
        ratio = {"ratio": mean / means["requested"]} if direct else {}
        emit({"benchmark": "populations", "arm": arm, "seeds": args.seeds, "excess_brier": mean, **ratio})


if __name__ == "__main__":
    main()
