"""Settings as users write them: seeds, names that other libraries use, lists, values that are no
numbers."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import invoke, refusal
from spacelite_cli.app import app
from spacelite_cli.options import option
from typer.main import get_command

import spacelite
from spacelite.api.results import EmbeddedDataset
from spacelite.settings import OTHER_NAMES
from spacelite.training.plan import grid, seed_list


@pytest.fixture
def cache(cache_path, tmp_path):
    return EmbeddedDataset(cache_path, tmp_path)


@pytest.fixture
def train(cache_path, tmp_path):
    """The command, on a cache, without anything but one head."""
    there = ["--cache", cache_path, "--cache-dir", tmp_path]

    def run(*options, head="linear"):
        short = ["--head", head, "--epochs", 1, "--json"]
        return invoke("train", *there, *short, *options)

    return run


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (3, [0, 1, 2]),
        ("3", [0, 1, 2]),
        (np.int64(2), [0, 1]),
        ([1, 7, 42], [1, 7, 42]),
        ("1,7,42", [1, 7, 42]),
        ("7,", [7]),
        (" 5 , 2", [5, 2]),
        (range(4, 6), [4, 5]),
        (np.array([3, 1]), [3, 1]),
        pytest.param((seed for seed in (8, 9)), [8, 9], id="generator"),
    ],
    ids=str,
)
def test_seeds_are_a_number_of_them_or_a_list(given, seeds):
    assert seed_list(given) == seeds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1,x", "seeds=1,x: 'x' is not a whole number; give a number of seeds, 1 to 10,000, or"),
        ("", "seeds='': '' is not a whole number"),
        (",", "seeds=,: '' is not a whole number"),
        ("1,,2", "seeds=1,,2: '' is not a whole number"),
        ("1.5", "seeds=1.5: '1.5' is not a whole number"),
        ("1,1", "seeds=1,1: seed 1 is listed twice"),
        ("1,-2", "seeds=1,-2: -2 is not a whole number from 0 to 2^63 - 1"),
        ("-3", "seeds=-3: give a number of seeds, 1 to 10,000, or a list of them"),
        ("0", "seeds=0: give a number of seeds"),
        (True, "seeds=True: give a number of seeds"),
        (2.0, "seeds=2.0: give a number of seeds"),
        (None, "seeds=None: give a number of seeds"),
        ([], "seeds=[]: the list is empty; give a number of seeds"),
        ([0, True], "seeds=0,True: True is not a whole number"),
        ([0, 1.5], "seeds=0,1.5: 1.5 is not a whole number"),
        ([[0]], "seeds=[0]: [0] is not a whole number"),
        ([2**63], f"seeds={2**63}: {2**63} is not a whole number from 0 to 2^63 - 1"),
    ],
    ids=str,
)
def test_other_seeds_are_refused(given, said):
    assert refusal(seed_list, given).startswith(said)


def test_commands_take_seeds_in_both_forms(train):
    for given, seeds in (("2", [0, 1]), ("1,7,42", [1, 7, 42]), ("7,", [7])):
        done = train("--seeds", given)
        assert done.exit_code == 0, done.output
        assert [run["settings"]["seed"] for run in json.loads(done.stdout)] == seeds
    for command in ("train", "demo", "reproduce"):
        refused = invoke(command, "--seeds", "1,1")
        assert refused.exit_code == 1
        assert "error: --seeds 1,1: seed 1 is listed twice" in refused.stderr


def test_help_says_what_both_forms_mean():
    for command in ("train", "demo", "reproduce"):
        said = " ".join(invoke(command, "--help").output.split())
        assert "3 means seeds 0, 1 and 2; 1,7,42 means these three" in said


def test_names_that_other_libraries_use_are_options(train):
    options = ("--learning-rate", "0.001", "--latent-dim=5", "--max-grad-norm", "2", "--bs", 16)
    done = train(*options, head="space")
    assert done.exit_code == 0, done.output
    (run,) = json.loads(done.stdout)
    settings = run["settings"]
    assert [settings[name] for name in ("learning_rate", "latent", "clip_norm", "batch_size")] == [
        0.001, 5, 2, 16,
    ]  # fmt: skip
    for command in ("embed", "reproduce"):
        limited = invoke(command, "--max-samples", "x")
        assert "Invalid value for '--limit'" in limited.output


def test_every_other_name_leads_to_an_option():
    options = {
        name
        for command in get_command(app).commands.values()
        for parameter in command.params
        for name in parameter.opts
    }
    for argument in OTHER_NAMES.values():
        assert option(argument) in options
    assert not any("--" + name.replace("_", "-") in options - {"--lr"} for name in OTHER_NAMES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--max-samples", "9"], "No such option: --max-samples. --limit is an option of"),
        (["train", "--limit", "9"], "--limit is an option of embed, eval and reproduce."),
        (["train", "--epoch", "9"], "--epochs"),
        (["cache", "list", "--jsn"], "--json"),
        (["train", "--head", "space", "--head=linear"], "write several values with commas: --head"),
        (["train", "--epochs", "3", "--epochs", "4"], "--epochs is given twice"),
        (["embed", "--max-seq-length", "9", "--max-length", "8"], "--max-length is given twice"),
    ],
)
def test_a_wrong_option_says_what_to_write(arguments, said):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_options_after_two_dashes_and_of_groups_stay_as_they_are(tmp_path):
    listed = invoke("cache", "list", "--json", "--cache-dir", tmp_path)
    assert json.loads(listed.stdout) == []
    done = invoke("predict", "--cache-dir", tmp_path, "--", "x", "--limit")
    assert "No such option" not in done.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("epoch", "epoch: no head of space, linear has this setting; did you mean epochs?"),
        ("lr", "lr: no head of space, linear has this setting; did you mean learning_rate?"),
        ("latent_dim", "latent_dim: no head of space, linear has this setting; did you mean late"),
        ("max_grad_norm", "max_grad_norm: no head of space, linear has this setting; did you mean "
                          "clip_norm?"),
        ("max_samples", "max_samples: give limit to embed; train has no such argument"),
        ("limit", "limit: give limit to embed; train has no such argument"),
        ("temperature", "temperature: no head of space, linear has this setting"),
        ("seed", "seed: use seeds, a number of them or a list"),
    ],
)  # fmt: skip
def test_an_unknown_setting_in_python_suggests_the_right_name(name, said, cache):
    assert refusal(spacelite.train, cache, progress=False, **{name: 3}).startswith(said)


@pytest.mark.parametrize("name", ["head", "inter", "latent", "learning_rate", "pooling"])
def test_an_empty_list_is_refused(name, cache, tmp_path):
    """It would drop heads without a word."""
    said = refusal(spacelite.train, cache, progress=False, **{name: []})
    assert said == f"{name}=[]: the list is empty; give one value or several"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inter": True}, "inter=True: give 0 or a positive number"),
        ({"inter": [0, np.True_]}, "inter="),
        ({"intra": False}, "intra=False: give 0 or a positive number"),
        ({"learning_rate": True}, "learning_rate=True: give a number above 0"),
        ({"weight_decay": True}, "weight_decay=True: give 0 or a positive number"),
        ({"latent": True}, "latent=True: give a whole number"),
        ({"clip_norm": True}, "clip_norm=True: give a number above 0"),
        ({"epochs": True}, "epochs=True: give a whole number"),
        ({"batch_size": np.True_}, "batch_size="),
        ({"seeds": True}, "seeds=True: give a number of seeds"),
        ({"inter": [[0, 1]]}, "inter=[[0, 1]]: give a list of values, not a list of lists"),
        ({"inter": np.zeros((1, 2))}, "inter=[[0. 0.]]: give a list of values, not a list of li"),
        ({"epochs": [1, 2]}, "epochs=[1, 2]: give a whole number"),
    ],
    ids=str,
)
def test_what_is_no_number_is_refused(settings, said, cache, tmp_path):
    message = refusal(spacelite.train, cache, progress=False, **settings)
    assert message.startswith(said), message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head": "linear", "latent": 3}, "latent=3 has no effect on linear: only space, additive "
         "use it; leave it out, or add a head that uses it"),
        ({"head": ["space", "tfidf"], "pooling": "mean"}, "pooling=mean has no effect on space, "
         "tfidf: only linear"),
        ({"head": "space", "C": 3.0}, "C=3 has no effect on space: only logreg"),
        ({"preset": "best", "inter": 0.2}, "inter=0.2 has no effect on additive"),
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_that_no_chosen_head_has_is_refused(given, said, cache):
    for function in (spacelite.train, spacelite.cross_validate, spacelite.learning_curve):
        assert refusal(function, cache, progress=False, **given).startswith(said)


def test_train_says_how_long_it_took(cache_path, tmp_path, monkeypatch):
    """Wall time of the whole training, also where it consists of several parts."""
    clock = iter([100.0, 165.4])
    command = sys.modules["spacelite_cli.train"]
    monkeypatch.setattr(command, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    there = ["--cache", cache_path, "--cache-dir", tmp_path]
    done = invoke("train", *there, "--head", "linear", "--epochs", 1)
    assert "1 head trained in 65.4 s" in done.stdout, done.output


def test_a_grid_of_millions_is_refused_before_it_is_built():
    settings = {"inter": list(range(50)), "intra": list(range(50)), "seed": list(range(100))}
    message = refusal(grid, ["linear", "space"], settings)
    assert message.startswith("this grid has 250,000 space heads: train at most 100,000 at a time")


@pytest.mark.parametrize(
    ("call", "given", "meant"),
    [
        ("train", {"head": "spce"}, "space"),
        ("train", {"head": "linear", "pooling": "maen"}, "mean"),
        ("train", {"preset": "bset"}, "best"),
        ("train", {"schedule": "cosin"}, "cosine"),
        ("train", {"patience": 1, "monitor": "acuracy"}, "accuracy"),
        ("learning_curve", {"metric": "f1macro"}, "f1_macro"),
        ("embed", {"dataset": "demo", "backbone": "minilmm"}, "minilm"),
        ("embed", {"dataset": "hatexplian"}, "hatexplain"),
        ("embed", {"dataset": "demo", "dtype": "float61"}, "float16"),
        ("embed", {"dataset": "demo", "padding": "maxlength"}, "max_length"),
        ("embed", {"dataset": "demo", "labels_as": "txt"}, "text"),
    ],
    ids=str,
)
def test_a_name_written_wrongly_gives_the_one_that_is_meant(call, given, meant, cache, tmp_path):
    there = {"cache_dir": tmp_path} if call == "embed" else {"cache": cache}
    message = refusal(getattr(spacelite, call), **there, **given, progress=False)
    assert f"did you mean {meant}?" in message
    name, value = [*given.items()][-1]
    assert "did you mean" not in refusal(
        getattr(spacelite, call), **there, **{**given, name: "qqqqq"}, progress=False
    )
    assert value in message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head": "logreg", "epochs": 3}, "epochs=3 has no effect on logreg, trained without"),
        (
            {"head": ["logreg", "tfidf"], "batch_size": 8},
            "batch_size=8 has no effect on logreg, tfidf, trained without epochs",
        ),
        ({"head": "additive", "patience": 2}, "patience=2 has no effect on additive, trained"),
        ({"head": "tfidf", "seeds": 3}, "seeds=3 has no effect on tfidf: only "),
        ({"head": "additive", "seeds": 3}, "seeds=3 has no effect on additive with these blocks"),
        ({"head": "additive", "latent": 8}, "latent=8 has no effect on additive with these blocks"),
        ({"head": "additive", "blocks": "mean", "max_ngram": 3}, "max_ngram=3 has no effect on"),
        (
            {"head": "linear", "monitor": "accuracy"},
            "only patience=... and search=True watch a metric",
        ),
    ],
    ids=str,
)
def test_a_setting_that_no_head_uses_is_refused(cache, given, said):
    assert said in refusal(spacelite.train, cache, **given, progress=False)


def test_a_setting_that_one_head_uses_is_taken(cache):
    both = {"head": ["linear", "logreg"], "epochs": 1, "seeds": (seed for seed in (0, 1))}
    assert len(spacelite.train(cache, **both, progress=False)) == 3
    blocks = {"head": "additive", "blocks": ["mean", "mean+space"], "latent": 2, "epochs": 1}
    assert len(spacelite.train(cache, **blocks, progress=False)) == 2
