"""Explanations against people: toy posts by hand, scikit-learn's average precision, every figure
from plain transformers, forms of marks, and what users see."""

import dataclasses
import itertools
import json
import math
import threading

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import WORDS, embed, invoke, refusal, train_and_save, write_dataset
from safetensors.numpy import load_file
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

import spacelite
from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.inference.explanation import explain_text
from spacelite.inference.prediction import Predictor
from spacelite.metrics import rationales as metrics
from spacelite.runs import store
from spacelite.studies import rationales as study
from spacelite.training.config import TrainingConfig

SHARES = np.array([0.9, 0.8, 0.1, 0.5, 0.5])
MARKS = np.array([1, 0, 1, 1, 0], bool)
FIGURES = [*study.FIGURES]


def cli(*arguments):
    return invoke(*arguments)


def mask(*values):
    return np.array(values, bool)


# The figures of one text, and of several.


def test_figures_of_a_toy_post_by_hand():
    # Word 0 first: 1 of 1 is right. Then word 1: 1 of 2. Then words 3 and 4 at once: 2 of 4. Then
    # word 2: 3 of 5. A third of the marks is found at ranks 1, 4 and 5.
    assert metrics.average_precision(SHARES, MARKS) == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    # Straight lines from a precision of 1: between 1 and 1, 1/2 and 2/4, and 2/4 and 3/5.
    assert metrics.auprc(SHARES, MARKS) == pytest.approx((1 + 1 / 2 + 11 / 20) / 3)
    chosen = metrics.top(SHARES, 3)
    assert chosen.tolist() == [True, True, False, True, False]  # of two equal words the first
    assert metrics.token_f1(chosen, MARKS) == pytest.approx(2 * 2 / (3 + 3))
    assert metrics.runs_of(chosen) == [(0, 2), (3, 4)]
    assert metrics.runs_of(MARKS) == [(0, 1), (2, 4)]
    # Words 0 and 1 against word 0: 1 of 2. Word 3 against words 2 and 3: 1 of 2. Both count.
    assert metrics.span_matches(chosen, MARKS) == (1, 1)
    # Words 0 to 3 against words 2 and 3: 2 of 4 counts; word 0 is not found.
    assert metrics.span_matches(mask(1, 1, 1, 1, 0), MARKS) == (1, 1 / 2)
    assert metrics.span_matches(mask(1, 1, 1, 1, 1), MARKS) == (0, 0)
    assert metrics.f1(np.array([1, 0, 0.5]), np.array([0.5, 0, 0.5])) == pytest.approx(
        [2 / 3, 0, 0.5]
    )


def test_all_marked_all_equal_and_none_chosen():
    every = np.ones(4, bool)
    assert metrics.average_precision(np.array([3.0, 1, 2, 0]), every) == 1
    assert metrics.average_precision(np.zeros(4), mask(1, 0, 0, 0)) == 1 / 4
    assert metrics.auprc(np.zeros(4), mask(1, 0, 0, 0)) == (1 + 1 / 4) / 2
    assert metrics.auprc(np.array([3.0, 1, 2, 0]), every) == 1
    assert metrics.token_f1(metrics.top(np.zeros(4), 9), every) == 1  # fewer words than asked for
    assert metrics.span_matches(every, every) == (1, 1)
    assert metrics.span_matches(mask(0, 0), mask(1, 0)) == (0, 0)
    assert metrics.token_f1(mask(0, 0), mask(1, 0)) == 0


@pytest.mark.parametrize("values", [3, 1000])
def test_areas_are_those_of_scikit_learn(values):
    random = np.random.default_rng(0)
    for _ in range(200):
        marks = random.random(random.integers(1, 40)) < 0.4
        marks[random.integers(len(marks))] = True
        scores = random.integers(0, values, len(marks)) / 7
        assert metrics.average_precision(scores, marks) == pytest.approx(
            average_precision_score(marks, scores)
        )
        assert metrics.auprc(scores, marks) == pytest.approx(area(marks, scores))


