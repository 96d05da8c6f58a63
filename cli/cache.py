"""spacelite cache list | info | verify | remove."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

import spacelite
from spacelite.errors import SpaceliteError
from spacelite.files import absolute, human_bytes

from . import console, embed
from .options import CACHE_DIR, command

if TYPE_CHECKING:
    from spacelite.cache.encoding import StoreState
    from spacelite.cache.folder import CacheState

UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60}  # of times, in seconds

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, inspect, verify and remove caches."
)


@app.command("list")
@command
def list_caches(*, cache_dir: Path = CACHE_DIR, as_json: bool = False) -> None:
    """List all caches: size, tokens, state and age, newest first; unfinished trainings; and the
    texts that estimators have embedded."""
    from spacelite.cache import encoding, folder
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
    table = console.new_table("Cache", ">Examples", ">Tokens", ">Size", "State", ">Age")
    rows = []
    for state in states:
        unusual = [*([] if state.layer in (None, -1) else [f"layer {state.layer}"]),
                   *([] if state.dtype in (None, "float16") else [state.dtype]),
                   *([] if state.reduced is None else [f"{state.reduced} dimensions"])]  # fmt: skip
        rows.append(
            (
                Text(f"{state.name} ({', '.join(unusual)})" if unusual else state.name),
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
    for unit, size in UNITS.items():
        if seconds >= size and unit != "w":
            return f"{int(seconds / size)}{unit}"
    return f"{max(0, int(seconds))}s"


@app.command()
@command
def info(name: str, *, cache_dir: Path = CACHE_DIR, as_json: bool = False) -> None:
    """Show a cache's spec and the sizes of its splits.

    Options:
        name: A cache's name, a part of it that no other has, or its path.
    """
    from spacelite.cache import folder, reuse
    from spacelite.cache.store import Cache

    path = folder.find(cache_dir, name)
    state = folder.state(path)
    if state.shards is not None and not state.complete:
        _show_shards(state, as_json)
        return
    with Cache(path) as opened:
        copied = reuse.sources(opened)
        names, first = opened.label_names, next(iter(opened.splits.values()))
        task, reduced = opened.task, opened.reduction
        splits: dict[str, dict[str, Any]] = {
            split: {
                "examples": len(stored),
                "tokens": stored.tokens,
                "done": int(stored.done.sum()),
                "labels": dict(
                    zip(names, task.label_counts(stored.labels, len(names)).tolist(), strict=True)
                ),
                "unlabelled": task.unlabelled(stored.labels),
                **({"spread": spread} if (spread := task.spread(stored.labels)) else {}),
            }
            for split, stored in opened.splits.items()
        }
        content = {
            **state.as_json(),
            "splits": splits,
            "width": first.width,
            "reduced": None if reduced is None else reduced.as_json(),
            "pooler": first.has_pooler,
            "layers": None if opened.layers is None else opened.layers.layers,
            "copied": copied,
            "key": opened.key,
            "spec": opened.spec.as_json(),
        }
    if as_json:
        console.print_json(content)
        return
    rows = {"path": path, **{name: content[name] for name in ("width", "pooler", "layers")}}
    if reduced is not None:
        rows["reduced"] = f"to {reduced.words}"
    if state.shards is not None:
        rows["shards"] = state.shards.count
    if copied:
        rows["copied"] = [f"{count:,} texts from {name}" for name, count in copied.items()]
    console.show_fields(path.stem, {**rows, "key": content["key"], **content["spec"]})
    table = console.new_table("Split", ">Examples", ">Tokens", ">Done", gap=2)
    for split, sizes in splits.items():
        table.add_row(split, *[f"{sizes[key]:,}" for key in ("examples", "tokens", "done")])
    console.out().print(table)
    counts = {
        split: [
            f"{label}: {sizes.get('spread') or f'{count:,}'}"
            for label, count in sizes["labels"].items()
        ]
        + ([f"no label: {sizes['unlabelled']:,}"] if sizes["unlabelled"] else [])
        for split, sizes in splits.items()
    }
    console.show_fields("Labels", counts)


def _show_shards(state: CacheState, as_json: bool) -> None:
    """Show how far a cache of several files is."""
    if as_json:
        console.print_json(state.as_json())
        return
    shards = state.shards
    assert shards is not None  # noqa: S101 - the caller looked
    counts = {
        "complete": shards.complete,
        "being written": shards.writing,
        "missing": shards.missing,
        "unreadable": len(shards.problems),
    }
    left = state.tokens - state.tokens_done
    rows: dict[str, Any] = {
        "path": state.path,
        "shards": f"{shards.count:,}: "
        + (", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "begun"),
        "tokens": f"{state.tokens_done:,} of {state.tokens:,} are done "
        f"({int(100 * state.tokens_done / state.tokens)}%)",
    }
    if shards.tokens_per_second:
        rate = f"{shards.tokens_per_second:,.0f} tokens/s for each process that writes"
        seconds = shards.seconds_left(left)
        rows["rate"] = rate if seconds is None else f"{rate}: {_age(seconds)} left"
    if shards.problems:
        rows["unreadable"] = [*shards.problems.values()]
    if state.problem:
        rows["problem"] = state.problem
    console.show_fields(state.name, rows)


@app.command()
@command
def verify(name: str, *, cache_dir: Path = CACHE_DIR, as_json: bool = False) -> None:
    """Recompute every checksum. The next embed computes only the damaged examples again.

    Options:
        name: A cache's name, a part of it that no other has, or its path.
    """
    from spacelite.cache import folder
    from spacelite.cache.store import Cache

    path = folder.find(cache_dir, name)
    with console.progress() as on_progress:
        damaged = folder.verify(path, lambda done, total: on_progress("verify", done, total))
    state = folder.state(path)
    maker = "embed"
    if not path.is_dir():
        with Cache(path) as opened:
            maker = opened.spec.command
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
            f"its {maker} command again to write just these"
        )


@app.command()
@command
def remove(
    names: list[str] | None = None,
    *,
    unused: bool = False,
    older_than: str | None = None,
    yes: bool = False,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Delete caches, damaged or not, or the texts of estimators. Runs trained on them stay.

    Options:
        names [CACHE]...: A cache's name, a part of it that no other has, or its path.
        unused: All finished caches that no run was trained or evaluated on, and no unfinished
            training needs.
        older_than: All caches that were embedded longer ago than this, such as 30d, 12h or 8w; with
            --unused those of them.
        yes -y: Do not ask before removing.
    """
    from spacelite.cache import encoding, folder
    from spacelite.training import checkpoints

    if bool(names) == (unused or older_than is not None):
        raise SpaceliteError("give names of caches, or --unused or --older-than")
    stores = {store.folder.name: store for store in encoding.stores(cache_dir)}
    if names:
        chosen = dict.fromkeys(_named(cache_dir, name, stores) for name in names)
    else:
        chosen = dict.fromkeys(_chosen(cache_dir, unused, older_than))
    sizes = {
        path: stores[path.name].bytes if path.name in stores else folder.state(path).bytes
        for path in chosen
    }
    titles = {path: path.name.removesuffix(".h5") for path in sizes}
    shown = {path: f"{titles[path]} ({human_bytes(size)})" for path, size in sizes.items()}
    console.confirm([*shown.values()], human_bytes(sum(sizes.values())), yes, as_json)
    removed = []
    for path, size in sizes.items():
        trainings = 0
        if path.name in stores:
            encoding.remove_store(path)
        else:
            with checkpoints.no_training(cache_dir, titles[path]):
                folder.remove(path)
                trainings = checkpoints.remove_all(cache_dir, titles[path])
        content = {"name": titles[path], "path": path, "bytes": size}
        removed.append({**content, "unfinished_trainings": trainings})
        also = f" and {_trainings(trainings)} on it" if trainings else ""
        if not as_json:
            console.say(f"removed {shown[path]}{also}")
    if as_json:
        console.print_json(removed)
    elif not removed:
        console.say(f"no cache of {cache_dir} to remove")


