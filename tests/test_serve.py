"""The HTTP service: what it answers, what it refuses, and how it begins and ends."""

import contextlib
import http.client
import json
import logging
import math
import os
import signal
import socket
import threading
import time

import jsonschema
import numpy as np
import processes
import pytest
import test_page
from conftest import NASTY_LABELS, refusal, texts
from starlette.testclient import TestClient
from test_page import VIEWS, keep

import spacelite
from spacelite.errors import SpaceliteError
from spacelite.export import serve
from spacelite.export.serve import Limits, RunModel, Service
from spacelite.inference.prediction import Predicted
from spacelite.tasks import SINGLE_LABEL

QUIET = {"device": "cpu", "progress": False}
SECRET = "zebra"  # in texts that no log may have
JSON = {"Content-Type": "application/json"}
SAMPLE = [
    *texts(40, seed=5),
    "good",
    "Größe 中文 🙂 naïve",
    "x" * 5000,
    "film " * 600,
    "<script>window.owned=1</script>",
    "control \x00\x1b[31m\u202e characters",
    "line\nbreaks\tand   spaces",
]


@pytest.fixture(scope="module")
def cache(bert, reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    return spacelite.embed(str(reviews), backbone=bert, cache_dir=folder, max_length=32, **QUIET)


@pytest.fixture(scope="module")
def runs(cache):
    """Runs of two labels by their kind of head."""
    kinds = ["space", "tfidf", "mlp"]
    trained = spacelite.train(cache, head=kinds, epochs=3, learning_rate=0.05, **QUIET)
    layers = spacelite.train(cache, head="linear", pooling="layers", epochs=3, **QUIET)
    decided = spacelite.train(cache, head="linear", threshold="f1", epochs=3, **QUIET)
    return {
        **{run.record.head.kind: run for run in trained},
        "layers": layers[0],
        "threshold": decided[0],
    }


@pytest.fixture(scope="module")
def tagged(bert, tmp_path_factory):
    """A run of texts with any of two labels."""
    folder = tmp_path_factory.mktemp("tagged")
    for number, split in enumerate(("train", "validation", "test")):
        rows = [
            {"text": text, "labels": [name for name in ("film", "good") if name in text]}
            for text in texts(40, seed=number)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    cache = spacelite.embed(str(folder), backbone=bert, cache_dir=folder / "cache", **QUIET)
    return spacelite.train(cache, head="linear", epochs=3, learning_rate=0.05, **QUIET)[0]


@contextlib.contextmanager
def serving(model, **limits):
    """A client of a service that is ready."""
    service = Service(model, Limits(**limits))
    with TestClient(service.app) as client:
        client.service = service
        processes.until(lambda: service.worker.ready)
        yield client


def of_run(run, **options):
    return RunModel(run.run, run.decides, device="cpu", **options)


@pytest.fixture(scope="module")
def client(runs):
    with serving(of_run(runs["space"])) as client:
        yield client


def schema(name):
    document = serve.openapi(Limits())
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


# What it answers.


@pytest.mark.parametrize("kind", ["space", "tfidf", "mlp", "layers", "threshold"])
def test_answers_are_those_of_predict(runs, kind):
    run = runs[kind]
    expected = run.predict(SAMPLE, **QUIET)
    with serving(of_run(run)) as client:
        answer = client.post("/predict", json={"texts": SAMPLE}).json()
        (alone,) = client.post("/predict", json={"text": SAMPLE[0]}).json()["predictions"]
    jsonschema.validate(answer, schema("Predictions"))
    assert answer["run"] == run.id and answer["thresholds"] == run.record.thresholds
    assert (len(answer["thresholds"]) == 1) == (kind == "threshold")
    found = answer["predictions"]
    for row, own in zip(expected, found, strict=True):
        assert own["label"] == row["label"] and own["unknown"] == row["unknown"]
        assert own["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)
    assert alone["probabilities"] == pytest.approx(found[0]["probabilities"], abs=1e-6)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.record.backbone_folder)
    lengths = [len(ids) for ids in tokenizer(SAMPLE).input_ids]
    assert [own["truncated"] for own in found] == [length > 32 for length in lengths]
    assert any(length > 32 for length in lengths) and any(length < 33 for length in lengths)


@pytest.mark.parametrize("kind", ["space", "tfidf", "layers"])
def test_shares_and_bias_add_up_to_the_prediction(runs, kind):
    asked = [text for text in SAMPLE if len(text) < 200]
    with serving(of_run(runs[kind])) as client:
        answer = client.post("/predict", json={"texts": asked, "explain": True}).json()
    jsonschema.validate(answer, schema("Predictions"))
    for own in answer["predictions"]:
        names, explanation = list(own["probabilities"]), own["explanation"]
        words = np.array(
            [[word["shares"][name] for name in names] for word in explanation["words"]]
        )
        total = words.sum(axis=0) + [explanation["bias"][name] for name in names]
        assert total == pytest.approx([explanation["logits"][name] for name in names], abs=1e-4)
        assert np.abs(words.sum(axis=1)).max() < 1e-9  # less their mean over the labels
        softmax = np.exp(total) / np.exp(total).sum()
        assert softmax == pytest.approx(list(own["probabilities"].values()), abs=2e-3)
    shown = runs[kind].explain(asked[0], **QUIET).explanation
    own = answer["predictions"][0]["explanation"]["words"]
    assert [word["text"] for word in own] == [word.text for word in shown.words]
    shares = np.array([list(word["shares"].values()) for word in own])
    assert shares == pytest.approx(shown.shares, abs=1e-5)


def test_several_labels_are_each_decided(tagged):
    with serving(of_run(tagged)) as client:
        about = client.get("/labels").json()
        answer = client.post("/predict", json={"texts": SAMPLE, "min_probability": 0.6}).json()
    assert about["task"] == "multi-label" and about["labels"] == ["film", "good"]
    jsonschema.validate(answer, schema("Predictions"))
    assert answer["min_probability"] == 0.6
    for own in answer["predictions"]:
        assert own["labels"] == [n for n, value in own["probabilities"].items() if value >= 0.6]


def test_undecided_texts_and_wished_thresholds_as_in_predict(runs, client):
    run = runs["space"]
    for wish in ({"min_probability": 0.7}, {"threshold": "accuracy=0.6"}, {"threshold": None}):
        expected = run.predict(SAMPLE, **wish, **QUIET)
        found = client.post("/predict", json={"texts": SAMPLE, **wish}).json()["predictions"]
        assert [own["label"] for own in found] == [row["label"] for row in expected]
    problem = refusal(run.predict, ["a"], threshold="beauty=1", **QUIET)
    answer = client.post("/predict", json={"text": "a", "threshold": "beauty=1"})
    assert answer.status_code == 400 and answer.json() == {"error": problem}


def test_what_is_served_is_said(runs, client):
    about = client.get("/labels").json()
    jsonschema.validate(about, schema("About"))
    run = runs["space"]
    assert about["labels"] == list(run.labels) and about["run"] == run.id
    assert about["max_length"] == 32 and about["explains"] is True
    health = client.get("/health")
    assert health.status_code == 200 and health.json() == {"status": "ready", "waiting": 0}


def test_the_document_has_every_route_and_every_answer(client):
    document = client.get("/openapi.json").json()
    routes = {(route.path, method) for route in client.app.routes for method in route.methods}
    listed = {(path, method.upper()) for path, by in document["paths"].items() for method in by}
    assert {route for route in routes if route[1] != "HEAD"} == listed
    fields = document["components"]["schemas"]["Question"]["properties"]
    assert set(fields) == set(serve.FIELDS)
    assert fields["texts"]["maxItems"] == 1000 and fields["text"]["maxLength"] == 100_000
    jsonschema.Draft202012Validator.check_schema(schema("Predictions"))


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_and_run_no_other_script(client, path):
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert "script-src 'sha256-" in policy and "form-action 'none'" in policy
    assert "http://" not in answer.text and "https://" not in answer.text
    assert " onclick" not in answer.text and "innerHTML" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


# What it refuses.

BAD = {
    "no JSON": (b"{", 400, "no JSON in UTF-8"),
    "nothing": (b"", 400, "no JSON in UTF-8"),
    "Latin-1": ('{"text": "é"}'.encode("latin-1"), 400, "no JSON in UTF-8"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), 400, "no JSON in UTF-8"),
    "NaN": (b'{"text": "a", "min_probability": NaN}', 400, "NaN is no number"),
    "infinity": (b'{"text": "a", "min_probability": 1e999}', 400, "min_probability: give"),
    "huge number": (b'{"text": "a", "min_probability": 1%s}' % (b"0" * 400), 400, "min_prob"),
    "endless number": (b'{"text": "a", "min_probability": 1%s}' % (b"0" * 9000), 400, "no JSON"),
    "deep": (b"[" * 100_000, 400, "nested too deeply"),
    "list": (b'["a"]', 400, "no JSON object"),
    "null": (b"null", 400, "no JSON object"),
    "no text": (b'{"explain": true}', 400, "either"),
    "both": (b'{"text": "a", "texts": ["a"]}', 400, "either"),
    "unknown": (b'{"text": "a", "labels": 1}', 400, "no field 'labels': choose from text"),
    "strange name": (b'{"text": "a", "\\ud800\\u001b": 1}', 400, "no field '\\ud800\\x1b'"),
    "number": (b'{"text": 1}', 400, "text 1 is no string but of the type int"),
    "missing": (b'{"texts": ["a", null]}', 400, "text 2 is missing"),
    "text as texts": (b'{"texts": "abc"}', 400, "give a list"),
    "object as texts": (b'{"texts": {"0": "a"}}', 400, "give a list"),
    "twice": (b'{"text": "a", "text": "b"}', 400, "the field 'text' occurs more than once"),
    "twice within": (b'{"texts": [{"a": 1, "a": 2}]}', 400, "the field 'a' occurs more than once"),
    "no texts": (b'{"texts": []}', 400, "give a list"),
    "empty": (b'{"text": ""}', 400, "text 1 is empty"),
    "blank": (b'{"texts": ["a", " \\n\\t "]}', 400, "text 2 is empty"),
    "half": (b'{"text": "a \\ud83d"}', 400, "text 1 is not valid Unicode"),
    "explain": (b'{"text": "a", "explain": "yes"}', 400, "explain: give true or false"),
    "true": (b'{"text": "a", "min_probability": true}', 400, "min_probability: give"),
    "word": (b'{"text": "a", "min_probability": "0.5"}', 400, "min_probability: give"),
    "zero": (b'{"text": "a", "min_probability": 0}', 400, "min_probability: give"),
    "wish": (b'{"text": "a", "threshold": 0.9}', 400, "threshold: give a string"),
    "strange wish": (b'{"text": "a", "threshold": "\\ud800"}', 400, "threshold=\\ud800: give"),
    "two wishes": (
        b'{"text": "a", "threshold": "accuracy=0.9", "min_probability": 0.5}', 400, "not both"
    ),
    "10,000 texts": (json.dumps({"texts": ["a"] * 10_000}).encode(), 413, "10,000 texts: send at"),
    "long": (json.dumps({"texts": ["a", "b" * 100_001]}).encode(), 413, "text 2 has 100,001"),
    "large": (json.dumps({"texts": ["b" * 90_000] * 20}).encode(), 413, "more than 1,000,000"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_in_one_line(client, name):
    body, status, words = BAD[name]
    answer = client.post("/predict", content=body, headers=JSON)
    assert answer.status_code == status
    (error,) = answer.json().values()
    jsonschema.validate(answer.json(), schema("Error"))
    assert words in error and error.isprintable()


@pytest.mark.parametrize("name", BAD)
def test_the_document_refuses_what_the_service_refuses(name):
    """All but what no schema can say: blank texts, halves of characters, whole bodies."""
    body, *_ = BAD[name]
    if name in ("blank", "half", "twice", "wish", "strange wish", "two wishes", "large"):
        return
    try:
        content = json.loads(body.decode(), parse_constant=lambda text: [text])
    except (ValueError, RecursionError):
        return
    assert not jsonschema.Draft202012Validator(schema("Question")).is_valid(content)


def test_other_requests_are_refused(client):
    body = b'{"text": "a"}'
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for headers in ({}, form, {"Content-Type": "text/plain"}):
        answer = client.post("/predict", content=body, headers=headers)
        assert answer.status_code == 415 and "Content-Type: application/json" in answer.text
    charset = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/predict", content=body, headers=charset).status_code == 200
    routes = "choose from POST /predict, GET /health, GET /labels, GET /openapi.json, GET /docs"
    for method, path, status, words in (
        ("GET", "/predict", 405, "/predict takes no GET: send POST"),
        ("DELETE", "/labels", 405, "/labels takes no DELETE: send GET"),
        ("GET", "/predict/", 404, routes), ("GET", "/../etc/passwd", 404, routes),
        ("GET", "/static", 404, routes),
    ):  # fmt: skip
        answer = client.request(method, path, follow_redirects=False)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert words in answer.json()["error"]


LOOPBACK = ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.9.8.7:80", "[::1]", "[::1]:8000"]
ELSEWHERE = [
    "example.org", "example.org:8000", "127.0.0.1.example.org", "localhost.example.org", "",
    "192.168.0.2", "0.0.0.0", "[2001:db8::1]:80", "127.0.0.1@example.org", "::1", "a b", "[::1",
]  # fmt: skip


@pytest.mark.parametrize("host", [*LOOPBACK, *ELSEWHERE])
def test_a_page_of_another_site_is_refused_on_loopback(slow, host):
    """Whose name leads to 127.0.0.1 since it was loaded; its browser says which name it asks."""
    slow.goes_on.set()
    app = Service(slow, Limits(), loopback=True).app
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for answer in (
            client.post("/predict", json={"text": "a"}, headers={"Host": host}),
            client.get("/", headers={"Host": host}),
        ):
            assert answer.status_code == (200 if host in LOOPBACK else 421)
        if host not in LOOPBACK:
            assert "is not this machine: ask 127.0.0.1 or localhost" in answer.json()["error"]


def test_a_head_without_shares_is_not_explained(runs):
    with serving(of_run(runs["mlp"])) as client:
        assert client.get("/labels").json()["explains"] is False
        answer = client.post("/predict", json={"text": "a", "explain": True})
    assert answer.status_code == 400 and "cannot be explained" in answer.json()["error"]


@pytest.mark.parametrize(
    "limits",
    [{"max_texts": 0}, {"queue": 10}, {"timeout": 0}, {"timeout": math.nan}, {"max_body": 1.5}],
)
def test_limits_that_make_no_sense_are_refused(limits):
    (name,) = limits
    assert name in refusal(Limits, **limits)


# An export in place of a run.


@pytest.mark.parametrize("kind", ["tfidf", pytest.param("layers", marks=pytest.mark.slow)])
def test_an_export_answers_as_the_run_and_its_program_is_not_run(runs, kind, tmp_path):
    run, folder = runs[kind], tmp_path / "export"
    run.export("onnx", folder, progress=False)
    (folder / "classify.py").write_text("raise SystemExit('the program of the folder was run')")
    (folder / "sitecustomize.py").write_text("raise SystemExit('and this one')")
    asked = [text for text in SAMPLE if len(text) < 200] + ["film " * 100]
    content = {"texts": asked, "explain": True}
    with serving(serve.ExportModel(folder)) as client, serving(of_run(run)) as original:
        answer, expected = (one.post("/predict", json=content).json() for one in (client, original))
        about, of = client.get("/labels").json(), original.get("/labels").json()
        jsonschema.validate(about, schema("About"))
        wish = client.post("/predict", json={"text": "a", "threshold": "accuracy=0.9"})
        none = client.post("/predict", json={"texts": ["a"] * 40 + ["b", " "]})
    jsonschema.validate(answer, schema("Predictions"))
    assert {name for name in of if of[name] != about[name]} == {"head", "trained_on"}
    assert wish.status_code == 400 and "serve the run itself" in wish.json()["error"]
    assert none.status_code == 400 and "text 42 is empty" in none.json()["error"]
    for own, row in zip(answer["predictions"], expected["predictions"], strict=True):
        shares, explained = own.pop("explanation"), row.pop("explanation")
        assert own.pop("probabilities") == pytest.approx(row.pop("probabilities"), abs=1e-4)
        assert own == row
        for word, other in zip(shares["words"], explained["words"], strict=True):
            assert word.pop("shares") == pytest.approx(other.pop("shares"), abs=1e-3)
            assert word == other
    assert [own["truncated"] for own in answer["predictions"]][-1] is True


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"labels": 1, "format": 1}', "[" * 9999]
)
def test_a_damaged_export_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "classifier.json").write_text(content)
    assert "export it again" in refusal(serve.ExportModel, tmp_path)


