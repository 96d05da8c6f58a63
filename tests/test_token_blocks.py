"""The blocks of additive heads that read every token, and ensembles: against autograd, plain loops
and separate trainings."""

import re
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import embed, texts, train_and_save
from test_baselines import inference_logits
from test_heads import Ragged, cross_entropies, ragged, task
from test_training import order, read, same_heads

from spacelite import files, heads
from spacelite.cache.dtypes import stored_type
from spacelite.cache.split import TokenRows
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads.additive import TOKEN_BLOCKS
from spacelite.heads.base import Objective, Tokens
from spacelite.inference import explanation, prediction, transfer
from spacelite.reports.render import page as pages
from spacelite.runs import store as runs
from spacelite.tasks import SINGLE_LABEL
from spacelite.training import batches, engine, loop, memory
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import train

ON_TOP = "mean+ngrams+space"
ON_TOP_ATTENTION = "mean+ngrams+attention"
SETTINGS = {"latent": 4, "learning_rate": 0.02, "weight_decay": 0.001}
TRAINING = TrainingConfig(epochs=3, batch_size=16, schedule="cosine")


def config(blocks=ON_TOP, **settings):
    return heads.config("additive", blocks=blocks, **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def cache(cache_path):
    with Cache(cache_path) as opened:
        yield opened


def logits_of_tokens(block, of, x):
    """What a block adds to the logits of one text, as the formulas are written, from its tokens
    (n, d): torch tensors of any type."""
    if block == "space":
        s = torch.tanh(
            torch.einsum("cld,td->tcl", of["concept_spaces"], x) + of["concept_spaces.bias"]
        )
        return of["classifier.weight"] @ s.mean(dim=0).flatten()
    units, bias = of["attention.units"], of["attention.units.bias"]
    members, means = of["attention.queries"].shape[1], []
    for c in range(len(units)):
        given = x @ units[c].T + bias[c]
        for e, values in enumerate(F.gelu(given).chunk(members, dim=1)):
            weights = torch.softmax(x @ of["attention.queries"][c, e], dim=0)
            means.append(weights @ values)
    return of["classifier.weight"] @ torch.cat(means)


# The gradient.


@pytest.mark.parametrize("block", TOKEN_BLOCKS)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_equal_autograd_of_the_formula(block, several, weighted):
    """Of standardised tokens, on top of given logits; also of heads that are loaded, whose tokens
    are not standardised."""
    kind, tables = TOKEN_BLOCKS[block], {"tokens.mean", "tokens.scale"}
    classes, width = 3, 12
    examples, lengths, labels = ragged(5, 11, width, classes, several=several)
    objective = Objective(task(several), classes)
    if weighted:
        objective = Objective.balanced(task(several), labels, classes)
    random = torch.Generator().manual_seed(1)

    def made(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    configs = [config(block, seed=seed, ensemble=2 if weighted else 1) for seed in (0, 1)]
    left_out = tables if several and weighted else set()
    parameters = [
        {
            name: made(*shape)
            for name, shape in kind.shapes(each, classes, width).items()
            if name not in left_out
        }
        for each in configs
    ]
    start = made(len(examples), classes)
    head = kind.stack(configs, parameters, objective)
    head.starts = {Ragged.name: start}
    batch = objective.batch(lengths, labels, torch.float64)
    split = Ragged(examples, 4)
    engine.run_batch(split, [head], np.arange(11), batch, engine.Workers(), (1, 0))
    loss, ce = head.losses()
    for k in range(2):
        leaves = {n: v.clone().requires_grad_() for n, v in head.head_parameters(k).items()}
        logits = []
        for x in examples:
            z = x if left_out else (x - leaves["tokens.mean"]) * leaves["tokens.scale"]
            logits.append(logits_of_tokens(block, leaves, z) + leaves["classifier.bias"])
        logits = torch.stack(logits) + start
        expected, expected_ce = cross_entropies(logits, labels, objective.class_weights)
        expected.backward()
        assert float(loss[k]) == pytest.approx(expected.item(), rel=1e-10)
        assert float(ce[k]) == pytest.approx(expected_ce.item(), rel=1e-10)
        assert head.logits[k].numpy() == pytest.approx(logits.detach().numpy(), abs=1e-10)
        assert set(head.gradients) == set(leaves) - tables
        for name, gradient in head.gradients.items():
            assert gradient[k].numpy() == pytest.approx(leaves[name].grad.numpy(), abs=1e-10), name


# Standardising.


def test_tokens_are_standardised_as_numpy_does(cache, monkeypatch):
    tokens = np.concatenate(read(cache.path, "train")[0])
    monkeypatch.setattr(memory, "TOKENS_PER_GROUP", 50)
    for resident in (1.0, 0.0):
        monkeypatch.setattr(memory, "RESIDENT_SHARE", resident)
        monkeypatch.setattr(memory, "WINDOW", 20_000)
        split = batches.open_splits(cache, "cpu")["train"]
        assert split.resident == bool(resident)
        mean, scale = split.standardisation
        assert mean.numpy() == pytest.approx(tokens.mean(axis=0), abs=1e-6)
        assert scale.numpy() == pytest.approx(1 / tokens.std(axis=0), rel=1e-5)


def given_split(rows, lengths):
    """Examples in memory, with labels 0."""
    return batches.TokenSplit(
        TokenRows(
            rows=rows,
            offsets=np.cumsum([0, *lengths]),
            labels=np.zeros(len(lengths), np.int64),
            stored=stored_type(str(rows.dtype)),
        )
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dimensions_that_only_rounding_moves_count_as_constant(dtype):
    random = np.random.RandomState(0)
    rows = random.normal(size=(300, 6))
    rows[:, 1] = 0
    rows[:, 5] *= 1e-8  # what float32 rounds off in the backbone
    rows[:, 2] = 7.3
    rows[:, 3] = 11.1 * (1 + 2e-4 * random.normal(size=300))  # less than float16 can tell
    split = given_split(rows.astype(dtype), [100, 1, 199])
    _, scale = split.standardisation
    assert scale[1] == scale[2] == scale[3] == scale[5] == 0 and (scale[[0, 4]] > 0).all()


@pytest.mark.parametrize("block", TOKEN_BLOCKS)
def test_folded_weights_read_tokens_as_they_are(block):
    """Also where tokens attend as sharply as they can."""
    random, kind, made = torch.Generator().manual_seed(3), TOKEN_BLOCKS[block], config(block)
    shapes = kind.shapes(made, 3, 8)
    own = {name: torch.randn(*shape, generator=random) for name, shape in shapes.items()}
    own["tokens.scale"][2] = 0  # a constant dimension
    folded = kind.folded(own)
    assert set(folded) == {*own} - {"tokens.mean", "tokens.scale"}
    for name in kind.READING:
        assert not folded[name][..., 2].any()
    given = {name: value.double() for name, value in own.items()}
    for sharpness in (1, 1e3):
        hidden = np.random.RandomState(0).normal(size=(7, 8)) * sharpness
        tokens = Tokens(hidden, np.arange(7), np.array([0, 5, 7]))
        shares = kind.token_shares(made, {n: v.numpy() for n, v in folded.items()}, tokens)
        z = (torch.from_numpy(hidden) - given["tokens.mean"]) * given["tokens.scale"]
        for rows in (slice(0, 5), slice(5, 7)):
            expected = logits_of_tokens(block, given, z[rows]).numpy()
            assert shares[rows].sum(axis=0) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_space_heads_on_standardised_tokens_have_the_losses_of_space_heads():
    """Losses and gradients are those of a space head, with biases, that is given z."""
    examples, lengths, labels = ragged(5, 11, 12, 3)
    objective, random = Objective(task(False), 3), np.random.RandomState(2)
    made = heads.config("space", scaling="standard", inter=0.3, intra=0.01)
    parameters = {
        name: torch.from_numpy(random.normal(size=shape))
        for name, shape in heads.SpaceHead.shapes(made, 3, 12).items()
    }
    kind = heads.SpaceHead.in_training(made)
    tables = {name: torch.from_numpy(random.normal(size=12)) for name in kind.TABLES}
    results = []
    for block, of, given in (
        (kind, parameters | tables, examples),
        (
            heads.SpaceHead,
            parameters,
            [(x - tables["tokens.mean"]) * tables["tokens.scale"] for x in examples],
        ),
    ):
        head = block.stack([made], [of], objective)
        batch = objective.batch(lengths, labels, torch.float64)
        engine.run_batch(Ragged(given, 4), [head], np.arange(11), batch, engine.Workers(), (1, 0))
        results.append((head.losses(), head.gradients))
    (losses, gradients), (expected, expected_gradients) = results
    for one, two in zip(losses, expected, strict=True):
        torch.testing.assert_close(one, two)
    projection = gradients["concept_spaces"], expected_gradients["concept_spaces"]
    torch.testing.assert_close(*projection)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name])


# Training.


def test_a_space_head_on_standardised_tokens_is_the_block_alone(cache):
    """Saved, it reads tokens as they are; published rows are of heads that never do otherwise."""
    alone = heads.config("space", scaling="standard", **SETTINGS)
    found, block = train(cache, [alone, config("space")], TRAINING)
    assert {*found.parameters} == {
        "concept_spaces", "concept_spaces.bias", "classifier.weight", "classifier.bias"
    }  # fmt: skip
    for name, value in found.parameters.items():
        torch.testing.assert_close(value, block.parameters[name])
    assert "scaling" in alone.hashed() and "scaling" not in heads.config("space").hashed()


@pytest.mark.parametrize("blocks", ["space", ON_TOP, "attention", ON_TOP_ATTENTION])
def test_training_equals_a_plain_loop_on_top_of_held_out_logits(blocks, cache, monkeypatch):
    """In float64, with autograd and torch's Adam: standardised tokens, the start's logits for
    examples that it was not fitted to on train, and those of the whole fit elsewhere."""
    own, kind = config(blocks), heads.kind("additive")
    fit = kind.fit

    def far_from_its_weights(*given):
        fitted = fit(*given)
        random = torch.Generator().manual_seed(0)
        return fitted._replace(held=torch.randn(fitted.held.shape, generator=random))

    monkeypatch.setattr(kind, "fit", far_from_its_weights)
    (found,) = train(cache, [own], TRAINING)
    parts, labels, _ = read(cache.path, "train")
    tokens = np.concatenate(parts)
    parts = [torch.from_numpy((x - tokens.mean(axis=0)) / tokens.std(axis=0)) for x in parts]
    labels = torch.as_tensor(labels)
    held = torch.zeros(len(parts), 2, dtype=torch.float64)
    split = batches.open_splits(cache, "cpu")["train"]
    objective = Objective(task(False), 2)
    if own.start is not None:
        fitted = kind.fit(own.start, split, objective, "none")
        held = fitted.held.double()
        stacks = engine.stacked({own.start: fitted.parameters}, objective, "cpu")
        seen = engine.evaluate(split, stacks, objective, engine.Workers())[own.start]
    initial = TOKEN_BLOCKS[own.token_block].initial(own, 2, 16)
    parameters = {
        name: value.double().requires_grad_()
        for name, value in initial.items()
        if not name.startswith("tokens.")
    }
    assert not parameters["classifier.weight"].any()
    adam = torch.optim.Adam(parameters.values(), lr=0.02, weight_decay=0.001)
    updates = 3 * len(order(len(parts), TRAINING, 1))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, updates)

    def logits_of(rows):
        logits = [logits_of_tokens(own.token_block, parameters, parts[row]) for row in rows]
        return torch.stack(logits) + parameters["classifier.bias"]

    for epoch in range(1, 4):
        for rows in order(len(parts), TRAINING, epoch):
            adam.zero_grad()
            F.cross_entropy(logits_of(rows) + held[rows], labels[rows]).backward()
            adam.step()
            cosine.step()
    expected = logits_of(range(len(parts))).detach().numpy()
    if own.start is not None:
        expected = expected + seen.logits.double().numpy()
    stacks = engine.stacked({own: found.parameters}, objective, "cpu")
    again = engine.evaluate(split, stacks, objective, engine.Workers())[own]
    assert again.logits.numpy() == pytest.approx(expected, abs=2e-3)
    assert again.scores == pytest.approx(found.metrics["train"])


