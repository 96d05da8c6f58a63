"""The direction of imports, one gateway to each heavy package, and what modules may not do."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "spacelite").rglob("*.py"))
COMMANDS = sorted((ROOT / "cli").glob("*.py"))

# Data flows one way: a package imports only from those above it, and so does a module inside it.
# A package's `__init__` stands where its own imports put it.
ORDER = {
    "visible": [],
    "errors": [],
    "files": [],
    "settings": [],
    "progress": [],
    "lazy": [],
    "pipeline": [],
    "hub": [],
    "metrics": [
        "scores", "thresholds", "calibration", "predictions", "significance", "power_law",
        "__init__",
    ],
    "tasks": ["base", "majority", "single_label", "multi_label", "__init__"],
    "data": [
        "splits", "dialect", "sources", "demo", "columns", "labels", "known", "loading", "inputs",
        "rereading", "streams", "writers", "__init__",
    ],
    "backbones": [
        "files", "tokenizer", "unknown", "words", "model", "transfers", "forward",
        "shared", "__init__",
    ],
    "heads": [
        "config", "batch", "examples", "base", "pooling", "pooled",
        "ngrams", "ids", "lbfgs", "logistic", "crossfit", "blocks", "penalties", "space",
        "space_block", "linear", "mlp", "logreg", "tfidf", "additive", "__init__", "grid",
    ],
    "cache": [
        "dtypes", "spec", "hdf5", "split", "layers", "store", "unknown", "texts",
        "duplicates", "precision",
        "journal", "reuse", "folder", "layout", "tokenizing", "rounding", "speed", "writing",
        "computing", "embedding", "text_store", "encoding", "__init__",
    ],
    "training": [
        "config", "auto", "advice", "machine", "stream", "batches", "optimizer", "engine",
        "updates", "evaluation", "thresholds", "fits", "checkpoints", "memory", "trained",
        "assembly", "search", "weighted", "loop", "__init__",
    ],
    "runs": ["reading", "record", "store", "caches", "names", "listing", "__init__"],
    "inference": [
        "prediction", "layers", "cached", "shares", "concepts", "marks", "explanation",
        "transfer", "streaming", "__init__",
    ],
    "questions": [
        "folds", "subsets", "on_subsets", "cross_validation", "learning_curves", "audit",
        "answers", "__init__",
    ],
    "paper": ["tables", "__init__", "reproduction"],
    "reports": ["analysis", "document", "render", "report", "__init__"],
    "reports/analysis": [
        "rows", "sweeps", "groups", "selection", "differences", "comparisons", "data_notes",
        "training_notes",
        "examples", "published", "content", "__init__",
    ],
    "reports/document": [
        "wording", "chart", "blocks", "systems_table", "cross_validation", "audit",
        "learning_curve",
        "answers", "sections", "runs_table", "__init__",
    ],
    "reports/render": [
        "colours", "plain", "characters", "text", "markdown", "latex", "figures", "plots",
        "fragment", "page", "charts", "explained", "forms", "__init__",
    ],
    "api": [
        "arguments", "results", "streams", "runs", "lists", "baselines", "presets", "searching",
        "choosing", "columns", "embedding", "training", "cross_validation", "learning_curves",
        "auditing", "saved", "__init__",
    ],
    "estimators": [
        "inputs", "preparing", "base", "encoder", "trained", "additive", "baselines", "search",
        "__init__",
    ],
    "__init__": [],
}  # fmt: skip
# The one module that imports each heavy package; others ask it.
GATEWAYS = {
    "h5py": ["cache/hdf5"],
    "datasets": ["data/sources"],
    "pyarrow": ["data/sources", "data/streams", "data/writers"],
    "huggingface_hub": ["hub"],
    "transformers": ["backbones/tokenizer", "backbones/model"],
    "tokenizers": ["backbones/words"],
    "sklearn": [
        "data/known",
        "heads/logreg",
        "questions/folds",
        *(f"estimators/{name}" for name in ("inputs", "preparing", "base", "encoder", "search")),
    ],
    "scipy": [
        "metrics/significance",
        "heads/logistic",
        "heads/crossfit",
        "estimators/search",
    ],
    "matplotlib": ["reports/render/plots"],
    "plotly": ["reports/render/figures"],
    "jinja2": ["reports/render/page"],
    "pylatexenc": ["reports/render/latex"],
    "rich": ["progress"],
    "filelock": ["files"],
    "psutil": ["training/machine"],
}


def module(path: Path) -> str:
    """The path of a module below the library, without its ending: `cache/store`."""
    return path.relative_to(ROOT / "spacelite").with_suffix("").as_posix()


MODULES = {module(path) for path in LIBRARY}


def imports(path: Path):
    """(dotted name, whether it is needed only for types) of every import in a file; names that are
    imported from the library are modules where there are such modules."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield name, id(node) in typing_only


