"""spacelite runs list | show | name | verify | remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from spacelite.document import decimals
from spacelite.errors import SpaceliteError
from spacelite.files import absolute, human_bytes

from . import console
from .options import CACHE_DIR, command

if TYPE_CHECKING:
    from spacelite.runs.store import Run

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, show, name, verify and remove runs."
)

FIGURES = {"accuracy": "acc.", "f1_macro": "F1"}
SPLITS = {"validation": "Val.", "test": "Test"}
# Columns, first those that a narrow terminal does without if names of systems need the room.
DISPENSABLE = ("Size", "Val.\nF1", "Val.\nacc.", "Saved", "Test\nacc.")


@app.command("list")
@command
def list_runs(
    *,
    cache: str | None = None,
    dataset: str | None = None,
    head: list[str] | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """List runs, newest first: what differs between them, and how good they are.

    Options:
        cache: Only runs on this cache.
        dataset: Only runs on this data set.
        head: Only heads of this kind; may be repeated.
    """
    from spacelite.heads.config import system_names
    from spacelite.reports.analysis.groups import select
    from spacelite.runs import store as runs

    saved = runs.load_all(cache_dir)
    if saved:
        saved = select(saved, cache=cache, dataset=dataset, head=head or [])
    if as_json:
        console.print_json(runs.rows(saved))
        return
    if not saved:
        console.say(f"no runs in {absolute(cache_dir)}: spacelite train saves some")
        return
    by_cache: dict[str, list[Run]] = {}
    for run in runs.newest_first(saved):
        by_cache.setdefault(run.record.cache, []).append(run)
    for number, (name, members) in enumerate(by_cache.items()):
        if number:
            console.out().print()
        heads, trainings = ([run.head for run in members], [run.record.training for run in members])
        _print_runs(name, members, system_names(heads, trainings))


def _print_runs(cache: str, members: Sequence[Run], systems: Sequence[str]) -> None:
    """Print the runs of one cache, a line each. A narrow terminal leaves out columns first, and
    then folds long names of `systems`."""
    wide = console.out().width >= 100
    names = [run.name or run.id.rpartition("--")[2] for run in members]
    columns = {name: values for name, values in _columns(members, wide).items() if any(values)}
    gap = 2 if wide else 1

    def room() -> int:
        """Columns of the terminal that are left for names of systems."""
        shown = [names, *([*heading.split("\n"), *of] for heading, of in columns.items())]
        return console.out().width - 2 - sum(max(map(len, of)) + gap for of in shown)

    every = list(columns)
    for heading in DISPENSABLE:
        if room() < max(map(len, systems)):
            columns.pop(heading, None)
    table = console.new_table(gap=gap - 1)
    table.add_column("Run", no_wrap=True)
    table.add_column("System", overflow="fold", max_width=max(room(), len("System")))
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, system, *values in zip(names, systems, *columns.values(), strict=True):
        table.add_row(Text(name), Text(system), *(value or "–" for value in values))
    console.out().print(Text(cache, style="bold"))
    console.out().print(table)
    console.say_left_out([heading for heading in every if heading not in columns])


def _columns(members: Sequence[Run], wide: bool) -> dict[str, list[str]]:
    """The columns after a run's system by heading; "" where a run has no value."""
    seeds, task = [run.record.seed for run in members], members[0].record.task
    columns = {"Seed": ["" if seed is None else str(seed) for seed in seeds]}
    for split, short in SPLITS.items():
        for metric in (task.headline, task.second):
            figure = FIGURES.get(metric, metric.upper())
            values = [run.record.metrics.get(split, {}).get(metric) for run in members]
            columns[f"{short}\n{figure}"] = [
                "" if value is None else task.metrics[metric].written(value, 4 if wide else 3)
                for value in values
            ]
    # 2026-11-24T23:15:00Z: without the seconds, or without year and time
    saved = [run.record.created for run in members]
    columns["Saved"] = [at[:16].replace("T", " ") if wide else at[5:10] for at in saved]
    columns["Size"] = [human_bytes(run.bytes, places=int(wide)) for run in members]
    return columns


