"""Evaluate judges by every judging method, with swap averaging and recalibration as post-processing, in one table.

    python recipes/evaluate.py                                                        # the judge of `make train`
    python recipes/evaluate.py --judge runs/a runs/b --methods answer_mean            # several judges
    python recipes/evaluate.py --judge Qwen/Qwen2.5-7B-Instruct --dataset_name votes.jsonl --methods all
    python recipes/evaluate.py --save_recalibration odd_temperature                   # and save it with the judge

Without --dataset_name it evaluates on the simulated pairs that recipes/grpo.py holds out. A part of the pairs, split
off by topic or prompt, is used to fit recalibrations only. Writes metrics.json, predictions.jsonl, report.html and
reliability.png to --output_dir. Judgments are stored there as they come: the same command resumes a stopped run.
"""

from dataclasses import dataclass, field
from pathlib import Path

from autorater.cli import parse_arguments, run_script
from autorater.evaluation.results import prepare_output_dir
from autorater.models.libraries import quiet_libraries
from autorater.report.glossary import GLOSSARY

METHODS, STEPS = (", ".join(GLOSSARY[part]) for part in ("methods", "post_processing"))
DEFAULT_CONFIG = Path(__file__).parent / "configs" / "evaluate.yaml"


@dataclass
class EvaluationArguments:
    """Judges, pairs and methods."""

    _argument_group_name = "evaluation"

    judge: list[str] = field(metadata={"help": "Folders or Hub names of judges, or of any causal LM."})
    output_dir: str = field(metadata={"help": "Folder of the results."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "Pairs with labels or votes, as in recipes/grpo.py; default: simulated pairs."}
    )
    allow_odd_responses: bool = field(default=False, metadata={"help": "Keep blank responses; see `load_pairs`."})
    split: str = field(default="test", metadata={"help": "Split of a Hub dataset."})
    n_pairs: int = field(default=1000, metadata={"help": "Number of simulated pairs."})
    n_votes: int = field(default=10, metadata={"help": "Simulated votes per pair."})
    split_by: str | None = field(
        default=None, metadata={"help": "Column that separates calibration pairs; default: topic, else prompt."}
    )
    calibration_fraction: float = field(
        default=0.3, metadata={"help": "Share of the pairs on which recalibrations are fitted."}
    )
    train_dataset_name: str | None = field(
        default=None, metadata={"help": "Pairs on which the linear probe is fitted; default: the calibration pairs."}
    )
    population: str | None = field(
        default=None, metadata={"help": "Annotators to measure for, as in recipes/grpo.py: group=share,group=share."}
    )
    methods: list[str] | None = field(
        default=None, metadata={"help": f"all, or names out of {METHODS}; default: those with one forward pass."}
    )
    variants: list[str] | None = field(
        default=None, metadata={"help": f"Post-processing: none, or steps joined by + out of {STEPS}; default: all."}
    )
    n_samples: int = field(default=10, metadata={"help": "Answers per prompt that self-consistency samples."})
    max_reasoning_tokens: int = field(default=512, metadata={"help": "Longest reasoning, if there is any."})
    prompt_template: str | None = field(
        default=None, metadata={"help": "A file or a built-in template, see docs/prompts.md; default: as saved."}
    )
    system_prompt: str | None = field(default=None, metadata={"help": "System message; default: as saved."})
    criteria: str | None = field(
        default=None, metadata={"help": "Fills the slot {criteria} for pairs without a value in that column."}
    )
    reference: str | None = field(default=None, metadata={"help": "The same for the slot {reference}."})
    answer_step: float | None = field(
        default=None, metadata={"help": "Step of the answer grid; default: as saved with the judge."}
    )
    max_prompt_tokens: int = field(default=2048, metadata={"help": "Pairs with longer prompts are left out."})
    n_bootstrap: int = field(default=1000, metadata={"help": "Rounds of the bootstrap."})
    seed: int = field(default=0, metadata={"help": "Seed of the split, the simulated texts and the sampled answers."})
    device: str | None = field(default=None, metadata={"help": "Default: a GPU if there is one."})
    save_recalibration: str | None = field(
        default=None, metadata={"help": "Kind of recalibration, fitted on answer_mean, to save with a local judge."}
    )


