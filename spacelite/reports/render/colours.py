"""Colours of systems and labels, alike in pages and files."""

# Told apart by those who cannot tell red from green, and at least 3:1 against both the light and
# the dark background of the page.
PALETTE = (
    "#2f7fd1", "#d9702b", "#1f9d78", "#b5519f", "#9a8a1c", "#7a6ff0", "#c94f5f", "#6f8794",
    "#3f9fb8", "#a0764f",
)  # fmt: skip
# Of the first ten systems none, then one each ten: for plotly, matplotlib and as a character.
MARKERS = (None, "circle", "square", "diamond", "triangle-up", "cross")
MARKERS_OF_FILES = (None, "o", "s", "D", "^", "P")
CHARACTERS = ("", "●", "■", "◆", "▲", "✚")


def marker_of(number: int) -> int:
    """Which of the markers a system has, by its place."""
    return number // len(PALETTE) % len(MARKERS)


def colour_of(number: int) -> str:
    """The colour of a system or label by its place; the eleventh has the first's."""
    return PALETTE[number % len(PALETTE)]


def band(systems: int) -> float:
    """How opaque the bands of so many systems are, one above the other."""
    return min(0.18, 1.1 / max(systems, 1))


def translucent(colour: str, share: float) -> str:
    """A colour of the palette as CSS, the background shining through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share:g})"