def test_the_command_refuses_a_damaged_export_in_one_line(tmp_path):
    (tmp_path / "classifier.json").write_text("{}")
    done = processes.spacelite("serve", tmp_path, "--port", 0).wait()
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    done = processes.spacelite("serve", tmp_path, "--device", "cpu").wait()
    assert done.stderr == "error: --device cpu has no effect on an export: leave it out\n"


@pytest.mark.parametrize("name", ["tokenizer.json", "arrays.npz"])
def test_a_damaged_file_of_an_export_is_named_before_it_is_served(runs, name, tmp_path):
    folder = tmp_path / "export"
    runs["tfidf"].export("onnx", folder, progress=False)
    (folder / name).write_bytes((folder / name).read_bytes()[:-10])
    done = processes.spacelite("serve", folder, "--port", 0).wait()
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    assert f"{name} has " in done.stderr and "export it again" in done.stderr


# The queue.


class Slow:
    """A model whose batches wait until they may go on."""

    unexplained = "it cannot"
    about = {"run": "slow", "labels": ["no", "yes"]}  # noqa: RUF012

    def __init__(self, loads=True):
        self.batches, self.goes_on, self.loads = [], threading.Event(), threading.Event()
        if loads:
            self.loads.set()

    def load(self):
        assert self.loads.wait(30)

    def decision(self, threshold, min_probability):
        return serve.Decision(SINGLE_LABEL, ["no", "yes"], {}, min_probability)

    def predict(self, texts, before=0):
        self.batches.append(list(texts))
        assert self.goes_on.wait(30)
        for number, text in enumerate(texts, before + 1):
            if text == "bad":
                raise SpaceliteError(f"text {number} has no token: leave it out")
            if text.startswith("crash"):
                raise RuntimeError(f"cannot multiply {text}")
        yes = np.array([text.endswith("yes") for text in texts], float)
        none = np.zeros(len(texts))
        return Predicted(np.stack([1 - yes, yes], axis=1), none, none > 0)


