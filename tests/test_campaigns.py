"""Every campaign with a few trials: whether its command works, and breaks no promise."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("campaigns")
SHORT = {"flips", "fuzz"}  # whose trials take a tenth of a second
LONG = {path.stem for path in FOLDER.glob("[a-z]*.py")} - {*SHORT, "trials"}


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)
@pytest.mark.parametrize(("names", "trials"), [(SHORT, 60), (LONG, 2)], ids=["short", "long"])
def test_no_campaign_breaks_a_promise(names, trials):
    command = [sys.executable, FOLDER, *sorted(names), "--seed", "7", "--trials", str(trials)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
