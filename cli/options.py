"""Options that several commands share, how arguments map to options, and comma lists."""

from __future__ import annotations

import inspect
import itertools
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

from spacelite.errors import SpaceliteError
from spacelite.files import CACHE_DIR as CACHE_DIR
from spacelite.files import CACHE_VARIABLE, DATA_VARIABLE, cache_folder
from spacelite.settings import OTHER_NAMES, shown, type_of

SECOND = "give one text, and the second one with --pair"  # of a run that reads pairs
VARIABLES = {"cache_dir": CACHE_VARIABLE, "data_dir": DATA_VARIABLE}

# Arguments whose options have other names, but for settings of heads and training.
OPTIONS = {
    "as_csv": "--csv",
    "as_form": "--format",
    "as_json": "--json",
    "groups": "--group-column",
    "labels": "--map",
}

# The help of options that several commands have.
SHARED = {
    "run": "A run's id, a part of it that no other run has, its name, or its folder.",
    "cache": "A cache's name, a part of it that no other has, or its path.  [default: the one that "
    "was embedded last]",
    "dataset": "Data set to embed and evaluate on, as in embed.",
    "backbone": "The folder of the run's backbone, if that was a local folder.",
    "head": "Kind(s): space, linear, mlp, additive, logreg, ridge, tfidf.",
    "preset": "Recommended settings; best: an additive head on layers+ngrams+attention.",
    "seeds": "A number of seeds or a list: 3 means seeds 0, 1 and 2; 1,7,42 means these three; "
    "7, means seed 7 alone.",
    "repeats": "How many times to divide the examples into folds.",
    "seed": "Seed of the division into folds.",
    "limit": "Use at most this many examples per split: a seeded, stratified sample.",
    "device": "auto, cpu, cuda, cuda:1, ...",
    "tokens_per_batch": "Maximum tokens per forward pass.  [default: 1024 on a CPU, 65536 on a "
    "GPU]",
    "precision": "Number type of the backbone's weights and forward pass: float32, bfloat16 (about "
    "twice as fast on CPUs with AMX), float16, or auto for float32 on a CPU and half precision on "
    "a GPU.",
    "text_column": "Name of the text column, if it is not obvious; two, A,B, for pairs of texts.",
    "label_column": "Name of the label column, if it is not obvious.",
    "label_separator": "What separates several labels in one string, such as ';'; an empty string "
    "is no label then.",
    "task": "What labels mean: single-label, multi-label, regression for numbers to predict, or "
    "ordinal for whole numbers such as stars.  [default: regression if all are numbers and some "
    "are not whole, else classes]",
    "split_column": "Name of the column that holds each row's split, in a single file.  [default: "
    "split, if it holds names of splits alone]",
    "labels_as": "auto: labels that are all whole numbers are read as numbers; text: every label "
    "is kept as written.",
    "skip_empty": "Leave out rows whose text is empty.",
    "quoting": "How csv and tsv files are quoted: standard, or none if quotes are ordinary "
    "characters.",
    "data_dir": "Folder that holds data sets by name; searched before the hub.",
    "cache_dir": "Folder of caches and runs.",
    "as_json": "Print one JSON document to standard output, and nothing else.",
}

