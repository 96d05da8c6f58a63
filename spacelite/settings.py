"""Settings: the default, check and wording of each. A config is a dataclass of settings.

A new setting of a head or of training is one field of its config. Runs that were saved before it
existed keep their ids and are read with its default (`Config.hashed`), so a default must never
change.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from typing import Any, ClassVar

from typing_extensions import Self

from spacelite.errors import SpaceliteError

LARGEST_SEED = 2**63 - 1
# What other libraries call the arguments of this one. Commands accept these names as options, and
# the message about an unknown setting suggests the name that is used here.
OTHER_NAMES = {
    "bs": "batch_size",
    "class_weight": "class_weights",
    "early_stopping_patience": "patience",
    "gradient_clip": "clip_norm",
    "latent_dim": "latent",
    "latent_dims": "latent",
    "lr": "learning_rate",
    "lr_scheduler": "schedule",
    "max_epochs": "epochs",
    "max_examples": "limit",
    "max_grad_norm": "clip_norm",
    "max_samples": "limit",
    "max_seq_length": "max_length",
    "model": "backbone",
    "n_epochs": "epochs",
    "n_latent": "latent",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "scheduler": "schedule",
    "wd": "weight_decay",
}

BOOLEANS = ("bool", "bool_")  # Python's and numpy's: not numbers here

# Value -> what is needed instead, or None if the value is valid.
Check = Callable[[Any], str | None]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A dataclass of settings.

    Those in ALWAYS_HASHED have been hashed into ids from the beginning, null if a config lacks one;
    a later one is hashed only if it differs from its default, so that older runs keep their ids.
    """

    ALWAYS_HASHED: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        # 0, 0.0 and numpy's zeros are the same setting and must give the same id.
        for field in fields(self):
            value, kind = getattr(self, field.name), type_of(field)
            if isinstance(value, str) or value is None or type(value).__name__ in BOOLEANS:
                continue
            convert: Callable[[Any], Any] = float if kind.startswith("float") else operator.index
            try:
                object.__setattr__(self, field.name, convert(value))
            except (TypeError, ValueError):
                continue  # `check` reports it

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Self:
        """A config from saved settings; those that are missing or null take their defaults."""
        known = {field.name: saved.get(field.name) for field in fields(cls)}
        return cls(**{name: value for name, value in known.items() if value is not None})

    def settings(self) -> dict[str, Any]:
        """The settings by name, as they are hashed and saved; None for one that has no effect."""
        return asdict(self)

    def saved(self) -> dict[str, Any]:
        """The settings as run records store them: those in ALWAYS_HASHED and all others."""
        return {**dict.fromkeys(self.ALWAYS_HASHED), **self.settings()}

    def hashed(self) -> dict[str, Any]:
        """The settings that are hashed into ids: ALWAYS_HASHED, and others that have an effect and
        are not at their default."""
        default = {field.name: field.default for field in fields(self)}
        return {
            name: value
            for name, value in self.saved().items()
            if name in self.ALWAYS_HASHED or value not in (None, default[name])
        }


def setting(
    default: Any = MISSING,
    *,
    check: Check,
    words: str | None = None,
    always: bool = False,
    tuned: bool = False,
    symbol: str | None = None,
    search: Sequence[Any] = (),
    auto: bool = False,
    option: str | None = None,
    metavar: str | None = None,
    help: str | None = None,
    help_default: str | None = None,
) -> Any:
    """A field of a config: all that there is to say about a setting.

    Args:
        default: Default value. It must never change, since older runs are read with it.
        check: Says what is needed if a value is invalid.
        words: Wording in tables, with braces for the value: `batch {}`. None if the value has its
            own column or is part of the system's name.
        always: Whether tables mention the setting even at its default.
        tuned: Whether its value is usually chosen on validation. Reports treat systems that differ
            only in such settings as a sweep of one system.
        symbol: Symbol of the setting in tables. Default: its name.
        search: The values that a search tries where none is given.
        auto: Whether "auto" stands for a value that is chosen later.
        option: Name of the command-line option. Default: the setting's.
        metavar: What stands for a value in the option's help.
        help: The option's help. In braces, `{monitor}`: another setting, whose option it shows.
        help_default: The default as help shows it.
    """
    metadata = locals()
    del metadata["default"]
    return dataclasses.field(default=default, metadata=metadata)


def type_of(setting: Field[Any]) -> str:
    """The type of a setting as it is written: `float | None`. It may be declared in a module whose
    annotations are objects."""
    return getattr(setting.type, "__name__", None) or str(setting.type)


