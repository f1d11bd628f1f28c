"""Environment variables and log levels of the training libraries; set them before the libraries are imported."""

import os
import warnings


def quiet_libraries() -> None:
    """Asks the training libraries to print only errors; call before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)

    import datasets
    import torch
    import transformers

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would search for one, and warn
        if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
            import deepspeed

            # DeepSpeed would compile it in the first run, for two minutes or in vain where there is no compiler
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
