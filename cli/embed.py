"""spacelite embed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import spacelite
from spacelite import ranks
from spacelite.files import human_bytes
from spacelite.visible import visible_name

from . import console
from .options import CACHE_DIR, comma_list

LABELS_SHOWN = 10
STAGES_SHOWN = 4

if TYPE_CHECKING:
    from spacelite.cache.embedding import Speed


def embed(
    *,
    backbone: str,
    dataset: str,
    max_length: int = 256,
    dtype: str = "float16",
    reduce: str | None = None,
    layer: str = "-1",
    padding: str = "none",
    prefix: str = "",
    windows: bool = False,
    stride: int | None = None,
    skip_first: bool = False,
    layers: bool | None = None,
    limit: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    tokens_per_batch: int | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels_as: str = "auto",
    label_separator: str | None = None,
    task: str | None = None,
    split_column: str | None = None,
    test_fraction: float | None = None,
    skip_empty: bool = False,
    quoting: str = "standard",
    drop_leaks: bool = False,
    no_reuse: bool = False,
    shard_size: str | None = None,
    shard: str | None = None,
    data_dir: Path | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Run a frozen backbone once over a data set and keep every token's hidden state.

    Options:
        backbone: Hub name, local folder, or minilm (no network needed); random: before any of them
            for random weights, a baseline.
        dataset: imdb, hatexplain, hatexplain:2, demo, any hub name, a
            csv/tsv/json/jsonl/parquet file, or a folder of them.
        max_length: Maximum tokens per text; the rest is cut off.
        dtype: Store hidden states as float16, bfloat16 (for values beyond 65,504), float32, int8 or
            int4.
        reduce K: Keep hidden states on their first K principal axes, such as 128; auto: on as many
            as keep 99% of the variance.
        layer: Layer of the hidden states: -1 is the last, 0 the embeddings. Several, such as
            -1,-4, get a cache each in one pass.
        padding: none, or max_length to cache and count padded positions too.
        windows: Cut texts of more than --max-length tokens into overlapping windows of as many,
            rather than off.
        stride: Tokens between the beginnings of two windows. [default: half of --max-length]
        skip_first: Do not keep the first token of each text, for models that make it an attention
            sink.
        prefix: What each text is read with, such as "query: " for E5.
        layers: Also keep the mean of every layer, in a separate file; --layers adds them to a
            finished cache. [default: --layers for a new cache]
        revision: Commit, branch or tag of a hub backbone.
        test_fraction: Fraction of the training texts that become the test split, if the data have
            none. Each text alone decides, so added rows move no other.
        drop_leaks: Leave out training texts that also occur in validation or test.
        no_reuse: Compute everything: copy nothing from other caches or from repeated texts.
        shard_size SIZE: Size from which a cache is divided into several files, such as 500MB.
            [default: 4GB]
        shard I/N: Write only the I-th of N files of a cache, such as 3/8; embed without this option
            writes what is missing, and finishes the cache.
    """
    arguments = locals()

    layers_ = comma_list("--layer", layer, int, once=False)
    axes = int(reduce) if reduce is not None and reduce.isdecimal() else reduce
    with ranks.joined():
        done = console.call(
            spacelite.embed, arguments, layer=layers_, reduce=axes, reuse=not no_reuse
        )
    if ranks.launched().rank == 0:
        show(done, as_json)


def show(done: spacelite.EmbeddedDataset, as_json: bool) -> None:
    """Print what was embedded or imported."""
    if done.shard is not None:
        _show_shard(done, as_json)
        return
    described = describe(done)
    if as_json:
        console.print_json(described)
        return
    examples, tokens = f"{described['examples']:,}", f"{described['tokens']:,}"
    size = human_bytes(described["bytes"])
    how = "was there already" if done.hit else f"written in {done.seconds:.0f} s"
    splits = ", ".join(f"{count:,} {name}" for name, count in described["splits"].items())
    layer = f"layer {done.layer}: " if done.others else ""
    console.say(
        f"{layer}{done.name} {how}: {examples} examples ({splits}), {tokens} tokens, {size}"
    )
    for other in done.others:
        state = "was there already" if other.hit else "written"
        console.say(f"layer {other.layer}: {other.name} {state}")
    if done.spread:
        console.say(f"{visible_name(', '.join(done.labels))} (train): {done.spread}")
    else:
        console.say(_labels(done.labels, done.unlabelled))
    if done.speed is not None:
        console.say(_speed(done.speed))


def _show_shard(done: spacelite.EmbeddedDataset, as_json: bool) -> None:
    """Print what was written of a cache of several files."""
    state = done.state
    if as_json:
        console.print_json(
            {**state.as_json(), "shard": done.shard, **_what(done), "seconds": done.seconds}
        )
        return
    assert done.shard is not None and state.shards is not None  # noqa: S101 - as embed checked
    number, count = done.shard
    how = "was there already" if done.hit else f"written in {done.seconds:.0f} s"
    console.say(f"shard {number} of {count} of {done.name} {how}")
    left = count - state.shards.complete
    console.say(
        f"{left:,} {'is' if left == 1 else 'are'} not complete yet: the same command without "
        "--shard writes what is missing, and finishes the cache"
        if left
        else "all are complete: the same command without --shard finishes the cache"
    )
    if done.speed is not None:
        console.say(_speed(done.speed))


def _speed(speed: Speed) -> str:
    """The rate, and the stages that took most of the time."""
    shown = [f"{stage} {seconds:.1f} s" for stage, seconds in speed.stages.items()][1:STAGES_SHOWN]
    rate = f"{speed.tokens_per_second:,.0f} tokens/s in all, limited by {speed.limit}"
    longest = f"{speed.stages[speed.limit]:.1f} of {speed.seconds:.1f} s"
    return f"{rate} ({'; '.join([longest, ', '.join(shown)])})"


def _labels(counts: dict[str, int], unlabelled: int) -> str:
    """The labels of the training examples with their counts; of many labels, the most frequent."""
    shown = list(counts.items())
    if len(shown) > LABELS_SHOWN:
        shown = sorted(shown, key=lambda pair: -pair[1])[:LABELS_SHOWN]
    named = [f"{visible_name(label)}: {count:,}" for label, count in shown]
    more = [f"and {len(counts) - len(shown):,} more"] if len(counts) > len(shown) else []
    none = f"; {unlabelled:,} {'has' if unlabelled == 1 else 'have'} none" if unlabelled else ""
    return f"labels (train): {', '.join([*named, *more])}{none}"


def describe(done: spacelite.EmbeddedDataset) -> dict[str, Any]:
    """What `embed --json` prints."""
    return {
        **done.state.as_json(),
        "others": [
            {"layer": other.layer, "name": other.name, "path": str(other.path), **_what(other)}
            for other in done.others
        ],
        **_what(done),
        "seconds": done.seconds,
        "speed": None if done.speed is None else done.speed.as_json(),
        "labels": done.labels,
        **({"spread": done.spread} if done.spread else {}),
        "unlabelled": done.unlabelled,
        "duplicates": done.duplicates.as_json(),
        "unknown": done.unknown.as_json(),
    }


def _what(done: spacelite.EmbeddedDataset) -> dict[str, Any]:
    return {
        "hit": done.hit,
        "copied": done.copied,
        "rounding": None if done.rounded is None else done.rounded.as_json(),
    }