def test_the_history_begins_with_the_start(cache):
    found, start = train(cache, [config(), config().start], TRAINING)
    assert [entry["epoch"] for entry in found.history] == [0, 1, 2, 3]
    assert found.history[0]["validation"] == pytest.approx(start.metrics["validation"])
    assert found.history[-1]["validation"]["ce"] == pytest.approx(found.metrics["validation"]["ce"])
    assert found.cross_validated == start.cross_validated != {}
    assert found.seconds > start.seconds > 0


@pytest.mark.parametrize(("learning_rate", "expected"), [(50.0, 0), (1e-3, None)])
def test_early_stopping_may_keep_the_start(learning_rate, expected, cache):
    training = TrainingConfig(epochs=4, batch_size=16, patience=2, monitor="ce")
    found, start = train(cache, [config(learning_rate=learning_rate), config().start], training)
    if expected == 0:
        assert found.best_epoch == 0 and len(found.history) == 3
        for split in ("validation", "test"):
            torch.testing.assert_close(found.logits[split], start.logits[split])
    else:
        losses = [entry["validation"]["ce"] for entry in found.history]
        assert found.best_epoch == int(np.argmin(losses)) > 0


def test_alone_or_among_others_the_same_head(cache):
    configs = [
        config(), config(seed=1), config("space"), config(latent=2), config(ensemble=2),
        heads.config("space", learning_rate=0.01), config("ngrams"), config("ngrams+space"),
        heads.config("space", ensemble=2), heads.config("space", latent=2, ensemble=3),
        config(ON_TOP_ATTENTION), config("attention", seed=1, ensemble=2),
        heads.config("space", scaling="standard", inter=0.1, intra=1e-3, ensemble=2),
    ]  # fmt: skip
    together = train(cache, configs, TRAINING)
    for one, found in zip(configs, together, strict=True):
        same_heads(train(cache, [one], TRAINING), [found], rtol=1e-4, atol=1e-5)


