"""Prints the size of the code, from its syntax trees: python tests/code_count.py [ROOT]

Code lines are lines that hold code: no comments, docstrings or blank lines.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from pathlib import Path

NOT_CODE = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER, tokenize.ENCODING,
)  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of all docstrings of a module."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }


def code_lines(source: str, tree: ast.AST) -> set[int]:
    """The lines of a module that hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        line
        for token in tokens
        if token.type not in NOT_CODE
        for line in range(token.start[0], token.end[0] + 1)
    } - docstring_lines(tree)


def parameters(node: Function) -> int:
    """Number of a function's parameters."""
    of = node.args
    return len(of.posonlyargs) + len(of.args) + len(of.kwonlyargs)


def measure(root: Path) -> dict[str, object]:
    """The figures of the library and its command line below `root`."""
    paths = sorted([*(root / "spacelite").rglob("*.py"), *(root / "cli").rglob("*.py")])
    lines = code = imports = classes = dataclasses = docstrings = 0
    lengths: list[int] = []
    longest: list[tuple[int, str]] = []
    largest: list[tuple[int, str]] = []
    for path in paths:
        source = path.read_text()
        tree = ast.parse(source)
        own = code_lines(source, tree)
        lines += len(source.splitlines())
        code += len(own)
        docstrings += len(docstring_lines(tree))
        name = path.relative_to(root).as_posix()
        largest.append((len(source.splitlines()), name))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports += (node.end_lineno or node.lineno) - node.lineno + 1
            elif isinstance(node, ast.ClassDef):
                classes += 1
                dataclasses += any("dataclass" in ast.unparse(d) for d in node.decorator_list)
            elif isinstance(node, Function):
                body = range(node.body[0].lineno, (node.end_lineno or 0) + 1)
                lengths.append(len(own.intersection(body)))
                longest.append((parameters(node), f"{name}:{node.name}"))
    return {
        "files": len(paths),
        "lines": lines,
        "code lines": code,
        "import lines": imports,
        "docstring lines": docstrings,
        "functions": len(lengths),
        "median function": statistics.median(lengths),
        "classes": classes,
        "dataclasses": dataclasses,
        "longest signatures": sorted(longest, reverse=True)[:3],
        "largest files": sorted(largest, reverse=True)[:3],
    }


if __name__ == "__main__":
    for label, value in measure(
        Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parents[1])
    ).items():
        if isinstance(value, list):
            value = ", ".join(f"{name} {number}" for number, name in value)
        print(f"{label:<20} {value:,}" if isinstance(value, int) else f"{label:<20} {value}")
