"""Blocks -> text: the one walk over a document, and how each form that is a text writes a block:
markdown, plain text, LaTeX, and a piece of HTML for notebooks."""

from __future__ import annotations

import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from typing import Any

from spacelite.document import Block, Bullets, Cell, Heading, Line, Mistakes, Paragraph, Table
from spacelite.inference.explanation import Marked
from spacelite.reports.analysis.examples import Mistake
from spacelite.visible import visible

# What GitHub makes a link of by itself: the end of what begins an address, or the place before @.
ADDRESS = re.compile(r"(?:https?|ftp|mailto|xmpp)(?=:)|www(?=\.)|(?=@)", re.IGNORECASE)


class Markup(ABC):
    """How a form writes each kind of block. Text is escaped, except that of tables and cells."""

    STRONG = "{}"  # emphasised text
    SMALL = "{}"  # a standard deviation, after its figure

    def parts(self, blocks: Sequence[Block]) -> list[str]:
        """The text of each block; plots have none."""
        return [text for block in blocks if (text := self._block(block))]

    def _block(self, block: Block) -> str:
        if isinstance(block, Heading):
            return self.heading(block.level, self.escaped(block.text))
        if isinstance(block, Paragraph):
            return self.paragraph(self.escaped(block.text))
        if isinstance(block, Bullets):
            return self.bullets([self.escaped(item) for item in block.items])
        if isinstance(block, Table):
            return self.table(block)
        if isinstance(block, Mistakes):
            return self.mistakes(block.items)
        return ""

    def escaped(self, text: str) -> str:
        """Text so that it is shown literally."""
        return text

    @abstractmethod
    def heading(self, level: int, text: str) -> str:
        """A heading of level 1 to 3."""

    def paragraph(self, text: str) -> str:
        """Running text."""
        return text

    @abstractmethod
    def bullets(self, items: Sequence[str]) -> str:
        """A list of sentences."""

    @abstractmethod
    def table(self, table: Table) -> str:
        """A table with its caption."""

    def strong(self, text: str) -> str:
        """Emphasised text."""
        return self.STRONG.format(text)

    def cell(self, cell: Cell) -> str:
        """A cell; the best figure of a column is strong."""
        text = self.escaped(cell.text)
        text = self.strong(text) if cell.best else text
        return f"{text} {self.SMALL.format(self.escaped(cell.std))}" if cell.std else text

    def mistakes(self, mistakes: Sequence[Mistake]) -> str:
        """Wrongly predicted texts: a list of them."""
        return self.bullets([self.mistake(mistake) for mistake in mistakes])

    def mistake(self, mistake: Mistake) -> str:
        """What was predicted, and the text."""
        return f"{self.escaped(mistake.about)} ({mistake.degree}): {self.words(mistake)}"

    def words(self, mistake: Mistake) -> str:
        """A text in which words are strong if they contribute more than half as much to the
        predicted label as the strongest word."""
        limit = max(*mistake.shares, 0) / 2
        return " ".join(
            self.strong(self.escaped(word)) if share > limit else self.escaped(word)
            for word, share in zip(mistake.words, mistake.shares, strict=True)
            if word
        )


class Markdown(Markup):
    """GitHub's markdown."""

    STRONG = "**{}**"

    def escaped(self, text: str) -> str:
        """Text that stays within its line and cell and is shown literally."""
        for character in "\\|<>*_`[]#~&$":
            text = text.replace(character, "\\" + character)
        return " ".join(ADDRESS.sub(r"\g<0>\\", text).split())

    def heading(self, level: int, text: str) -> str:
        """One level below the title."""
        return f"{'#' * (level + 1)} {text}"

    def bullets(self, items: Sequence[str]) -> str:
        """A line per item."""
        return "\n".join(f"- {item}" for item in items)

    def table(self, table: Table) -> str:
        """A pipe table below its caption."""
        rules = (" --- |" if text else " ---: |" for text in table.text_columns)
        return "\n".join(
            [
                *([self.strong(self.escaped(table.caption)), ""] if table.captioned else []),
                _line(map(self.escaped, table.columns)),
                "|" + "".join(rules),
                *(_line(map(self.cell, line.cells)) for line in table.lines),
            ]
        )


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(blocks: Sequence[Block]) -> str:
    """A markdown document of all blocks except plots."""
    return "\n\n".join(["# spacelite report", *Markdown().parts(blocks)]) + "\n"


WIDTH = 100  # of running text


