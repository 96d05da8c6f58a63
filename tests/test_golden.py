"""Keys, ids, records and errors of every command are those that are frozen in golden.json."""

import json
import os
import subprocess
import sys
from pathlib import Path

import golden
import pytest

pytestmark = pytest.mark.slow


def test_keys_ids_records_and_errors_stay(tmp_path):
    # In a process of its own, which forks: no test may have run torch before.
    subprocess.run(
        [sys.executable, golden.__file__, "make", tmp_path / "outputs"],
        check=True, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    expected = json.loads((Path(golden.__file__).parent / "golden.json").read_text())
    assert golden.frozen(tmp_path / "outputs") == expected
