"""Every campaign with a few trials: whether its command works, and breaks no promise."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("campaigns")
TRIALS = {"kills": 6, "flips": 60, "full_disk": 6, "power_cut": 6, "concurrency": 3, "hostile": 6,
          "fuzz": 200, "memory": 3}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="it needs a C compiler")
@pytest.mark.parametrize("name", TRIALS)
def test_a_campaign_breaks_no_promise(name):
    command = [sys.executable, FOLDER / f"{name}.py", "--seed", "7", "--trials", str(TRIALS[name])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_campaign_has_a_small_one():
    others = {"trials"}
    assert {path.stem for path in FOLDER.glob("*.py")} - others == TRIALS.keys()
