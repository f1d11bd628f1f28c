"""A policy from scratch learns to answer with a label."""

from autorater.alignment.data import ItemData
from autorater.alignment.labels import LabelFormat, LabelTree
from autorater.prompts.encoder import PromptEncoder
from autorater.training.config import JudgeArguments
from autorater.training.warm_start import AnswerRow, WarmStartRun, learn_answers, new_policy, save_policy


def build_warm_label_policy(
    args: JudgeArguments, training: WarmStartRun, data: ItemData, label_format: LabelFormat
) -> str:
    """The same for a judge that is asked for labels.

    Returns:
        The folder it is saved in, `output_dir/warm_start`.
    """
    layout = label_format.text + "".join(f" {word}" for words in label_format.words for word in words)
    model, tokenizer = new_policy(args, training.seed, [item.texts for item in data.train.items], layout)
    if args.warm_start_steps:
        encoder = PromptEncoder(tokenizer, label_format)
        label_tokens = LabelTree(tokenizer, encoder.context, label_format.words).label_tokens
        prompts = encoder.encode_texts([item.texts for item in data.judged.items])
        rows: list[AnswerRow] = [
            {"prompt_ids": prompt.ids, "answer_ids": [*label_tokens[verdict], tokenizer.eos_token_id]}
            for prompt, verdict in zip(prompts, data.verdicts, strict=True)
            if len(prompt.ids) <= args.max_prompt_tokens
        ]
        learn_answers(
            model,
            tokenizer,
            rows,
            steps=args.warm_start_steps,
            batch_size=args.warm_start_batch_size,
            learning_rate=args.warm_start_learning_rate,
            growing=args.warm_start_verdicts == "lengths",
            seed=training.seed,
            use_cpu=training.use_cpu,
            output_dir=training.output_dir,
        )
    return save_policy(model, tokenizer, training.output_dir)