def test_a_start_is_fitted_once_for_all_seeds(cache, monkeypatch):
    calls = []
    kind = heads.kind("additive")
    fit = kind.fit
    monkeypatch.setattr(kind, "fit", lambda *given: calls.append(given[0]) or fit(*given))
    train(cache, [config(seed=seed) for seed in range(3)] + [config().start], TRAINING)
    assert calls == [config().start]


def test_interrupted_training_is_continued(cache, tmp_path):
    configs = [config(), config("space", ensemble=2), config(ON_TOP_ATTENTION)]
    options = {"cache_dir": tmp_path}

    def interrupt(done, total):
        if done > 0.6 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cache, configs, TRAINING, on_progress=interrupt, **options)
    assert list((tmp_path / "unfinished").glob("*.safetensors"))
    continued = train(cache, configs, TRAINING, resume=True, **options)
    whole = train(cache, configs, TRAINING)
    same_heads(continued, whole, rtol=0, atol=0)
    assert [head.history for head in continued] == [head.history for head in whole]


def test_a_diverged_member_stops_the_ensemble(cache):
    found, fine = train(
        cache, [heads.config("space", learning_rate=1e38, ensemble=2), config()], TRAINING
    )
    assert found.stopped is not None and not found.parameters and fine.stopped is None


# Ensembles.


