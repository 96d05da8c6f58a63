"""The number types in which hidden states are stored, one entry each in DTYPES, and how much they
round each dimension, measured while hidden states are written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import override

from spacelite.errors import SpaceliteError
from spacelite.lazy import torch
from spacelite.settings import choose_from
from spacelite.types import Array

log = logging.getLogger(__name__)

LARGEST = 127  # of int8; -128 is not used, so that the steps on both sides are the same
# Smaller scales would be inexact, and 127 times a larger one is more than float32 holds.
SCALES = (2.0**-126, 2.6793883e36)
SCALE = 4  # int8 values that hold a token's scale: the bytes of a float32, little-endian

GROUP = 64  # dimensions that share a scale in int4
# Its scales are bfloat16. The largest is the one before 2**125, of which 8 times is more than
# float32 holds.
INT4_SCALES = (2.0**-126, 2.0**125 - 2.0**116)

# Above this, embed warns: it is noise of 4% of the dimension's variance. The cross-entropy of heads
# on HateXplain and MiniLM changes by less than 0.001 in int4, where half of the dimensions lose
# 11% or more, the worst 18%; where these are 17% and 28%, by more (docs/benchmarks.md).
MOST = 0.2
# What deviates from its mean by less than this share of it is constant: float16 rounds off half as
# much.
CONSTANT = 1e-3
# What deviates by less than this share of the largest dimension's values is what float32 rounds off
# inside the backbone. MiniLM has three such dimensions.
NOISE = 1e-6


@dataclass(frozen=True)
class StoredType:
    """How hidden states are stored. Rows of another width than d + `extra` values are those of a
    subclass that says how wide they are: `row_values` and `hidden_width`.

    Attributes:
        dtype: numpy's name of the number type in the file.
        to_rows: Hidden states (..., d), float32 on any device -> rows (..., r) of `dtype` on the
            same device. A token with a value that the type cannot hold must read back as one that
            is not finite.
        widen: Rows (n, r) and memory (n, d) float32 on the same device -> that memory, with the
            hidden states in it. Training does this for every group of tokens.
        read: The same for numpy arrays of any shape.
        extra: Number of values in a row besides the d of its hidden state.
        measured: Whether `embed` measures how much the type rounds each dimension: it rounds the
            small values of a token as coarsely as the large ones.
        values: What the stored numbers are, where `dtype` does not say it: the attribute `values`
            of the dataset.
    """

    dtype: str
    to_rows: Callable[[torch.Tensor], torch.Tensor]
    widen: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    read: Callable[[Array, Array], Array]
    extra: int = 0
    measured: bool = False
    values: str | None = None

    def row_values(self, width: int) -> int:
        """r, the number of stored values per token, for hidden width d."""
        return width + self.extra

    def hidden_width(self, values: int) -> int:
        """d, the hidden width, for r stored values per token."""
        return values - self.extra

    @property
    def name(self) -> str:
        """Its name in DTYPES."""
        return self.values or self.dtype

    @property
    def numpy(self) -> np.dtype[Any]:
        """The number type in the file."""
        return np.dtype(self.dtype)

    @property
    def plain(self) -> bool:
        """Whether the stored values are the hidden states themselves, as floating-point numbers."""
        return self.extra == 0 and self.numpy.kind == "f"

    def row_bytes(self, width: int) -> int:
        """Number of stored bytes per token, for hidden width d."""
        return self.row_values(width) * self.numpy.itemsize

    def memory(self, tokens: int, width: int) -> Array:
        """Memory for the rows of so many tokens."""
        return np.empty((tokens, self.row_values(width)), self.numpy)

    def encode(self, hidden: torch.Tensor) -> Array:
        """Hidden states (..., d), float32 on any device, as rows (..., r)."""
        rows: Array = self.to_rows(hidden).cpu().numpy()
        return rows

    def decode(self, rows: Array, into: Array | None = None) -> Array:
        """The hidden states (..., d) float32 of rows (..., r), in `into` or new memory."""
        if into is None:
            into = np.empty((*rows.shape[:-1], self.hidden_width(rows.shape[-1])), np.float32)
        return self.read(rows, into)

    def is_finite(self, rows: Array) -> bool:
        """Whether all hidden states of these rows are finite."""
        return is_finite(rows if self.plain else self.decode(rows))


class FourBits(StoredType):
    """Two values a byte, and a scale of two bytes for each GROUP of dimensions."""

    @override
    def row_values(self, width: int) -> int:
        require_even(width)
        return width // 2 + 2 * -(-width // GROUP)

    @override
    def hidden_width(self, values: int) -> int:
        return 2 * (values - 2 * -(-values // (GROUP // 2 + 2)))


def require_even(width: int) -> None:
    """Raise SpaceliteError if int4 cannot store this width: rows would be as long as those of the
    next."""
    if width % 2:
        raise SpaceliteError(
            f"dtype=int4: two dimensions share a byte, and hidden states have {width:,}: give them "
            "an even number, or choose another number type",
            ["dtype"],
        )


def is_finite(values: Array) -> bool:
    """Whether all values, float16 or float32, are finite. Their exponents say it: numpy would
    widen every float16 first, which takes twenty times as long."""
    kind = np.finfo(values.dtype)
    whole = values.view(f"i{values.itemsize}")
    exponent = whole.dtype.type(((1 << kind.nexp) - 1) << kind.nmant)
    return not values.size or bool((whole & exponent).max() < exponent)


def _copied(rows: Array, into: Array) -> Array:
    np.copyto(into, rows)
    return into


def _to_int8(hidden: torch.Tensor) -> torch.Tensor:
    """Each token's values in steps of its scale, the largest absolute value / 127, rounded to
    nearest (ties to even), and behind them the scale. That of zeros is 0, and that of a token whose
    values are not all finite is NaN."""
    largest = hidden.abs().amax(dim=-1, keepdim=True)
    scale = (largest / LARGEST).clamp_(*SCALES)
    scale = torch.where(largest.isfinite(), scale * (largest > 0), torch.nan)
    whole = (hidden / scale).nan_to_num_(0.0).round_().to(torch.int8)
    return torch.cat([whole, scale.contiguous().view(torch.int8)], dim=-1)


def _widen_int8(rows: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    scale = rows[:, -SCALE:].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return into.copy_(rows[:, :-SCALE]).mul_(scale)


def _read_int8(rows: Array, into: Array) -> Array:
    scale = np.ascontiguousarray(rows[..., -SCALE:]).view("<f4")
    np.multiply(rows[..., :-SCALE], scale, out=into)
    return into


def _to_int4(hidden: torch.Tensor) -> torch.Tensor:
    """Each group's values in steps of its scale, -1/8 of the value that is largest absolutely, so
    that this is -8, rounded to nearest (ties to even) and at most 7. A byte has one of the first
    half of the dimensions in its lower four bits and one of the second half in its upper four.
    Behind them the scales, bfloat16. That of zeros is 0, and that of values that are not all finite
    is NaN."""
    width = hidden.shape[-1]
    require_even(width)
    padded = torch.nn.functional.pad(hidden, (0, -width % GROUP))
    groups = padded.reshape(*hidden.shape[:-1], -1, GROUP)
    least, most = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    largest = torch.where(-least > most, least, most)
    scale = (largest.abs() / 8).clamp_(*INT4_SCALES).copysign_(-largest)
    scale.masked_fill_(largest == 0, 0).masked_fill_(~largest.isfinite(), torch.nan)
    scales = scale.bfloat16()
    whole = (groups / scales.float()).nan_to_num_(0.0).round_().clamp_(-8, 7).to(torch.int8)
    low, high = whole.flatten(-2)[..., :width].chunk(2, dim=-1)
    return torch.cat([low & 15 | high << 4, scales.squeeze(-1).view(torch.int8)], dim=-1)


def _widen_int4(rows: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    half = into.shape[1] // 2
    codes, scales = rows[:, :half], rows[:, half:].contiguous().view(torch.bfloat16).float()
    into[:, :half], into[:, half:] = codes << 4 >> 4, codes >> 4
    groups = into.shape[1] // GROUP
    into[:, : GROUP * groups].view(len(into), groups, GROUP).mul_(scales[:, :groups, None])
    into[:, GROUP * groups :].mul_(scales[:, -1:])  # of the last group, which may be smaller
    return into


def _read_int4(rows: Array, into: Array) -> Array:
    half = into.shape[-1] // 2
    codes, scales = rows[..., :half], np.ascontiguousarray(rows[..., half:]).view(np.uint16)
    into[..., :half], into[..., half:] = codes << 4 >> 4, codes >> 4
    wide = _read_bfloat16(scales, np.empty(scales.shape, np.float32))
    into *= np.repeat(wide, GROUP, axis=-1)[..., : into.shape[-1]]
    return into


def _read_bfloat16(rows: Array, into: Array) -> Array:
    np.left_shift(rows, 16, out=into.view(np.uint32), dtype=np.uint32)
    return into


DTYPES: dict[str, StoredType] = {
    "float16": StoredType(
        "float16",
        to_rows=lambda hidden: hidden.to(torch.float16),
        widen=lambda rows, into: into.copy_(rows),
        read=_copied,
    ),
    "float32": StoredType(
        "float32",
        to_rows=lambda hidden: hidden.to(torch.float32),
        widen=lambda rows, into: into.copy_(rows),
        read=_copied,
    ),
    # numpy has no such type: the 16 bits are stored, the upper half of those of float32.
    "bfloat16": StoredType(
        "uint16",
        to_rows=lambda hidden: hidden.to(torch.bfloat16).view(torch.uint16),
        widen=lambda rows, into: into.copy_(rows.view(torch.bfloat16)),
        read=_read_bfloat16,
        values="bfloat16",
    ),
    "int8": StoredType(
        "int8", _to_int8, widen=_widen_int8, read=_read_int8, extra=SCALE, measured=True
    ),
    "int4": FourBits(
        "int8", _to_int4, widen=_widen_int4, read=_read_int4, measured=True, values="int4"
    ),
}


def stored_type(name: str) -> StoredType:
    """The stored type of this name. Raises SpaceliteError if there is none."""
    if name not in DTYPES:
        raise SpaceliteError(f"dtype={name}: {choose_from(name, DTYPES)}", ["dtype"])
    return DTYPES[name]


def varies(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Which dimensions differ from token to token by more than rounding, (d,) bool: of each the
    mean over tokens and the standard deviation, (d,) float64."""
    noise = NOISE * torch.hypot(mean, deviation).max()
    return (deviation > CONSTANT * mean.abs()) & (deviation > noise)