class Asking:
    """Requests under way, each in a thread of its own."""

    def __init__(self, client):
        self.client, self.answers, self.threads = client, {}, []

    def ask(self, name, *texts):
        """Send texts, once those that were sent before are queued."""
        before = self.client.get("/health").json()["waiting"]

        def run():
            self.answers[name] = self.client.post("/predict", json={"texts": texts})

        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)
        return before

    def queued(self, count):
        processes.until(lambda: self.client.get("/health").json()["waiting"] == count)

    def labels(self):
        for thread in self.threads:
            thread.join(30)
        return {
            name: [one["label"] for one in answer.json()["predictions"]]
            for name, answer in self.answers.items()
            if answer.status_code == 200
        }


@pytest.fixture
def slow():
    model = Slow()
    yield model
    model.goes_on.set()


def test_what_arrives_together_is_classified_together(slow):
    with serving(slow) as client:
        asking = Asking(client)
        asking.ask("first", "a yes")
        processes.until(lambda: slow.batches)
        asking.ask("second", "b", "c yes")
        asking.queued(2)
        asking.ask("third", "d yes")
        asking.queued(3)
        slow.goes_on.set()
        labels = asking.labels()
    assert labels == {"first": ["yes"], "second": ["no", "yes"], "third": ["yes"]}
    assert slow.batches == [["a yes"], ["b", "c yes", "d yes"]]


