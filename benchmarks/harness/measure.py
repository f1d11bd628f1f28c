"""Measurements: alternating timings, peak memory, and the machine.

    time      one warm-up of every side, then A B A B …; temporary load slows all sides equally
    memory    growth of the peak: torch's allocator on a GPU, resident memory of a new process on a CPU

Deliberately left out: profiling.
"""

import argparse
import gc
import json
import multiprocessing
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import transformers

_STATUS, _CLEAR_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def machine_arguments() -> argparse.ArgumentParser:
    """Parent parser with `--device` and `--dtype`."""
    parser = argparse.ArgumentParser(add_help=False)
    has_gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if has_gpu else "cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="Default: bfloat16 on a GPU, float32 on a CPU."
    )
    return parser


def chosen_dtype(args: argparse.Namespace) -> torch.dtype:
    """The dtype of `machine_arguments`."""
    return getattr(torch, args.dtype or ("bfloat16" if args.device == "cuda" else "float32"))


def synchronize(device: str) -> None:
    """Waits for all work on the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], object], device: str) -> Callable[[], float]:
    """A side for `alternate`: calls `run` and returns the seconds it took."""

    def side() -> float:
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        return time.perf_counter() - start

    return side


def processed(run: Callable[[], object], device: str) -> Callable[[], float]:
    """As `timed`, on a CPU in processor time, which other programs do not lengthen."""
    if device == "cuda":
        return timed(run, device)

    def side() -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    return side


def alternate(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median seconds of every side, alternating after one warm-up each.

    Args:
        sides: Callables that return the seconds they took.
        repeats: Rounds that count, at least 1.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            took = side()
            say(f"  {'warm-up' if repeat == 0 else f'{repeat}/{repeats}'} {name}: {took:.3f} s")
            if repeat:
                seconds[name].append(took)
    return {name: statistics.median(values) for name, values in seconds.items()}


def in_fresh_process(function: Callable, *args):
    """Result of a module-level function, called in a new Python process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def with_free_memory(function: Callable, *args, device: str):
    """Result of a module-level function that calls `peak_growth`: on a CPU called in a new process.

    A GPU's allocator counts what is in use, so there this process serves, once earlier models are freed.
    """
    if device == "cpu":
        return in_fresh_process(function, *args)
    gc.collect()  # trainers refer to themselves
    result = function(*args)
    gc.collect()
    return result


def peak_growth(run: Callable[[], object], device: str) -> int | None:
    """Growth of peak memory in bytes while `run` runs.

    On a CPU, call it in a fresh process: a process keeps freed memory and would reuse it unnoticed.

    Returns:
        The growth, or None on a CPU without Linux.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not _CLEAR_PEAK.exists():
        return None
    _CLEAR_PEAK.write_text("5")  # the peak starts again from the present level
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text()).group(1))


def ratio(plain: float | None, ours: float | None) -> float | None:
    """plain / ours; None where one is missing or ours is 0."""
    return plain / ours if plain is not None and ours else None


def machine(device: str, dtype: torch.dtype) -> dict[str, object]:
    """Hardware and versions of the measurements; of a package that is not installed None."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": _version("trl"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # only some benchmarks require trl
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def emit(record: Mapping[str, object]) -> None:
    """Prints one JSON line, numbers to six significant digits."""
    print(json.dumps(_rounded(record), ensure_ascii=False), flush=True)


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