@pytest.mark.parametrize("blocks", [None, ON_TOP, "attention", ON_TOP_ATTENTION])
def test_an_ensemble_is_the_mean_of_separate_trainings(blocks, cache):
    def made(**settings):
        if blocks is None:
            settings = {**SETTINGS, **settings}
            return heads.config("space", inter=0.1, intra=0.001, **settings)
        return config(blocks, **settings)

    (found,) = train(cache, [made(seed=2, ensemble=3)], TRAINING)
    alone = [train(cache, [made(seed=seed)], TRAINING)[0] for seed in (6, 7, 8)]
    for split in ("validation", "test"):
        mean = torch.stack([head.logits[split] for head in alone]).mean(dim=0)
        torch.testing.assert_close(found.logits[split], mean, atol=1e-5, rtol=1e-4)
    if "attention" in (blocks or ""):
        assert found.parameters["attention.queries"].shape == (2, 3, 16)
    else:
        assert found.parameters["concept_spaces"].shape == (2, 12, 16)
    for epoch, entry in enumerate(found.history):
        expected = np.mean([head.history[epoch]["validation"]["ce"] for head in alone])
        assert entry["validation"]["ce"] == pytest.approx(expected, rel=1e-5)
    assert found.best_epoch is None


def test_ensembles_of_different_seeds_share_no_member():
    members = [
        member.seed
        for seed in range(4)
        for member in heads.config("space", seed=seed, ensemble=5).members
    ]
    assert members == list(range(20))