T = TypeVar("T")


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A function as Typer takes it: its positional parameters are arguments, the others options.
    Their help is in SHARED or below `Options:` in the docstring, a paragraph each, which may name a
    metavar or another name of the option: `out FILE: ...`, `yes -y: ...`. Others there are about
    settings (`SettingsCommand`)."""
    about, _, section = (inspect.getdoc(function) or "").partition("\n\nOptions:\n")
    described = {
        name: (" ".join(help_.split()).replace(" [default:", "  [default:"), mark)
        for name, mark, help_ in re.findall(
            r"^    (\w+)(?: (\S+))?: (.+(?:\n {8}.+)*)", section, re.MULTILINE
        )
    }
    kinds = get_type_hints(function)
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        name, kind = parameter.name, kinds[parameter.name]
        if kind is not typer.Context:
            # Without docstrings (python -OO) there is no help, but the options are there.
            help_, mark = described.get(name) or (SHARED.get(name, ""), "")
            about_it: dict[str, Any] = {"help": help_, "envvar": VARIABLES.get(name)}
            if mark and not mark.startswith("-"):
                about_it["metavar"] = mark
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                kind = Annotated[kind, typer.Argument(**about_it)]
            else:
                names = [mark] if mark.startswith("-") else []
                # A flag has an opposite only if its default is neither.
                if name in OPTIONS or parameter.default is False:
                    names.insert(0, OPTIONS.get(name, f"--{name.replace('_', '-')}"))
                kind = Annotated[kind, typer.Option(*names, **about_it)]
        parameters.append(parameter.replace(annotation=kind))
    function.__doc__, function.__annotations__ = about, {}
    function.described = described  # type: ignore[attr-defined]
    return _with(function, parameters)


def _with(function: Callable[..., None], parameters: Sequence[Parameter]) -> Callable[..., None]:
    """The same function; what reads its signature finds these parameters."""
    function.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return function


class SettingsCommand(TyperCommand):
    """A command that has an option for each setting of heads and of their training, beside those of
    its function, which has the name of the library's. What was given of them is the context's
    `obj`: setting -> value, or list of them.

    The settings are read from their configs when a command line is parsed: further kinds of heads
    have options too, and other commands do not wait for the modules of heads.
    """

    callback: Any
    _all: list[Any]

    @property
    def params(self) -> list[Any]:
        """The options of the function, and before those of baselines those of the settings."""
        if not self._all:
            at = [parameter.name for parameter in self._of_function].index("no_baselines")
            own = self._of_function
            self._all = [*own[:at], *self._of_settings(), *own[at:]]
        return self._all

    @params.setter
    def params(self, of_function: list[Any]) -> None:
        self._of_function, self._all = of_function, []

    def _of_settings(self) -> list[Any]:
        """The options of the settings: Typer makes them out of a signature."""
        from spacelite.training import plan

        def function(**settings: Any) -> None: ...

        without = plan.WITHOUT.get(self.callback.__name__, ())
        self._settings = {
            name: field for name, field in plan.declared().items() if name not in without
        }
        parameters = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=self._option(field))
            for name, field in self._settings.items()
        ]
        parser = typer.Typer(add_completion=False)
        parser.command()(_with(function, parameters))
        return typer.main.get_command(parser).params

    def _option(self, setting: Field[Any]) -> Any:
        """The annotation of a setting's parameter."""
        about, default = setting.metadata, setting.metadata["help_default"]
        if default is None and setting.default is not None:
            default = shown(setting.default)
        own, _ = self.callback.described.get(setting.name, ("", ""))
        help_ = own or about["help"] or f"{setting.name} of some heads."
        help_ = re.sub(r"\{(\w+)\}", lambda match: option(match[1]), help_)
        if default is not None and "[default:" not in help_:
            help_ += f"  [default: {default}]"
        kind = str if about["auto"] or self._is_list(setting) else _type(setting)
        return Annotated[
            kind | None,
            typer.Option(
                option(setting.name), help=help_, metavar=about["metavar"], show_default=False
            ),
        ]

    def invoke(self, ctx: Any) -> Any:
        """Run the function with the settings that were given."""
        texts = {name: ctx.params.pop(name) for name in self._settings}
        ctx.obj = {
            name: self._value(self._settings[name], text)
            for name, text in texts.items()
            if text is not None
        }
        return super().invoke(ctx)

    def _value(self, setting: Field[Any], given: Any) -> Any:
        """What was given of a setting, as the library takes it."""
        name, kind, auto = option(setting.name), _type(setting), setting.metadata["auto"]

        def convert(text: str) -> Any:
            return text if auto and text == "auto" else kind(text)

        if self._is_list(setting):
            return comma_list(name, given, convert if auto else kind)
        try:
            return convert(given.strip()) if auto else given
        except ValueError as error:
            raise SpaceliteError(
                f"{name} {given or repr('')}: give a whole number, or auto"
            ) from error

    def _is_list(self, setting: Field[Any]) -> bool:
        """Whether several values may be given: of the settings of a head, not of those that heads
        trained together share."""
        from spacelite.training.plan import OF_TRAINING

        return setting.name not in OF_TRAINING