def among(arguments: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Those of a function's arguments that are fields of a dataclass, by name."""
    names = [field.name for field in fields(kind)]
    return {name: arguments[name] for name in names if name in arguments}


def check(config: Config) -> None:
    """Raise SpaceliteError for the first invalid value, naming the argument."""
    for field in fields(config):
        value = getattr(config, field.name)
        needed = field.metadata["check"](value)
        if needed is not None:
            raise SpaceliteError(f"{field.name}={_shown(field, value)}: {needed}", [field.name])


def _shown(field: Field[Any], value: Any) -> str:
    """A value as messages show it: 0.5, or its repr if it has the wrong type: '0.5' or 2.0."""
    kind = type_of(field)
    if isinstance(value, float) and kind.startswith("float"):
        return f"{value:g}"
    return repr(value) if kind.startswith(("int", "float")) else str(value)


def effective(config: Config) -> dict[str, Any]:
    """The settings that have an effect: all but those that are None without this being a choice,
    such as `monitor` without `patience`."""
    values = config.settings()
    return {
        field.name: values[field.name]
        for field in fields(config)
        if values[field.name] is not None or field.default is None
    }


def tuned(config: Config) -> list[str]:
    """The names of the settings that are marked `tuned`."""
    return [field.name for field in fields(config) if field.metadata["tuned"]]


def symbols(config: Config | type[Config]) -> dict[str, str]:
    """How tables call each setting: `L`, `learning rate`."""
    return {
        field.name: str(field.metadata["symbol"] or field.name.replace("_", " "))
        for field in fields(config)
    }


def shown(value: Any) -> str:
    """A setting's value in tables: `0.001`, `64`, `none`."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def varying(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings whose values differ. A setting that only some have differs if its
    values do."""
    return [
        name
        for name in dict.fromkeys(name for settings in values for name in settings)
        if len({str(settings[name]) for settings in values if name in settings}) > 1
    ]


def told_apart(titles: Sequence[str], values: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The settings of each of N systems in which it differs from those with the same title: from
    their titles and settings, (N,), N lists of names."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for title, settings in zip(titles, values, strict=True):
        alike.setdefault(title, []).append(settings)
    differing = {title: varying(of_title) for title, of_title in alike.items()}
    return [
        [name for name in differing[title] if name in settings]
        for title, settings in zip(titles, values, strict=True)
    ]


def details(
    symbols: Mapping[str, str], values: Mapping[str, Any], names: Iterable[str]
) -> list[str]:
    """Settings with their values, for a name: `learning rate 0.001`. Those that `values` lacks are
    left out."""
    return [f"{symbols[name]} {shown(values[name])}" for name in names if name in values]


def require(name: str, value: Any, check: Check) -> None:
    """Raise SpaceliteError if the value of an argument is invalid."""
    needed = check(value)
    if needed is not None:
        raise SpaceliteError(f"{name}={value}: {needed}", [name])


def words(config: Config, without: Collection[str] = ()) -> list[str]:
    """The settings that tables mention, in words: those marked `always`, and those that are not
    at their default; but none of those named in `without`."""
    mentioned, values = [], config.settings()
    for field in fields(config):
        if field.name in without:
            continue
        value = values[field.name]
        wanted = value is not None and (field.metadata["always"] or value != field.default)
        if wanted and field.metadata["words"] is not None:
            mentioned.append(field.metadata["words"].format(value))
    return mentioned


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """The name that someone who wrote `name` may have meant, out of those that are known; None if
    there is none like it."""
    names = list(known)
    if OTHER_NAMES.get(name) in names:
        return OTHER_NAMES[name]
    import difflib  # slow to import, and needed for an error only

    return next(iter(difflib.get_close_matches(name, names, 1)), None)


def choose_from(value: Any, names: Iterable[str]) -> str:
    """What to do about a value that is none of these names, and which one it may be meant as."""
    names = list(names)
    meant = suggestion(value, names) if isinstance(value, str) else None
    return f"choose from {', '.join(names)}" + (f" (did you mean {meant}?)" if meant else "")


def or_meant(error: SpaceliteError, value: str, names: Iterable[str]) -> SpaceliteError:
    """The same error, with the name that the value may be meant as."""
    meant = suggestion(value, names)
    return SpaceliteError(f"{error}; did you mean {meant}?", error.arguments) if meant else error


def one_of(*choices: str) -> Check:
    """A check that the value is one of these names."""
    return lambda value: (
        None if isinstance(value, str) and value in choices else choose_from(value, choices)
    )


def whole_number(least: int, most: int | None = None) -> Check:
    """A check that the value is a whole number from `least` to `most`."""

    def needed(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if good and (most is None or value <= most):
            return None
        if most == LARGEST_SEED:
            return "give a whole number from 0 to 2^63 - 1"
        bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        return f"give a whole number {bounds}"

    return needed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def non_negative(value: Any) -> str | None:
    """Check that the value is 0 or a positive number."""
    good = _is_number(value) and 0 <= value < math.inf
    return None if good else "give 0 or a positive number"


def positive(value: Any) -> str | None:
    """Check that the value is a positive number."""
    good = _is_number(value) and 0 < value < math.inf
    return None if good else "give a number above 0"


def optional(inner: Check) -> Check:
    """A check that accepts None and otherwise applies `inner`."""
    return lambda value: None if value is None else inner(value)
