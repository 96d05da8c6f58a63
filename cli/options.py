"""Options that several commands share, how arguments map to options, and comma lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from spacelite.errors import SpaceliteError

CACHE_DIR = Path("cache")
CacheDir = Annotated[
    Path,
    typer.Option(envvar="SPACELITE_CACHE", help="Folder of caches and runs.", show_default=True),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        envvar="SPACELITE_DATA", help="Folder with data sets by name, searched before the hub."
    ),
]
Limit = Annotated[
    int | None, typer.Option(help="Examples per split at most: a seeded, stratified sample.")
]
TextColumn = Annotated[
    str | None, typer.Option(help="Column of the texts, if its name does not show it.")
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column of the labels, if its name does not show it.")
]
RunName = Annotated[
    str, typer.Argument(help="A run's id, a part of it that no other run has, or its folder.")
]
RunBackbone = Annotated[
    str | None, typer.Option(help="Folder of the run's backbone, if it was a local one.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
TokensPerBatch = Annotated[
    int | None, typer.Option(help="Tokens per forward pass: 4096 on a CPU, 65536 on a GPU.")
]

# Arguments of the library whose options have other names.
OPTIONS = {"labels": "--map", "learning_rate": "--lr"}

T = TypeVar("T")


def option(argument: str) -> str:
    """The option for an argument of the library's functions: `max_length` -> `--max-length`."""
    return OPTIONS.get(argument) or "--" + argument.replace("_", "-")


def comma_list(option: str, text: str, convert: Callable[[str], T]) -> list[T]:
    """Parse a comma-separated list: `0,0.2` -> [0.0, 0.2], without duplicates.

    Raises:
        SpaceliteError: A value cannot be converted.
    """
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
