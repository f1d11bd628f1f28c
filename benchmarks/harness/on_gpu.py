"""All measurements on one GPU, one part after the other; see `benchmarks/on_gpu.sh`.

A part is a script in a process of its own, with a time limit: its seconds and what the parts before it left of theirs.
One that fails or takes too long is reported in the table and does not stop the others. Parts that no time is left for
are reported as not run.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
_LIMIT_SECONDS = 480


@dataclass(frozen=True)
class Part:
    """A script and its arguments on a GPU and in small; `seconds`: its share of the time on a GPU."""

    name: str
    script: str
    on_gpu: str
    tiny: str
    seconds: int


_SMALL = "--device cpu --shape small --hidden_size 32 --num_layers 1 --repeats 1"
_BEGINNING = f"{_SMALL} --pairs 2 --common_tokens 200 --own_tokens 60 --gradient_checkpointing"
_STEP = f"{_SMALL} --prompt_tokens 128 --num_generations 4 --completion_tokens 3"
_JUDGE = f"{_SMALL} --prompt_tokens 400 --n_pairs 2 --generate_batch_sizes 2 --answer_step 0.1"
_RECIPE = "--report_to none --save_strategy no --disable_tqdm true --logging_steps 10 --eval_strategy no"
PARTS = (  # the most important first; their seconds add up to the limit of all
    Part("exactness", "exactness.py", "--device cuda --shape qwen2.5-0.5b",
         "--device cpu --shape small --hidden_size 64 --num_layers 2", 50),
    Part("step 0.5 B", "grpo_step.py",
         "--device cuda --shape qwen2.5-0.5b --prompt_tokens 512 2048 --repeats 2", f"{_STEP} --answers exact", 80),
    Part("shared beginning 0.5 B", "shared_beginning.py",
         "--device cuda --shape qwen2.5-0.5b --gradient_checkpointing --repeats 3", f"{_BEGINNING} --no-memory", 50),
    Part("judging 0.5 B", "judge_throughput.py",
         "--device cuda --shape qwen2.5-0.5b --prompt_tokens 512 2048 --n_pairs 64 --repeats 1 "
         "--generate_batch_sizes 64 128", _JUDGE, 60),
    Part("default recipe", "../recipes/grpo.py",
         f"{_RECIPE} --max_steps 100 --warm_start_steps 300 --n_train 3000 --n_test 300",
         f"{_RECIPE} --max_steps 6 --logging_steps 2 --warm_start_steps 60 --n_train 200 --n_test 20 --use_cpu "
         "--per_device_train_batch_size 4 --policy_hidden_size 32 --policy_num_layers 1", 50),
    Part("step 7 B LoRA", "grpo_step.py",
         "--device cuda --shape qwen2.5-7b --lora_rank 16 --gradient_checkpointing --prompt_tokens 512 2048 "
         "--repeats 1 --no-memory", f"{_STEP} --lora_rank 2 --gradient_checkpointing --no-memory", 75),
    Part("shared beginning 7 B LoRA", "shared_beginning.py",
         "--device cuda --shape qwen2.5-7b --lora_rank 16 --gradient_checkpointing --repeats 1 --answers exact "
         "--pairs 8",
         f"{_BEGINNING} --lora_rank 2 --answers exact --dtype bfloat16", 45),
    Part("judging 7 B", "judge_throughput.py",
         "--device cuda --shape qwen2.5-7b --prompt_tokens 512 --n_pairs 32 --repeats 1 --generate_batch_sizes 64",
         f"{_JUDGE} --dtype bfloat16", 45),
    Part("repeated cache", "repeated_cache.py", "--device cuda --shape qwen2.5-0.5b --repeats 2",
         f"{_SMALL} --num_layers 4 --prompts 2 --prompt_tokens 60 --answer_step 0.5", 25),
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="In small, on a CPU.")
    parser.add_argument("--out", type=Path, default=Path("runs/on_gpu"), help="Folder of the results.")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    started, results = time.monotonic(), []

    def one(i: int) -> dict[str, object]:
        part = PARTS[i]
        left = _LIMIT_SECONDS - (time.monotonic() - started)
        if left < 5:
            return {"part": part.name, "status": "not run: no time left", "records": []}
        # a CPU may be shared, so in small only the sum counts
        limit = left if args.tiny else left - sum(later.seconds for later in PARTS[i + 1 :])
        print(f"{part.name}: at most {limit:.0f} s", file=sys.stderr, flush=True)
        return run(part, (part.tiny if args.tiny else part.on_gpu).split(), limit, args.out)

    with ThreadPoolExecutor(2 if args.tiny else 1) as pool:  # in small on two cores
        for result in pool.map(one, range(len(PARTS))):
            results.append(result)
            write(args.out, results)
    print((args.out / "results.md").read_text(encoding="utf-8"))
    return 1 if any(result["status"] != "ok" for result in results) else 0


def run(part: Part, options: list[str], limit: float, out: Path) -> dict[str, object]:
    """The part's records and how it ended; its stderr goes to a file of its own."""
    log = out / f"{part.name.replace(' ', '_')}.log"
    folder = out / "recipe"
    if part.script.endswith("recipes/grpo.py"):
        options = [*options, "--output_dir", str(folder)]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as errors, tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        try:
            command = [sys.executable, str(BENCHMARKS / part.script), *options]
            process = subprocess.Popen(command, stdout=printed, stderr=errors, start_new_session=True)
            code = process.wait(limit)
            status = "ok" if code == 0 else f"failed with exit status {code}; see {log.name}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too, which hold memory of the GPU
            process.wait()
            status = f"stopped after {limit:.0f} s; see {log.name}"
        printed.seek(0)
        lines = printed.read().splitlines()
    if "recipe" in part.name:
        records = recipe_records(folder) if status == "ok" else []
    else:
        records = [json.loads(line) for line in lines if line.startswith("{")]
    if status == "ok":
        status = _verdict(records)
    seconds = round(time.monotonic() - start, 1)
    return {"part": part.name, "status": status, "seconds": seconds, "options": options, "records": records}