def area(marks, scores):
    """AUPRC as ERASER's program computes it."""
    precision, recall, _ = precision_recall_curve(marks, scores)
    return auc(recall, precision)


def test_scores_spread_over_neighbours():
    # 1/2 of the next word, 1/4 of the one after it.
    scores = metrics.spread(np.array([4.0, 0, -8, 2]), 0.5)
    assert scores.tolist() == [4 - 2 + 0.25, 2 - 4 + 0.5, 1 - 8 + 1, 0.5 - 4 + 2]
    assert metrics.spread(scores, 0.0).tolist() == scores.tolist()


def test_intervals_are_those_of_the_bootstrap():
    random = np.random.default_rng(1)
    values = random.normal(0.6, 0.2, (300, 1))
    (estimate,) = metrics.estimates(values, 0)
    value, low, high = dataclasses.astuple(estimate)
    assert value == pytest.approx(values.mean())
    error = values.std() / math.sqrt(300)
    assert (low, high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.002)
    assert metrics.estimates(values, 0) == metrics.estimates(values, 0)
    (same,) = metrics.estimates(np.full((5, 1), 0.5), 3)
    assert dataclasses.astuple(same) == pytest.approx((0.5, 0.5, 0.5))
    # A figure that is made of two means.
    both = random.random((50, 2))
    (estimate,) = metrics.estimates(both, 0, lambda of: metrics.f1(of[:, 0], of[:, 1])[:, None])
    value, low, high = dataclasses.astuple(estimate)
    precision, recall = both.mean(axis=0)
    assert value == pytest.approx(2 * precision * recall / (precision + recall))
    assert low < value < high


# What people marked.


def test_every_form_of_marks():
    text = "so good , well-acted"
    wanted = [False, True, False, True]

    def read(*values, form="auto"):
        marks, found = study.read_marks(
            values, [text] * len(values), range(len(values)), "rationales=r", form
        )
        return [of.tolist() for of in marks], found

    assert read([0, 1, 0, 1], "[0, 1, 0, 1]", np.array([0, 1, 0, 1])) == ([wanted] * 3, "mask")
    assert read([[0, 1, 0, 1], [0, 1, 0, 0], [1, 0, 0, 1]]) == ([wanted], "mask")  # three people
    assert read([[0, 1, 1, 0], [0, 0, 0, 1]]) == ([[False, True, True, True]], "mask")  # half
    assert read([[1, 2], [3, 4]], "[[1, 2], [3, 4]]") == ([wanted] * 2, "words")
    assert read([[3, 7], [15, 17]]) == ([wanted], "characters")  # a part of a word is marked
    assert read([[1, 2]], form="characters") == ([[True, False, False, False]], "characters")
    # One span beyond the last word makes all of them characters.
    assert read([[1, 2]], [[10, 20]])[1] == "characters"
    nothing = [None, float("nan"), "", " ", [], "[]", [0, 0, 0, 0]]
    assert read(*nothing, [0, 1, 0, 1])[0] == [[False] * 4] * 7 + [wanted]


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [
        ([0, 1, 0], "auto", "row 2 has a mask of 3 words, and its text has 2 (and 1 more)"),
        ([0, 2], "auto", "row 2 has [0, 2], where a mask holds 0 and 1 (and 1 more)"),
        (["a", "b"], "auto", "row 2 has ['a', 'b'], where a mask holds 0 and 1"),
        ([[0, 3]], "words", "row 2 has the span [0, 3], and its text has 2 words"),
        ([[1, 1]], "words", "row 2 has the span [1, 1], and its text has 2 words"),
        ([[-1, 1]], "auto", "row 2 has the span [-1, 1], and its text has 7 characters"),
        ([[0, 8]], "auto", "row 2 has the span [0, 8], and its text has 7 characters"),
        ([[0.5, 1]], "auto", "row 2 has the span [0.5, 1], and its text has 7 characters"),
        ([0, 1], "words", "row 2 has the span 0, and its text has 2 words"),
        ("good", "auto", "row 2 has 'good', which is no list"),
        (3, "auto", "row 2 has '3', which is no list"),
        ({"start": 1}, "auto", "row 2 has \"{'start': 1}\", which is no list"),
    ],
)
def test_marks_that_do_not_fit_are_refused_by_row(value, form, said):
    message = refusal(
        study.read_marks, [None, value, value], ["so good"] * 3, ["row 1", "row 2", "row 3"],
        "rationales=r", form,
    )  # fmt: skip
    assert message.startswith(f"rationales=r: {said}")
    assert message.endswith("as rationales_as says")