def imported_module(name: str) -> str:
    """The module of the library that `spacelite.cache.store.Cache` names: `cache/store`."""
    parts = name.split(".")[1:]
    while parts:
        path = "/".join(parts)
        for found in (path, f"{path}/__init__"):
            if found in MODULES:
                return found
        parts.pop()
    return "__init__"


def location(name: str) -> list[int]:
    """Where a module stands in ORDER: the number of its package, then its own inside."""
    parts, numbers, table = name.split("/"), [], [key for key in ORDER if "/" not in key]
    for depth, part in enumerate(parts):
        numbers.append(table.index(part))
        table = ORDER.get("/".join(parts[: depth + 1]), [])
    return numbers


def test_every_module_stands_in_the_order():
    listed = {
        f"{package}/{inner}" if package else inner
        for package, contents in ORDER.items()
        for inner in contents
    } | {package for package, contents in ORDER.items() if not contents}
    assert listed - {package for package in ORDER if ORDER[package]} == MODULES


@pytest.mark.parametrize("path", LIBRARY, ids=module)
def test_modules_import_only_from_those_above_them(path):
    here = module(path)
    for name, typing_only in imports(path):
        if name.split(".")[0] == "spacelite" and not typing_only:
            other = imported_module(name)
            assert location(other) < location(here), f"{here} imports {other}"


@pytest.mark.parametrize("path", LIBRARY, ids=module)
def test_the_library_knows_nothing_of_the_commands(path):
    assert not {name.split(".")[0] for name, _ in imports(path)} & {"spacelite_cli", "cli"}


@pytest.mark.parametrize("path", LIBRARY, ids=module)
def test_heavy_packages_have_one_gateway_each(path):
    for name, typing_only in imports(path):
        package = name.split(".")[0]
        if package in GATEWAYS and not typing_only:
            assert module(path) in GATEWAYS[package], f"{path} imports {package}"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_commands_import_no_heavy_package(path):
    heavy = {"torch", "numpy", "safetensors", *GATEWAYS} - {"rich"}
    assert not {name.split(".")[0] for name, _ in imports(path)} & heavy


@pytest.mark.parametrize("path", LIBRARY, ids=module)
def test_the_library_neither_prints_nor_parses_arguments(path):
    assert not {name.split(".")[0] for name, _ in imports(path)} & {"typer", "click", "argparse"}
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert "print" not in {ast.unparse(call.func) for call in calls}


@pytest.mark.parametrize("path", LIBRARY, ids=module)
def test_messages_of_the_library_name_no_options(path):
    """Python callers read them; the command line puts its options in place of arguments. A whole
    command, `spacelite explain ...`, may stand in a report."""
    assert {
        text
        for text in strings(ast.parse(path.read_text()))
        if re.search(r"(?<![\w-])--[a-z]", text) and not text.startswith("spacelite ")
    } == set()


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


@pytest.mark.parametrize("path", LIBRARY + COMMANDS, ids=str)
def test_nothing_is_unpickled_and_no_remote_code_is_trusted(path):
    text = path.read_text()
    assert not {name.split(".")[0] for name, _ in imports(path)} & {"pickle", "joblib", "dill"}
    assert "torch.load" not in text and "trust_remote_code=True" not in text


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import spacelite", ["torch", "numpy", "transformers", "h5py", "rich", "sklearn"]),
        ("import spacelite_cli.app", ["torch", "numpy", "transformers", "h5py", "rich.table"]),
        ("from spacelite import runs; from spacelite.reports import Report",
         ["torch", "transformers", "datasets", "sklearn", "scipy", "matplotlib", "plotly"]),
        ("from spacelite.cache import folder; from spacelite.inference import transfer; "
         "from spacelite.training import loop",
         ["transformers", "datasets", "sklearn", "pyarrow", "torch._dynamo"]),
        ("from spacelite.cache import embedding", ["transformers", "datasets", "sklearn", "torch"]),
    ],
)  # fmt: skip
def test_start_up_leaves_heavy_packages_alone(code, absent):
    check = f"{code}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_stay_of_a_readable_size():
    sizes = {str(path): len(path.read_text().splitlines()) for path in LIBRARY + COMMANDS}
    # The built-in data set is a list of sentences.
    assert {path for path, size in sizes.items() if size > 410} <= {
        str(ROOT / "spacelite/data/demo.py")
    }
