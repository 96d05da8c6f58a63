"""Every campaign with a few trials: whether its command works, and breaks no promise."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("campaigns")
CAMPAIGNS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "trials")
TRIALS = {"flips": 60, "fuzz": 200}  # of others 5


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_campaign_breaks_no_promise(name):
    count = str(TRIALS.get(name, 5))
    command = [sys.executable, FOLDER / f"{name}.py", "--seed", "7", "--trials", count]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
