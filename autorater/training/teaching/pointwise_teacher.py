"""`warm_start_verdicts: pointwise`: a run trains its teacher first, a pointwise judge on the same votes.

The teacher is a run of its own, in the folder `teacher` of the output folder, with the settings of
recipes/configs/pointwise_humour.yaml; a resumed run resumes it or uses it. The judge begins from its weights and
learns to say its probabilities of any two training texts. Of votes that it was trained on, they are in-sample.
"""

from copy import copy
from dataclasses import replace
from pathlib import Path

from autorater.data.errors import UserError
from autorater.models.loading import is_adapter
from autorater.training.adapters import OF_ADAPTER
from autorater.training.arguments import JudgeArguments
from autorater.training.compatibility import POINTWISE
from autorater.training.config import JudgeGRPOConfig
from autorater.training.options import RunOptions
from autorater.training.warm_start import OF_MEMORY

FOLDER = "teacher"
_SETTINGS = {
    "judgment": "pointwise",
    "entropy_coef": 0.0,
    "batch_tokens": 1536,
    "num_train_epochs": 2,
    "lr_scheduler_type": "linear",
    "warmup_steps": 20,
    "report_to": "none",
}
_LEARNING_RATE = 4e-5  # of all weights; an adapter has its own default
_SHARED = (  # with the judge that is taught
    *("reward", "seed", "use_cpu", "bf16", "fp16", "bf16_full_eval", *OF_MEMORY),
    *("logging_steps", "save_strategy", "save_steps", "save_total_limit", "disable_tqdm"),
)
_OF_TEACHING = (
    *("warm_start_verdicts", "warm_start_steps", "warm_start_batch_size", "warm_start_learning_rate"),
    *("warm_start_sharpness", "train_only", "prompt_template"),
)


def teacher_run(options: RunOptions) -> RunOptions:
    """The options of the run that trains the teacher.

    Raises:
        UserError: If the judge would be its own teacher.
    """
    args, training, model_config, given = options
    if training.mode == POINTWISE:
        raise UserError("warm_start_verdicts: pointwise teaches a pairwise judge, and judgment is pointwise")
    adapts = model_config.use_peft or is_adapter(options.pretrained, model_config.model_revision)
    rate = {} if adapts else {"learning_rate": _LEARNING_RATE}
    shared = {name: getattr(training, name) for name in _SHARED}
    resume = "auto" if training.resume_from_checkpoint else None
    of_teacher = JudgeGRPOConfig(
        output_dir=str(Path(training.output_dir, FOLDER)), resume_from_checkpoint=resume, **shared, **rate, **_SETTINGS
    )
    untaught = {name: JudgeArguments.__dataclass_fields__[name].default for name in _OF_TEACHING}
    if args.recalibration_labels == "teacher":
        untaught["recalibration_labels"] = None
    known = {*given} & {"bf16", "fp16", *OF_ADAPTER}
    return RunOptions(replace(args, **untaught), of_teacher, copy(model_config), known)


def taught_by(folder: str, options: RunOptions) -> RunOptions:
    """The options of the judge that begins from the teacher in a folder and learns from it."""
    model_config = copy(options.model_config)
    model_config.model_name_or_path, model_config.model_revision = folder, None
    return options._replace(args=replace(options.args, warm_start_verdicts=folder), model_config=model_config)
