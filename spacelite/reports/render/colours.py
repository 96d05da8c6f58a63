"""Colours of systems and labels, the same in pages and files."""

# Distinguishable for readers with red-green colour blindness, with a contrast of at least 3:1 to
# both the light and the dark background of the page.
PALETTE = (
    "#2f7fd1", "#d9702b", "#1f9d78", "#b5519f", "#9a8a1c", "#7a6ff0", "#c94f5f", "#6f8794",
    "#3f9fb8", "#a0764f",
)  # fmt: skip
# None for the first ten systems, then one per ten: for plotly, matplotlib and as a character.
MARKERS = (None, "circle", "square", "diamond", "triangle-up", "cross")
MARKERS_OF_FILES = (None, "o", "s", "D", "^", "P")
CHARACTERS = ("", "●", "■", "◆", "▲", "✚")


def marker_of(number: int) -> int:
    """The index of a system's marker, given the system's index."""
    return number // len(PALETTE) % len(MARKERS)


def colour_of(number: int) -> str:
    """The colour of a system or label, given its index; colours repeat after ten."""
    return PALETTE[number % len(PALETTE)]


def band(systems: int) -> float:
    """The opacity of the overlapping bands of this many systems."""
    return min(0.18, 1.1 / max(systems, 1))


def translucent(colour: str, share: float) -> str:
    """A colour of the palette as CSS, with `share` as its opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share:g})"