def main() -> None:
    quiet_libraries()
    from autorater.data.loading import load_pairs
    from autorater.data.pairs import grouping, split_by
    from autorater.data.population import Population, simulate_pairs
    from autorater.data.post_stratification import drawn_by_weight, parse_population, post_stratified
    from autorater.evaluation import methods
    from autorater.judges import Judge
    from autorater.judges.identity import model_digest
    from autorater.prompts.batching import drop_long, longest_prompt
    from autorater.report import comparison_table, write_comparison_report

    (args,) = parse_arguments((EvaluationArguments,), DEFAULT_CONFIG)
    output_dir = prepare_output_dir(args.output_dir)
    shares = None if args.population is None else parse_population(args.population)
    if args.dataset_name is None:
        people = Population().with_shares(shares)
        pairs = simulate_pairs(args.n_pairs, people, n_votes=args.n_votes, seed=args.seed, held_out=True).pairs
    else:
        args.split_by, columns = grouping(args.split_by) if args.split_by else (None, None)
        pairs = load_pairs(args.dataset_name, columns, split=args.split, allow_odd_responses=args.allow_odd_responses)
        if shares is not None:
            pairs, mix = post_stratified(pairs, shares, args.dataset_name)
            print(f"population: {mix}")

    names = ("prompt_template", "device", "system_prompt", "criteria", "reference", "answer_step")
    options = {name: getattr(args, name) for name in names}
    paths = methods.judge_names(args.judge)
    judges = {name: Judge.from_pretrained(path, **options) for name, path in paths.items()}
    total = len(pairs)
    for judge in judges.values():  # all judges are evaluated on the same pairs
        longest = longest_prompt(judge.model, judge.answer_tokens, args.max_prompt_tokens)
        pairs, _, _ = drop_long(pairs, judge.encoder.encode(pairs), longest)
    column = args.split_by or methods.group_column(pairs)
    measured, calibration = split_by(pairs, column, args.calibration_fraction, args.seed)
    train = load_pairs(args.train_dataset_name) if args.train_dataset_name else None
    if train and shares is not None:
        train = drawn_by_weight(post_stratified(train, shares, args.train_dataset_name)[0], args.seed)
    summary = (
        f"{args.dataset_name or 'Simulated annotators'}: {len(measured):,} evaluation pairs, {len(calibration):,} "
        f"calibration pairs (split by {column}); {total - len(pairs):,} left out because of their length"
    )
    print(summary)
    calibration = drawn_by_weight(calibration, args.seed)

    chosen = methods.METHODS if args.methods == ["all"] else args.methods or methods.DEFAULT_METHODS
    entries = []
    for name, judge in judges.items():
        print(f"{name or args.judge[0]}: {methods.cost(judge, [*measured, *calibration], chosen)}")
        entries += methods.compare_methods(
            judge,
            measured,
            calibration,
            train,
            methods=chosen,
            variants=args.variants or methods.VARIANTS,
            name=name,
            n_samples=args.n_samples,
            max_reasoning_tokens=args.max_reasoning_tokens,
            seed=args.seed,
            clusters=[getattr(pair, column) for pair in measured],
            n_bootstrap=args.n_bootstrap,
            folder=output_dir / "judgments",
            model=model_digest(paths[name]),
            progress=True,
        )
    methods.write_comparison(output_dir, entries)
    best = methods.best_entry(entries)
    write_comparison_report(
        output_dir,
        entries,
        best,
        methods.headline_entries(entries),
        groups=methods.grouped(best.evaluation, n_bootstrap=args.n_bootstrap),
        win_rates=methods.model_win_rates(best.evaluation, n_bootstrap=args.n_bootstrap),
        title="Judging methods compared",
        summary=summary,
    )
    print(f"\n{comparison_table(entries, best)}\n\nreport: {output_dir / 'report.html'}")
    if args.save_recalibration:
        for name, judge in judges.items():
            saved = methods.save_recalibration(args.save_recalibration, entries, judge, paths[name], name)
            print(f"saved with {paths[name]}: {saved.kind}, {saved}")


if __name__ == "__main__":
    run_script(main)
