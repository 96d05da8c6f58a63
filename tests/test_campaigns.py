"""Every campaign with a few trials: whether its command works, and breaks no promise."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("campaigns")
CAMPAIGNS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "trials")
TRIALS = {"flips": 20, "fuzz": 60}  # of others 2
# Each makes its small data anew, which takes most of the time.
LONG = {"concurrency", "hostile", "memory", "power_cut"}


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_campaign_breaks_no_promise(name):
    if name in LONG and not os.environ.get("SPACELITE_CAMPAIGNS"):
        pytest.skip("takes up to a minute: runs if SPACELITE_CAMPAIGNS is set")
    count = str(TRIALS.get(name, 2))
    command = [sys.executable, FOLDER / f"{name}.py", "--seed", "7", "--trials", count]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
