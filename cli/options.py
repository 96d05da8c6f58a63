"""Options that several commands share, and the parsing of comma lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from spacelite.errors import SpaceliteError

CacheDir = Annotated[
    Path,
    typer.Option(envvar="SPACELITE_CACHE", help="Folder for caches and runs.", show_default=True),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")
]
CACHE_DIR = Path("cache")
DataDir = Annotated[
    Path | None,
    typer.Option(
        envvar="SPACELITE_DATA", help="Folder with data sets by name, looked into before the hub."
    ),
]
Limit = Annotated[
    int | None, typer.Option(help="Examples a split at most: a seeded, stratified sample.")
]
TextColumn = Annotated[str | None, typer.Option(help="Where it cannot be told.")]
LabelColumn = Annotated[str | None, typer.Option(help="Where it cannot be told.")]
RunName = Annotated[
    str, typer.Argument(help="A run's id, a part of it that no other has, or its folder.")
]
RunBackbone = Annotated[
    str | None, typer.Option(help="Where the run's backbone lies, if it was a local folder.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
TokensPerBatch = Annotated[
    int | None, typer.Option(help="Tokens a forward pass: 4096 on a CPU, 65536 on a GPU.")
]

T = TypeVar("T")


def comma_list(option: str, text: str, convert: Callable[[str], T]) -> list[T]:
    """`0,0.2` -> [0.0, 0.2], without repetitions. SpaceliteError for what is no such list."""
    values = []
    for part in text.split(","):
        try:
            values.append(convert(part.strip()))
        except ValueError as error:
            kind = "a whole number" if convert is int else "a number"
            raise SpaceliteError(
                f"{option} {text}: {part.strip()!r} is not {kind}; give one, or several with "
                "commas between them"
            ) from error
    return list(dict.fromkeys(values))
