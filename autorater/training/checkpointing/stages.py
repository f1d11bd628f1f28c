"""`run.json`: which stages of a run are completed, and with which settings. Needs no torch."""

import json
from pathlib import Path

from autorater.evaluation.results import RECORD
from autorater.training.checkpointing.checkpoints import CheckpointError

WARM_START, EVALUATED, REPORT = "warm_start", "before", "report"


def read_record(folder: str | Path) -> dict | None:
    """The content of `run.json` in the folder of a run; None without one, CheckpointError if it is damaged."""
    path = Path(folder, RECORD)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"run", "settings", "completed"} <= record.keys():
        raise CheckpointError(
            f"{path} is damaged: expected a JSON object with run, settings and completed; move the folder away, or "
            "choose another output_dir"
        )
    return record


def is_finished(folder: str | Path) -> bool:
    """Whether a folder holds a finished run, with its report; errors as in `read_record`."""
    record = read_record(folder)
    return record is not None and REPORT in record["completed"]