def test_a_large_request_does_not_hold_up_small_ones(slow):
    many = [f"{number} {'yes' if number % 3 else 'no'}" for number in range(500)]
    with serving(slow) as client:
        asking = Asking(client)
        asking.ask("large", *many)
        processes.until(lambda: slow.batches)
        asking.ask("small", "quick yes")
        asking.queued(500 - len(slow.batches[0]) + 1)
        slow.goes_on.set()
        labels = asking.labels()
    assert "quick yes" in slow.batches[1]
    assert labels["large"] == ["yes" if number % 3 else "no" for number in range(500)]
    assert max(map(len, slow.batches)) <= serve.BATCH_TEXTS


def test_batches_of_long_texts_are_small(slow):
    slow.goes_on.set()
    with serving(slow) as client:
        long = ["x" * 60_000 + " yes", *["y" * 60_000] * 5]
        answer = client.post("/predict", json={"texts": long})
    assert [own["label"] for own in answer.json()["predictions"]] == ["yes", *["no"] * 5]
    assert [len(batch) for batch in slow.batches] == [2, 2, 2]


def test_a_full_queue_refuses_and_says_when_to_come_back(slow):
    with serving(slow, queue=10, max_texts=10) as client:
        asking = Asking(client)
        asking.ask("first", "a")
        processes.until(lambda: slow.batches)
        asking.ask("second", *"bcdefghi")
        asking.queued(8)
        full = client.post("/predict", json={"texts": ["x", "y", "z"]})
        asking.ask("third", "j", "k yes")
        asking.queued(10)
        slow.goes_on.set()
        labels = asking.labels()
    assert full.status_code == 503 and 1 <= int(full.headers["retry-after"]) <= 60
    assert "too many texts are waiting" in full.json()["error"]
    assert labels["third"] == ["no", "yes"] and len(labels["second"]) == 8


