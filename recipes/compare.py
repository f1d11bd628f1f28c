"""Run several recipes, each with its settings, and write one table of their results.

    python recipes/compare.py --config recipes/configs/compare_dense.yaml      # five ways to train on vote shares
    python recipes/compare.py --config recipes/configs/compare_align.yaml      # alignment and its ablations

The config lists the runs. A recipe gets the options of `common`, of the group and of the run; later ones override
earlier ones. `recipe` is the name of the recipe, `settings` its base config, `start_from` another run whose warm start
it shares. A run with a metrics.json is not executed again. Writes one folder per run and comparison.md to output_dir.
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
from autorater.data.errors import UserError
from autorater.evaluation.results import prepare_output_dir
from autorater.report.tables import markdown_table

RECIPES = Path(__file__).parent
KEYS = {"output_dir", "seeds", "columns", "before", "common", "groups", "runs"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="The runs to compare, a YAML file.")
    parser.add_argument("--output_dir", help="Overrides the config's.")
    args = parser.parse_args()
    plan = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    if unknown := set(plan) - KEYS:
        raise UserError(f"{args.config}: unknown key {sorted(unknown)[0]!r}; known: {', '.join(sorted(KEYS))}")
    folder = prepare_output_dir(args.output_dir or plan["output_dir"])

    groups, seeds = plan.get("groups") or {"": {}}, plan.get("seeds", [0])
    jobs = [(group, seed, name) for group in groups for seed in seeds for name in plan["runs"]]
    results: dict[tuple[str, str], list[dict]] = {}
    for group, seed, name in tqdm(jobs, desc="runs", unit="run"):
        options = {**plan.get("common", {}), **groups[group], **plan["runs"][name], "seed": seed}
        place = folder / (group or "all") / str(seed)
        results.setdefault((group, name), []).append(_run(place, name, options))
    table = _table(plan["columns"], plan.get("before"), results)
    (folder / "comparison.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def _run(place: Path, name: str, options: dict) -> dict:
    """Metrics of one run, which is executed if it has none."""
    output_dir = place / name.replace(" ", "_")
    metrics = output_dir / "metrics.json"
    if not metrics.exists():
        output_dir.mkdir(parents=True, exist_ok=True)
        recipe, start, base = options.pop("recipe"), options.pop("start_from", None), options.pop("settings", None)
        settings = yaml.safe_load((RECIPES / "configs" / base).read_text(encoding="utf-8")) if base else {}
        settings |= {**options, "output_dir": str(output_dir), "run_name": f"{place.name} {name}"}
        if start is not None:
            settings["model_name_or_path"] = str(place / start.replace(" ", "_") / "warm_start")
        config = output_dir / "settings.yaml"
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