# A run against plain transformers.

SIZES = {"validation": 12, "test": 16}


def posts(count, seed):
    """Texts with subwords and punctuation, and the marked words of each: none of the first, all of
    the second; the third has a single word."""
    random = np.random.default_rng(seed)
    texts, marks = [], []
    for number in range(count):
        length = 1 if number == 2 else int(random.integers(3, 25))
        words = random.choice([*WORDS, "well-acted", "beta", "(good)"], length)
        texts.append(" ".join(words))
        marked = random.random(length) < 0.3
        marked[random.integers(length)] = True
        marks.append({0: np.zeros(length, bool), 1: np.ones(length, bool)}.get(number, marked))
    return texts, marks


def rows_of(texts, marks):
    for number, (text, marked) in enumerate(zip(texts, marks, strict=True)):
        bounds = [(at.start(), at.end()) for at in study.re.finditer(r"\S+", text)]
        yield {
            "text": text,
            "label": number % 3,
            "mask": marked.astype(int).tolist(),
            "words": [[at, at + 1] for at in np.flatnonzero(marked).tolist()],
            "characters": [list(bounds[at]) for at in np.flatnonzero(marked).tolist()],
            "number": number,
            "nothing": [],
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory, bert):
    """A folder of caches with runs by kind of head, and one of marked texts."""
    folder = tmp_path_factory.mktemp("rationales")
    data = write_dataset(folder / "reviews", {"train": 60, "validation": 12}, classes=3)
    path = embed(
        backbone=str(bert), dataset=str(data), cache_dir=folder, dtype="float32", device="cpu"
    ).path
    chosen = [
        heads.config("linear", pooling="mean", learning_rate=0.05),
        heads.config("mlp", pooling="mean"),
        heads.config("tfidf"),
    ]
    with Cache(path) as cache:
        saved = train_and_save(folder, cache, chosen, TrainingConfig(epochs=4, batch_size=16))
    marked = folder / "marked"
    marked.mkdir()
    for seed, (split, count) in enumerate(SIZES.items()):
        lines = map(json.dumps, rows_of(*posts(count, seed)))
        (marked / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder, {run.head.kind: run.id for run in saved}, marked


class Plain:
    """A linear head on the mean of the tokens of a backbone, in float64."""

    def __init__(self, folder, run, bert):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
        self.model = transformers.AutoModel.from_pretrained(bert).eval()
        weights = load_file(spacelite.load_run(run, folder).run.folder / "head.safetensors")
        self.weight, self.bias = (
            next(of.astype(np.float64) for name, of in weights.items() if name.endswith(end))
            for end in ("weight", "bias")
        )

    def shares(self, text):
        """What each word adds to each logit, (W, C)."""
        encoded = self.tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        spans = encoded.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            hidden = self.model(**encoded).last_hidden_state[0].double().numpy()
        self.logits = hidden.mean(axis=0) @ self.weight.T + self.bias
        shares = np.zeros((len(text.split()), len(self.bias)))
        for (start, end), state in zip(spans, hidden, strict=True):
            if end > start:  # the word that begins at or before the token
                shares[text[: start + 1].count(" ")] += state @ self.weight.T / len(hidden)
        return shares

    def probabilities(self, text):
        self.shares(text)
        return torch.softmax(torch.from_numpy(self.logits), 0).numpy()


def expected(plain, texts, marks, top, against=None, part=0.0):
    """The figures of texts with marks, with loops."""

    def spread(scores):
        every = range(len(scores))
        return np.array([sum(scores[at] * part ** abs(at - to) for at in every) for to in every])

    rows, losses, of_top = [], [], []
    for text, marked in zip(texts, marks, strict=True):
        if not marked.any():
            continue
        shares, words = plain.shares(text), text.split()
        centred = shares - shares.mean(axis=1, keepdims=True)
        whole = plain.probabilities(text)
        label = whole.argmax()
        faithful = scores = spread(centred[:, label])
        if against is not None:
            logits = torch.from_numpy(plain.logits).requires_grad_()
            torch.logit(1 - torch.softmax(logits, 0)[against]).backward()
            scores = spread(shares @ logits.grad.numpy())
        chosen = {*sorted(range(len(words)), key=lambda at: -scores[at])[:top]}
        wanted = {*np.flatnonzero(marked).tolist()}
        common = len(chosen & wanted)
        f1 = 2 * common / (len(chosen) + len(wanted))
        spans = [groups(of) for of in (chosen, wanted)]
        hits = sum(
            any(len(a & b) / len(a | b) >= 0.5 for b in spans[1]) for a in spans[0]
        )  # fmt: skip
        rows.append(
            (
                area(marked, scores),
                average_precision_score(marked, scores),
                f1,
                hits / len(spans[0]),
                hits / len(spans[1]),
            )
        )
        if len(words) == 1:
            continue
        order = sorted(range(len(words)), key=lambda at: -faithful[at])
        counts = [max(1, math.ceil(round(len(words) * of / 100, 9))) for of in (1, 5, 10, 20, 50)]
        for count in (*counts, top):
            first = order[: min(count, len(words) - 1)]
            without = " ".join(words[at] for at in range(len(words)) if at not in first)
            alone = " ".join(words[at] for at in sorted(first))
            (losses if len(losses) < 5 * (len(of_top) + 1) else of_top).append(
                [whole[label] - plain.probabilities(of)[label] for of in (without, alone)]
            )
    *others, p, r = np.mean(rows, axis=0)
    lost = np.concatenate([np.mean(losses, axis=0), np.mean(of_top, axis=0)])
    return [*others, 2 * p * r / (p + r), *lost]


def groups(words):
    """Sets of words that follow one another."""
    found = []
    for word in sorted(words):
        if found and word - 1 in found[-1]:
            found[-1].add(word)
        else:
            found.append({word})
    return found


def test_figures_are_those_of_plain_transformers(place, bert):
    folder, runs, marked = place
    plain = Plain(folder, runs["linear"], bert)
    run = spacelite.load_run(runs["linear"], folder)
    texts, marks = posts(SIZES["test"], 1)
    _, on_validation = posts(SIZES["validation"], 0)
    top = round(np.mean([of.sum() for of in on_validation if of.any()]))
    wanted = expected(plain, texts, marks, top)
    found = {}
    for form in ("mask", "words", "characters"):
        result = run.evaluate(
            str(marked), rationales=form, rationales_as=form, device="cpu", progress=False
        ).rationales
        assert (result.form, result.top, result.top_of) == (form, top, "validation")
        assert (result.texts, result.unmarked, result.short) == (15, 1, 1)
        found[form] = result.figures
        assert [*result.figures] == ["run", "ngrams", "random"]
        values = [result.figures["run"][name].value for name in FIGURES]
        assert values == pytest.approx(wanted, abs=1e-5)
        for order in result.figures.values():
            assert all(of.low <= of.value <= of.high for of in order.values())
    assert found["mask"] == found["words"] == found["characters"]
    against = run.evaluate(
        str(marked), rationales="words", against="1", device="cpu", progress=False
    ).rationales
    others = [number for number in range(SIZES["test"]) if number % 3 != 1]
    kept = [number for number in range(SIZES["validation"]) if number % 3 != 1]
    top = round(np.mean([on_validation[at].sum() for at in kept if on_validation[at].any()]))
    values = [against.figures["run"][name].value for name in FIGURES]
    texts, marks = ([of[at] for at in others] for of in (texts, marks))
    assert values == pytest.approx(expected(plain, texts, marks, top, against=1), abs=1e-5)
    assert against.of_against == SIZES["test"] - len(others)
    of_five = run.evaluate(
        str(marked), rationales="words", rationales_top=5, rationales_spread=0.5, device="cpu",
        progress=False,
    ).rationales  # fmt: skip
    texts, marks = posts(SIZES["test"], 1)
    values = [of_five.figures["run"][name].value for name in FIGURES]
    assert values == pytest.approx(expected(plain, texts, marks, 5, part=0.5), abs=1e-5)
    assert (of_five.top, of_five.top_of) == (5, None)


def test_words_shares_and_the_rest_are_the_logits(place, xlnet):
    """Whatever the tokenizer: padding on the left, a prefix, no first token, a text cut off."""
    folder, _, _ = place
    data = folder / "reviews"
    for settings in (
        {"prefix": "query: ", "padding": "max_length", "max_length": 30},
        {"skip_first": True, "max_length": 20},
    ):
        path = embed(
            backbone=str(xlnet), dataset=str(data), cache_dir=folder, dtype="float32",
            device="cpu", **settings,
        ).path  # fmt: skip
        with Cache(path) as cache:
            (run,) = train_and_save(
                folder, cache, [heads.config("linear", pooling="mean")], TrainingConfig(epochs=1)
            )
        text = "this film was well good the very " + "slow " * 30
        (shares,), _, truncated = study._shares(
            Predictor(run, device="cpu"), [text], lambda *of: None
        )
        explained = explain_text(run, text, device="cpu")
        rest = sum(np.array(of.contributions) for of in explained.words if of.special)
        total = shares.sum(axis=0) + rest + explained.bias
        assert total == pytest.approx(np.array(explained.logits), abs=1e-5)
        assert len(shares) == len(text.split()) and truncated == 1
        assert (shares[-1] == 0).all()  # which the head does not see
        assert (shares[1:5] != 0).all()


def test_threads_have_ended_when_explaining_is_interrupted(place):
    folder, runs, _ = place
    run = store.load(folder / "runs" / runs["linear"])

    def interrupt(phase, done, total):
        if done:
            raise KeyboardInterrupt

    predictor = Predictor(run, device="cpu", tokens_per_batch=20)
    texts = [" ".join(["good"] * (1 + number % 12)) for number in range(300)]
    with pytest.raises(KeyboardInterrupt) as caught:  # whose traceback holds the results
        study._shares(predictor, texts, interrupt)
    assert caught.tb and not [
        one for one in threading.enumerate() if one.name.startswith("computing")
    ]


def test_baselines(place):
    folder, runs, marked = place
    of_linear, of_tfidf = (
        spacelite.load_run(runs[kind], folder).evaluate(
            str(marked), rationales="words", against="1", device="cpu", progress=False
        )
        for kind in ("linear", "tfidf")
    )
    ngrams, own = of_linear.rationales.figures["ngrams"], of_tfidf.rationales.figures["run"]
    assert [*of_tfidf.rationales.figures] == ["run", "random"]
    assert not any("n-grams" in of for of in of_tfidf.rationales.sentences)
    for name in study.PLAUSIBILITY:  # the words' order alone
        assert ngrams[name] == own[name]
        assert (
            of_linear.rationales.figures["random"][name]
            == of_tfidf.rationales.figures["random"][name]
        )
    assert ngrams["comprehensiveness"] != own["comprehensiveness"]  # of another head's prediction


# What users see.


def test_the_command(place):
    folder, runs, marked = place
    common = ("eval", runs["linear"], "--dataset", marked, "--cache-dir", folder)
    common += ("--rationales", "words", "--device", "cpu")
    shown = cli(*common)
    assert shown.exit_code == 0, shown.output
    for part in (
        "Plausibility: do words agree", "AUPRC", "Token F1", "IoU F1", "Faithfulness: does the",
        "Compr.", "Suff.", "own shares", "Faithfulness of the first", "n-grams", "random",
        "15 texts of test with marks, read as spans of words; left out: 1 without marks.",
        "speak for the predicted label", "as many as are marked on average in validation",
        "Left out: 1 text of a single word.",
    ):  # fmt: skip
        assert part in shown.stdout
    again = cli(*common, "--json")
    content = json.loads(again.stdout)["rationales"]
    assert content["figures"].keys() == {"run", "ngrams", "random"}
    assert content["figures"]["run"].keys() == study.FIGURES.keys()
    for order in content["figures"].values():
        for figure in order.values():
            assert figure["low"] <= figure["value"] <= figure["high"]
    assert content["split"] == "test" and content["texts"] == 15 and content["seed"] == 0
    assert json.loads(cli(*common, "--json").stdout)["rationales"] == content
    plain = json.loads(cli(*common[:-4], "--device", "cpu", "--json").stdout)
    assert plain["rationales"] is None
    cached = cli("eval", runs["linear"], "--cache", plain["cache"], *common[4:], "--json")
    assert json.loads(cached.stdout)["rationales"] == content
    options = ("--against", "1", "--rationales-top", "3", "--rationales-spread", "0.25")
    said = cli(*common, *options).stdout
    assert "left out: 1 without marks, 5 of 1 itself" in said and "speak against 1" in said
    assert "is added, times 0.25 for each word of distance" in said
    assert "F1 is that of the first 3." in said and "as many as" not in said


def test_reports_show_means_over_seeds(place):
    folder, runs, marked = place
    run = spacelite.load_run(runs["linear"], folder).run
    with Cache(store.find_cache(run, folder)) as cache:
        saved = train_and_save(
            folder, cache,
            [heads.config("linear", pooling="mean", seed=seed) for seed in (1, 2)],
            TrainingConfig(epochs=1),
        )  # fmt: skip
    own = [spacelite.load_run(run.id, folder) for run in saved]
    how = {"rationales": "mask", "device": "cpu", "limit": 8, "progress": False}
    found = [run.evaluate(str(marked), **how).rationales for run in own]
    del how["rationales"]
    assert own[0].evaluate(str(marked), **how).rationales is None  # and what was saved is kept
    (_, part) = spacelite.report(own, examples=False).findings.parts
    (means,) = part.rationales.values()
    for order, name in itertools.product(("run", "random"), FIGURES):
        for key in ("value", "low", "high"):
            values = [getattr(of.figures[order][name], key) for of in found]
            mean = getattr(means.figures[order][name], key)
            assert mean == pytest.approx(np.mean(values))
    shown = str(spacelite.report(own, examples=False))
    assert "Explanations against people" in shown and "Faithfulness of the first" in shown
    # Those of other first words are not averaged with them, and replace what was saved.
    own[1].evaluate(str(marked), **how, rationales="mask", rationales_top=2)
    (_, part) = spacelite.report(own, examples=False).findings.parts
    assert part.rationales == {"linear (mean)": found[0]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rationales", "wrods"), "has no such column: choose from"),
        (("--rationales", "number"), "validation.jsonl, row 1 has '0', which is no list"),
        (("--rationales", "nothing"), "no text of test has a marked word: name another column"),
        (("--rationales", "words", "--rationales-as", "mask"), "validation.jsonl, row 2 has"),
        (("--rationales", "words", "--rationales-as", "spans"), "--rationales-as spans: "),
        (("--rationales", "words", "--against", "4"), "--against 4: run"),
        (("--against", "1"), "--against 1 has no effect without --rationales"),
        (("--rationales", "words", "--rationales-top", "0"), "--rationales-top 0: give a"),
        (("--rationales", "words", "--rationales-spread", "1"), "--rationales-spread 1"),
        (("--rationales-spread", "0.5"), "--rationales-spread 0.5 has no effect without"),
        (("--rationales-top", "5"), "--rationales-top 5 has no effect without --rationales"),
        (("--rationales-as", "mask"), "--rationales-as mask has no effect without --rationales"),
    ],
)
def test_refusals(place, arguments, said):
    folder, runs, marked = place
    before = sorted(folder.rglob("*"))
    result = cli(
        "eval", runs["linear"], "--dataset", marked, "--cache-dir", folder, *arguments,
        "--limit", "9",
    )  # fmt: skip
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split()) and "Traceback" not in result.output
    assert sorted(folder.rglob("*")) == before  # checked before anything is embedded