def test_a_late_answer_is_given_up_and_its_texts_are_not_classified(slow):
    with serving(slow, timeout=0.2) as client:
        asking = Asking(client)
        asking.ask("first", "a")
        processes.until(lambda: slow.batches)
        late = client.post("/predict", json={"texts": ["b", "c"]})
        assert late.status_code == 503 and "no answer within 0.2 s" in late.json()["error"]
        assert int(late.headers["retry-after"]) > 0
        assert client.get("/health").json()["waiting"] == 0
        slow.goes_on.set()
        after = client.post("/predict", json={"text": "d yes"})
    assert after.json()["predictions"][0]["label"] == "yes"
    assert slow.batches == [["a"], ["d yes"]]


def test_what_is_wrong_with_a_text_fails_its_own_request(slow, caplog):
    with serving(slow) as client, caplog.at_level(logging.DEBUG):
        asking = Asking(client)
        asking.ask("first", "a")
        processes.until(lambda: slow.batches)
        asking.ask("good", "b", "c yes")
        asking.queued(2)
        asking.ask("bad", "d", "bad")
        asking.queued(4)
        asking.ask("crash", f"crash {SECRET}")
        asking.queued(5)
        slow.goes_on.set()
        labels = asking.labels()
    assert labels["good"] == ["no", "yes"]
    assert asking.answers["bad"].status_code == 400
    assert asking.answers["bad"].json() == {"error": "text 2 has no token: leave it out"}
    assert asking.answers["crash"].status_code == 500
    assert asking.answers["crash"].json() == {"error": "the service failed (RuntimeError)"}
    assert "a request failed: RuntimeError in test_serve.py" in caplog.text
    assert SECRET not in caplog.text


def test_the_number_of_a_bad_text_is_that_in_its_request(slow):
    slow.goes_on.set()
    with serving(slow) as client:
        answer = client.post("/predict", json={"texts": ["a"] * 70 + ["bad"] + ["b"] * 300})
        assert answer.json() == {"error": "text 71 has no token: leave it out"}
        assert sum(map(len, slow.batches)) < 200
        assert client.post("/predict", json={"text": "a"}).status_code == 200


def test_texts_wait_while_the_model_loads():
    model = Slow(loads=False)
    model.goes_on.set()
    with TestClient(Service(model, Limits()).app) as client:
        asking = Asking(client)
        answer = client.get("/health")
        assert answer.status_code == 503 and answer.json()["status"] == "loading"
        assert answer.headers["retry-after"] == "1"
        jsonschema.validate(answer.json(), schema("Health"))
        asking.ask("early", "a yes")
        asking.queued(1)
        model.loads.set()
        assert asking.labels() == {"early": ["yes"]}
        assert client.get("/health").json()["status"] == "ready"


