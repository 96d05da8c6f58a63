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


@pytest.mark.slow
@pytest.mark.minilm
@pytest.mark.timeout(900)
def test_the_notebook_runs_and_shows_what_it_shows(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    saved = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(saved)
    book = nbformat.read(NOTEBOOK, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    options = {"resources": {"metadata": {"path": str(tmp_path)}}, "kernel_name": "python3"}
    client = NotebookClient(book, timeout=600, startup_timeout=600, **options)
    client.execute()  # an error in a cell is raised
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
