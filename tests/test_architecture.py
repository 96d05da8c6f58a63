"""The direction of imports, the gateways to heavy packages, and what modules may not do."""

import ast
import functools
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import processes

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "spacelite").rglob("*.py"))
COMMANDS = sorted((ROOT / "cli").glob("*.py"))

# Data flows one way: a package imports only from those before it. Not all of them need exist.
PACKAGES = [
    "visible", "errors", "document", "types", "files", "settings", "progress", "memory", "lazy",
    "npz", "pipeline", "hub", "ranks",
    "metrics", "tasks", "data", "backbones", "heads", "cache", "training", "runs", "inference",
    "studies", "paper",
    "reports/analysis", "reports/document", "reports/render", "reports",
    "export", "api", "estimators", "__init__",
]  # fmt: skip
# The packages that import each heavy one; others ask them.
GATEWAYS = {
    "h5py": ["cache"],
    "datasets": ["data"],
    "pyarrow": ["data"],
    "huggingface_hub": ["hub"],
    "sentence_transformers": ["export"],
    "yaml": ["export"],
    "transformers": ["backbones", "export"],
    "tokenizers": ["backbones", "export"],
    "onnx": ["export"],
    "onnxruntime": ["export"],
    "sklearn": ["data", "heads", "studies", "estimators"],
    "scipy": ["metrics", "heads", "studies", "estimators"],
    "matplotlib": ["reports/render"],
    "plotly": ["reports/render"],
    "jinja2": ["reports/render"],
    "pylatexenc": ["reports/render"],
    "rich": ["progress"],
    "filelock": ["files"],
    "psutil": ["memory"],
    "starlette": ["export"],
    "uvicorn": ["export"],
}


class Module(NamedTuple):
    """What a file imports and says."""

    name: str  # the path below the library without its ending: `cache/store`
    source: str
    tree: ast.Module
    imports: tuple[str, ...]  # dotted names, those that only types need included
    needs: tuple[str, ...]  # those that are imported when it runs


@functools.cache
def parsed(path: Path) -> Module:
    """A file, read and parsed once."""
    source = path.read_text()
    tree = ast.parse(source)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names, needs = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        names.extend(imported)
        if id(node) not in typing_only:
            needs.extend(imported)
    start = ROOT / "spacelite" if path.is_relative_to(ROOT / "spacelite") else ROOT
    name = path.relative_to(start).with_suffix("").as_posix()
    return Module(name, source, tree, tuple(names), tuple(needs))


# Files that an export holds as they are: they know nothing of the library.
EXPORTED = ("export/classify", "export/modeling_spacelite")


def library() -> list[Module]:
    """The library's modules."""
    return [parsed(path) for path in LIBRARY]


def within() -> list[Module]:
    """Those that are not EXPORTED."""
    return [module for module in library() if module.name not in EXPORTED]


def commands() -> list[Module]:
    """The command line's modules."""
    return [parsed(path) for path in COMMANDS]


def roots(names: tuple[str, ...]) -> set[str]:
    """The packages that dotted names begin with; of `lazy`, those that it imports."""
    return {name.removeprefix("spacelite.lazy.").split(".")[0] for name in names}


def package(name: str) -> str:
    """The entry of PACKAGES that a module belongs to: the longest that fits."""
    fitting = [entry for entry in PACKAGES if name == entry or name.startswith(f"{entry}/")]
    return max(fitting, key=len, default=name)


def own_imports(module: Module) -> set[str]:
    """The library's modules that a module imports when it runs; `spacelite.cache.store.Cache` is
    `cache/store`."""
    names = {other.name for other in library()}
    imported = set()
    for dotted in module.needs:
        parts = dotted.split(".")
        if parts[0] != "spacelite":
            continue
        paths = ["/".join(parts[1:end]) for end in range(len(parts), 1, -1)]
        paths = [path for stem in paths for path in (stem, f"{stem}/__init__")]
        imported.add(next((path for path in paths if path in names), "__init__"))
    return imported


def test_packages_import_only_from_those_before_them():
    unknown = {module.name for module in library() if package(module.name) not in PACKAGES}
    assert unknown == set(), "a new package needs its place in PACKAGES"
    assert [
        f"{module.name} imports {other}"
        for module in library()
        for other in sorted(own_imports(module))
        if PACKAGES.index(package(other)) > PACKAGES.index(package(module.name))
    ] == []