# The server, as a process of its own.


@contextlib.contextmanager
def process(run, *options, env=None):
    """A server and its port."""
    words = ["serve", run.id, "--cache-dir", run.cache_dir, "--device", "cpu", "--json"]
    with processes.spacelite(*words, "--port", 0, *options, env=env) as started:
        lines = "".join(started.line() for _ in range(4))
        started.port = int(json.loads(lines)["url"].rpartition(":")[2])
        yield started


def post(port, content, seconds=60):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    connection.request("POST", "/predict", json.dumps(content), JSON)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def raw(port, *parts, pause=0.0):
    """What the server answers to bytes until it closes the connection, and after how long."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        answer = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                answer += part
    return bytes(answer), time.monotonic() - started


def head(length, *more):
    lines = ["POST /predict HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_once_all_that_was_accepted_is_answered(runs, number):
    many = [f"{SECRET} {text}" for text in texts(200, longest=25)]
    answers = []
    with process(runs["space"]) as server:
        assert post(server.port, {"text": "a"})[0] == 200
        threads = [
            threading.Thread(target=lambda: answers.append(post(server.port, {"texts": many})))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()

        def waiting():
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request("GET", "/health")
            count = json.loads(connection.getresponse().read())["waiting"]
            connection.close()
            return count

        processes.until(lambda: waiting() > 600)  # all four are queued, and none is done
        server.send_signal(number)
        for thread in threads:
            thread.join(120)
        done = server.wait()
    assert done.returncode == 0
    assert [(status, len(body["predictions"])) for status, body in answers] == [(200, 200)] * 4
    assert done.stderr.splitlines()[-1] == "ended; 5 requests were answered"
    assert SECRET not in done.stdout + done.stderr and "Traceback" not in done.stderr
    with pytest.raises(ConnectionRefusedError):
        post(server.port, {"text": "a"})


@pytest.mark.slow
def test_hostile_clients_are_cut_off_and_nothing_of_them_is_logged(runs):
    with process(runs["space"], "--read-timeout", "0.5") as server:
        port, body = server.port, json.dumps({"text": f"a {SECRET}"}).encode()
        answer, seconds = raw(port, b"")
        assert answer == b"" and seconds < 30  # it says nothing
        answer, seconds = raw(port, *[b"P"] * 20, pause=0.1)
        assert answer == b"" or b"400" in answer  # a letter at a time
        answer, _ = raw(port, head(len(body)), body[:-3])
        assert b" 408 " in answer and b"within 0.5 s" in answer and b"connection: close" in answer
        answer, _ = raw(port, head(10**8), *[bytes(1 << 20)] * 100)
        assert b" 413 " in answer
        answer, _ = raw(port, head(10**8, "Expect: 100-continue"))
        assert b" 413 " in answer and b" 100 " not in answer
        chunked = head(0, "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
        answer, _ = raw(port, chunked, b"zz%s\r\n" % SECRET.encode())  # no length of a chunk
        assert b" 400 " in answer
        answer, _ = raw(port, chunked, *[b"100000\r\n%s\r\n" % bytes(1 << 20)] * 3)
        assert b" 413 " in answer
        answer, _ = raw(port, b"GET /%s\x00 HTTP/1.1\r\n\r\n" % SECRET.encode())
        assert b" 400 " in answer
        answer, _ = raw(port, b"GET / HTTP/1.1\r\nX: %s\r\n\r\n" % (b"a" * 200_000))
        assert b" 400 " in answer
        answer, _ = raw(port, head(len(body), "Connection: close"), body)
        assert b" 200 " in answer
        with socket.create_connection(("127.0.0.1", port)) as gone:
            gone.sendall(head(len(body)) + body)
        answer, _ = raw(port, head(len(body)).replace(b"localhost", b"example.org"), body)
        assert b" 421 " in answer
        assert post(port, {"text": "<b>\x1b[31m"})[0] == 200
        server.send_signal(signal.SIGTERM)
        done = server.wait()
    assert done.returncode == 0
    assert SECRET not in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["ready", "ended;"]


LARGE = """
import os, sys, time
import numpy as np
from spacelite.export import serve
from spacelite.inference.prediction import Predicted
from spacelite.tasks import SINGLE_LABEL

class Model:
    unexplained, about = "", {"run": "large"}
    def load(self): time.sleep(float(sys.argv[1]))
    def decision(self, *_): return serve.Decision(SINGLE_LABEL, ["a", "b"], {})
    def predict(self, texts, before=0):
        if "wait" in texts:
            print("begun", flush=True)
            os.read(0, 1)
        none = np.zeros(len(texts))
        return Predicted(np.full((len(texts), 2), 0.5), none, none > 0)
    def explain(self, text): return {"words": "x" * 30_000_000}

