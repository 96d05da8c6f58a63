"""Contributions of tokens to logits, words from tokens, and the explain command."""

import itertools
import json
import shutil

import numpy as np
import processes
import pytest
from conftest import embed, invoke, refusal, texts, train_and_save, write_dataset

from spacelite import heads, load_run
from spacelite.backbones.tokenizer import Words
from spacelite.cache.split import TokenRows
from spacelite.cache.store import Cache
from spacelite.heads.base import Tokens
from spacelite.inference import explanation, prediction
from spacelite.training.config import TrainingConfig

HEADS = [
    heads.config("space", latent=3, inter=0.2, intra=0.001, learning_rate=0.05),
    heads.config("linear", pooling="mean", learning_rate=0.05),
    heads.config("logreg", pooling="mean"),
]
OTHERS = [
    heads.config("linear", pooling="first"),
    heads.config("mlp", pooling="mean"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory, bert):
    folder = tmp_path_factory.mktemp("explain")
    data = write_dataset(folder / "data", {"train": 60, "validation": 20, "test": 1000}, classes=3)
    path = embed(backbone=str(bert), dataset=str(data), cache_dir=folder, device="cpu").path
    with Cache(path) as cache:
        training = TrainingConfig(epochs=2, batch_size=16)
        saved = train_and_save(folder, cache, HEADS + OTHERS, training)
    return folder, path, saved


def shares_and_bias(run, hidden):
    """The shares (n, C) of a text's tokens in its logits, and the bias, in float64."""
    kind, count = heads.kind(run.head.kind), len(hidden)
    ids = np.zeros(count, np.int32)  # shares in such heads do not depend on them
    tokens = Tokens(hidden.astype(np.float64), ids, np.array([0, count]))
    shares = kind.token_shares(run.head, run.parameters, tokens)
    return shares, kind.bias(run.parameters).astype(np.float64)


def logits_of_means(run, hidden):
    """A text's logits from the mean over its tokens, from the weights alone, in float64."""
    weights = {name: value.astype(np.float64) for name, value in run.parameters.items()}
    features = hidden.astype(np.float64)
    if run.head.kind == "space":
        spaces = weights["concept_spaces"]
        features = np.tanh(features @ spaces.reshape(-1, spaces.shape[-1]).T)
    return weights["classifier.weight"] @ features.mean(axis=0) + weights["classifier.bias"]


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("index", range(len(HEADS)), ids=[head.name for head in HEADS])
def test_contributions_add_up_for_a_thousand_cached_examples(index, count, place):
    run = place[2][index]
    with Cache(place[1]) as cache:
        split = cache.splits["test"]
        assert len(split) == 1000
        tokens = split.read_tokens(0, split.tokens)
        for first, last in itertools.pairwise(split.offsets[: count + 1]):
            hidden = tokens[first:last]
            shares, bias = shares_and_bias(run, hidden)
            assert shares.shape == (last - first, 3)
            logits = logits_of_means(run, hidden)
            np.testing.assert_allclose(bias + shares.sum(axis=0), logits, atol=1e-12)
            # The head in float32, as it predicts.
            rows = TokenRows.of_batch(split.stored, hidden[None])
            (expected,) = prediction.head_logits(run, rows)
            np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_token_that_is_left_out_takes_its_share_along(place):
    """The share is what the formula says: removing a token leaves n - 1 parts of the rest."""
    run = place[2][0]
    with Cache(place[1]) as cache:
        hidden = explanation.cached_example(cache, "test:3").rows.rows
    shares, bias = shares_and_bias(run, hidden)
    without = logits_of_means(run, hidden[1:])
    n = len(hidden)
    np.testing.assert_allclose(without - bias, shares[1:].sum(axis=0) * n / (n - 1), atol=1e-9)


def test_a_text_through_the_backbone_is_explained_as_it_is_predicted(place, bert):
    folder, _, saved = place
    text = "good film but boring story"
    command = ["explain", saved[0].id, text, "--backbone", bert, "--cache-dir", folder]
    result = json.loads(invoke(*command, "--json").stdout)
    (expected,) = prediction.Predictor(saved[0], str(bert)).predict([text]).probabilities
    predictor = prediction.Predictor(saved[0], str(bert))
    ((_, rows),) = predictor.hidden_states(predictor.tokenize([text]))
    np.testing.assert_allclose(result["probabilities"], expected, atol=1e-5)
    total = np.array(result["bias"]) + np.sum(
        [word["contributions"] for word in result["words"]], axis=0
    )
    np.testing.assert_allclose(total, logits_of_means(saved[0], rows.rows), atol=1e-9)
    # The logits are the forward pass's, in float32.
    assert result["difference"] == np.abs(total - result["logits"]).max() < 1e-6
    assert [word["text"] for word in result["words"]] == ["[CLS]", *text.split(), "[SEP]"]
    assert [word["special"] for word in result["words"]] == [True, *[False] * 5, True]


@pytest.mark.parametrize("index", range(len(OTHERS)), ids=[head.name for head in OTHERS])
def test_heads_that_are_no_sum_over_tokens_are_refused(index, place):
    folder, _, saved = place
    run = saved[len(HEADS) + index]
    result = invoke("explain", run.id, "good film", "--cache-dir", folder)
    assert result.exit_code == 1
    refused = f"the logits of {OTHERS[index].name} are not a sum over tokens; explain a space head"
    assert refused in result.stderr and result.stdout == ""


def test_pieces_become_words(bert, xlnet):
    from tokenizers import Tokenizer

    for folder, text, expected in (
        (bert, "good zzz, film", ["[CLS]", "good", "zzz", "[UNK]", "film", "[SEP]"]),
        (bert, "bad abc film", ["[CLS]", "bad", "abc", "film", "[SEP]"]),  # a ##b ##c
        (xlnet, "good film", ["good", "film", "<sep>", "<cls>"]),
    ):
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
        made = Words(folder).of(ids)
        assert [word for word, _, _ in made] == expected
        assert [n for _, _, numbers in made for n in numbers] == list(range(len(ids)))
        assert any(len(numbers) == 3 for *_, numbers in made) == (folder == bert)


def test_bytes_become_words(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet)
    backend.train_from_iterator(["a film, the film"], trainer)
    backend.save(str(tmp_path / "tokenizer.json"))
    for text in ("the café film", "café"):
        made = Words(tmp_path).of([0, *backend.encode(text).ids])
        assert [word for word, _, _ in made] == ["<s>", *text.split()]
        assert [special for _, special, _ in made] == [True, *[False] * len(text.split())]


def test_a_broken_tokenizer_is_one_line(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    assert "tokenizer.json cannot be read" in refusal(Words, tmp_path)


def test_a_cached_example_is_explained_without_torch(place, bert):
    folder, path, saved = place
    arguments = ["explain", saved[0].id, "--example", "test:17", "--backbone", str(bert),
                 "--cache-dir", str(folder)]  # fmt: skip
    code = (
        f"import sys\nfrom spacelite_cli.app import app\ntry:\n    app({arguments!r})\n"
        "finally:\n    print('imported:', *sorted(sys.modules))"
    )
    done = processes.run(code, fresh=True)
    shown, _, imported = done.stdout.partition("imported: ")
    assert not {"torch", "transformers", "datasets"} & set(imported.split()), done.stderr
    assert "add up to the logit" in shown
    result = json.loads(invoke(*arguments, "--json").stdout)
    with Cache(path) as cache:
        assert result["example"] == [cache.label_names[cache.splits["test"].labels[17]]]
        assert f"labelled {result['example'][0]}" in shown
    assert f"for {result['labels'][int(np.argmax(result['probabilities']))]}" in shown
    shares = {word["text"]: relative(word["contributions"]) for word in result["words"]}
    strongest = max(shares, key=lambda word: abs(shares[word][0]))
    shown = invoke(*arguments, "--label", "0").stdout  # without colours
    assert f"{strongest}({shares[strongest][0]:+.2f})" in shown


def relative(contributions):
    """A word's shares less their mean over the labels, from the JSON output alone."""
    return np.array(contributions) - np.mean(contributions)


def test_shares_are_shown_relative_to_the_other_labels_and_plain_in_json(place, bert):
    folder, _, saved = place
    there = ["explain", saved[0].id, "good film but boring story", "--label", "1",
             "--backbone", bert, "--cache-dir", folder]  # fmt: skip
    result = json.loads(invoke(*there, "--json").stdout)
    assert result["label"] == "1" and result["predicted"] == [
        result["labels"][int(np.argmax(result["logits"]))]
    ]
    shown = invoke(*there, env={"COLUMNS": "100"}).stdout
    lines = [line.split() for line in shown.splitlines()]
    table = {line[0]: line[1] for line in lines if len(line) == 2}
    for word in result["words"]:
        assert table[word["text"]] == f"{relative(word['contributions'])[1]:+.4f}"
    assert table["bias"] == f"{relative(result['bias'])[1]:+.4f}"
    assert table["logit"] == f"{relative(result['logits'])[1]:+.4f}"
    # What is shown adds up.
    total = sum(float(table[word["text"]]) for word in result["words"]) + float(table["bias"])
    assert total == pytest.approx(float(table["logit"]), abs=1e-3)
    flat = " ".join(shown.split())
    assert (
        "adds to the logit of 1, less the mean of what it adds to the logits of all labels" in flat
    )
    assert "less the mean of its shares" in " ".join(invoke("explain", "--help").stdout.split())


def test_strengths_keep_their_signs_in_every_output(place, bert, tmp_path):
    folder, _, saved = place
    run = load_run(saved[0].id, folder)
    found = run.explain("good film but boring story", label="1", backbone=str(bert))
    shares = dict(found.words)
    assert min(shares.values()) < 0 < max(shares.values())
    there = ["explain", run.id, "good film but boring story", "--label", "1", "--html",
             tmp_path / "page.html", "--backbone", bert, "--cache-dir", folder]  # fmt: skip
    result = json.loads(invoke(*there, "--json").stdout)
    for word in result["words"]:
        assert shares[word["text"]] == pytest.approx(relative(word["contributions"])[1])
    plain = invoke(*there).stdout
    coloured = invoke(*there, env={"FORCE_COLOR": "1", "COLUMNS": "100"}).stdout
    page = (tmp_path / "page.html").read_text()
    for word in found.explanation.marked(1):
        assert word.side == ("" if word.weight <= 0.1 else "for" if word.contribution > 0
                             else "against")  # fmt: skip
        if word.side:
            number = f"{word.text}({word.contribution:+.2f})"
            assert all(number in text for text in (plain, coloured, str(found)))
            assert f'title="{word.contribution:+.4f}">{word.text}<' in page
            assert f'title="{word.contribution:+.4f}">{word.text}<' in found._repr_html_()


def test_the_predicted_label_and_the_explained_one_are_both_named(place, bert):
    folder, _, saved = place
    run = load_run(saved[0].id, folder)
    for label in run.record.label_names:
        found = run.explain("good film", label=label, backbone=str(bert))
        names, chances = found.explanation.labels, found.explanation.probabilities
        best = int(np.argmax(chances))
        predicted = f"{names[best]} ({chances[best]:.3f})"
        assert str(found).startswith(f"predicted {predicted}; words for and against {label}: ")
        html = found._repr_html_()
        assert f"Predicted <b>{predicted}</b>" in html and f"against <b>{label}</b>" in html


def test_every_label_keeps_its_own_logit_where_a_text_has_several(bert, tmp_path):
    random = np.random.RandomState(0)
    rows = [
        {"text": text, "label": [c for c in "xyz" if random.rand() < 0.5]} for text in texts(80)
    ]
    (tmp_path / "several.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    path = embed(
        backbone=str(bert), dataset=str(tmp_path / "several.jsonl"), cache_dir=tmp_path,
        device="cpu",
    ).path  # fmt: skip
    with Cache(path) as cache:
        training = TrainingConfig(epochs=2, batch_size=16)
        (saved,) = train_and_save(tmp_path, cache, HEADS[:1], training)
    run, several = load_run(saved.id, tmp_path), {}
    for text in texts(12, seed=5):
        found = run.explain(text, label="y", backbone=str(bert))
        own = found.explanation
        assert found.words == [(word.text, word.contributions[1]) for word in own.words]
        given = [name for name, chance in zip("xyz", own.probabilities, strict=True)
                 if chance > 0.5]  # fmt: skip
        assert own.as_json()["predicted"] == own.given == given
        said = ", ".join(f"{name} ({own.probabilities['xyz'.index(name)]:.3f})" for name in given)
        assert str(found).startswith(f"predicted {said or 'no label'}; words for and against y: ")
        every = run.explain(text, backbone=str(bert))
        ordered = sorted(range(3), key=lambda label: -own.probabilities[label])
        names = ["xyz"[label] for label in ordered if "xyz"[label] in given or not given]
        names = names[: len(given) or 1]
        assert list(every.words_by_label) == names
        for name, words in every.words_by_label.items():
            number = "xyz".index(name)
            assert words == [(word.text, word.contributions[number]) for word in own.words]
            assert f"words for and against {name}: " in str(every)
            assert f"<b>{name}</b>" in every._repr_html_()
        assert every.words == every.words_by_label[names[0]]
        assert f" for {', '.join(names)}; predicted " in repr(every)
        several[len(names)] = (text, names)
    there = ["explain", run.id, text, "--label", "y", "--backbone", bert, "--cache-dir", tmp_path]
    shown = invoke(*there, env={"COLUMNS": "100"}).stdout
    assert f"{own.bias[1]:+.4f}" in shown and f"{own.logits[1]:+.4f}" in shown
    assert "adds to the logit of y." in shown and "less the mean" not in shown
    assert shown.startswith(", ".join(own.given) or "no label")
    text, names = several[max(several)]
    assert len(names) > 1
    there = ["explain", run.id, text, "--backbone", bert, "--cache-dir", tmp_path]
    shown = invoke(*there, "--html", tmp_path / "page.html").stdout
    page = (tmp_path / "page.html").read_text()
    for name in names:
        assert f"for {name}" in shown
        assert f"what the word adds to the logit of {name}." in page
    assert page.count('class="explained') == len(names)
    assert " ".join(shown.split()).count("The number of a word is what the word adds to the ") == 1
    document = json.loads(invoke(*there, "--json").stdout)
    assert (document["label"], document["explained"]) == (names[0], names)


# Words as they were written


def test_words_appear_as_the_user_wrote_them(bert, xlnet):
    for folder, text, expected in (
        (bert, "GOOD Fïlm but Bórïng", ["[CLS]", "GOOD", "Fïlm", "but", "Bórïng", "[SEP]"]),
        (bert, "a Bade\u0301 film", ["[CLS]", "a", "Bade\u0301", "film", "[SEP]"]),
        (bert, "Good ☃ Film", ["[CLS]", "Good", "☃", "Film", "[SEP]"]),  # ☃ is [UNK]
        (bert, "the\x1b Pl\x07ot\u00a0was", ["[CLS]", "the", "Plot", "was", "[SEP]"]),
        (xlnet, "good film", ["good", "film", "<sep>", "<cls>"]),
        (xlnet, "good ☃ film", ["good", "☃", "film", "<sep>", "<cls>"]),
    ):
        ids = encoded(folder, text)
        words = Words(folder)
        made = words.of(ids, text)
        assert [word for word, _, _ in made] == expected
        assert [one[1:] for one in made] == [one[1:] for one in words.of(ids)]
        unknown = words.unknown(ids, made)
        assert [word for word, _, own in made if own[0] in unknown] == ["☃"] * ("☃" in text)
        assert words.unknown(ids, words.of(ids)) == []  # shown as [UNK], which says it


def encoded(folder, text, most=None, side="right"):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if most is not None:
        tokenizer.enable_truncation(most, direction=side)
    return tokenizer.encode(text).ids


@pytest.mark.parametrize("side", ["right", "left"])
def test_cut_and_padded_texts_and_those_of_other_tokens(side, bert):
    text = "GOOD film BUT Bóring story The plot Was slow"
    words, all_words = Words(bert), text.split()
    for most in range(4, 10):
        made = words.of(encoded(bert, text, most, side), text)
        kept = all_words[: most - 2] if side == "right" else all_words[2 - most :]
        assert [word for word, _, _ in made] == ["[CLS]", *kept, "[SEP]"]
    ids = encoded(bert, text)
    padded = [*ids, 0, 0] if side == "right" else [0, 0, *ids]
    made = [word for word, _, _ in words.of(padded, text)]
    assert [word for word in made if word != "[PAD]"] == ["[CLS]", *all_words, "[SEP]"]
    for other in ("a good film", "", "x " * 50):  # not the text of these tokens
        assert words.of(ids, other) == words.of(ids)
    assert words.of([2, 3], text) == words.of([2, 3])


@pytest.fixture(scope="module")
def written(tmp_path_factory, bert):
    """A cache of texts with accents and capitals, and a run."""
    folder = tmp_path_factory.mktemp("written")
    lines = [f"{text.capitalize()} Gööd ☃" for text in texts(60, longest=8)]
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(lines)]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    path = embed(
        backbone=str(bert), dataset=str(folder / "mine.jsonl"), cache_dir=folder, device="cpu",
        limit=40,
    ).path  # fmt: skip
    with Cache(path) as cache:
        training = TrainingConfig(epochs=1, batch_size=16)
        (saved,) = train_and_save(folder, cache, HEADS[:1], training)
    return folder, path, lines, saved


def test_a_cached_example_shows_its_row_and_its_words(written, bert, caplog):
    folder, path, lines, saved = written
    with Cache(path) as cache:
        source = explanation.cached_example(cache, "validation:2").source
    own = lines[source.row - 1]
    there = ["explain", saved.id, "--example", "validation:2", "--backbone", bert,
             "--cache-dir", folder]  # fmt: skip
    shown = " ".join(invoke(*there, env={"COLUMNS": "200"}).stdout.split())
    assert f"validation:2 is mine.jsonl, row {source.row}" in shown
    assert "sees the same token for all such words: ☃." in shown
    result = json.loads(invoke(*there, "--json").stdout)
    assert result["source"] == {"file": "mine.jsonl", "row": source.row} and result["text"] == own
    assert [word["text"] for word in result["words"]] == ["[CLS]", *own.split(), "[SEP]"]
    assert [word["unknown"] for word in result["words"]] == [
        word["text"] == "☃" for word in result["words"]
    ]
    # A text that is not cached has the same words, and no source.
    given = json.loads(invoke("explain", saved.id, own, *there[4:], "--json").stdout)
    assert given["source"] is None and given["text"] == own
    assert [word["text"] for word in given["words"]] == [word["text"] for word in result["words"]]


def test_an_example_of_an_older_cache_is_shown_as_its_tokens_spell(written, bert, tmp_path):
    folder, _, _, saved = written
    shutil.copytree(folder, tmp_path / "older")
    (own,) = (tmp_path / "older" / "embeddings").glob("*.texts.npz")
    own.unlink()
    there = ["explain", saved.id, "--example", "validation:2", "--backbone", bert,
             "--cache-dir", tmp_path / "older"]  # fmt: skip
    result = json.loads(invoke(*there, "--json").stdout)
    assert result["text"] is None and result["source"] is None
    spelled = [word["text"] for word in result["words"]]
    assert spelled == [word.lower() if word.isalpha() else word for word in spelled]
    assert "good" in spelled and "[UNK]" in spelled
    shown = invoke(*there).stdout
    assert "row" not in shown and "Not known" not in shown
    own.write_bytes(b"damaged")
    damaged = invoke(*there)
    assert damaged.exit_code == 0 and damaged.stderr.count("is damaged") == 1
    assert damaged.stdout == shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give either a text to explain, or --example test:17"),
        (["text", "--example", "test:0"], "give either a text to explain, or --example test:17"),
        (["--example", "test:1000"], "give one of train:0 to train:59"),
        (["--example", "test"], "give one of train:0 to train:59"),
        (["--example", "dev:1"], "test:0 to test:999"),
        (["text", "--label", "9"], "--label 9: choose from 0, 1, 2"),
        ([" "], "text 1 is empty"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, expected, place, bert):
    folder, _, saved = place
    there = ["--backbone", bert, "--cache-dir", folder]
    result = invoke("explain", saved[0].id, *arguments, *there)
    assert result.exit_code == 1 and result.stderr.startswith("error: ")
    assert expected in result.stderr and result.stderr.count("\n") == 1
