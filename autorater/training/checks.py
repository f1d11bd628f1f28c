"""What a run refuses before anything is loaded or written, whatever its mode (`compatibility` has the rest)."""

from pathlib import Path

from peft import PeftConfig
from transformers import Trainer, TrainingArguments
from transformers.utils import is_liger_kernel_available
from trl import ModelConfig
from trl.import_utils import is_vllm_available

from autorater.data.errors import UserError, first_line
from autorater.models.loading import base_of, is_adapter
from autorater.training.arguments import JudgeArguments
from autorater.training.config import refuse_remote_code, refuse_several_gpus
from autorater.training.tracking import check_trackers
from autorater.training.warm_start import check_warm_start

_REFUSED = {  # options that no run may set, and the reason
    "sync_ref_model": "a run that is stopped could not be resumed, because its checkpoints do not hold the reference "
    "model",
    "enable_jit_checkpoint": "no effect; a run always saves a checkpoint when SIGTERM or Ctrl-C stops it",
    "save_only_model": "its checkpoints cannot be resumed; save_total_limit: 1 keeps only the last one, and "
    "save_strategy: no saves one only when a signal stops the run",
}

_BUILT_FROM_MODEL = ("galore", "apollo", "lomo")  # in names of optimizers of which only the package is checked


def check_run(args: JudgeArguments, training: TrainingArguments, model_config: ModelConfig) -> None:
    """Checks the options of a run before anything is loaded or written.

    Raises:
        UserError: If options are not compatible, a package that they need is not installed, one process sees several
            GPUs, or the run would overwrite the model that it begins from, its base model or its teacher.
    """
    if args.train_only and model_config.use_peft:
        raise UserError("train_only selects parameters of the model; for an adapter set lora_target_modules")
    _check_reference(training, model_config)
    refuse_several_gpus(training)
    refuse_remote_code(training)
    _refuse_evaluations(training)
    for name, reason in _REFUSED.items():
        if getattr(training, name, False):
            raise UserError(f"{name}: {reason}")
    weights = getattr(training, "reward_weights", None)
    if weights is not None and len(weights) != 1:
        raise UserError(f"reward_weights: got {len(weights)} numbers; expected one, that of reward")
    check_warm_start(args, training, bool(model_config.model_name_or_path))
    _check_recalibration(args)
    check_trackers(training)
    _check_packages(training)
    check_optimizer(training)
    _check_output_dir(args, training, model_config)


def _check_reference(training: TrainingArguments, model_config: ModelConfig) -> None:
    revision = model_config.model_revision
    if getattr(training, "beta", 0) and not model_config.use_peft and revision not in (None, "main"):
        raise UserError(
            f"beta: TRL loads the reference model as revision main, not {revision}; download that revision and name "
            "its folder, or set beta: 0"
        )


def _refuse_evaluations(training: TrainingArguments) -> None:
    """Refuses the evaluations of transformers."""
    for name, default in {"eval_strategy": "no", "eval_on_start": False}.items():
        if (value := getattr(training, name, default)) != default:
            raise UserError(
                f"{name}: {getattr(value, 'value', value)}: a run judges all held-out pairs before the training and "
                f"n_eval_pairs of them every eval_steps steps; leave {name} out, and set eval_steps"
            )


def _check_recalibration(args: JudgeArguments) -> None:
    judges_pairs = args.teacher == "pointwise" or (args.teacher and Path(args.teacher).is_dir())
    if args.temperature_labels == "teacher" and not judges_pairs:
        raise UserError(
            "recalibration_labels: teacher requires a teacher that judges any pair, warm_start_verdicts: pointwise or "
            f"the folder of a trained judge; got {args.warm_start_verdicts}"
        )


def _check_packages(training: TrainingArguments) -> None:
    if getattr(training, "use_liger_kernel", False) and not is_liger_kernel_available():
        raise UserError("use_liger_kernel: liger-kernel is not installed: pip install liger-kernel")
    if getattr(training, "use_vllm", False) and not is_vllm_available():
        raise UserError(
            "use_vllm: vLLM is not installed; it requires other versions than constraints.txt has: "
            'pip install ".[train]" vllm==0.31.0'
        )


def check_optimizer(training: TrainingArguments) -> None:
    """Raises a UserError if the package of an optimizer is not installed, or its options are wrong."""
    name = training.optim.value
    try:
        Trainer.get_optimizer_cls_and_kwargs(training)
    except (ImportError, ValueError) as error:
        if isinstance(error, ImportError) or not any(part in name for part in _BUILT_FROM_MODEL):
            settings = f"optim: {name}" + (f", optim_args: {training.optim_args}" if training.optim_args else "")
            raise UserError(f"{settings}: {first_line(error)}") from None


def _check_output_dir(args: JudgeArguments, training: TrainingArguments, model_config: ModelConfig) -> None:
    """Refuses the folder of a model that the run needs."""
    start, output_dir = model_config.model_name_or_path, Path(training.output_dir)
    folders = {"model_name_or_path": start, "warm_start_verdicts": args.teacher}
    if start and Path(start).is_dir() and is_adapter(start):
        base = PeftConfig.from_pretrained(start).base_model_name_or_path
        folders["the base model of its adapter"] = base_of(start, base)
    for name, folder in folders.items():
        if folder and Path(folder).is_dir() and output_dir.is_dir() and output_dir.samefile(folder):
            raise UserError(
                f"output_dir: {output_dir} is the folder of {name}, which this run would overwrite; choose another"
            )
