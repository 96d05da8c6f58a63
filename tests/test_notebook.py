"""The notebook of the documentation, executed from its first cell to its last."""

import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebooks" / "dataframe.ipynb"


def texts(cell):
    """What a cell's outputs say as plain text, without what differs between machines."""
    found = []
    for output in cell.get("outputs", []):
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        if output.get("name") != "stderr":  # warnings of other packages
            found.append(re.sub(r"[-+−]?\d[\d.,]*", "0", re.sub(r"[0-9a-f]{8,10}>?", "ID", text)))
    return re.sub(r"\s+", " ", " ".join(found))


BARS = """
import sys, time
sys.modules["ipywidgets"] = None  # as if it were not installed
from spacelite.progress import reporting
with reporting(True) as advance:
    for done in range(0, 1001, 4):
        advance("embed", done, 1000)
        time.sleep(0.002)
with reporting(True):
    pass  # as where an error comes before any work
with reporting(False) as advance:
    import transformers
    advance("embed", 1, 1)
"""


def executed(book, folder, **options):
    """Execute a notebook in a folder; an error in a cell is raised."""
    from nbclient import NotebookClient

    NotebookClient(
        book, startup_timeout=600, resources={"metadata": {"path": str(folder)}},
        kernel_name="python3", **options,
    ).execute()  # fmt: skip
    return book


@pytest.mark.slow
def test_bars_are_one_output_of_a_cell_and_need_no_widgets(tmp_path):
    from nbformat import v4

    book = executed(v4.new_notebook(cells=[v4.new_code_cell(BARS)]), tmp_path)
    (output,) = book.cells[0].outputs  # no warning either, and nothing for progress=False
    assert output["output_type"] == "display_data"
    plain = re.sub(r"\x1b\[[\d;]*m", "", output["data"]["text/plain"])
    assert re.fullmatch(r"embedding ━+ 100% [\d,]+ tokens/s 0:00:0\d\n", plain)
    assert "100%" in output["data"]["text/html"]


@pytest.mark.slow
@pytest.mark.minilm
@pytest.mark.timeout(900)
def test_the_notebook_runs_and_shows_what_it_shows(tmp_path):
    import nbformat

    saved = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(saved)
    book = nbformat.read(NOTEBOOK, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    executed(book, tmp_path, timeout=600)
    code = [cell for cell in saved.cells if cell.cell_type == "code"]
    again = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(code) > 8 and all(cell.outputs for cell in code)
    for before, after in zip(code, again, strict=True):
        assert texts(after) == texts(before), before.source
    shown = [o["data"]["text/html"] for cell in again for o in cell.outputs if "data" in o and
             "text/html" in o["data"]]  # fmt: skip
    assert any("<svg" in one for one in shown) and any("held-out folds" in one for one in shown)
    assert any("suspected" in texts(cell) for cell in again)
    assert (tmp_path / "statements.joblib").stat().st_size < 5_000_000