def _short(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


@app.command()
@command
def show(
    run: str, *, threshold: str | None = None, cache_dir: Path = CACHE_DIR, as_json: bool = False
) -> None:
    """Show everything about a run: settings, data, metrics, evaluations on other data.

    Options:
        threshold WISH: Also show the thresholds that reach a figure on validation, and what they
            cost on test: precision=0.9, recall=0.95, accuracy=0.9; of one of two labels
            precision=0.9,label=NAME.
    """
    from spacelite.api.thresholds import from_text
    from spacelite.runs import store as runs

    loaded = runs.find(cache_dir, run)
    try:
        cache_file = runs.find_cache(loaded, cache_dir)
    except SpaceliteError:
        cache_file = None
    transfers = loaded.transfers()
    chosen = None if threshold is None else from_text(loaded, threshold)
    if as_json:
        content = {
            **loaded.record.as_json(),
            "path": str(loaded.folder),
            "bytes": loaded.bytes,
            "cache_file": cache_file and str(cache_file),
            "transfers": [asdict(transfer) for transfer in transfers],
            **({} if chosen is None else {"threshold": chosen.as_json()}),
        }
        console.print_json(content)
        return
    from spacelite.api.results import metrics_table

    _print_run(loaded, cache_file)
    task = loaded.record.task
    console.show(metrics_table(loaded.record.metrics, loaded.record.examples, task))
    for transfer in transfers:
        console.say(f"evaluated on {transfer.dataset} ({transfer.mapping})", style="bold")
        console.show(metrics_table(transfer.metrics, transfer.examples, task))
        if transfer.seen:
            console.say(transfer.seen)
    if chosen is not None:
        console.show(chosen.table())
        for note in chosen.notes:
            console.say(note)


def _print_run(run: Run, cache_file: Path | None) -> None:
    record = run.record
    versions = {name: version for name, version in record.versions.items() if version}
    content: dict[str, Any] = {
        "name": run.name or "none",
        "path": run.folder,
        "size": human_bytes(run.bytes),
        "saved": record.created,
        "head": record.system,
        "parameters": f"{record.train_params:,}",
        "settings": [
            f"{name.replace('_', ' ')} {_short(value)}"
            for name, value in record.settings.items()
            if value is not None and (name != "seed" or record.seed is not None)
        ],
        "thresholds": [f"{key} {decimals(value, 4)}" for key, value in record.thresholds.items()]
        or None,
        "best epoch": record.best_epoch,
        "training": f"{record.seconds:.1f} s, with {record.heads_in_pass} "
        f"head{'s' if record.heads_in_pass > 1 else ''} in the pass",
        "cache": record.cache,
        "cache file": cache_file or "not found",
        "data set": record.spec.dataset,
        "backbone": f"{record.spec.backbone} ({record.spec.backbone_version})",
        "layer": record.spec.layer,
        "max length": record.spec.max_length,
        "task": record.task.name,
        "labels": list(record.label_names),
        "versions": [f"{name} {version}" for name, version in versions.items()],
    }
    console.show_fields(
        run.id, {name: value for name, value in content.items() if value is not None}
    )


@app.command()
@command
def name(
    run: str,
    new_name: str | None = None,
    *,
    clear: bool = False,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Give a run a name, to use in place of its id.

    Options:
        new_name [NAME]: The name: letters, digits, dots, underscores and single dashes.
        clear: Remove the run's name instead.
    """
    from spacelite.runs import store as runs

    if (new_name is None) != clear:
        raise SpaceliteError("give a name, or --clear to remove the run's name")
    renamed = runs.rename(runs.find(cache_dir, run), new_name)
    if as_json:
        console.print_json({"id": renamed.id, "name": renamed.name})
    elif new_name is None:
        console.say(f"{renamed.id} has no name now")
    else:
        console.say(f"{renamed.id} is named {renamed.name}")


@app.command()
@command
def verify(
    runs: list[str] | None = None, *, cache_dir: Path = CACHE_DIR, as_json: bool = False
) -> None:
    """Check all files of runs: their checksums, and the metrics by the saved predictions.

    Options:
        runs [RUN]...: A run's id, a part of it that no other run has, its name, or its folder.
            [default: all runs]
    """
    from spacelite.runs import store

    named = [store.folder_of(cache_dir, name) for name in runs or []]
    rows: list[dict[str, Any]] = []
    for folder in dict.fromkeys(named or store.folders(cache_dir)):
        try:
            run = store.load(folder)
            sealed, problems = run.sealed, run.problems()
        except SpaceliteError as error:
            sealed, problems = False, [str(error)]
        rows.append({"id": folder.name, "checksums": sealed, "problems": problems})
        if as_json:
            continue
        for problem in problems:
            console.out().print(f"damaged: {problem}")
        if not problems:
            older = "" if sealed else " as far as can be told: an older version saved no checksums"
            console.say(f"{folder.name} is intact{older}")
    if as_json:
        console.print_json(rows)
    elif not rows:
        console.say(f"no runs in {cache_dir}: spacelite train saves some")
    if damaged := sum(bool(row["problems"]) for row in rows):
        raise SpaceliteError(f"{damaged} of {len(rows)} runs damaged: do what the lines above say")


@app.command()
@command
def remove(
    runs: list[str], *, yes: bool = False, cache_dir: Path = CACHE_DIR, as_json: bool = False
) -> None:
    """Delete runs, damaged or not. Their cache stays.

    Options:
        runs RUN...: A run's id, a part of it that no other run has, its name, or its folder.
        yes -y: Do not ask before removing.
    """
    from spacelite.runs import store

    folders = list(dict.fromkeys(store.folder_of(cache_dir, name) for name in runs))
    console.confirm([folder.name for folder in folders], "", yes, as_json)
    for folder in folders:
        store.remove(folder)
        if not as_json:
            console.say(f"removed {folder.name}")
    if as_json:
        console.print_json([{"id": folder.name, "path": str(folder)} for folder in folders])
