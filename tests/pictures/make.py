"""Make the documentation's pictures from the built-in data: python tests/pictures/make.py CACHE_DIR

CACHE_DIR is that of `spacelite demo`. Needs Chromium.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import spacelite

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
TEXT = "A wonderful film with a clever plot, though the ending is a little dull and slow."
WIDTH, COLOURS = 1000, 256  # of the pictures: enough to read, small enough for a repository


def picture(page: Page, path: Path, from_selector: str, height: int, name: str) -> None:
    """Take `height` pixels of a page, from an element on."""
    page.goto(f"file://{path}")
    for plot in page.query_selector_all(".plot"):
        plot.scroll_into_view_if_needed()
        page.wait_for_function("one => one.classList.contains('drawn')", arg=plot)
    top = page.evaluate(
        "one => Math.max(0, one.getBoundingClientRect().top + scrollY - 20)",
        page.query_selector(from_selector),
    )
    page.set_viewport_size({"width": 1400, "height": height})
    page.evaluate(f"window.scrollTo(0, {top})")
    page.wait_for_timeout(500)
    save(page, name)


def served(page: Page, run: spacelite.TrainedRun) -> None:
    """Take the page of `spacelite serve` with the answer for a text, as serve.png."""
    words = ["serve", run.id, "--cache-dir", str(run.cache_dir), "--port", "0", "--json"]
    program = [sys.executable, "-c", "from spacelite_cli import main; main()", *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        page.set_viewport_size({"width": 1000, "height": 900})
        page.goto(json.loads("".join(server.stdout.readline() for _ in range(4)))["url"])
        page.fill("#text", TEXT)
        page.click("#send")
        page.wait_for_selector("#result:not([hidden])")
        save(page, "serve")
        server.terminate()


def save(page: Page, name: str) -> None:
    """Save what is seen of a page."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.LANCZOS)
    image = image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(PICTURES / f"{name}.png", optimize=True)


def main(cache_dir: str) -> None:
    """Write report.png, explain.png and serve.png into docs/pictures."""
    runs = spacelite.load_runs(cache_dir)
    first = next(run for run in sorted(runs, key=lambda run: run.id) if "--space--" in run.id)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = spacelite.report(runs, progress=False).save(folder)
        explained = first.explain(TEXT).save(Path(folder) / "text.html")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
        picture(page, report, "h1", 1420, "report")
        picture(page, explained, "h1", 1080, "explain")
        served(page, first)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
