"""spacelite train."""

from __future__ import annotations

import time
from pathlib import Path

import typer

import spacelite
from spacelite import ranks
from spacelite.errors import SpaceliteError

from . import console, studies
from .options import CACHE_DIR, comma_list, with_cache_dir
from .report import places, show_systems


def train(
    context: typer.Context,
    *,
    cache: str | None = None,
    layer: int | None = None,
    name: str | None = None,
    replace: bool = False,
    head: str = "space,linear",
    preset: str | None = None,
    search: bool = False,
    sweep: str | None = None,
    seeds: str = "1",
    no_baselines: bool = False,
    device: str = "auto",
    resume: bool = False,
    fresh: bool = False,
    each_run: bool = False,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Train heads on a cache, all in one pass.

    Options with (s) take comma lists: every combination is trained.

    Options:
        layer: The layer to train on, for data that were embedded with several. [default: the
            cache's]
        name: A name for the run, to use in place of its id; several runs are named NAME-1, NAME-2,
            ...
        replace: Take --name from the run that has it, which stays under its id.
        search: Keep only the best combination of settings by --monitor on validation: the worse
            half is dropped after an eighth, a quarter and a half of the epochs. Where --lr,
            --latent, --weight-decay or --blocks is not given, a list of values is tried.
        sweep: Train no heads: choose the layer and the pooling that a linear probe should read by
            --monitor, as spacelite sweep does; layers, pooling, or both with a comma between them.
        no_baselines: Leave out the baselines that show what a head is worth: tfidf, and logreg on
            the mean. They are fitted once for each cache.
        resume: Fail if an interrupted training cannot be continued. (If it can, it always is.)
        fresh: Train from the start, and delete what an interrupted training left.
        each_run: Print the metrics of each run on every split, in place of a line per system.
    """
    if sweep is not None:
        _sweep(context, sweep)
        return
    arguments = locals()
    arguments["head"] = comma_list("--head", head, str)
    started = time.perf_counter()
    with ranks.joined():
        runs = console.call(spacelite.train, arguments, baselines=not no_baselines, **context.obj)
    if as_json:
        console.print_json([run.record.as_json() for run in runs])
    elif runs:
        _print(runs, cache_dir, time.perf_counter() - started, each_run)
    refuse_stopped(runs)


def _sweep(context: typer.Context, over: str) -> None:
    """`spacelite sweep` with the options of this command that it has."""
    given = {
        name: value
        for name, value in context.params.items()
        if (source := context.get_parameter_source(name))
        and source.name in ("COMMANDLINE", "ENVIRONMENT")
    } | context.obj
    kept = {name: given.pop(name) for name in ("cache", "cache_dir", "as_json") if name in given}
    metric = given.pop("monitor", None)
    del given["sweep"]
    for name in given:
        raise SpaceliteError(
            f"{name}: it has no effect with sweep={over}, which trains no heads: leave one of them "
            "out",
            [name, "sweep"],
        )
    studies.sweep(over, metric=metric, **kept)


def refuse_stopped(runs: spacelite.Runs) -> None:
    """Raise SpaceliteError if heads diverged: part of what was asked for is missing."""
    if runs.stopped:
        raise SpaceliteError(
            f"{len(runs.stopped)} of {len(runs) + len(runs.stopped)} heads diverged and were not "
            f"saved ({'; '.join(runs.stopped)}): try a smaller learning_rate; if that does not "
            "help, spacelite cache verify checks the hidden states for damage",
            ["learning_rate"],
        )


def _print(runs: spacelite.Runs, cache_dir: Path, seconds: float, each_run: bool) -> None:
    from spacelite.runs.store import runs_folder

    table = runs.table(each_run=each_run, places=places())
    if each_run:
        console.show(table, ruled=False)
    else:
        console.say(table.caption, style="dim")
        show_systems(table)
    for sentence in filter(None, (runs.baseline, runs.thresholds, runs.search)):
        console.say(sentence)
    trained = len(runs) - runs.before
    names = [run.name for run in list(runs)[:trained] if run.name]
    some = f", {len(names)} of them" if len(names) < trained else ""
    named = f"{some} as {' to '.join(dict.fromkeys([names[0], names[-1]]))}" if names else ""
    plural = "s" if trained != 1 else ""
    kept = "the baseline is" if runs.before == 1 else "the baselines are"
    earlier = f" ({kept} from an earlier training)" if runs.before else ""
    listed = f", {with_cache_dir('spacelite runs list', cache_dir)} lists them"
    console.say(
        f"{trained} head{plural} trained in {seconds:.1f} s, saved in "
        f"{runs_folder(cache_dir)}{named}{earlier}; "
        f"{with_cache_dir('spacelite report', cache_dir)} compares them"
        f"{listed if len(table.lines) < len(runs) else ''}"
    )