def test_a_head_that_is_no_ensemble_keeps_its_id():
    plain = heads.config("space", seed=3)
    assert "ensemble" not in plain.hashed() and plain.members == (plain,)
    assert heads.config("space", seed=3, ensemble=2).hashed()["ensemble"] == 2


@pytest.mark.parametrize("wrong", [0, -1, 1001, "2", 1.5, None])
def test_wrong_ensembles_are_refused(wrong, cache):
    with pytest.raises(SpaceliteError, match=r"^ensemble=.*: give a whole number from 1 to 1,000$"):
        loop.check([heads.config("space", ensemble=wrong)], TRAINING, SINGLE_LABEL)


# As any head.


@pytest.fixture(scope="module")
def saved(tmp_path_factory, bert, reviews):
    folder = tmp_path_factory.mktemp("blocks")
    made = [
        config("space"),
        config("mean+space"),
        config("layers+space"),
        config("layers+ngrams+space"),
        config("ngrams+space", ensemble=2),
        config("attention"),
        config("layers+ngrams+attention", ensemble=2),
    ]
    path = embed(backbone=str(bert), dataset=str(reviews), cache_dir=folder, device="cpu").path
    with Cache(path) as opened:
        found = train_and_save(folder, opened, made, TRAINING)
        yield folder, opened, [runs.load(run.folder) for run in found]


@pytest.mark.parametrize("index", range(7))
def test_a_saved_head_is_evaluated_predicted_with_and_explained(index, saved, bert):
    _, cache, found = saved
    run = found[index]
    _, again = transfer.evaluate(run, cache)
    expected = inference_logits(run, cache, "test")
    assert again["test"].logits == pytest.approx(expected, abs=1e-6)
    given = [*texts(8, seed=9, longest=12), "zzz qqq", "good"]
    chances = prediction.Predictor(run, str(bert), device="cpu").predict(given).probabilities
    alone = prediction.Predictor(run, str(bert), device="cpu").predict(given[-1:]).probabilities
    assert alone[0] == pytest.approx(chances[-1], abs=1e-5)
    for text, expected in zip(given, chances, strict=True):
        explained = explanation.explain_text(run, text, backbone=str(bert), device="cpu")
        assert explained.difference < 1e-5
        assert explained.probabilities == pytest.approx(expected.tolist(), abs=2e-3)
        names = run.head.blocks.split("+")
        assert len(explained.spaces) == 2 * ("space" in names)
        assert explained.block_names == (names if len(names) > 1 else [])
        for word in explained.words:
            if len(names) > 1:
                total = np.sum([word.blocks[name] for name in names], axis=0)
                assert word.contributions == pytest.approx(total.tolist(), abs=1e-12)
    example = explanation.explain_example(run, cache, "test:3", backbone=str(bert), device="cpu")
    assert example.difference < 1e-5
    assert example.logits == pytest.approx(
        inference_logits(run, cache, "test")[3].tolist(), abs=2e-2
    )


def test_the_page_of_an_explanation_shows_each_block(saved, bert):
    run = saved[2][3]
    found = explanation.explain_text(run, "good film plot", backbone=str(bert), device="cpu")
    page = pages.explanation_page(found, [1], 4, "about")
    assert "through this block" in page and "the block&#39;s part of the logits is computed" in page
    table = re.search(r'<table class="blocks.*?</table>', page, re.S).group()
    assert [*re.findall(r"From (\w+)", table)] == ["layers", "ngrams", "space"]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table)
    shown = np.array([float(cell.replace("−", "-")) for cell in cells]).reshape(-1, 3)
    assert shown.sum(axis=1) == pytest.approx(found.shares[:, 1], abs=2e-4)
    assert len(shown) == len(found.words)