class Plain(Markup):
    """Wrapped text; tables and lists in characters."""

    def heading(self, level: int, text: str) -> str:
        """A line, underlined."""
        return f"{text}\n{'=-~'[min(level, 3) - 1] * len(text)}"

    def paragraph(self, text: str) -> str:
        """Wrapped lines."""
        return textwrap.fill(text, WIDTH)

    def bullets(self, items: Sequence[str]) -> str:
        """Wrapped lines, each item after a dash."""
        return "\n".join(
            textwrap.fill(item, WIDTH, initial_indent="- ", subsequent_indent="  ")
            for item in items
        )

    def table(self, block: Table) -> str:
        """Columns below the caption, unless something above the table says it."""
        caption = textwrap.fill(f"Table: {block.caption}", WIDTH)
        return f"{caption}\n\n{self.columns(block)}" if block.captioned else self.columns(block)

    def columns(self, block: Table) -> str:
        """A table without its caption: texts are left-aligned, numbers right-aligned."""
        rows = [
            [visible(" ".join(f"{cell.text} {cell.std}".split())) for cell in line.cells]
            for line in block.lines
        ]
        headings = [visible(" ".join(heading.split())) for heading in block.columns]
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.ljust(width) if left else cell.rjust(width)
                for cell, width, left in zip(cells, widths, block.text_columns, strict=True)
            )
            return "  ".join(padded).rstrip()

        rule = "-" * len(line(["x" * width for width in widths]))
        return "\n".join([line(headings), rule, *map(line, rows)])

    def words(self, mistake: Mistake) -> str:
        """A text in which words that matter at least half as much as the strongest have their share
        beside them: `dull(+0.12)`."""
        return " ".join(
            f"{word.text}({word.share(2)})" if word.weight >= 0.5 else word.text
            for word in mistake.marked
            if word.text
        )


def plain(blocks: Sequence[Block]) -> str:
    """All blocks except plots, as plain text."""
    return visible("\n\n".join(Plain().parts(blocks)) + "\n")


PREAMBLE = r"""% The tables need \usepackage{booktabs,graphicx,longtable}.
\documentclass{article}
\usepackage[a4paper,landscape,margin=1.8cm]{geometry}
\usepackage{booktabs,graphicx,longtable}
\setlength{\parindent}{0pt}
\setlength{\tabcolsep}{4pt}
\sloppy
\begin{document}
"""
LEVELS = ("section", "subsection", "subsubsection")
# Not floats: LaTeX cannot hold back so many tables, and each belongs under its heading.
WIDE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
LONG = 25  # lines; a longer table is broken over pages, and then cannot be scaled
LONGEST = 35  # characters of a name that such a table need not wrap
NAMES = r"0.22\linewidth"  # the column of longer ones
# Characters that LaTeX's default font encodes differently, or turns into ligatures.
_ESCAPED = {"|": r"\textbar{}", '"': r"\texttt{\char34}", "-": "-{}", "`": r"\textasciigrave{}",
          "?": "?{}", "!": "!{}", "'": "'{}"}  # fmt: skip


@cache
def _encoder() -> Any:
    from pylatexenc import latexencode

    shown = {ord(key): text for key, text in _ESCAPED.items()}
    rules = latexencode.UnicodeToLatexConversionRule(latexencode.RULE_DICT, shown)
    return latexencode.UnicodeToLatexEncoder(
        conversion_rules=[rules, "defaults"],
        unknown_char_policy="unihex",
        unknown_char_warning=False,
    )


class Latex(Markup):
    """LaTeX with booktabs."""

    STRONG = r"\textbf{{{}}}"
    SMALL = r"{{\scriptsize {}}}"

    def escaped(self, text: str) -> str:
        """Escaped text; unknown characters are written as their code points."""
        encoded: str = _encoder().unicode_to_latex(" ".join(text.split()))
        # After the end of a line, a bracket or star would be read as its argument.
        return f"{{}}{encoded}" if encoded.startswith(("[", "*")) else encoded

    def heading(self, level: int, text: str) -> str:
        """A heading without a number."""
        return f"\\{LEVELS[level - 1]}*{{{text}}}"

    def bullets(self, items: Sequence[str]) -> str:
        """An itemize environment."""
        lines = [f"  \\item {item}" for item in items]
        return "\n".join(["\\begin{itemize}", *lines, "\\end{itemize}"])

    def table(self, table: Table) -> str:
        """A table as wide as the page at most; a long one is broken over pages."""
        columns = "".join("l" if text else "r" for text in table.text_columns)
        names = max((len(line.cells[0].text) for line in table.lines), default=0)
        if len(table.lines) > LONG and names > LONGEST:
            columns = f"p{{{NAMES}}}{columns[1:]}"
        caption = self.strong(self.escaped(table.caption))
        above = [f"\\medskip{caption}\\nopagebreak\\par\\smallskip"]
        head = ["\\toprule", f"{' & '.join(map(self.escaped, table.columns))} \\\\", "\\midrule"]
        body = [*map(self._line, table.lines), "\\bottomrule"]
        if len(table.lines) > LONG:
            begin, end = f"\\begin{{longtable}}[l]{{{columns}}}", "\\end{longtable}"
            head.append("\\endhead")
        else:
            begin, end = f"{WIDE}\n\\begin{{tabular}}{{{columns}}}", "\\end{tabular}}"
        return "\n".join([*(above if table.kind != "systems" else []), begin, *head, *body, end])

    def _line(self, line: Line) -> str:
        cells = [self.cell(cell) for cell in line.cells]
        if line.kind in ("published", "difference", "split"):
            cells[0] = f"\\quad {cells[0]}"
        after = " \\addlinespace" if line.kind == "difference" else ""
        return f"{' & '.join(cells)} \\\\{after}"


