"""The model card: what it says, against the run's own records and independent computations."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from conftest import embed, invoke, refusal, texts, write_dataset
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from sklearn.metrics import f1_score, log_loss
from statsmodels.stats.proportion import proportion_confint

import spacelite
from spacelite import files
from spacelite.export.card import embed_command, train_command
from spacelite.metrics import significance
from spacelite.metrics.predictions import Predictions
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL

ODD = (
    'plain "quoted"',
    "a|b\\c",
    "<img src=x onerror=alert(1)>",
    "日本: #5 [x](y)",
    "https://example.org/a www.example.org b@example.org",
    "`code` *b* \x1b[31m",
)


def card_of(run, folder, form="safetensors", **options) -> str:
    """The card of an export."""
    return (
        run.export(form, folder, progress=False, **options).path.joinpath("README.md").read_text()
    )


def tables(card: str) -> list[list[list[str]]]:
    """The tables of a card as a reader sees them: rows of cells."""
    found, cells = [], None
    for token in MarkdownIt().enable("table").parse(card.partition("---\n\n")[2]):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            cells = found[-1][-1]
        elif token.type == "inline" and cells is not None:
            cells.append("".join(child.content for child in token.children))
            cells = None
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory, bert):
    """Runs of a data set of three labels: space with two seeds, linear, and the baselines."""
    folder = tmp_path_factory.mktemp("card")
    data = write_dataset(folder / "films", {"train": 90, "validation": 40, "test": 60}, classes=3)
    cache = embed(
        backbone=str(bert), dataset=str(data), cache_dir=folder / "cache", device="cpu",
        max_length=20, dtype="float32",
    )  # fmt: skip
    common = {"cache_dir": folder / "cache", "progress": False, "baselines": False}
    of_epochs = {"epochs": 4, "learning_rate": 0.05, **common}
    return [
        *spacelite.train(cache.path, head="space", seeds=2, **of_epochs),
        *spacelite.train(cache.path, head=["logreg", "tfidf"], pooling="mean", C="auto", **common),
        *spacelite.train(cache.path, head="linear", pooling="mean", patience=2, **of_epochs),
    ]


def test_the_hub_reads_the_front_matter(trained, tmp_path):
    run = trained[0]
    data = ModelCard(card_of(run, tmp_path / "out"), ignore_metadata_errors=False).data
    assert data.library_name == "spacelite"
    assert data.pipeline_tag == "text-classification"
    assert {"spacelite", "text-classification"} <= set(data.tags)
    (accuracy,) = [of for of in data.eval_results if of.metric_type == "accuracy"]
    assert accuracy.metric_value == pytest.approx(run.metrics["test"]["accuracy"], abs=5e-5)
    assert (accuracy.dataset_name, accuracy.dataset_split) == ("films", "test")
    assert data.base_model is None  # it was a local folder
    assert data.datasets is None


@pytest.mark.parametrize(
    ("backbone", "version", "dataset", "base", "datasets"),
    [
        ("minilm", "sha256:1", "hatexplain", "sentence-transformers/all-MiniLM-L6-v2",
         ["Hate-speech-CNERG/hatexplain"]),
        ("org/model", "revision:abc", "imdb", "org/model", ["stanfordnlp/imdb"]),
        ("org/model", "revision:abc", "hatexplain:2", "org/model",
         ["Hate-speech-CNERG/hatexplain"]),
        ("tiny", "sha256:1", "owner/data", None, ["owner/data"]),
        ("tiny", "sha256:1", "demo", None, None),
    ],
)  # fmt: skip
def test_names_on_the_hub(trained, backbone, version, dataset, base, datasets):
    from dataclasses import replace

    from spacelite.export.card import front_matter
    from spacelite.export.safetensors import SafetensorsForm
    from spacelite.runs.store import Run

    record = trained[0].record
    spec = replace(record.spec, backbone=backbone, backbone_version=version, dataset=dataset)
    text = front_matter(Run(trained[0].run.folder, replace(record, spec=spec)), SafetensorsForm())
    data = ModelCard(f"---\n{text}---\n", ignore_metadata_errors=False).data
    assert (data.base_model, data.datasets) == (base, datasets)


def test_figures_and_their_uncertainty(trained, tmp_path):
    run = trained[0]
    card = card_of(run, tmp_path / "out")
    figures, labels, counts, beside = tables(card)
    predictions = run.run.predictions()
    truth, guess = predictions.labels, predictions.predicted
    by_name = {row[0]: row[1:] for row in figures[1:]}
    low, high = proportion_confint(int((truth == guess).sum()), len(truth), method="wilson")
    accuracy = float((truth == guess).mean())
    assert by_name["Accuracy"] == [f"{accuracy:.4f}", f"{low:.4f} to {high:.4f}"]
    assert by_name["Macro F1"][0] == f"{f1_score(truth, guess, average='macro'):.4f}"
    ce = log_loss(truth, predictions.probabilities, labels=[0, 1, 2])
    assert by_name["CE"][0] == f"{ce:.4f}"
    for row, name, values in zip(
        labels[1:], run.labels, f1_score(truth, guess, average=None), strict=True
    ):
        assert (row[0], row[3], row[4]) == (
            name,
            f"{values:.4f}",
            str((truth == run.labels.index(name)).sum()),
        )
    for row, name in zip(counts[1:], run.labels, strict=True):
        of_label = truth == run.labels.index(name)
        assert [int(cell) for cell in row[1:]] == np.bincount(guess[of_label], minlength=3).tolist()
    assert {row[0] for row in beside[1:]} == {"space (this one)", "logreg (mean)", "tfidf"}
    assert "With 2 seeds, this one among them" in card


def test_the_card_says_what_it_was_trained_on_and_what_chose_it(trained, tmp_path):
    space, *_, linear = trained
    card = card_of(space, tmp_path / "space")
    assert "examples: 90 train, 40 validation, 60 test" in card
    assert "Nothing of it was chosen on validation" in card
    assert "1 other system was trained on the same data" in card
    assert "Texts are cut off after 20 tokens" in card
    assert "of 90 training texts are as long or longer" in card
    assert "Always predicting" in card
    other = card_of(linear, tmp_path / "linear")
    assert re.search(r"Epoch \d was chosen on validation", other)


def test_the_commands_make_the_same_run_again(trained, tmp_path):
    """Parsed as the command line does, they give the run's id. The runs of other tests stay: heads
    that are trained in other company are the same to rounding."""
    there = shutil.copytree(trained[0].cache_dir, tmp_path / "cache")
    assert {run.record.head.kind for run in trained} == {"space", "linear", "logreg", "tfidf"}
    for run in trained:
        command = train_command(run.record)
        words = shlex.split(command.replace("CACHE", run.record.cache))[1:]
        done = invoke(*words, "--cache-dir", there, "--fresh", "--json")
        assert done.exit_code == 0, done.output
        (again,) = json.loads(done.stdout)
        assert again["id"] == run.id, words
    assert embed_command(trained[0].record) == (
        "spacelite embed --dataset films --backbone tiny-bert --max-length 20 --dtype float32"
    )


def test_the_card_says_what_its_commands_leave_open(trained, tmp_path):
    card = card_of(trained[0], tmp_path / "out")
    assert "How the data were read is not recorded in full" in card
    assert trained[0].record.cache not in card and "--cache CACHE" in card


def test_sentences_on_decisions(trained):
    from dataclasses import replace

    from spacelite.export.card import decision

    record = trained[0].record
    assert decision(record) == "A text gets its most probable label."
    two = replace(record, label_names=("no", "yes"), thresholds={"yes": 0.25})
    assert decision(two) == (
        "A text gets the label yes if its probability is above 0.2500, and else no."
    )
    several = replace(record, task=MULTI_LABEL)
    assert decision(several) == "A text gets each label whose probability is above one half."
    several = replace(several, thresholds={"a": 0.25, "b": 0.5})
    assert decision(several).endswith("above its threshold: a 0.2500, b 0.5000.")


def test_damaged_predictions_are_not_taken_for_missing_ones(trained, tmp_path, caplog):
    """A damaged file is refused as `runs verify` does; one that an older version did not write is
    said, once."""
    folder = tmp_path / "runs" / trained[0].id
    shutil.copytree(trained[0].run.folder, folder)
    run = spacelite.load_run(folder)
    assert run.run.problems() == []
    (folder / "predictions.npz").write_bytes(b"PK nothing")
    (problem,) = run.run.problems()
    message = refusal(run.export, "safetensors", tmp_path / "out", progress=False)
    assert message == problem and "predictions.npz is damaged" in message
    assert not (tmp_path / "out").exists()

    record = files.read_json(folder / "run.json")
    del record["checksums"]["predictions.npz"]
    files.write_json(folder / "run.json", record)
    (folder / "predictions.npz").unlink()
    caplog.clear()
    done = spacelite.load_run(folder).export("safetensors", tmp_path / "out", progress=False)
    assert str(done).count("has no predictions.npz") == 1 and caplog.text == ""
    assert "figures by label are not known" in (done.path / "README.md").read_text()


def test_whatever_labels_hold_is_shown_and_not_obeyed(tmp_path, bert):
    random = np.random.default_rng(0)
    data = tmp_path / "odd|data"
    data.mkdir()
    for number, (split, size) in enumerate((("train", 60), ("validation", 20), ("test", 30))):
        rows = [
            json.dumps({"text": text, "label": ODD[random.integers(len(ODD))]})
            for text in texts(size, seed=number)
        ]
        (data / f"{split}.jsonl").write_text("\n".join(rows))
    cache = embed(backbone=str(bert), dataset=str(data), cache_dir=tmp_path / "cache", device="cpu")
    (run,) = spacelite.train(
        cache.path, head="space", epochs=2, cache_dir=tmp_path / "cache", progress=False,
        baselines=False, name="odd",
    )  # fmt: skip
    card = card_of(run, tmp_path / "out")
    assert "\x1b" not in card
    parsed = ModelCard(card, ignore_metadata_errors=False)
    assert parsed.data.eval_results[0].dataset_name == "odd|data"
    assert "https\\://example.org/a www\\.example.org b\\@example.org" in card
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(card)
    assert "<img" not in html and "<a " not in html and "<em>" not in html
    shown = [name.replace("\x1b", r"\x1b") for name in sorted(ODD)]
    _, labels, counts, *_ = tables(card)
    assert [row[0] for row in labels[1:]] == shown
    assert counts[0][1:] == shown


def test_intervals_cover_what_they_should(monkeypatch):
    """Of 1,000 samples of a known classifier, about 95% of the intervals hold its true figure."""
    monkeypatch.setattr(significance, "RESAMPLES", 400)  # 10,000 of each would take a minute
    random = np.random.default_rng(0)
    inside = {"accuracy": 0, "f1_macro": 0, "ce": 0}
    matrix = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.2, 0.5]])  # P(guess | truth)
    shares = np.array([0.5, 0.3, 0.2])
    joint = shares[:, None] * matrix
    f1 = float((2 * np.diag(joint) / (joint.sum(0) + joint.sum(1))).mean())
    logits = np.log(np.array([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]]))
    right = float(np.trace(joint))
    true = {
        "accuracy": right,
        "f1_macro": f1,
        "ce": -right * np.log(0.6) - (1 - right) * np.log(0.2),
    }
    from spacelite.export.card import intervals_of

    for _ in range(1000):
        cells = random.choice(9, 300, p=joint.ravel())
        truth, guess = np.divmod(cells, 3)
        predictions = Predictions(np.arange(300), truth, logits[guess], SINGLE_LABEL)
        for name, (low, high) in intervals_of(predictions).items():
            inside[name] += low <= true[name] <= high
    assert all(925 <= count <= 975 for count in inside.values()), inside


def test_the_interval_of_the_cross_entropy_is_never_below_zero():
    """A few examples, of which one is very wrong: by its standard error it would begin below 0."""
    values = np.array([0.01] * 29 + [4.5])
    assert significance.of_mean(values)[0] < 0
    low, high = significance.resampled_mean(values)
    assert 0.01 <= low < values.mean() < high < 4.5
    assert (low, high) == significance.resampled_mean(values)
    # Of many examples of no skew it is that of the standard error.
    many = np.random.default_rng(0).normal(1, 1, 30_000)
    assert significance.resampled_mean(many) == pytest.approx(significance.of_mean(many), abs=2e-3)
    assert not np.isfinite(significance.resampled_mean(np.array([0.5]))).any()


def test_cross_entropies_are_those_of_both_tasks():
    from spacelite.export.card import cross_entropies

    random = np.random.default_rng(0)
    logits = random.normal(size=(50, 4)) * 3
    several = random.integers(0, 2, (50, 4))
    ours = cross_entropies(Predictions(np.arange(50), several, logits, MULTI_LABEL))
    chances = 1 / (1 + np.exp(-logits))
    terms = np.where(several, -np.log(chances), -np.log(1 - chances))
    assert ours == pytest.approx(terms.mean(axis=1))
    assert significance.of_mean(np.array([0.5]))[1] == np.inf
