"""Align a judge's distribution over labels with its annotators', with an adversary; of items or of pairs.

    accelerate launch recipes/align.py                                             # simulated grades 1–5, on a CPU
    accelerate launch recipes/align.py --ablate adversary                          # or kl, ce, several
    accelerate launch recipes/align.py --dataset_name chaosNLI_snli.jsonl --model_name_or_path Qwen/Qwen2.5-7B-Instruct
    accelerate launch recipes/align.py --data pairs --dataset_name votes.jsonl --split_by topic     # A, tie, B

Files of SNLI, MNLI, ChaosNLI, SummEval and MT-Bench are read as they are published, others with the columns labels,
counts and prompt. With neither --config nor --model_name_or_path it takes its settings from
recipes/configs/align_simulated.yaml; every key can be given on the command line, which wins. In --output_dir it leaves
metrics.json, predictions.jsonl and the judge, for `autorater.alignment.judge.LabelJudge`; of pairs a report too.
"""

import sys
from functools import partial
from pathlib import Path

from autorater.cli import config_arguments, run_script
from autorater.evaluation.results import prepare_output_dir
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "align_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from datasets import Dataset
    from trl import ModelConfig, TrlParser

    from autorater.alignment.data import AlignmentArguments, prepare_items, prepare_pair_items
    from autorater.alignment.evaluation import evaluate_items, item_table, write_item_run
    from autorater.alignment.judge import LabelJudge
    from autorater.alignment.labels import LabelFormat
    from autorater.alignment.trainer import AlignmentConfig, AlignmentTrainer, alignment_rows
    from autorater.alignment.warm_start import build_warm_label_policy
    from autorater.data.items import ItemSet
    from autorater.evaluation.judge import evaluate
    from autorater.evaluation.results import write_run
    from autorater.models.loading import load_policy
    from autorater.models.sharding import gathered
    from autorater.prompts.batching import drop_long, longest_prompt
    from autorater.report import summary_table, write_report
    from autorater.training.checkpointing.record import RunRecord
    from autorater.training.config import model_init_kwargs, settings
    from autorater.training.run import run_training
    from autorater.training.tracking import start_tracking

    parser = TrlParser((AlignmentArguments, AlignmentConfig, ModelConfig))
    args, training, model_config = parser.parse_args_and_config(config_arguments(sys.argv[1:], DEFAULT_CONFIG))
    output_dir = prepare_output_dir(training.output_dir)
    say = print if training.process_index == 0 else lambda *_: None

    of_pairs = args.data == "pairs"
    pairs, data = prepare_pair_items(args, training.seed) if of_pairs else (None, prepare_items(args, training.seed))
    say(data.summary)
    label_format = LabelFormat(data.train.task, args.prompt_layout, args.synonyms or {})
    used = settings(args, training, model_config)
    record = RunRecord.open(training, used, data.summary)
    base = model_config.model_name_or_path or record.once(
        "warm_start", lambda: build_warm_label_policy(args, training, data, label_format)
    )
    model, tokenizer = load_policy(base, **model_init_kwargs(model_config, training.use_cpu))
    judge = LabelJudge(model.to(training.device), tokenizer, label_format)

    longest = longest_prompt(model, judge.answer_tokens, args.max_prompt_tokens)
    train, prompts, dropped = drop_long(data.train.items, [(p,) for p in judge.encode(data.train)], longest)
    rows = alignment_rows(ItemSet(data.train.task, train), [prompt for (prompt,) in prompts])
    if of_pairs:
        held_out, held_out_prompts, lost = drop_long(pairs.held_out, judge.encoder.encode(pairs.held_out), longest)
        measure = partial(evaluate, judge, held_out, held_out_prompts, progress=True)
    else:
        held_out, both, lost = drop_long(data.held_out.items, [(p,) for p in judge.encode(data.held_out)], longest)
        held_out = ItemSet(data.held_out.task, held_out)
        measure = partial(evaluate_items, judge, held_out, [prompt for (prompt,) in both], progress=True)
    say(f"prompts over {longest} tokens, left out: {dropped} training items, {lost} held-out {args.data}")
    with gathered(model):
        before = measure()

    start_tracking(training, used, record.run)
    trainer = AlignmentTrainer(
        model, training, judge.tree, tokenizer.pad_token_id, train_dataset=Dataset.from_list(rows)
    )
    trained = run_training(trainer, record)

    judge.model = trainer.accelerator.unwrap_model(trainer.model)
    after = measure()
    trainer.save_model()
    if training.process_index == 0:
        tokenizer.save_pretrained(output_dir)
        judge.save_format(output_dir)
        write, table = (write_run, summary_table) if of_pairs else (write_item_run, item_table)
        write(output_dir, before, after, training_seconds=trained.metrics["train_runtime"])
        say(f"\n{table(before, after)}\n\nin {output_dir}: metrics.json, predictions.jsonl and the judge")
        if of_pairs:
            write_report(output_dir, before, after, title="Distribution alignment", settings=used)
    record.mark("report")


if __name__ == "__main__":
    run_script(main)
