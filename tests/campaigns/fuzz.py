"""The readers of all files get what hypothesis thinks of: real files with bytes replaced, inserted
and removed, and JSON with any value in any place:

    python tests/campaigns fuzz [--trials 10000] [--seed 0]

A reader returns, or raises a SpaceliteError of one line. Hypothesis shrinks what it finds.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from flips import TARGETS, template
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from trials import Tally, World

from spacelite.cache import encoding, folder, texts
from spacelite.cache.spec import CacheSpec
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.runs import store as runs
from spacelite.studies import answers
from spacelite.training import checkpoints

TRIALS = 10_000

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def read_cache(path: Path) -> None:
    """All that is in and beside a cache."""
    folder.state(path)
    with Cache(path) as cache:
        for name, split in cache.splits.items():
            split.read_examples(0, len(split))
            split.read_token_ids()
            texts.read(cache, name)
        for read in (texts.read_unknown, partial(texts.recorded, name="text_column")):
            read(path)


def read_run(path: Path) -> None:
    """All that is in a run."""
    run = runs.load(path)
    run.history()
    run.predictions()
    run.transfers()
    _ = run.parameters


def read_study(cache_dir: Path) -> None:
    """What a report shows of studies."""
    (path,) = (cache_dir / "embeddings").glob("*.h5")
    with Cache(path) as cache:
        answers.of_cache(cache_dir, cache.name, cache.key)


def read_texts(path: Path, spec: CacheSpec) -> None:
    """A store of texts."""
    store = encoding.TextStore(path, spec)
    store.layout()
    store.read(store.entries())


def files_and_readers(places: dict[str, Path]) -> Iterator[tuple[str, Path, Callable[[], None]]]:
    """Each file, and what reads it, in folders that may be changed."""
    cache = places["cache"] / "cache"
    (h5,) = (cache / "embeddings").glob("*.h5")
    for path in sorted((cache / "embeddings").iterdir()):
        yield f"cache: {''.join(path.suffixes[-2:])}", path, partial(read_cache, h5)
    (shards,) = (places["shards"] / "cache" / "embeddings").glob("*.h5")
    for path in (shards / "manifest.json", *sorted(shards.glob("shard-00002*"))):
        yield f"shards: {''.join(path.suffixes[-2:])}", path, partial(read_cache, shards)
    (run, *_) = (path.parent for path in (places["run"] / "cache" / "runs").glob("*/transfer"))
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        kind = path.name if path.parent == run else f"transfer {path.suffix}"
        yield f"run: {kind}", path, partial(read_run, run)
    for path in (places["study"] / "cache" / "questions").iterdir():
        yield "study", path, partial(read_study, places["study"] / "cache")
    for path in (places["checkpoint"] / "cache" / "unfinished").glob("*.safetensors"):
        yield "checkpoint", path, partial(checkpoints.find, path, "x", resident=True)
    for path in (places["store of texts"] / "cache" / "texts").glob("*/*"):
        content = json.loads((path.parent / "settings.json").read_text())
        read = partial(read_texts, path.parent, CacheSpec.from_json(content["spec"]))
        yield f"store of texts: {path.name}", path, read


def edited(content: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some of them replaced, inserted or removed."""
    edit = st.tuples(st.integers(0, len(content)), st.integers(0, 9), st.binary(max_size=9))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        changed = content
        for at, length, new in edits:
            changed = changed[:at] + new + changed[at + length :]
        return changed

    return st.lists(edit, min_size=1, max_size=3).map(apply) | st.binary(max_size=99)


def documents(content: Any) -> st.SearchStrategy[bytes]:
    """The JSON with anything in a place, and no checksum, as older versions wrote it."""
    if isinstance(content, dict):
        content.pop("checksum", None)
    where = list(keys(content))

    def put(change: tuple[tuple[Any, ...], Any]) -> bytes:
        (*path, last), value = change
        changed = at = json.loads(json.dumps(content))
        for key in path:
            at = at[key]
        at[last] = value
        return json.dumps(changed).encode()

    return st.tuples(st.sampled_from(where), ANYTHING).map(put)


def keys(content: Any) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON document."""
    inside = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inside:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in keys(value))


def fuzz(row: str, path: Path, read: Callable[[], None], options: Callable, tally: Tally) -> None:
    """Give a reader many contents of a file; `options` are hypothesis's."""
    whole, tried = path.read_bytes(), b""
    contents = edited(whole)
    if path.suffix == ".json" and len(whole) > 3:
        contents |= documents(json.loads(whole))

    @options
    @given(content=contents)
    def check(content: bytes) -> None:
        nonlocal tried
        tried = content
        path.write_bytes(content)
        try:
            read()
            tally.add(row, "same", "")
        except SpaceliteError as error:
            assert "\n" not in str(error)
            tally.add(row, "refused", "")

    try:
        check()
    except Exception as error:  # any other is a broken promise: this is what is looked for
        tally.add(row, "unexpected", f"{error!r:.200} on {tried!r:.2000}")
    path.write_bytes(whole)


def run(world: World, chance: random.Random, count: int, tally: Tally) -> None:
    """Fuzz every reader as often as the others."""
    places = {}
    for name, target in TARGETS.items():
        places[name] = world.folder / f"fuzzed {name}"
        shutil.copytree(template(world, target), places[name])
    logging.disable()
    pairs = list(files_and_readers(places))
    how = settings(
        max_examples=max(1, count // len(pairs)), deadline=None, database=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for row, path, read in pairs:
        start = seed(chance.getrandbits(32))
        fuzz(row, path, read, lambda check, start=start: start(how(check)), tally)