class Rounded(NamedTuple):
    """The error of the dimensions: its root mean square over tokens, divided by the dimension's
    standard deviation."""

    errors: Array  # (d,) float64; NaN for a dimension that is constant
    tokens: int  # that were measured

    @property
    def median(self) -> float:
        """The median over the dimensions that are not constant."""
        return float(np.nanmedian(self.errors))

    @property
    def worst(self) -> float:
        """The largest error."""
        return float(np.nanmax(self.errors))

    @property
    def dimension(self) -> int:
        """The dimension with the largest error, from 0."""
        return int(np.nanargmax(self.errors))

    def as_json(self) -> dict[str, float | int]:
        """What `embed --json` prints."""
        return {
            "tokens": self.tokens,
            "median": self.median,
            "worst": self.worst,
            "dimension": self.dimension,
        }


def rounding_sums(
    stored: StoredType,
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
    """What a forward pass measures, for `Rounding.add`: hidden states (..., d) float32 and their
    rows (..., r) -> of each dimension the mean over tokens, the sum of squared deviations from it,
    and the sum of squared errors, (3, d) float64. None for types in which nothing is measured."""
    if not stored.measured:
        return None

    def sums(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        hidden, rows = (values.reshape(-1, values.shape[-1]) for values in (hidden, rows))
        memory = stored.widen(rows, torch.empty_like(hidden))
        errors = memory.sub_(hidden).square_().sum(dim=0)
        mean = hidden.mean(dim=0)
        apart = torch.sub(hidden, mean, out=memory).square_().sum(dim=0)
        return torch.stack([mean, apart, errors]).double()

    return sums


class Rounding:
    """Adds up what `rounding_sums` measured in batches."""

    def __init__(self, stored: StoredType) -> None:
        self.stored = stored
        self._tokens = 0
        self._mean, self._apart, self._errors = (np.zeros(()),) * 3

    def add(self, tokens: int, measured: Array) -> None:
        """Add a batch, with its number of tokens and its `rounding_sums`, as Chan, Golub & LeVeque
        (1983) do."""
        mean, apart, errors = measured
        before = self._tokens
        self._tokens += tokens
        step = mean - self._mean
        self._apart = self._apart + apart + step**2 * (before * tokens / self._tokens)
        self._mean = self._mean + step * (tokens / self._tokens)
        self._errors = self._errors + errors

    def result(self) -> Rounded | None:
        """What was lost so far; None if nothing was measured, or every dimension is constant."""
        if not self._tokens:
            return None
        deviation = np.sqrt(self._apart / self._tokens)
        known = varies(torch.from_numpy(self._mean), torch.from_numpy(deviation)).numpy()
        if not known.any():
            return None
        errors = np.full(len(known), np.nan)
        errors[known] = np.sqrt(self._errors / self._tokens)[known] / deviation[known]
        return Rounded(errors, self._tokens)

    def log(self, total: int, prefix: str = "") -> Rounded | None:
        """Log what was lost, and warn if it is much. Of `total` tokens, some may have been copied
        or written before, which are not measured."""
        rounded = self.result()
        if rounded is None:
            return None
        some = f" ({rounded.tokens:,} of {total:,} tokens)" if rounded.tokens < total else ""
        log.info(
            "%s%s: error of each dimension relative to its deviation%s: median %s, worst %s "
            "(dimension %d)",
            prefix, self.stored.name, some, _percent(rounded.median), _percent(rounded.worst),
            rounded.dimension,
        )  # fmt: skip
        self.warn(prefix)
        return rounded

    def warn(self, prefix: str = "") -> None:
        """Warn if the error of a dimension is larger than MOST."""
        rounded = self.result()
        if rounded is None or rounded.worst <= MOST:
            return
        many, of = int((rounded.errors > MOST).sum()), int(np.isfinite(rounded.errors).sum())
        remedy = SpaceliteError(
            f"{many:,} of {of:,} dimensions by more than {MOST:.0%} of their deviation, the worst "
            f"(dimension {rounded.dimension}) by {_percent(rounded.worst)}: heads may be less "
            "accurate; use dtype=float16",
            ["dtype"],
        )
        log.warning("%s%s rounds %s", prefix, self.stored.name, remedy)


def _percent(share: float) -> str:
    return f"{100 * share:.{1 if share < 0.1 else 0}f}%"