def _verdict(records: list[dict[str, object]]) -> str:
    """`ok` if there are records, and none of results that should be equal and are not."""
    if not records:
        return "failed: it printed no records"
    different = sum(record.get("exact") is False for record in records)
    return f"failed: {different} of {len(records)} comparisons are not exact" if different else "ok"


def recipe_records(folder: Path) -> list[dict[str, object]]:
    """The metrics before and after training, and the learning curve."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    logs = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    curve = [[log["step"], log["reward"]] for log in logs if "reward" in log and "step" in log]
    chosen = {name: metrics.get(name) for name in ("before/brier", "after/brier", "before/ece", "after/ece")}
    return [{"benchmark": "recipe", **chosen, "reward_by_step": curve, "seconds": metrics.get("training_seconds")}]


_SHOWN = (
    "part", "family", "work", "answers", "ours", "parameters", "prompt_tokens", "dtype", "exact", "logps_difference",
    "gradient_difference", "ratio", "of_floor", "utilization", "memory_ratio", "peak_of_estimate", "before/brier",
    "after/brier", "reward_by_step",
)  # fmt: skip


def write(out: Path, results: list[dict[str, object]]) -> None:
    """`results.json`, and one table with a row a record in `results.md`."""
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    rows = ["| part | status | seconds | results |", "|---|---|---|---|"]
    device = None
    for result in results:
        for record in result["records"] or [{}]:
            device = device or (record.get("device") and {k: record.get(k) for k in ("device", "torch", "trl")})
            shown = ", ".join(f"{name} {_text(record[name])}" for name in _SHOWN if record.get(name) is not None)
            rows.append(f"| {result['part']} | {result['status']} | {result.get('seconds', '')} | {shown} |")
    title = ", ".join(f"{name} {value}" for name, value in (device or {}).items())
    (out / "results.md").write_text("\n".join([title, "", *rows]) + "\n", encoding="utf-8")


def _text(value: object) -> str:
    if isinstance(value, list):
        return " → ".join(f"{step}: {reward:.3f}" for step, reward in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