def test_heads_whose_logits_are_no_sum_are_refused(place):
    folder, runs, marked = place
    result = cli(
        "eval", runs["mlp"], "--dataset", marked, "--cache-dir", folder, "--rationales", "words"
    )  # fmt: skip
    assert result.exit_code == 1 and "cannot be explained" in result.stderr


def test_runs_of_several_labels_are_refused(place, bert):
    folder, _, marked = place
    labels = [[], ["a"], ["b"], ["a", "b"]] * 4
    rows = [{"text": text, "label": of} for text, of in zip(posts(16, 3)[0], labels, strict=True)]
    data = folder / "several.json"
    data.write_text(json.dumps(rows))
    path = embed(
        backbone=str(bert), dataset=str(data), cache_dir=folder, device="cpu", test_fraction=0.2
    ).path
    with Cache(path) as cache:
        (run,) = train_and_save(folder, cache, [heads.config("tfidf")], TrainingConfig(epochs=1))
    run = spacelite.load_run(run.id, folder)
    assert "the explanation of one label per text" in refusal(
        run.evaluate, str(marked), rationales="words", progress=False
    )


def test_without_a_run_of_ngrams(place, monkeypatch):
    folder, runs, marked = place
    monkeypatch.setattr(store, "load_all", lambda cache_dir: [])
    result = spacelite.load_run(runs["linear"], folder).evaluate(
        str(marked), rationales="words", device="cpu", limit=6, progress=False
    )
    assert [*result.rationales.figures] == ["run", "random"]
    assert "the run's cache has no tfidf run: train one" in str(result)