def latex(blocks: Sequence[Block]) -> str:
    """A LaTeX document of all blocks except plots, which the page has as files."""
    return PREAMBLE + "\n\n".join(Latex().parts(blocks)) + "\n\n\\end{document}\n"


CELL = "padding:2px 8px;text-align:{};white-space:nowrap;border-bottom:1px solid #8884"
CAPTION = "caption-side:top;text-align:left;font-weight:bold;padding:8px 8px 2px"
COLOURS = {"for": "31,157,120", "against": "217,112,43"}


class Fragment(Markup):
    """HTML without a page around it; folded tables open with a click."""

    STRONG = "<b>{}</b>"
    SMALL = "<small>{}</small>"

    def escaped(self, text: str) -> str:
        """Text with HTML's marks as entities."""
        return escape(text)

    def heading(self, level: int, text: str) -> str:
        """A heading below those of a notebook."""
        tag = f"h{min(level + 2, 6)}"
        return f"<{tag}>{text}</{tag}>"

    def paragraph(self, text: str) -> str:
        """A paragraph."""
        return f"<p>{text}</p>"

    def bullets(self, items: Sequence[str]) -> str:
        """A list."""
        return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"

    def table(self, table: Table) -> str:
        """A table below its caption, unless something above it says that."""
        if table.folded:
            summary = self.escaped(table.caption)
            return f"<details><summary>{summary}</summary>{self.columns(table)}</details>"
        return self.columns(table, table.caption if table.captioned else "")

    def columns(self, table: Table, caption: str = "") -> str:
        """A table below this caption, if there is one."""
        head = self._cells("th", map(Cell, table.columns), table.text_columns)
        body = "".join(
            f"<tr>{self._cells('td', line.cells, table.text_columns)}</tr>" for line in table.lines
        )
        above = f'<caption style="{CAPTION}">{escape(caption)}</caption>' if caption else ""
        return (
            f'<div style="overflow-x:auto"><table style="border-collapse:collapse">{above}'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _cells(self, tag: str, cells: Iterable[Cell], left: Sequence[bool]) -> str:
        styles = (CELL.format("left" if is_text else "right") for is_text in left)
        return "".join(
            f'<{tag} style="{style}">{self.cell(cell)}</{tag}>'
            for cell, style in zip(cells, styles, strict=True)
        )

    def mistakes(self, mistakes: Sequence[Mistake]) -> str:
        """Texts one below the other, each highlighted."""
        return "".join(map(self.mistake, mistakes))

    def mistake(self, mistake: Mistake) -> str:
        """What was predicted, above the text."""
        text = marked_text(mistake.marked)
        return f"<p><b>{escape(mistake.about)}</b> ({mistake.degree})</p>{text}"


def fragment(blocks: Sequence[Block]) -> str:
    """All blocks except plots as HTML."""
    return "<div>" + "".join(Fragment().parts(blocks)) + "</div>"


def marked_text(words: Sequence[Marked]) -> str:
    """A highlighted text: words for a label on green, words against it on orange."""
    parts = []
    for word in words:
        text = escape(word.text)
        if word.side:
            style = f"background:rgba({COLOURS[word.side]},{0.15 + 0.45 * word.weight:.2f})"
            text = (
                f'<span style="{style};border-radius:3px;padding:0 2px" '
                f'title="{word.share(4)}">{text}</span>'
            )
        parts.append(text)
    return f'<p style="line-height:1.8">{" ".join(parts)}</p>'