def _type(setting: Field[Any]) -> type:
    first = type_of(setting).split(" ")[0]
    return {"int": int, "float": float}.get(first, str)


def option(argument: str) -> str:
    """The option for an argument of the library's functions: `max_length` -> `--max-length`."""
    if argument in OPTIONS:
        return OPTIONS[argument]
    from spacelite.training.plan import declared  # for messages, which most commands do not print

    setting = declared().get(argument)
    name = None if setting is None else setting.metadata["option"]
    return "--" + (name or argument).replace("_", "-")


def known_names(arguments: list[str], command: Any, commands: Mapping[str, Any]) -> list[str]:
    """A command line with the options that other libraries call differently (`--latent-dim`) under
    the names that they have here (`--latent`). Raises ValueError if an option belongs to another
    command, which the message names, or if one that takes a single value is given twice."""
    options = itertools.takewhile(lambda argument: argument != "--", arguments)
    if "--import" in (argument.partition("=")[0] for argument in options):
        raise ValueError("--import stands before the command: spacelite --import FILE COMMAND ...")
    if hasattr(command, "commands"):  # a group, such as `cache`
        return arguments
    known = _options_of(command) | {"--help"}
    single = {name for given in command.params if _takes_one(given) for name in given.opts}
    renamed, seen = list[str](), set[str]()
    for number, argument in enumerate(arguments):
        if argument == "--":
            return renamed + arguments[number:]
        given, equals, value = argument.partition("=")
        if given.startswith("--") and given not in known:
            setting = given[2:].replace("-", "_")
            name = option(OTHER_NAMES.get(setting, setting))
            elsewhere = [other for other, it in commands.items() if name in _options_of(it)]
            if name not in known and elsewhere:
                *others, last = elsewhere
                named = f"{', '.join(others)} and {last}" if others else last
                raise ValueError(f"No such option: {given}. {name} is an option of {named}.")
            argument = name + equals + value if name in known else argument
        name = argument.partition("=")[0]
        if name in seen:
            several = f"; write several values with commas: {name} A,B"
            several = several if name in _lists(command) else ""
            raise ValueError(f"{name} is given twice, and only one value counts{several}.")
        seen |= {name} & single
        renamed.append(argument)
    return renamed


def with_cache_dir(command: str, cache_dir: Path) -> str:
    """A command as hints name it, with `--cache-dir` if this is neither the default nor given by
    the environment: `spacelite report --cache-dir c`."""
    if cache_dir in (CACHE_DIR, cache_folder()):
        return command
    return f"{command} --cache-dir {shlex.quote(str(cache_dir))}"


def comma_hint(arguments: list[str], command: Any) -> str:
    """What to write in place of several values with spaces between them, `--inter 0 0.2`; "" if no
    option that takes a list was given so."""
    lists = _lists(command)
    for number, argument in enumerate(arguments):
        following = arguments[number + 1 :]
        values = list(itertools.takewhile(lambda value: not value.startswith("--"), following))
        if argument in lists and len(values) > 1:
            together = ",".join(value.strip(",") for value in values)
            return f"; write several values with commas: {argument} {together}"
    return ""


def _lists(command: Any) -> set[str]:
    """The options that take several values with commas between them."""
    marks = ("(s)", "or a list", "comma list")
    return {
        name
        for parameter in command.params
        if any(mark in (getattr(parameter, "help", None) or "") for mark in marks)
        for name in parameter.opts
    }


def _takes_one(parameter: Any) -> bool:
    """Whether a parameter is an option with a value that must not be repeated."""
    return (
        parameter.param_type_name == "option" and not parameter.multiple and not parameter.is_flag
    )


def _options_of(command: Any) -> set[str]:
    return {name for given in command.params for name in (*given.opts, *given.secondary_opts)}


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
                f"{option} {text or repr('')}: {part.strip()!r} is not {kind}; give one, or "
                "several with commas between them"
            ) from error
    return list(dict.fromkeys(values)) if once else values
