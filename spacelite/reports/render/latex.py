"""The report as a LaTeX document whose tables, set with booktabs, can be copied into a paper."""

from __future__ import annotations

from collections.abc import Sequence

from pylatexenc.latexencode import (
    RULE_DICT,
    UnicodeToLatexConversionRule,
    UnicodeToLatexEncoder,
)

from spacelite.document import Block, Cell, Line, Table
from spacelite.reports.render.text import Markup, parts

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

# Characters that LaTeX's default font encodes differently, or turns into ligatures.
_SHOWN = {"|": r"\textbar{}", '"': r"\texttt{\char34}", "-": "-{}", "`": r"\textasciigrave{}",
          "?": "?{}", "!": "!{}", "'": "'{}"}  # fmt: skip
_encoder = UnicodeToLatexEncoder(
    conversion_rules=[
        UnicodeToLatexConversionRule(RULE_DICT, {ord(key): text for key, text in _SHOWN.items()}),
        "defaults",
    ],
    unknown_char_policy="unihex",
    unknown_char_warning=False,
)


def render(blocks: Sequence[Block]) -> str:
    """A LaTeX document of all blocks except plots, which the page has as files."""
    markup = Markup(escaped, _heading, _bullets, _strong, _table)
    return PREAMBLE + "\n\n".join(parts(blocks, markup)) + "\n\n\\end{document}\n"


def _heading(level: int, text: str) -> str:
    return f"\\{LEVELS[level - 1]}*{{{text}}}"


def _bullets(items: Sequence[str]) -> str:
    lines = [f"  \\item {item}" for item in items]
    return "\n".join(["\\begin{itemize}", *lines, "\\end{itemize}"])


def _strong(text: str) -> str:
    return f"\\textbf{{{text}}}"


def _table(table: Table) -> str:
    columns = "".join("l" if text else "r" for text in table.text_columns)
    lines = (
        []
        if table.kind == "systems"
        else [f"\\medskip{_strong(escaped(table.caption))}\\nopagebreak\\par\\smallskip"]
    )
    head = ["\\toprule", f"{' & '.join(map(escaped, table.columns))} \\\\", "\\midrule"]
    body = [*map(_line, table.lines), "\\bottomrule"]
    if len(table.lines) > LONG:
        begin, end = f"\\begin{{longtable}}[l]{{{columns}}}", "\\end{longtable}"
        return "\n".join([*lines, begin, *head, "\\endhead", *body, end])
    begin, end = f"{WIDE}\n\\begin{{tabular}}{{{columns}}}", "\\end{tabular}}"
    return "\n".join([*lines, begin, *head, *body, end])


def _line(line: Line) -> str:
    cells = [_cell(cell) for cell in line.cells]
    if line.kind in ("published", "difference", "split"):
        cells[0] = f"\\quad {cells[0]}"
    after = " \\addlinespace" if line.kind == "difference" else ""
    return f"{' & '.join(cells)} \\\\{after}"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    text = _strong(text) if cell.best else text
    return f"{text} {{\\scriptsize {escaped(cell.std)}}}" if cell.std else text


def escaped(text: str) -> str:
    """Escape text for LaTeX; unknown characters are written as their code points."""
    encoded: str = _encoder.unicode_to_latex(" ".join(text.split()))
    # After the end of a line, a bracket or star would be read as its argument.
    return f"{{}}{encoded}" if encoded.startswith(("[", "*")) else encoded
