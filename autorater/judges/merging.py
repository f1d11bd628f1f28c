"""`autorater merge`: an adapter merged into its base model, a judge that loads and trains as any plain model."""

import argparse
import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from autorater.data.atomic import write_json
from autorater.data.errors import UserError, disk_problem

if TYPE_CHECKING:
    from peft import PeftModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "judge", metavar="JUDGE", help="folder or Hub name of an adapter, such as a run with --use_peft"
    )
    parser.add_argument("out", metavar="OUT", help="new folder of the merged model, in float32")


def run(args: argparse.Namespace) -> None:
    """Merges and says where; errors as in `merge_adapter`."""
    merge_adapter(args.judge, args.out)
    print(f"{args.out}: {args.judge} with its base model, for Judge.from_pretrained or --model_name_or_path")


def merge_adapter(name_or_path: str, folder: str | Path) -> None:
    """Writes an adapter and its base model as one model, with the prompt format of the judge, to a new folder.

    The weights are merged and saved in float32. A second adapter can then be trained on top. Embeddings and output
    head that share their weights, one of them adapted, become two matrices.

    Raises:
        UserError: If the name holds no adapter, the folder is not empty, a file, or cannot be written, or the model
            cannot be loaded.
    """
    try:
        from autorater.models.libraries import quiet_libraries

        quiet_libraries()
        from autorater.judges.saved import FORMAT_FILE, read_format  # torch, which help must not wait for
        from autorater.models.loading import is_adapter, load_policy
        from autorater.models.saving import make_readable
    except ImportError as error:
        raise UserError(f"merging requires torch, transformers and peft ({error}): autorater-rl[train]") from None

    folder, saved = Path(folder), read_format(name_or_path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty, or a file; expected a new folder for the merged model")
    if not is_adapter(name_or_path):
        raise UserError(f"{name_or_path} has no adapter_config.json, so there is no adapter to merge")
    model, tokenizer = load_policy(name_or_path, dtype="float32")
    _untie_adapted(model)
    merged = model.merge_and_unload()
    try:
        merged.save_pretrained(folder)
        make_readable(folder)
        tokenizer.save_pretrained(folder)
        if saved:
            write_json(Path(folder, FORMAT_FILE), saved)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)  # it was new, and the same command must find it so again
        if (problem := disk_problem(error)) is None:
            raise
        raise UserError(f"{folder} cannot be written ({problem})") from error


def _untie_adapted(model: "PeftModel") -> None:
    """Copies the weights that embeddings and head share if one of them is adapted: PEFT would merge it into both."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_adapted = isinstance(embeddings, BaseTunerLayer) or isinstance(head, BaseTunerLayer)
    if is_adapted and head.weight is embeddings.weight:
        plain = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
        plain.weight, model.config.tie_word_embeddings = copy.deepcopy(plain.weight), False