limits = serve.Limits(read_timeout=float(sys.argv[2]), timeout=100)
serve.serve(Model(), port=0, limits=limits, listening=lambda url: print(url, flush=True))
"""


def test_a_client_that_does_not_read_its_answer_is_cut_off():
    body = json.dumps({"text": "a", "explain": True}).encode()
    with processes.start(LARGE, 0, 0.5) as server, socket.socket() as deaf:
        port = int(server.line().rpartition(":")[2])
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(head(len(body)) + body)
        processes.until(lambda: deaf.recv(1, socket.MSG_PEEK))
        time.sleep(1)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := deaf.recv(1 << 20):
                answer += part
        assert b" 200 " in answer[:20] and len(answer) < 30_000_000
        assert len(raw(port, head(len(body), "Connection: close"), body)[0]) > 30_000_000
        server.send_signal(signal.SIGTERM)
        assert server.wait().returncode == 0


def test_a_second_interrupt_does_not_wait_for_an_answer():
    reading, writing = os.pipe()
    body = json.dumps({"text": "wait"}).encode()
    forced = "except KeyboardInterrupt: sys.exit('forced')"
    code = LARGE.replace("serve.serve(", "try: serve.serve(") + forced
    with processes.start(code, 0, 10, stdin=reading, fresh=True) as server:
        port = int(server.line().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head(len(body)) + body)
            assert server.line() == "begun"
            server.send_signal(signal.SIGINT)
            with contextlib.suppress(ConnectionResetError):  # in the backlog
                processes.until(lambda: not listens(port))
            server.send_signal(signal.SIGINT)
            done = server.wait()
    assert (done.returncode, done.stderr) == (1, "forced\n")
    os.close(reading)
    os.close(writing)


@pytest.mark.slow
def test_a_second_interrupt_of_the_command_ends_it_in_one_line(runs):
    body = json.dumps({"texts": texts(1000, longest=29), "explain": True}).encode()
    with process(runs["space"]) as server:
        assert post(server.port, {"text": "a"})[0] == 200
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head(len(body)) + body)
            processes.until(lambda: waiting(server.port) > 0)
            server.send_signal(signal.SIGINT)
            with contextlib.suppress(ConnectionResetError):
                processes.until(lambda: not listens(server.port))
            server.send_signal(signal.SIGINT)
            done = server.wait()
    assert done.returncode == 130 and done.stderr.splitlines()[1:] == ["interrupted"]


def listens(port):
    """Whether connections are accepted."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def waiting(port):
    """How many texts wait."""
    return json.loads(raw(port, b"GET /health HTTP/1.0\r\n\r\n")[0].partition(b"\r\n\r\n")[2])[
        "waiting"
    ]


def test_texts_of_a_client_that_goes_away_are_not_classified():
    reading, writing = os.pipe()
    body, many = (json.dumps({"texts": ["wait"] * count}).encode() for count in (1, 50))
    with processes.start(LARGE, 0, 10, stdin=reading) as server:
        port = int(server.line().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as first:
            first.sendall(head(len(body), "Connection: close") + body)
            assert server.line() == "begun"
            with socket.create_connection(("127.0.0.1", port)) as gone:
                gone.sendall(head(len(many)) + many)
                processes.until(lambda: waiting(port) == 50)
            processes.until(lambda: waiting(port) == 0)
            os.write(writing, b"\n")  # the first batch goes on; another would wait for more
            assert first.recv(15) == b"HTTP/1.1 200 OK"
        server.send_signal(signal.SIGTERM)
        assert server.wait().returncode == 0
    os.close(reading)
    os.close(writing)


def test_connections_are_bounded():
    code = LARGE.replace("limits =", "serve.CONNECTIONS = 20; limits =")
    with processes.start(code, 0, 60) as server, contextlib.ExitStack() as stack:
        port = int(server.line().rpartition(":")[2])
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert b" 503 " in raw(port, b"GET /labels HTTP/1.0\r\n\r\n")[0]
        stack.close()
        processes.until(lambda: b" 200 " in raw(port, b"GET /labels HTTP/1.0\r\n\r\n")[0])
        server.send_signal(signal.SIGTERM)
        assert server.wait().returncode == 0


def test_a_signal_while_the_model_loads_ends_it():
    with processes.start(LARGE, 1, 10) as server:
        port = int(server.line().rpartition(":")[2])
        processes.until(lambda: b"loading" in raw(port, b"GET /health HTTP/1.0\r\n\r\n")[0])
        server.send_signal(signal.SIGTERM)
        done = server.wait()
    assert (done.returncode, done.stderr) == (0, "")


def test_what_prevents_it_is_said_in_one_line(runs, tmp_path, monkeypatch):
    run = runs["space"]
    there = ["--cache-dir", run.cache_dir]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = processes.spacelite("serve", run.id, *there, "--port", port).wait()
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr == f"error: --port {port} is in use: give another, or 0 for any that is free\n"
    )
    cases = [
        (("nothing",), "no run"),
        ((run.id, "--port", "70000"), "--port 70000: give a whole number from 0 to 65,535"),
        ((run.id, "--host", "no.such.host.invalid"), "there is no such address"),
        ((run.id, "--host", "192.0.2.1"), "give an address of this machine"),
        ((run.id, "--max-body", "much"), "--max-body much: give a size"),
        ((run.id, "--queue", "5"), "--queue 5"),
    ]
    for words, problem in cases:
        done = processes.spacelite("serve", *words, *there).wait()
        assert done.returncode == 1 and problem in done.stderr
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    hidden = "import sys; sys.modules['uvicorn'] = None\n"
    done = processes.start(hidden + processes.COMMAND, "serve", run.id, *there).wait()
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "pip install 'spacelite[serve]'" in done.stderr


