"""The report as a LaTeX document whose tables, set with booktabs, can be copied into a paper."""

from __future__ import annotations

from collections.abc import Sequence

from pylatexenc.latexencode import (
    RULE_DICT,
    UnicodeToLatexConversionRule,
    UnicodeToLatexEncoder,
)

from spacelite.report.blocks import (
    Block,
    Bullets,
    Cell,
    Heading,
    Line,
    Mistakes,
    Paragraph,
    Plot,
    Table,
)
from spacelite.report.examples import Mistake
from spacelite.report.markdown import marked

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
# Not floats: there are more tables than LaTeX holds back, and each belongs under its heading.
WIDE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"

LONG = 25  # lines: a longer table is broken over pages, and may then not be scaled

# What LaTeX's usual font has elsewhere, or makes a ligature of.
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
    """All blocks but plots, which lie beside the page as files."""
    parts = [_block(block) for block in blocks if not isinstance(block, Plot)]
    return PREAMBLE + "\n\n".join(parts) + "\n\n\\end{document}\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"\\{LEVELS[block.level - 1]}*{{{escaped(block.text)}}}"
    if isinstance(block, Paragraph):
        return escaped(block.text)
    if isinstance(block, Bullets):
        return _list([escaped(item) for item in block.items])
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Mistakes):
        return _list([_mistake(mistake) for mistake in block.items])
    raise TypeError(block)


def _list(items: Sequence[str]) -> str:
    lines = [f"  \\item {item}" for item in items]
    return "\n".join(["\\begin{itemize}", *lines, "\\end{itemize}"])


def _table(table: Table) -> str:
    columns = "l" + "r" * (len(table.columns) - 1)
    lines = (
        []
        if table.kind == "systems"
        else [f"\\medskip\\textbf{{{escaped(table.caption)}}}\\nopagebreak\\par\\smallskip"]
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
    if line.kind in ("published", "difference"):
        cells[0] = f"\\quad {cells[0]}"
    after = " \\addlinespace" if line.kind == "difference" else ""
    return f"{' & '.join(cells)} \\\\{after}"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    if cell.best:
        text = f"\\textbf{{{text}}}"
    return f"{text} {{\\scriptsize {escaped(cell.spread)}}}" if cell.spread else text


def _mistake(mistake: Mistake) -> str:
    told = f"{mistake.example}, {mistake.label}, predicted {mistake.predicted}"
    words = [
        f"\\textbf{{{escaped(word)}}}" if strong else escaped(word)
        for word, strong in marked(mistake)
    ]
    return f"{escaped(told)} ({mistake.confidence:.2f}): {' '.join(words)}"


def escaped(text: str) -> str:
    """Text as LaTeX shows it; a character that it does not know by its number."""
    encoded: str = _encoder.unicode_to_latex(" ".join(text.split()))
    # A bracket or star after a line's end would be its argument.
    return f"{{}}{encoded}" if encoded.startswith(("[", "*")) else encoded
