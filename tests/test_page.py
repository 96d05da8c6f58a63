"""The pages in Chromium, wide and narrow, light and dark: what is in the DOM, and what is not."""

import itertools
import json
import os
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from conftest import NASTY_LABELS, invoke
from PIL import Image

from spacelite.document import Cell, Heading, Line, Paragraph, Table
from spacelite.inference.explanation import Explanation, Word, concept_points
from spacelite.metrics.scores import METRICS
from spacelite.reports.render import forms
from spacelite.reports.render import page as pages
from spacelite.reports.render.plots import PALETTE
from spacelite.reports.report import Report
from spacelite.runs import store as runs

pytestmark = [pytest.mark.slow, pytest.mark.chromium]

PATIENCE = 120_000  # milliseconds until a page that does not answer fails its test
VIEWS = [(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")]
HOSTILE = "<script>window.owned=1</script><img src=x onerror='window.owned=1'>"


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: install it to look at pages")
    from playwright.sync_api import sync_playwright

    software = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", *software], timeout=PATIENCE
        )
        yield made
        made.close()


class Visit:
    """A page that is open, and what it has asked for and complained of."""

    def __init__(self, browser, path, width=1400, mode="light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=mode, reduced_motion="reduce"
        )
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"file://{path}")

    def _said(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def draw_everything(self):
        """Bring every figure near the window."""
        for plot in self.page.query_selector_all(".plot"):
            plot.scroll_into_view_if_needed()
        self.page.wait_for_function(
            "document.querySelectorAll('.plot').length"
            " === document.querySelectorAll('.plot.drawn').length"
        )
        self.page.evaluate("window.scrollTo(0, 0)")

    def table(self, caption):
        """The cells of the first table with this caption, row by row."""
        return self.page.evaluate(
            """caption => {
                const found = [...document.querySelectorAll("table")]
                    .find((table) => table.caption.textContent === caption);
                return [...found.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
            }""",
            caption,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.context.close()


def keep(page, name, tmp_path):
    """A screenshot of the whole page, kept where SPACELITE_SCREENSHOTS names a folder."""
    folder = Path(os.environ.get("SPACELITE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path


@pytest.fixture(scope="module")
def index(findings, tmp_path_factory):
    return Report(findings).save(tmp_path_factory.mktemp("page"), "html")


@pytest.mark.parametrize(("width", "mode"), VIEWS)
def test_the_page_is_whole_in_every_view(browser, index, width, mode, tmp_path):
    with Visit(browser, index, width, mode) as visit:
        visit.draw_everything()
        assert visit.errors == []
        (program,) = index.parent.glob("plotly-*.min.js")
        assert visit.requests == [f"file://{index}", f"file://{program}"]
        # Wide tables scroll by themselves, the page never does sideways.
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
        assert len(visit.page.query_selector_all(".plot.drawn")) >= 10 + 8
        contents = visit.page.is_visible("nav li a")
        assert contents == (width == 1400)
        if not contents:
            visit.page.click("nav summary")
            assert visit.page.is_visible("nav li a")
            visit.page.click("nav summary")
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(255, 255, 255)" if mode == "light" else "rgb(20, 24, 29)")
        image = Image.open(keep(visit.page, f"report-{width}-{mode}", tmp_path)).convert("RGB")
        assert image.width == width and len(image.resize((200, 2000)).getcolors(400_000)) > 50


def test_tables_keep_all_columns_at_1200_pixels(browser, tmp_path):
    """The widest there are: a sweep's column, those of published rows, and a long name."""
    headings = ["Parameters", "Validation accuracy"]
    headings += [metric.heading for metric in METRICS.values()] + ["Inter", "Intra", "Seeds"]
    name = "additive (layers+ngrams+space) L=32 + inter 0.2, learning rate 0.001, weight decay 0"
    figures = [
        "1,155,382",
        *[Cell("12.1429", "± 1.2345")] * (len(headings) - 4),
        "0.2",
        "0.001",
        "5",
    ]
    table = Table("T", ["System", *headings], [Line.of(name, *figures, kind="measured")], "systems")
    path = tmp_path / "wide.html"
    path.write_text(pages.report_page([Heading(1, "T"), table], files_beside=False))
    with Visit(browser, path, 1200) as visit:
        shown, whole = visit.page.evaluate(
            "(({clientWidth, scrollWidth}) => [clientWidth, scrollWidth])"
            "(document.querySelector('.scroll'))"
        )
        assert whole == shown and visit.errors == []


@pytest.mark.parametrize("width", [1200, 400])
def test_captions_and_labels_wrap_and_names_of_caches_do_not(browser, tmp_path, width):
    label, cache = "label " * 4 + "l" * 36, "minilm--hx--dbaae73c3d"
    caption = f"The first findings of cache {cache}, by how much more probable they are " * 3
    lines = [Line.of("train.csv, row 12", label, label[::-1], "0.912", "so, very", "a film " * 40)]
    columns = ["Example", "Label", "Suggested", "Prob.", "Words", "Text"]
    blocks = [
        Heading(1, "T"),
        Paragraph(f"{'caches ' * 9}{cache}, {cache}, {cache}, {cache} {'a' * 90}--b"),
        Table(caption, columns, lines, "audit"),
        Table(caption, ["A"], [Line.of(f"1 of {cache}")], "cost"),
    ]  # fmt: skip
    path = tmp_path / "audit.html"
    path.write_text(pages.report_page(blocks, files_beside=False))
    with Visit(browser, path, width) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
        audit, small = visit.page.evaluate(
            "[...document.querySelectorAll('.scroll')].map((e) => [e.clientWidth, e.scrollWidth])"
        )
        assert small[0] == small[1] and (audit[0] == audit[1] or width == 400)
        lines = visit.page.evaluate(
            "[...document.querySelectorAll('.whole')]"
            ".filter((e) => e.textContent.length < 40).map((e) => e.getClientRects().length)"
        )
        assert lines == [1] * (4 + 3 + 3 + 1)


def test_figures_in_the_tables_are_those_of_the_runs(browser, index, report_dir):
    records = [json.loads(path.read_text()) for path in (report_dir / "runs").glob("*/run.json")]
    titles = {"imdb": "imdb, tiny-bert, 5 epochs", "labels": "labels, tiny-bert, 3 epochs"}
    keys = ("loss", "ce", "accuracy", "f1_macro", "precision", "recall", "auroc")
    with Visit(browser, index) as visit:
        for data, title in titles.items():
            head, *rows = visit.table(title)
            assert head[2:8] == ["Loss", "CE", "Accuracy", "Macro F1", "Precision", "Recall"]
            assert head[8] == "AUROC"
            found = {row[0]: row for row in rows}
            alike = {}
            for record in records:
                if record["spec"]["dataset"] == data:
                    alike.setdefault(record["system"], []).append(record)
            assert found.keys() == alike.keys()
            for key, members in alike.items():
                row = found[key]
                seeds = "–" if members[0]["head"] == "logreg" else str(len(members))
                assert row[1] == f"{members[0]['train_params']:,}" and row[9] == seeds
                for shown, name in zip(row[2:9], keys, strict=True):
                    values = [member["metrics"]["test"][name] for member in members]
                    expected = f"{statistics.mean(values):.4f}"
                    if len(values) > 1:
                        expected += f" ± {statistics.stdev(values):.4f}"
                    assert shown == expected


def test_a_published_table_shows_measured_published_and_difference(browser, index):
    with Visit(browser, index) as visit:
        rows = visit.table("IMDB, DistilBERT (no fine-tuning), 5 epochs [imdb-distilbert-5]")
        kinds = visit.page.evaluate(
            "[...document.querySelectorAll('tr.published')].map((row) => row.cells[0].textContent)"
        )
    measured, there, difference = next(
        rows[i : i + 3] for i, row in enumerate(rows[:-2]) if rows[i + 2][0] == "difference"
    )
    assert there[0] == "published, distilbert-base-cased * †" and there[0] in kinds
    assert float(difference[4].replace("−", "-")) == pytest.approx(
        float(measured[4].split()[0]) - float(there[4]), abs=2e-4
    )


def test_figures_draw_what_the_runs_recorded(browser, index, report_dir):
    """What plotly was given, against the histories and predictions of the runs."""
    with Visit(browser, index) as visit:
        visit.draw_everything()
        drawn = visit.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.plot')].map((one) => [one.id,"
            " one.data.map((t) => [t.name ?? null, t.x, t.y, t.customdata ?? null])]))"
        )
        titles = visit.page.evaluate(
            "[...document.querySelectorAll('.plot')].map((one) =>"
            " [one.id, one.parentElement.querySelector('figcaption').textContent])"
        )
    records = [
        (json.loads((path / "run.json").read_text()), path)
        for path in (report_dir / "runs").glob("[!.]*") if path.is_dir()
    ]  # fmt: skip
    folder = next(
        one[1] for one in records
        if one[0]["head"] == "linear" and one[0]["spec"]["dataset"] == "imdb"
    )  # fmt: skip
    history = json.loads((folder / "history.json").read_text())
    plots = {title: name for name, title in reversed(titles)}
    for title, key in (("Loss", "loss"), ("Macro F1", "f1_macro"), ("Recall", "recall")):
        for split in ("train", "validation"):
            (line,) = [t for t in drawn[plots[title]] if t[0] == f"linear (first), {split}"]
            assert line[1] == [1, 2, 3, 4, 5]
            assert line[2] == pytest.approx([e[split][key] for e in history], abs=1e-5)
    both = [
        json.loads((path / "history.json").read_text()) for record, path in records
        if record["settings"]["inter"] == 0.2
    ]  # fmt: skip
    values = [[history[e]["validation"]["loss"] for history in both] for e in range(5)]
    means, stds = map(statistics.mean, values), map(statistics.stdev, values)
    edges = [(m + s, m - s) for m, s in zip(means, stds, strict=True)]
    band = [high for high, _ in edges] + [low for _, low in reversed(edges)]
    assert any(len(t[2]) == 10 and t[2] == pytest.approx(band, abs=1e-5)
               for t in drawn[plots["Loss"]])  # fmt: skip
    with np.load(folder / "predictions.npz") as arrays:
        labels, logits = arrays["test/label"], arrays["test/logits"].astype(np.float64)
    chances = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
    # The same system stands in the evaluation on the other data set, of 50 examples.
    names = [plots[title] for title in plots if title.startswith("linear (first): ECE")]
    (diagram,) = [drawn[name][1] for name in names if sum(drawn[name][1][3]) == len(labels)]
    _, confidence, accuracy, count = diagram
    share = np.average(accuracy, weights=count)
    assert share == pytest.approx((logits.argmax(1) == labels).mean(), abs=1e-4)
    assert np.average(confidence, weights=count) == pytest.approx(chances.mean(), abs=1e-4)


def test_hostile_names_are_shown_as_text(browser, index):
    with Visit(browser, index) as visit:
        visit.draw_everything()
        shown = visit.page.inner_text("main")
        for name in NASTY_LABELS:
            assert " ".join(name.split()) in " ".join(shown.split())
        assert visit.page.evaluate("window.owned") is None


def test_the_page_can_be_read_without_eyes_or_mouse(browser, index):
    with Visit(browser, index) as visit:
        page = visit.page
        levels = page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map((one) => +one.tagName[1])"
        )
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(later <= before + 1 for before, later in itertools.pairwise(levels))
        assert page.evaluate(
            "[...document.querySelectorAll('table')].every((table) => table.caption.textContent"
            " && table.tHead && [...table.tBodies[0].rows].every((row) =>"
            " row.cells[0].matches('th[scope=row]')))"
        )
        assert page.evaluate(
            "[...document.querySelectorAll('.plot')].every((one) =>"
            " one.getAttribute('role') === 'img' && one.getAttribute('aria-label').length > 20)"
        )
        assert page.evaluate(
            "[...document.querySelectorAll('nav a')].every((link) =>"
            " document.querySelector(link.getAttribute('href')))"
        )
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Tab")
        first = page.evaluate("document.activeElement.getAttribute('href')")
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == first
        for summary in page.query_selector_all("main summary"):
            summary.focus()
            page.keyboard.press("Enter")
        assert page.evaluate("[...document.querySelectorAll('details')].every((one) => one.open)")


def contrast(one, other):
    """WCAG's contrast ratio of two colours, as `rgb(...)`."""

    def luminance(colour):
        parts = [int(part) / 255 for part in colour.strip("rgb()").split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(browser, index, mode):
    with Visit(browser, index, mode=mode) as visit:
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        for selector in ("body", "h2 + p", "thead th", "nav a", "tr.published td", ".files a"):
            colour = visit.page.evaluate(
                "one => getComputedStyle(document.querySelector(one)).color", selector
            )
            assert contrast(colour, paper) >= 4.5, selector
        for colour in PALETTE:
            parts = [str(int(colour[i : i + 2], 16)) for i in (1, 3, 5)]
            assert contrast(f"rgb({','.join(parts)})", paper) >= 3, colour


def test_figures_follow_the_mode_and_the_width(browser, index):
    with Visit(browser, index) as visit:
        visit.draw_everything()
        colour = "document.querySelector('.plot text').style.fill"
        before = visit.page.evaluate(colour)
        visit.page.emulate_media(color_scheme="dark")
        visit.page.wait_for_function(f"{colour} !== {json.dumps(before)}")
        visit.page.set_viewport_size({"width": 400, "height": 900})
        visit.page.wait_for_function(
            "[...document.querySelectorAll('.plot .main-svg')]"
            ".every((one) => one.getBoundingClientRect().width <= 400)"
        )
        assert visit.errors == []


@pytest.mark.parametrize("latent", [1, 2, 3, 7])
def test_an_explained_text_and_its_concept_spaces(browser, latent, tmp_path):
    random = np.random.RandomState(latent)
    words = [
        Word(text, False, [i], random.normal(size=2).tolist())
        for i, text in enumerate(["a", HOSTILE, "good", "film"])
    ]
    spaces = [random.uniform(-1, 1, (4, min(latent, 3))) for _ in range(2)]
    explanation = Explanation(
        labels=[NASTY_LABELS[0], "other"], probabilities=[0.7, 0.3], logits=[1.0, 0.2],
        bias=[0.1, -0.1], words=words, difference=1e-12, example=[HOSTILE], spaces=spaces,
    )  # fmt: skip
    path = tmp_path / "text.html"
    forms.save_page(path, pages.explanation_page(explanation, [0], latent, "of " + HOSTILE))
    with Visit(browser, path) as visit:
        visit.draw_everything()
        assert visit.errors == [] and visit.requests == [f"file://{path}"]
        assert visit.page.evaluate("window.owned") is None
        assert HOSTILE in visit.page.inner_text(".explained")
        rows = visit.table("Shares of words in the logits")
        assert [row[0] for row in rows[1:]] == ["a", HOSTILE, "good", "film", "bias", "logit"]
        for row, word in zip(rows[1:5], words, strict=True):
            shown = [float(cell.replace("−", "-")) for cell in row[1:]]
            mean = sum(word.contributions) / 2
            assert shown == pytest.approx([one - mean for one in word.contributions], abs=5.1e-5)
        drawn = visit.page.evaluate(
            "[...document.querySelectorAll('.plot')].map((one) => one.data.map((trace) =>"
            " [trace.type, trace.x, trace.y, trace.z ?? null, trace.text]))"
        )
        assert len(drawn) == 2
        for space, (points, centroid) in zip(spaces, drawn, strict=True):
            assert points[0] == ("scatter3d" if latent >= 3 else "scatter")
            for axis in range(space.shape[1]):
                assert points[1 + axis] == pytest.approx(space[:, axis].tolist(), abs=1e-5)
                assert centroid[1 + axis] == pytest.approx([space[:, axis].mean()], abs=1e-5)
            assert "&lt;script&gt;" in points[4][1] and "<script" not in points[4][1]
        told = visit.page.inner_text("main")
        assert ("first 3 principal axes" in told) == (latent == 7)
        box = visit.page.query_selector(".plot").bounding_box()
        if latent < 3:
            point = "[{curveNumber: 0, pointNumber: 1}]"
            visit.page.evaluate(f"Plotly.Fx.hover(document.querySelector('.plot'), {point})")
            hovered = visit.page.text_content(".hoverlayer")
            assert "window.owned=1" in hovered and box["width"] > 300


def with_five_dimensions(report_dir):
    return next(run for run in runs.load_all(report_dir) if run.head.settings().get("latent") == 5)


def test_explain_writes_a_page(browser, report_dir, bert, tmp_path):
    run = with_five_dimensions(report_dir)
    page = tmp_path / "deep" / "e.html"
    there = ["explain", run.id, "a good <b>film</b> was not boring", "--html", page,
             "--backbone", bert, "--cache-dir", report_dir]  # fmt: skip
    for folder in (tmp_path, "/"):
        refused = invoke(*there[:3], "--html", folder, "--cache-dir", report_dir)
        assert refused.exit_code == 1 and "is a folder: name a file" in refused.stderr
    result = invoke(*there)
    assert result.exit_code == 0 and "e.html written" in result.stderr.replace("\n", "")
    told = json.loads(invoke(*there, "--json").stdout)
    with Visit(browser, page, 400, "dark") as visit:
        visit.draw_everything()
        assert visit.errors == [] and visit.requests == [f"file://{page}"]
        rows = visit.table("Shares of words in the logits")
        assert len(rows) == 1 + len(told["words"]) + 2
        assert "Of 5 dimensions the first 3 principal axes" in visit.page.inner_text("main")
        assert visit.page.evaluate("document.documentElement.scrollWidth") == 400
        keep(visit.page, "explain-400-dark", tmp_path)


def test_points_beyond_three_dimensions_are_on_the_principal_axes(report_dir, bert):
    """Against the eigenvectors of the coordinates' covariance."""
    run = with_five_dimensions(report_dir)
    hidden = np.random.RandomState(0).normal(size=(12, 16))
    spaces = run.parameters["concept_spaces"].astype(np.float64)
    for space, points in zip(spaces, concept_points(run, hidden), strict=True):
        coordinates = np.tanh(hidden @ space.T)
        values, vectors = np.linalg.eigh(np.cov(coordinates.T))
        assert np.var(points, axis=0, ddof=1) == pytest.approx(values[::-1][:3])
        expected = coordinates @ vectors[:, ::-1][:, :3]
        assert np.abs(points) == pytest.approx(np.abs(expected))
    few = concept_points(run, hidden[:1])
    assert all(points.shape == (1, 3) for points in few)