def test_a_backbone_that_cannot_be_loaded_ends_it(runs, bert, tmp_path):
    """The folder is there when the service begins, its weights are not what they should be."""
    run = runs["space"]
    code = (
        "from spacelite.backbones import model\n"
        "from spacelite.errors import SpaceliteError\n"
        "def broken(*_, **__): raise SpaceliteError('the weights are damaged: fetch them again')\n"
        "from spacelite.inference import prediction\n"
        "prediction.held_backbone = broken\n"
    )
    words = ["serve", run.id, "--cache-dir", run.cache_dir, "--port", 0]
    done = processes.start(code + processes.COMMAND, *words).wait()
    assert done.returncode == 1
    assert done.stderr == "error: the weights are damaged: fetch them again\n"


def test_an_address_that_others_reach_is_warned_of(runs):
    with process(runs["space"], "--host", "0.0.0.0") as server:
        asked = b"GET /labels HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"
        assert b" 200 " in raw(server.port, asked)[0]  # as proxies may ask
        server.send_signal(signal.SIGTERM)
        done = server.wait()
    assert "no authentication" in done.stderr and done.returncode == 0


# The page.

browser = test_page.browser  # the fixture
SAID = (
    "<script>window.owned=1</script> <img src=x onerror=window.owned=1> a very good & boring film"
)


@pytest.fixture(scope="module")
def page_server(report_dir):
    """A run whose labels are hostile, too."""
    runs = spacelite.load_runs(report_dir)
    hostile = [run for run in runs if set(run.labels) == set(NASTY_LABELS)]
    with process(next(run for run in hostile if run.record.head.kind == "linear")) as server:
        processes.until(lambda: post(server.port, {"text": "a"})[0] == 200)
        yield server


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.parametrize(("width", "mode"), VIEWS)
def test_the_page_shows_probabilities_and_words(browser, page_server, width, mode, tmp_path):
    address = f"http://127.0.0.1:{page_server.port}/"
    _, answer = post(page_server.port, {"text": SAID, "explain": True})
    (expected,) = answer["predictions"]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)
    page, said, requests = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.fill("#text", SAID)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result:not([hidden])")
    assert page.text_content("#given") == expected["label"]
    rows = page.locator("#probabilities tr").all_inner_texts()
    for row, (name, value) in zip(rows, expected["probabilities"].items(), strict=True):
        assert row.split() == [*name.split(), f"{100 * value:.1f}%"]
    for label in NASTY_LABELS:
        page.select_option("#of", label)
        explanation = expected["explanation"]
        shares = [word["shares"][label] for word in explanation["words"]]
        pieces = page.locator("#words > *")
        assert pieces.count() == len(shares)
        for number, share in enumerate(shares):
            title = pieces.nth(number).get_attribute("title").replace("\u2212", "-")
            assert float(title.partition(",")[0]) == pytest.approx(share, abs=6e-5)
            kind = pieces.nth(number).get_attribute("class")
            weak = abs(share) <= serve.explanation.WEAK * max(map(abs, shares))
            assert kind == (None if weak else "for" if share > 0 else "against")
        (*_, logit) = page.locator("#most tr").all_inner_texts()
        found = float(logit.split()[1].replace("\u2212", "-"))
        assert found == pytest.approx(explanation["logits"][label], abs=6e-5)
        assert label in page.text_content("#legend")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    keep(page, f"serve-{width}-{mode}", tmp_path)
    page.fill("#text", " ")
    page.click("#send")
    page.wait_for_selector("#problem:has-text('is empty')")
    assert not page.is_visible("#result")
    assert requests == [address + path for path in ("", "labels", "predict", "predict")]
    page.goto(address + "docs")
    page.wait_for_selector("#schemas table")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert f"curl {address}predict" in page.text_content("#routes")
    keep(page, f"serve-docs-{width}-{mode}", tmp_path)
    refused = "Failed to load resource: the server responded with a status of 400 (Bad Request)"
    assert set(said) <= {refused}  # which Chromium says of each such answer
    assert page.evaluate("window.owned") is None
    context.close()
