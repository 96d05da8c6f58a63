"""Options that several commands share, how arguments map to options, and comma lists."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from spacelite.errors import SpaceliteError
from spacelite.settings import OTHER_NAMES

CACHE_DIR = Path("cache")
CACHE_VARIABLE = "SPACELITE_CACHE"
CacheDir = Annotated[
    Path,
    typer.Option(envvar=CACHE_VARIABLE, help="Folder of caches and runs.", show_default=True),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document to standard output, and nothing else."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        envvar="SPACELITE_DATA",
        help="Folder that holds data sets by name; searched before the hub.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(help="Use at most this many examples per split: a seeded, stratified sample."),
]
Seeds = Annotated[
    str,
    typer.Option(
        help="A number of seeds or a list: 3 means seeds 0, 1 and 2; 1,7,42 means these three; "
        "7, means seed 7 alone."
    ),
]
Latent = Annotated[
    str | None,
    typer.Option(help="Dimension(s) of a concept space.  [default: 3]", show_default=False),
]
LearningRates = Annotated[
    str | None,
    typer.Option(help="Learning rate(s); auto means 0.001.  [default: 2e-4]", show_default=False),
]
WeightDecays = Annotated[
    str | None,
    typer.Option(help="Adam's L2 weight decay(s).  [default: 0.01]", show_default=False),
]
MaxNgram = Annotated[
    str | None,
    typer.Option(
        help="Tokens of the longest n-grams of the block ngrams: 2 or 3.  [default: 2]",
        show_default=False,
    ),
]
Ensemble = Annotated[
    str,
    typer.Option(
        help="Member(s) of a head with concept spaces: heads with different seeds whose logits "
        "are averaged."
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Settings that are recommended together; best: an additive head on "
        "layers+ngrams+space."
    ),
]
ClassWeights = Annotated[
    str, typer.Option(help="Weights of the classes in the loss: none or balanced.")
]
Schedule = Annotated[str, typer.Option(help="Schedule of the learning rate: constant or cosine.")]
ClipNorm = Annotated[float | None, typer.Option(help="Clip a head's gradient to this norm.")]
CacheName = Annotated[
    str | None,
    typer.Option(help="A cache's name or path. [default: the newest complete one]"),
]
Inter = Annotated[str, typer.Option(help="Weight(s) of the inter-space loss.")]
Intra = Annotated[str, typer.Option(help="Weight(s) of the intra-space loss.")]
DataSeed = Annotated[int, typer.Option(help="Seed of the order of the examples.")]
TextColumn = Annotated[
    str | None, typer.Option(help="Name of the text column, if it is not an obvious one.")
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Name of the label column, if it is not an obvious one.")
]
SampleWeightColumn = Annotated[
    str | None,
    typer.Option(
        help="Column with the weight of each training example in the losses: the data that were "
        "embedded are read again."
    ),
]
LabelsAs = Annotated[
    str,
    typer.Option(
        help="auto: labels that are all whole numbers are read as numbers; text: every label is "
        "kept as it is written."
    ),
]
SkipEmpty = Annotated[
    bool, typer.Option("--skip-empty", help="Leave out rows whose text is empty.")
]
RUN_NAME = "A run's id, a part of it that no other run has, its name, or its folder."
RunName = Annotated[str, typer.Argument(help=RUN_NAME)]
RunBackbone = Annotated[
    str | None, typer.Option(help="The folder of the run's backbone, if that was a local folder.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
TokensPerBatch = Annotated[
    int | None,
    typer.Option(help="Maximum tokens per forward pass.  [default: 1024 on a CPU, 65536 on a GPU]"),
]

# Arguments of the library whose options have other names.
OPTIONS = {
    "labels": "--map",
    "learning_rate": "--lr",
    "groups": "--group-column",
    "sample_weight": "--sample-weight-column",
}

T = TypeVar("T")


def option(argument: str) -> str:
    """The option for an argument of the library's functions: `max_length` -> `--max-length`."""
    return OPTIONS.get(argument) or "--" + argument.replace("_", "-")


def known_names(arguments: list[str], command: Any, commands: Mapping[str, Any]) -> list[str]:
    """A command line with the options that other libraries call differently (`--latent-dim`) under
    the names that they have here (`--latent`).

    Args:
        arguments: What follows the command's name.
        command: The command.
        commands: All commands by name.

    Raises:
        ValueError: An option belongs to another command; the message says to which.
    """
    if hasattr(command, "commands"):  # a group, such as `cache`
        return arguments
    own = _options_of(command)
    renamed: list[str] = []
    for number, each in enumerate(arguments):
        if each == "--":
            return renamed + arguments[number:]
        given, equals, value = each.partition("=")
        if given.startswith("--") and given not in own:
            argument = given[2:].replace("-", "_")
            name = option(OTHER_NAMES.get(argument, argument))
            elsewhere = [other for other, it in commands.items() if name in _options_of(it)]
            if name not in own and elsewhere:
                raise ValueError(
                    f"No such option: {given}. {name} is an option of {' and '.join(elsewhere)}."
                )
            each = name + equals + value if name in own else each
        renamed.append(each)
    return renamed


def with_cache_dir(command: str, cache_dir: Path) -> str:
    """A command as hints name it, with `--cache-dir` if this is neither the default nor given by
    the environment: `spacelite report --cache-dir c`."""
    if cache_dir in (CACHE_DIR, Path(os.environ.get(CACHE_VARIABLE, CACHE_DIR))):
        return command
    return f"{command} --cache-dir {shlex.quote(str(cache_dir))}"


def comma_hint(arguments: list[str], command: Any) -> str:
    """What to write in place of several values with spaces between them, `--inter 0 0.2`; "" if no
    option that takes a list was given so."""
    lists = {
        name
        for each in command.params
        if any(mark in (getattr(each, "help", None) or "") for mark in ("(s)", "or a list"))
        for name in each.opts
    }
    for number, each in enumerate(arguments):
        following = arguments[number + 1 :]
        values = list(itertools.takewhile(lambda value: not value.startswith("--"), following))
        if each in lists and len(values) > 1:
            together = ",".join(value.strip(",") for value in values)
            return f"; write several values with commas: {each} {together}"
    return ""


def _options_of(command: Any) -> set[str]:
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)}


def comma_list(
    option: str, text: str, convert: Callable[[str], T], *, once: bool = True
) -> list[T]:
    """Parse a comma-separated list: `0,0.2` -> [0.0, 0.2], without duplicates if `once`.

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
    return list(dict.fromkeys(values)) if once else values


def optional_list(option: str, text: str | None, convert: Callable[[str], T]) -> list[T] | None:
    """Parse a comma-separated list; None for an option that was not given."""
    return None if text is None else comma_list(option, text, convert)


def or_auto(convert: Callable[[str], T]) -> Callable[[str], T | str]:
    """The same conversion, but `auto` stays as it is."""
    return lambda text: text if text == "auto" else convert(text)


def number_or_auto(option: str, text: str) -> int | str:
    """Parse a whole number or `auto`.

    Raises:
        SpaceliteError: It is neither.
    """
    try:
        return or_auto(int)(text.strip())
    except ValueError as error:
        raise SpaceliteError(f"{option} {text}: give a whole number, or auto") from error