def test_marks_in_objects(place):
    folder, runs, _ = place
    run = spacelite.load_run(runs["tfidf"], folder)
    frame = pd.DataFrame(rows_of(*posts(16, 1)))
    how = {"device": "cpu", "progress": False}
    named = run.evaluate(frame, rationales="mask", **how).rationales
    listed = run.evaluate(frame, rationales=frame["characters"].tolist(), **how).rationales
    assert named.figures == listed.figures and named.top_of == "these texts of test"
    pair = (frame["text"].tolist(), frame["label"].tolist())
    assert run.evaluate(pair, rationales=frame["mask"].tolist(), **how).rationales == named
    frame["json"] = frame["words"].map(json.dumps)
    frame.to_csv(folder / "marked.csv", index=False)
    of_file = run.evaluate(folder / "marked.csv", rationales="json", **how)
    assert of_file.rationales.figures == named.figures
    assert "Faithfulness" in str(of_file) and "Faithfulness" in of_file._repr_html_()
    assert "rationales=3: give a column's name" in refusal(run.evaluate, frame, rationales=3, **how)
    few = refusal(run.evaluate, frame, rationales=[[0]], **how)
    assert "1 marks for 16 texts of test: give one for each text of a single split" in few
    assert "was not read from a file" in refusal(
        run.evaluate, "demo", rationales="mask",
        labels={"negative": "0", "positive": "1"}, **how,
    )  # fmt: skip
    alone = frame[frame["label"] == 1]
    assert "is left to be explained" in refusal(
        run.evaluate, alone, rationales="mask", against="1", **how
    )
    single = pd.DataFrame({"text": ["good"], "label": [1], "mask": [[1]]})
    only = run.evaluate(single, rationales="mask", **how).rationales
    assert only.figures["run"]["auprc"].value == 1
    assert only.figures["run"]["sufficiency"] is None and only.short == 1
