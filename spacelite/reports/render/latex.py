"""The report as a LaTeX document whose tables, set with booktabs, can be copied into a paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from spacelite.document import Block, Line, Table
from spacelite.reports.render.markup import Markup

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


@cache
def _encoder() -> Any:
    from pylatexenc.latexencode import (
        RULE_DICT,
        UnicodeToLatexConversionRule,
        UnicodeToLatexEncoder,
    )

    rules = UnicodeToLatexConversionRule(
        RULE_DICT, {ord(key): text for key, text in _SHOWN.items()}
    )
    return UnicodeToLatexEncoder(
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


def render(blocks: Sequence[Block]) -> str:
    """A LaTeX document of all blocks except plots, which the page has as files."""
    return PREAMBLE + "\n\n".join(Latex().parts(blocks)) + "\n\n\\end{document}\n"