@app.command("import")
@command
def import_cache(
    source: Path,
    table: Path,
    *,
    array: str | None = None,
    file_column: str | None = None,
    bfloat16: bool = False,
    layer: int | None = None,
    causal: bool | None = None,
    backbone: str | None = None,
    dtype: str = "float16",
    text_column: str | None = None,
    label_column: str | None = None,
    labels_as: str = "auto",
    label_separator: str | None = None,
    task: str | None = None,
    split_column: str | None = None,
    test_fraction: float | None = None,
    skip_empty: bool = False,
    quoting: str = "standard",
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Make a cache of hidden states that another program computed, and train on it as on any other.

    Options:
        source: An npz, npy, h5, hdf5, safetensors or parquet file with hidden states, or a folder
            with such a file (not parquet) for each text.
        table: A csv, tsv, json, jsonl or parquet file with the labels, a row for each text in the
            same order.
        array: Name of the array, dataset, tensor or column of hidden states.  [default:
            hidden_states or another usual name, or the only one]
        file_column: For a folder: the column that names the file of each row. [default: file, if
            there is one; else files are in natural order]
        bfloat16: Read uint16 numbers as the bits of bfloat16.
        layer: Which of several layers to import, from 0. [default: all, a cache each]
        causal: Whether a text's last token sums it up, as in language models. [default: if there is
            a dimension of layers]
        backbone: Name of the model that computed them. [default: that of the source]
        dtype: Store hidden states as float16, bfloat16 (for values beyond 65,504), float32, int8 or
            int4.
        text_column: Name of the text column, or of two, A,B, for pairs. [default: text or another
            usual name, if there is one]
        test_fraction: Fraction of the training texts that become the test split, if there is none.
    """
    arguments = locals()

    embed.show(console.call(spacelite.import_cache, arguments), as_json)


def _named(cache_dir: Path, name: str, stores: Mapping[str, StoreState]) -> Path:
    """The cache file or the folder of texts that a name or a part of it means."""
    from spacelite.cache import folder

    paths = {path.stem: path for path in folder.cache_files(cache_dir)}
    paths |= {known: store.folder for known, store in stores.items()}
    fitting = [known for known in paths if name in known] if name else []
    if name in paths or len(fitting) == 1:
        return paths[name if name in paths else fitting[0]]
    if fitting:
        raise folder.several(cache_dir, name, fitting)
    return folder.find(cache_dir, name)


def _chosen(cache_dir: Path, unused: bool, older_than: str | None) -> list[Path]:
    """The cache files that `--unused` and `--older-than` choose."""
    from spacelite.cache import folder
    from spacelite.runs import store
    from spacelite.training import checkpoints

    states = folder.states(cache_dir)
    if older_than is not None:
        last = time.time() - _seconds(older_than)
        states = [state for state in states if state.modified < last]
    if unused:
        runs = store.load_all(cache_dir)
        used = {run.record.cache for run in runs} | {*checkpoints.unfinished(cache_dir)}
        used |= {transfer.cache for run in runs for transfer in run.transfers()}
        states = [state for state in states if state.complete and state.name not in used]
    return [state.path for state in states]


def _seconds(age: str) -> float:
    """The length of a time such as `30d` in seconds."""
    number, unit = age[:-1], age[-1:]
    if not number.isdecimal() or unit not in UNITS:
        raise SpaceliteError(f"--older-than {age}: give a time such as 30d, 12h or 8w")
    return int(number) * UNITS[unit]