def test_exported_files_stand_alone():
    assert [
        module.name
        for module in library()
        if module.name in EXPORTED and "spacelite" in roots(module.imports)
    ] == []


def test_no_module_imports_itself_through_others():
    """Neither at start-up nor inside functions: imports for types alone are left out."""
    try:
        TopologicalSorter({module.name: own_imports(module) for module in library()}).prepare()
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
    else:
        cycle = ""
    assert cycle == ""


def test_the_library_knows_nothing_of_the_commands():
    outside = {"spacelite_cli", "cli"}
    assert [module.name for module in library() if roots(module.imports) & outside] == []


def test_heavy_packages_are_imported_by_their_gateways():
    assert [
        f"{module.name} imports {heavy}"
        for module in library()
        for heavy in sorted(roots(module.needs) & set(GATEWAYS))
        if package(module.name) not in GATEWAYS[heavy]
    ] == []
    heavy = {"torch", "numpy", "safetensors", *GATEWAYS} - {"rich"}
    assert [module.name for module in commands() if roots(module.imports) & heavy] == []


def test_the_library_neither_prints_nor_parses_arguments():
    parsers = {"typer", "click", "argparse"}
    assert [module.name for module in within() if roots(module.imports) & parsers] == []
    assert [
        f"{module.name}:{call.lineno}"
        for module in within()
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "print"
    ] == []


def test_messages_of_the_library_name_no_options():
    """Python callers read them; the command line puts its options in place of arguments. A whole
    command, `spacelite explain ...`, may stand in a report."""
    assert [
        f"{module.name}: {text}"
        for module in within()
        for text in strings(module.tree)
        if re.search(r"(?<![\w-])--[a-z]", text.partition("spacelite ")[0])
    ] == []


def strings(node: ast.AST, parent: ast.AST | None = None):
    """All strings below a node but docstrings, f-strings whole."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(getattr(part, "value", "")) for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if not isinstance(parent, ast.Expr):
            yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from strings(child, node)


def test_nothing_is_unpickled_and_no_remote_code_is_trusted():
    modules = library() + commands()
    picklers = {"pickle", "joblib", "dill"}
    assert [module.name for module in modules if roots(module.imports) & picklers] == []
    assert [module.name for module in modules if "torch.load" in module.source] == []
    assert [
        f"{module.name}:{keyword.lineno}"
        for module in modules
        for keyword in ast.walk(module.tree)
        if isinstance(keyword, ast.keyword) and keyword.arg == "trust_remote_code"
        if ast.unparse(keyword.value) != "False"
    ] == []


# In one process: each line also holds for what the lines before it imported.
START_UP = [
    ("import spacelite; _ = dir(spacelite)",
     ["torch", "numpy", "transformers", "h5py", "datasets", "pandas", "rich", "sklearn"]),
    ("import spacelite_cli.app", ["torch", "numpy", "transformers", "h5py", "rich.table"]),
    ("import contextlib, io\nwith contextlib.suppress(SystemExit), "
     "contextlib.redirect_stdout(io.StringIO()):\n    spacelite_cli.app.app(['embed', '--help'])",
     ["torch", "numpy"]),
    ("from spacelite.training.plan import declared; declared()", ["torch", "numpy"]),
    ("from spacelite.cache import embedding", ["transformers", "datasets", "sklearn", "torch"]),
    ("from spacelite import runs; from spacelite.reports.report import Report",
     ["torch", "transformers", "datasets", "sklearn", "scipy", "matplotlib", "plotly"]),
    ("from spacelite.cache import folder; from spacelite.inference import transfer; "
     "from spacelite.training import loop",
     ["transformers", "datasets", "sklearn", "pyarrow", "torch._dynamo"]),
]  # fmt: skip


def test_start_up_leaves_heavy_packages_alone():
    lines = ["import sys"]
    for code, absent in START_UP:
        lines += [code, f"print([m for m in {absent!r} if m in sys.modules])"]
    done = processes.run("\n".join(lines), fresh=True)
    loaded = dict(zip((code for code, _ in START_UP), done.stdout.splitlines(), strict=True))
    assert loaded == {code: "[]" for code, _ in START_UP}
