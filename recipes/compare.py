"""Run several recipes, each with its settings, and write one table of their results.

    python recipes/compare.py --config recipes/configs/compare_dense.yaml      # five ways to train on vote shares
    python recipes/compare.py --config recipes/configs/compare_align.yaml      # alignment and its ablations

The config lists the runs. A recipe gets the options of `common`, of the group and of the run; later ones override
earlier ones. `recipe` is the name of the recipe, `settings` its base config, `start_from` an earlier run whose warm
start it shares. A finished run is not executed again; one with other settings or data files is refused. The same
command resumes a stopped comparison, also within a run. Writes one folder per run and comparison.md to output_dir.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from autorater.cli import run_script
from autorater.data.atomic import read_json, write_json, write_text
from autorater.data.config_file import as_list, as_mapping, read_config
from autorater.data.errors import UserError, refuse_several_processes
from autorater.data.tables import check_data_files
from autorater.evaluation.results import METRICS, prepare_output_dir
from autorater.judges.identity import contents_of
from autorater.judges.options import CommandParser
from autorater.report.tables import markdown_table
from autorater.training.checkpointing.stages import is_finished, read_record
from autorater.training.recipe_process import RESUMABLE, SETTINGS, run_recipe

RECIPES = Path(__file__).parent
KEYS = {"output_dir", "seeds", "columns", "before", "common", "groups", "runs"}
CONTENTS = "contents.json"  # in the folder of a run: SHA-256 of the files that its settings name
UNREADABLE = "move its folder away, and the run is executed again"


def main() -> None:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="The runs to compare, a YAML file.")
    parser.add_argument("--output_dir", help="Overrides the config's.")
    args = parser.parse_args()
    refuse_several_processes()
    plan = _read_plan(args.config)
    folder = prepare_output_dir(args.output_dir or plan["output_dir"])

    groups, seeds = plan["groups"] or {"": None}, plan["seeds"]
    jobs = [(group, seed, name) for group in groups for seed in seeds for name in plan["runs"]]
    runs = [_prepared(plan, folder, *job) for job in jobs]
    for recipe, settings in runs:
        if not _is_finished(recipe, Path(settings["output_dir"])):
            check_data_files(settings, args.config)
    results: dict[tuple[str, str], list[dict]] = {}
    for (group, _, name), run in zip(jobs, tqdm(runs, desc="runs", unit="run"), strict=True):
        results.setdefault((group, name), []).append(_metrics(*run))
    table = _table(plan["columns"], plan.get("before"), results)
    print(table)
    write_text(folder / "comparison.md", table + "\n")


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


def _prepared(plan: dict, folder: Path, group: str, seed: int, name: str) -> tuple[str, dict]:
    """A run's recipe and settings; a `UserError` if they are wrong, or not those of a finished run."""
    options = {**plan["common"], **plan["groups"].get(group, {}), **plan["runs"][name], "seed": seed}
    recipe, start, base = options.pop("recipe", None), options.pop("start_from", None), options.pop("settings", None)
    if not (RECIPES / f"{recipe}.py").is_file():
        raise UserError(f"run {name!r}: recipe: expected the name of a recipe in {RECIPES}, got {recipe!r}")
    place = folder / (group or "all") / str(seed)
    output_dir = place / name.replace(" ", "_")
    settings = read_config(RECIPES / "configs" / base) if base else {}
    settings |= {**options, "output_dir": str(output_dir), "run_name": f"{seed} {name}"}
    if start is not None:
        names = list(plan["runs"])
        if start not in names[: names.index(name)]:
            raise UserError(f"run {name!r}: start_from: {start!r} is not a run before it")
        settings["model_name_or_path"] = str(place / start.replace(" ", "_") / "warm_start")
    finished = _is_finished(recipe, output_dir)
    if finished or (recipe in RESUMABLE and read_record(output_dir)):
        used, now = read_config(output_dir / SETTINGS), settings
        if (output_dir / CONTENTS).exists():  # older versions wrote none
            used, now = used | read_json(output_dir / CONTENTS, UNREADABLE), now | contents_of(settings)
        if start is not None:
            used, now = _with_start(used), _with_start(now)
        # a folder of results can be moved
        if changed := sorted(k for k in (used | now).keys() - {"output_dir"} if used.get(k) != now.get(k)):
            values = f"{changed[0]} was {used.get(changed[0])!r}, is {now.get(changed[0])!r}"
            what = "the results" if finished else "an unfinished run"
            raise UserError(f"{output_dir} has {what} of other settings ({values}); move it or set --output_dir")
    return recipe, settings


def _with_start(settings: dict) -> dict:
    """Settings with the name of the run that a run starts from, in place of a folder that can be moved."""
    model = Path(str(settings.get("model_name_or_path")))
    return settings | {"model_name_or_path": model.parent.name} if model.name == "warm_start" else settings


def _is_finished(recipe: str, output_dir: Path) -> bool:
    return is_finished(output_dir) if recipe in RESUMABLE else (output_dir / METRICS).exists()


def _metrics(recipe: str, settings: dict) -> dict:
    """Metrics of one run, which is executed or resumed if it is not finished."""
    output_dir = Path(settings["output_dir"])
    if not _is_finished(recipe, output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / CONTENTS, contents_of(settings))
        run_recipe(RECIPES / f"{recipe}.py", settings)
    return read_json(output_dir / METRICS, UNREADABLE)


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
