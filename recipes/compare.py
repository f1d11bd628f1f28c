"""Run several recipes, each with its settings, and write one table of their results.

    python recipes/compare.py --config recipes/configs/compare_dense.yaml      # five ways to train on vote shares
    python recipes/compare.py --config recipes/configs/compare_align.yaml      # alignment and its ablations

The config lists the runs. A recipe gets the options of `common`, of the group and of the run; later ones override
earlier ones. `recipe` is the name of the recipe, `settings` its base config, `start_from` an earlier run whose warm
start it shares. A run with a metrics.json is not executed again; one with other settings is refused. Writes one folder
per run and comparison.md to output_dir.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

from autorater.cli import run_script
from autorater.data.config_file import as_list, as_mapping, read_config
from autorater.data.errors import UserError
from autorater.evaluation.results import prepare_output_dir
from autorater.report.tables import markdown_table

RECIPES = Path(__file__).parent
KEYS = {"output_dir", "seeds", "columns", "before", "common", "groups", "runs"}
SETTINGS = "settings.yaml"  # of a run, in its folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="The runs to compare, a YAML file.")
    parser.add_argument("--output_dir", help="Overrides the config's.")
    args = parser.parse_args()
    plan = _read_plan(args.config)
    folder = prepare_output_dir(args.output_dir or plan["output_dir"])

    groups, seeds = plan["groups"] or {"": None}, plan["seeds"]
    jobs = [(group, seed, name) for group in groups for seed in seeds for name in plan["runs"]]
    runs = [_prepared(plan, folder, *job) for job in jobs]
    results: dict[tuple[str, str], list[dict]] = {}
    for (group, _, name), run in zip(jobs, tqdm(runs, desc="runs", unit="run"), strict=True):
        results.setdefault((group, name), []).append(_metrics(*run))
    table = _table(plan["columns"], plan.get("before"), results)
    (folder / "comparison.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def _read_plan(path: Path) -> dict:
    """The plan with its optional parts filled in; a `UserError` names what is wrong with it."""
    plan = read_config(path)
    if unknown := set(plan) - KEYS:
        raise UserError(f"{path}: unknown key {sorted(unknown)[0]!r}; known: {', '.join(sorted(KEYS))}")
    if missing := [key for key in ("output_dir", "columns", "runs") if not plan.get(key)]:
        raise UserError(f"{path}: no {', '.join(missing)}")
    for key in ("common", "groups", "runs", "columns"):
        plan[key] = as_mapping(plan.get(key), f"{path}: {key}")
    plan["seeds"] = as_list(plan.get("seeds", [0]), f"{path}: seeds")
    for key in ("groups", "runs"):
        plan[key] = {name: as_mapping(part, f"{path}: {key}: {name}") for name, part in plan[key].items()}
    return plan


def _prepared(plan: dict, folder: Path, group: str, seed: int, name: str) -> tuple[str, str, dict]:
    """A run's name, recipe and settings; a `UserError` if they are wrong, or not those of a finished run."""
    options = {**plan["common"], **plan["groups"].get(group, {}), **plan["runs"][name], "seed": seed}
    recipe, start, base = options.pop("recipe", None), options.pop("start_from", None), options.pop("settings", None)
    if not (RECIPES / f"{recipe}.py").is_file():
        raise UserError(f"run {name!r}: recipe: expected the name of a recipe in {RECIPES}, got {recipe!r}")
    place = folder / (group or "all") / str(seed)
    output_dir = place / name.replace(" ", "_")
    settings = read_config(RECIPES / "configs" / base) if base else {}
    settings |= {**options, "output_dir": str(output_dir), "run_name": f"{seed} {name}"}
    places = {"output_dir"}  # a folder of results can be moved
    if start is not None:
        names = list(plan["runs"])
        if start not in names[: names.index(name)]:
            raise UserError(f"run {name!r}: start_from: {start!r} is not a run before it")
        settings["model_name_or_path"] = str(place / start.replace(" ", "_") / "warm_start")
        places.add("model_name_or_path")
    if (output_dir / "metrics.json").exists():
        used = read_config(output_dir / SETTINGS)
        if changed := sorted(k for k in (used | settings).keys() - places if used.get(k) != settings.get(k)):
            values = f"{changed[0]} was {used.get(changed[0])!r}, is {settings.get(changed[0])!r}"
            raise UserError(f"{output_dir} has the results of other settings ({values}); move it or set --output_dir")
    return name, recipe, settings


def _metrics(name: str, recipe: str, settings: dict) -> dict:
    """Metrics of one run, which is executed if it has none."""
    output_dir = Path(settings["output_dir"])
    metrics = output_dir / "metrics.json"
    if not metrics.exists():
        output_dir.mkdir(parents=True, exist_ok=True)
        config = output_dir / SETTINGS
        config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        with (output_dir / "log.txt").open("w", encoding="utf-8") as log:
            command = [sys.executable, str(RECIPES / f"{recipe}.py"), "--config", str(config)]
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise UserError(f"run {name!r} failed, see {log.name}")
    return json.loads(metrics.read_text(encoding="utf-8"))


def _table(columns: dict[str, str], before: str | None, results: dict[tuple[str, str], list[dict]]) -> str:
    """Markdown table: means over the seeds, with standard deviations for several seeds."""
    rows, last = [], None
    for (group, name), metrics in results.items():
        label = f"{group}: " if group else ""
        if before and group != last:
            rows.append(_row(label + before, metrics, "before", columns))
        rows.append(_row(label + name, metrics, "after", columns))
        last = group
    return markdown_table(("", *columns.values()), rows)


def _row(name: str, metrics: list[dict], when: str, columns: dict[str, str]) -> list[str]:
    entries = [name]
    for key in columns:
        values = [m.get(f"{when}/{key}", m.get(key) if when == "after" else None) for m in metrics]
        known = [value for value in values if value is not None]
        digits = 0 if key == "training_seconds" else 4
        spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
        entries.append(f"{np.mean(known):.{digits}f}{spread}" if known else "")
    return entries


if __name__ == "__main__":
    run_script(main)