def by_hand(run, hidden, ids, states):
    """The logits of one text in float64, from the weights and what the blocks read."""
    weights = {name: np.asarray(value, np.float64) for name, value in run.parameters.items()}
    logits = weights["classifier.bias"].copy()
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    logits += logits_of_tokens(run.head.token_block, tensors, torch.from_numpy(hidden)).numpy()
    for name, vectors in (("layers", states), ("mean", hidden)):
        if name in run.head.blocks:
            logits += weights[f"{name}.weight"] @ vectors.mean(axis=0)
    if "ngrams" in run.head.blocks:
        table = heads.ngrams.NGrams(
            run.parameters["ngrams.keys"], run.parameters["ngrams.idf"], True
        )
        (row,) = table.matrix(ids, np.array([0, len(ids)])).toarray()
        logits += weights["ngrams.weight"] @ row
    return logits


@pytest.mark.parametrize("count", [90, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("index", range(7))
def test_shares_of_a_thousand_examples_add_up(index, count, saved):
    """Of every block combination, with the hidden states of all layers made up."""
    _, cache, found = saved
    run = found[index]
    kind = heads.kind(run.head.kind)
    random = np.random.RandomState(0)
    split = cache.splits["train"]
    ids = split.read_token_ids()
    for number in range(count):
        example = number % len(split)
        own = ids[split.offsets[example] : split.offsets[example + 1]]
        if number >= len(split):  # others than there are: of one token, too
            own = random.permutation(own)[: random.randint(1, len(own) + 1)]
        hidden = random.normal(size=(len(own), 16)).astype(np.float16).astype(np.float64)
        states = random.normal(size=(len(own), 48))
        tokens = Tokens(hidden, own, np.array([0, len(own)]), states)
        shares = kind.token_shares(run.head, run.parameters, tokens)
        total = kind.bias(run.parameters) + shares.sum(axis=0)
        assert total == pytest.approx(by_hand(run, hidden, own, states), abs=1e-9)
        rows = TokenRows.of_batch(
            split.stored,
            hidden[None].astype(np.float16),
            means=states.mean(axis=0)[None, None],
            token_ids=own,
        )
        (expected,) = prediction.head_logits(run, rows)
        assert total == pytest.approx(expected, abs=1e-5)


def test_the_files_of_a_run_tell_its_shape(saved):
    from safetensors.numpy import load_file, save_file

    run = saved[2][3]
    path = run.folder / "head.safetensors"
    good = load_file(path)
    assert good["concept_spaces"].shape == (2, 4, 16) and good["layers.weight"].shape == (2, 48)
    assert "tokens.mean" not in good
    content = path.read_bytes()
    record = files.read_json(run.folder / "run.json")
    try:
        for name in ("concept_spaces", "concept_spaces.bias", "classifier.weight"):
            save_file({**good, name: np.ascontiguousarray(good[name][:, :-1])}, path)
            files.write_json(run.folder / "run.json", {**record, "checksums": {}})
            with pytest.raises(SpaceliteError, match=r"do not fit|damaged"):
                _ = runs.load(run.folder).parameters
    finally:
        path.write_bytes(content)
        files.write_json(run.folder / "run.json", record)


def test_a_constant_dimension_and_batches_of_one_example_are_survived(tmp_path, bert, reviews):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "constant"
    shutil.copytree(bert, folder)
    weights = load_file(folder / "model.safetensors")
    (last,) = [name for name in weights if name.endswith("layer.1.output.LayerNorm.weight")]
    weights[last][3], weights[last.replace("weight", "bias")][3] = 0, 2.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = embed(backbone=str(folder), dataset=str(reviews), cache_dir=tmp_path, device="cpu")
    with Cache(done.path) as opened:
        assert (opened.splits["train"].read_hidden(0, 5)[:, 3] == 2.5).all()
        (found,) = train(opened, [config("mean+space")], TrainingConfig(epochs=2, batch_size=1))
    assert not found.parameters["concept_spaces"][..., 3].any()
    assert not found.parameters["mean.weight"][:, 3].any()
    assert all(value.isfinite().all() for value in found.parameters.values())
