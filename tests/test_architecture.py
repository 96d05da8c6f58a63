"""The dependency direction, the gateways to heavy packages, and what a module may not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "spacelite").rglob("*.py"))
COMMANDS = sorted((ROOT / "cli").glob("*.py"))

# Data flows one way: a module imports only from those before it.
ORDER = [
    "errors", "demo_corpus", "hub", "sources", "columns", "data", "checkpoints", "backbone",
    "specs", "store", "journal", "caches", "embedding", "metrics", "outputs", "settings", "batches",
    "losses", "heads", "optimizer", "passes", "scoring", "logreg", "snapshots", "training", "runs",
    "significance", "evaluation", "prediction", "words", "explain", "paper",
    "reproduce", "report",
]  # fmt: skip
GATEWAYS = {
    "transformers": {"backbone"}, "h5py": {"store"}, "datasets": {"sources"},
    "pyarrow": {"sources"}, "huggingface_hub": {"hub"}, "tokenizers": {"words"},
    "scipy": {"significance"}, "matplotlib": {"plots"}, "plotly": {"figures"}, "jinja2": {"page"},
    "pylatexenc": {"latex"},
}  # fmt: skip


def named(path):
    return f"{path.parent.name}-{path.stem}"


def imports(path):
    """(module, whether it is needed only for types) of every import statement in a file."""
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
            module = node.module or ""
            names = (
                [f"{module}.{a.name}" for a in node.names] if module == "spacelite" else [module]
            )
        for name in names:
            yield name, id(node) in typing_only


def module_of(path):
    parts = path.relative_to(ROOT / "spacelite").with_suffix("").parts
    return parts[0]


def test_every_module_has_its_place_in_the_order():
    found = {module_of(path) for path in LIBRARY} - {"__init__"}
    assert found == set(ORDER)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_modules_import_only_from_those_before_them(path):
    here = module_of(path)
    for name, typing_only in imports(path):
        parts = name.split(".")
        if parts[0] == "spacelite" and len(parts) > 1 and parts[1] in ORDER and not typing_only:
            limit = len(ORDER) if here == "__init__" else ORDER.index(here) + (here == "report")
            assert ORDER.index(parts[1]) < limit, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "path", LIBRARY + COMMANDS, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_heavy_packages_have_one_gateway_each(path):
    for name, typing_only in imports(path):
        package = name.split(".")[0]
        if package in GATEWAYS and not typing_only:
            assert path.parent.name in ("spacelite", "report") and path.stem in GATEWAYS[package]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_library_neither_prints_nor_parses_arguments(path):
    assert not {name.split(".")[0] for name, _ in imports(path)} & {"typer", "rich", "argparse"}
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert "print" not in {ast.unparse(call.func) for call in calls}


@pytest.mark.parametrize(
    "path", LIBRARY + COMMANDS, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_nothing_is_unpickled_and_no_remote_code_is_trusted(path):
    text = path.read_text()
    assert "pickle" not in {name for name, _ in imports(path)}
    assert "torch.load" not in text and "trust_remote_code=True" not in text


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import spacelite_cli.app", ["torch", "numpy", "transformers", "h5py", "rich.table"]),
        ("from spacelite import runs; from spacelite.report import content, blocks, write",
         ["torch", "transformers", "datasets", "sklearn", "scipy", "matplotlib", "plotly"]),
        ("from spacelite import caches, evaluation, training",
         ["transformers", "datasets", "sklearn", "pyarrow", "torch._dynamo"]),
        ("from spacelite import embedding", ["transformers", "datasets", "sklearn", "torch"]),
    ],
)  # fmt: skip
def test_start_up_leaves_heavy_packages_alone(code, absent):
    check = f"{code}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_stay_of_a_readable_size():
    sizes = {path.name: len(path.read_text().splitlines()) for path in LIBRARY + COMMANDS}
    assert {name: size for name, size in sizes.items() if size > 450} == {}
