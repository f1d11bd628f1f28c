"""The cost of a W&B server that stops answering: training seconds relative to W&B offline.

    python benchmarks/tracker_outage.py
    python benchmarks/tracker_outage.py --n_runs 8 --max_steps 300

    offline   `WANDB_MODE=offline`
    silent    W&B's client against `benchmarks/harness/fake_wandb.py`, which accepts a run and, from its first logged
              step on, accepts connections without answering

Runs of `recipes/grpo.py` that log every step alternate; each pair of runs gives a ratio, and the median is reported.
`seconds` is wall time of the training, `processor_seconds` the processor time of the whole process; on a shared
machine the second is more stable.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from harness.fake_wandb import FakeWandb

from autorater.models.libraries import quiet_libraries

SETTINGS = [
    "--n_train=2000", "--n_test=20", "--warm_start_steps=2", "--per_device_train_batch_size=8", "--logging_steps=1",
    "--policy_hidden_size=64", "--policy_num_layers=2", "--n_eval_pairs=0", "--save_strategy=no", "--report_to=wandb",
    "--use_cpu",
]  # fmt: skip


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_runs", type=int, default=5, help="Of each kind.")
    parser.add_argument("--max_steps", type=int, default=150, help="Of a run.")
    return parser.parse_args(argv)


def train(folder: Path, max_steps: int, server: FakeWandb | None) -> dict[str, float]:
    """Seconds of a run, with a silent server or offline."""
    from harness.interrupted import start

    os.environ.pop("WANDB_MODE", None)
    os.environ.update(server.env if server else {"WANDB_MODE": "offline"})
    child = start("recipes/grpo.py", [*SETTINGS, f"--max_steps={max_steps}", f"--output_dir={folder}"])
    log = folder / "log.jsonl"
    while server and not (log.exists() and log.read_text()):
        time.sleep(0.01)
    if server:
        server.silent.set()
    _, status, used = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"a run ended with status {os.waitstatus_to_exitcode(status)}")
    logged = sum("reward" in json.loads(line) for line in log.read_text().splitlines())
    if logged != max_steps:
        raise RuntimeError(f"{logged} of {max_steps} steps are in {log}")
    metrics = json.loads((folder / "metrics.json").read_text())
    return {"seconds": metrics["training_seconds"], "processor_seconds": used.ru_utime + used.ru_stime}


def main(argv: list[str] | None = None) -> dict:
    args = parse(argv)
    quiet_libraries()
    runs: dict[str, list[dict[str, float]]] = {"offline": [], "silent": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.n_runs):
            runs["offline"].append(train(Path(folder, f"offline{turn}"), args.max_steps, None))
            with FakeWandb() as server:
                runs["silent"].append(train(Path(folder, f"silent{turn}"), args.max_steps, server))
                if not server.seen_silent:
                    raise RuntimeError("W&B's client never met the silence; take more steps")
    result: dict[str, object] = {"n_runs": args.n_runs, "max_steps": args.max_steps}
    for name in ("seconds", "processor_seconds"):
        ratios = [silent[name] / offline[name] for offline, silent in zip(*runs.values(), strict=True)]
        result |= {f"{name}_{kind}": [round(run[name], 2) for run in turns] for kind, turns in runs.items()}
        result[f"{name}_ratio"] = round(statistics.median(ratios), 4)
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    main()
