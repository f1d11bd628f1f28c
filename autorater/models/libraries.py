"""Environment variables, log levels and warning filters of the training libraries."""

import logging
import os
import warnings

_NOISE = (  # about the libraries' own calls, which every run would print
    r"`(is_)?gradient_checkpointing` is deprecated",  # transformers, called by TRL and by itself
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # torch, called by itself
    r"`torch\.distributed\.\w+` is deprecated",  # torch, called by DeepSpeed
    r"Could not find a config file in .*\.gguf",  # PEFT, when it saves an adapter: no run changes the vocabulary
)


def quiet_libraries() -> None:
    """Makes the training libraries, imported after the call, print errors only; other warnings stay visible."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)

    import datasets
    import torch
    import transformers

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed searches for one, and warns
        if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
            import deepspeed

            # otherwise DeepSpeed compiles it in the first run, which takes two minutes and requires a compiler
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line for each of many retries
