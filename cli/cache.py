"""spacelite cache list | info | verify | remove."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from spacelite.errors import SpaceliteError
from spacelite.visible import visible_name

from . import console
from .options import CACHE_DIR, command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacelite.cache.folder import CacheState

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, inspect, verify and remove caches."
)


@app.command("list")
@command
def list_caches(*, cache_dir: Path = CACHE_DIR, as_json: bool = False) -> None:
    """List all caches: size, tokens, state and age, newest first; unfinished trainings; and the
    texts that estimators have embedded."""
    from spacelite.cache import encoding, folder
    from spacelite.files import absolute, human_bytes
    from spacelite.training import checkpoints

    states, trainings = folder.states(cache_dir), checkpoints.unfinished(cache_dir)
    if as_json:
        console.print_json(
            [
                {
                    **state.as_json(),
                    "unfinished_trainings": len(trainings.get(state.name, [])),
                    "unfinished_bytes": sum(trainings.get(state.name, [])),
                }
                for state in states
            ]
        )
        return
    if states:
        _print_states(states)
    else:
        console.say(f"no caches in {absolute(cache_dir)}: spacelite embed creates one")
    for name, sizes in trainings.items():
        console.say(
            f"{_trainings(len(sizes))} on {name} ({human_bytes(sum(sizes))}): run the same train "
            "command again to continue"
        )
    for store in encoding.stores(cache_dir):
        size = human_bytes(store.bytes)
        console.say(f"{store.folder.name}: {store.texts:,} texts of estimators, {size}")
    for state in states:
        if state.problem:
            console.note(state.problem, style="yellow")


def _print_states(states: Sequence[CacheState]) -> None:
    """Print a line for each cache, below its name where the terminal is too narrow for both."""
    from rich.text import Text

    from spacelite.files import human_bytes

    table = console.new_table("Cache", ">Examples", ">Tokens", ">Size", "State", ">Age")
    rows = []
    for state in states:
        layer = "" if state.layer in (None, -1) else f" (layer {state.layer})"
        rows.append(
            (
                Text(f"{state.name}{layer}"),
                f"{state.examples:,}",
                f"{state.tokens:,}",
                human_bytes(state.bytes),
                Text.from_markup(_state(state)),
                _age(time.time() - state.modified),
            )
        )
        table.add_row(*rows[-1])
    if console.fits(table):
        console.out().print(table)
        return
    for name, examples, tokens, size, shown, age in rows:
        console.say(name)
        counts = f"  {examples} examples, {tokens} tokens, {size}, "
        console.say(Text.assemble(counts, shown, f", {age} old"))


def _trainings(count: int) -> str:
    return f"{count} unfinished training{'s' if count > 1 else ''}"


def _state(state: CacheState) -> str:
    if state.problem:
        return "[red]unreadable[/]"
    # Rounded down: 99.9% of the tokens are not all of them.
    done = int(100 * state.tokens_done / state.tokens)
    shown = "[green]complete[/]" if state.complete else f"[yellow]{done}% done[/]"
    if state.layer_means not in (None, state.examples):
        shown += f"[yellow], layer means {int(100 * state.layer_means / state.examples)}%[/]"
    return shown


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds / size)}{unit}"
    return f"{max(0, int(seconds))}s"


@app.command()
@command
def info(name: str, *, cache_dir: Path = CACHE_DIR, as_json: bool = False) -> None:
    """Show a cache's spec and the sizes of its splits.

    Options:
        name: A cache's name, the beginning of it, or its path.
    """
    from spacelite.cache import folder, reuse
    from spacelite.cache.store import Cache

    path = folder.find(cache_dir, name)
    with Cache(path) as opened:
        examples = sum(map(len, opened.splits.values()))
        plan = reuse.read(path, opened.key, examples)
        names, first = opened.label_names, next(iter(opened.splits.values()))
        task = opened.task
        splits = {
            split: {
                "examples": len(stored),
                "tokens": stored.tokens,
                "done": int(stored.done.sum()),
                "labels": dict(
                    zip(names, task.label_counts(stored.labels, len(names)).tolist(), strict=True)
                ),
            }
            for split, stored in opened.splits.items()
        }
        content = {
            **folder.state(path).as_json(),
            "splits": splits,
            "width": first.width,
            "pooler": first.has_pooler,
            "layers": None if opened.layers is None else opened.layers.layers,
            "copied": plan.sources,
            "key": opened.key,
            "spec": opened.spec.as_json(),
        }
    if as_json:
        console.print_json(content)
        return
    rows = {"path": path, **{name: content[name] for name in ("width", "pooler", "layers")}}
    if plan.sources:
        rows["copied"] = [f"{count:,} texts from {name}" for name, count in plan.sources.items()]
    console.show_fields(path.stem, {**rows, "key": content["key"], **content["spec"]})
    table = console.new_table("Split", ">Examples", ">Tokens", ">Done", gap=2)
    for split, sizes in splits.items():
        table.add_row(split, *[f"{sizes[key]:,}" for key in ("examples", "tokens", "done")])
    console.out().print(table)
    counts = {split: sizes["labels"].items() for split, sizes in splits.items()}
    console.show_fields(
        "Labels",
        {
            split: [f"{visible_name(label)} {count:,}" for label, count in of_split]
            for split, of_split in counts.items()
        },
    )


@app.command()
@command
def verify(name: str, *, cache_dir: Path = CACHE_DIR, as_json: bool = False) -> None:
    """Recompute every checksum. The next embed computes only the damaged examples again.

    Options:
        name: A cache's name, the beginning of it, or its path.
    """
    from spacelite.cache import folder

    path = folder.find(cache_dir, name)
    with console.progress() as on_progress:
        damaged = folder.verify(path, lambda done, total: on_progress("verify", done, total))
    state = folder.state(path)
    if as_json:
        examples = [{"split": split, "example": example} for split, example in damaged]
        console.print_json({**state.as_json(), "damaged": examples})
    elif not damaged:
        checked = "all" if state.complete else f"{state.tokens_done:,} of"
        also = "" if state.layer_means is None else " and all layer means"
        console.say(f"{path.stem}: {checked} {state.tokens:,} tokens{also} are intact")
    else:
        for split, example in damaged:
            console.out().print(f"damaged: {split} example {example}")
    if damaged:
        raise SpaceliteError(
            f"{len(damaged)} damaged example{'s' if len(damaged) > 1 else ''} in {path.stem}: run "
            "its embed command again to compute just these"
        )


@app.command()
@command
def remove(name: str, *, cache_dir: Path = CACHE_DIR, as_json: bool = False) -> None:
    """Delete a cache file, damaged or not, or the texts of estimators. Runs trained on it stay.

    Options:
        name: The cache's whole name, or its path.
    """
    from spacelite.cache import encoding, folder
    from spacelite.files import human_bytes
    from spacelite.training import checkpoints

    stores = {store.folder.name: store for store in encoding.stores(cache_dir)}
    trainings = 0
    if name in stores:
        path, size = stores[name].folder, stores[name].bytes
        encoding.remove_store(path)
    else:
        path = folder.find(cache_dir, name, exact=True)
        name, size = path.stem, folder.state(path).bytes
        folder.remove(path)
        trainings = checkpoints.remove_all(cache_dir, name)
    if as_json:
        content = {"name": name, "path": path, "bytes": size, "unfinished_trainings": trainings}
        console.print_json(content)
    else:
        also = f" and {_trainings(trainings)} on it" if trainings else ""
        console.say(f"removed {name} ({human_bytes(size)}){also}")
