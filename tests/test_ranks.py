"""Several processes that work together, as torchrun starts them: what they tell each other, and
trainings that they share."""

import contextlib
import itertools
import json
import shutil
import signal

import numpy as np
import processes
import pytest
import torch
import torch.distributed as dist
from conftest import embed, in_memory, refusal
from safetensors.numpy import load_file
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from spacelite import heads, ranks
from spacelite.cache.store import Cache
from spacelite.heads.base import Scratch
from spacelite.training import batches, checkpoints, memory
from spacelite.training.config import TrainingConfig


@contextlib.contextmanager
def job(size):
    """The environment of each process of a job, with the store that torchrun would hold."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    yield [
        {
            "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True",
            "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1",
            "RANK": str(rank), "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
        }
        for rank in range(size)
    ]  # fmt: skip


def run(size, code, *arguments):
    """How the processes of a job end that run this code."""
    with job(size) as environments:
        started = [processes.start(code, *arguments, env=env) for env in environments]
        return [process.wait() for process in started]


TALK = """
import json, torch
from spacelite import ranks

with ranks.joined():
    ranks.barrier()
before = ranks.rank(), ranks.size(), ranks.launched().size
with ranks.joined():
    mine, other = torch.full((2, 2), ranks.rank() + 1.0), torch.tensor([ranks.rank() * 10.0])
    ranks.add_up([mine, other])
    of_all = ranks.gather(torch.tensor([ranks.rank(), 7])).tolist()
    given = {"a": torch.tensor([1.5, float("nan")]), "b": torch.tensor([2**40]),
             "c": torch.zeros(0, 3), "d": torch.tensor(3, dtype=torch.int8)}
    first = ranks.rank() == 0
    content, tensors = ranks.broadcast({"x": [1, None]} if first else "?", given if first else {})
    about = {name: [str(value.dtype), repr(value.tolist()), list(value.shape)]
             for name, value in tensors.items()}
    counted = ranks.count("texts")
    ranks.barrier()
    then = ranks.count("texts")
print(json.dumps([before, mine.tolist(), other.tolist(), of_all, content, about, counted, then]))
"""


def test_processes_tell_each_other():
    done = run(3, TALK)
    assert [end.returncode for end in done] == [0, 0, 0], done
    said = [json.loads(end.stdout) for end in done]
    for own in said:
        before, mine, other, of_all, content, about, counted, then = own
        assert before == [0, 1, 3]
        assert mine == [[6.0, 6.0], [6.0, 6.0]] and other == [30.0]
        assert of_all == [[0, 7], [1, 7], [2, 7]]
        assert content == {"x": [1, None]}
        assert about == {
            "a": ["torch.float32", "[1.5, nan]", [2]],
            "b": ["torch.int64", str([2**40]), [1]],
            "c": ["torch.float32", "[]", [0, 3]],
            "d": ["torch.int8", "3", []],
        }
        assert counted <= 3 < then
    assert sorted(own[-1] for own in said) == [4, 5, 6]


def test_a_process_alone_talks_to_nobody():
    with ranks.joined():
        assert (ranks.rank(), ranks.size()) == (0, 1)
        values = torch.tensor([1.0])
        ranks.add_up([values])
        ranks.barrier()
        assert values.tolist() == [1.0] and ranks.gather(values).tolist() == [[1.0]]
        assert ranks.broadcast("x", {"a": values}) == ("x", {"a": values})
        assert [ranks.count("alone"), ranks.count("alone")] == [1, 2]
        assert ranks.speaks("why")


WAIT = """
import sys, time, torch
from spacelite import ranks
from spacelite_cli import console
from spacelite.errors import SpaceliteError

try:
    with ranks.joined():
        print("joined", flush=True)
        if sys.argv[1] == "fails" and ranks.rank() == 1:
            raise SpaceliteError("the reason")
        ranks.add_up([torch.zeros(1)])
        if ranks.rank() == 1:
            time.sleep(300)
        ranks.add_up([torch.zeros(1)])
except (SpaceliteError, KeyboardInterrupt) as error:
    console.fail(str(error))
    sys.exit(1)
"""


def test_one_process_says_why_all_end(tmp_path):
    with job(3) as environments:
        for rank, env in enumerate(environments):
            env["TORCHELASTIC_ERROR_FILE"] = str(tmp_path / f"{rank}.json")
        started = [processes.start(WAIT, "fails", env=env) for env in environments]
        done = [process.wait() for process in started]
    assert [end.returncode for end in done] == [1, 1, 1]
    assert [end.stderr for end in done] == ["", "error: the reason\n", ""]
    # As torchrun reads it.
    (file,) = tmp_path.iterdir()
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=1, error_file=str(file))
    assert (file.name, failure.message) == ("1.json", "error: the reason")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_a_process_ends_the_others(number):
    with job(3) as environments:
        started = [processes.start(WAIT, "waits", env=env) for env in environments]
        for process in started:
            assert process.line() == "joined"
        started[1].send_signal(number)
        done = [process.wait() for process in started]
    assert done[1].returncode in (1, -signal.SIGKILL)
    assert [end.returncode for end in (done[0], done[2])] == [1, 1]
    (line,) = "".join(end.stderr for end in done).splitlines()
    assert line.startswith(f"error: {ranks.ENDED}")


HANGS = """
import os, signal
from datetime import timedelta
import torch
from spacelite import ranks
from spacelite.errors import SpaceliteError
import spacelite_cli
from spacelite_cli import console, train

def hangs(*_, **__):
    ranks.add_up([torch.zeros(1)])
    if ranks.rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    ranks.add_up([torch.zeros(1)], timedelta(seconds=1))
console.call = hangs
spacelite_cli.main()
"""


@pytest.mark.slow
def test_nobody_waits_for_ever_for_a_process_that_hangs():
    with job(2) as environments:
        started = [processes.start(HANGS, "train", env=env, fresh=True) for env in environments]
        done = started[0].wait()
        started[1].kill()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {ranks.ENDED}"), done


def test_the_command_line_is_a_module():
    done = processes.run(
        "import runpy, sys; sys.argv[1:] = ['--version']\n"
        "runpy.run_module('spacelite_cli', run_name='__main__', alter_sys=True)"
    )
    assert done.stdout.startswith("spacelite "), done


def test_other_commands_run_in_one_process():
    with job(2) as environments:
        started = [processes.spacelite("cv", "nothing", env=env) for env in environments]
        done = [process.wait() for process in started]
    assert [end.returncode for end in done] == [1, 1]
    said = "".join(end.stderr for end in done)
    assert said == "error: spacelite cv runs in one process: start it without torchrun\n"


# Trainings.

TRAIN = """
import json, os, signal, sys
import spacelite
from spacelite import ranks
from spacelite.training import batches, checkpoints, loop, memory, optimizer

exec(sys.argv[2])
with ranks.joined():
    runs = spacelite.train(device="cpu", progress=False, **json.loads(sys.argv[1]))
    print(len(runs))
"""
SETTINGS = {
    "head": ["space", "linear", "mlp", "additive", "logreg"], "pooling": "pooler",
    "inter": [0, 0.2], "intra": [0, 0.001], "latent": 2, "seeds": 2, "learning_rate": 0.01,
    "blocks": "mean+ngrams+space", "ensemble": [1, 2], "epochs": 3, "batch_size": 16,
}  # fmt: skip
# Every window holds a few examples, and evaluation goes through several chunks.
STREAMED = "memory.resident_budget, memory.WINDOW = lambda device: 0.0, 2**12\n"
SMALL = "batches.BLOCKS_PER_WINDOW, memory.EVALUATION_TOKENS = 4, 300\n"
DIES = """
real = checkpoints.save
def save(path, checkpoint):
    real(path, checkpoint)
    if checkpoint.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save = save
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache_path):
    """Makes folders that hold a cache of the tiny BERT."""

    def make():
        there = tmp_path_factory.mktemp("shared") / "cache"
        shutil.copytree(cache_path.parents[1], there)
        return there

    return make


def train(there, size, prefix="", settings=SETTINGS):
    """How the processes of a training end."""
    arguments = {"cache_dir": str(there), **settings}
    return run(size, TRAIN, json.dumps(arguments), SMALL + prefix)


def trained(there):
    """The parameters, the logits and the record of every run by its folder."""
    runs = {}
    for path in sorted((there / "runs").glob("[!.]*/run.json")):
        record = json.loads(path.read_text())
        record["history"] = json.loads((path.parent / "history.json").read_text())
        predictions = np.load(path.parent / "predictions.npz")
        logits = {name: predictions[name] for name in predictions.files if "logits" in name}
        runs[path.parent.name] = load_file(path.parent / "head.safetensors"), logits, record
    return runs


def check_same(there, others):
    """Whether the runs in two folders are the same but for the order of their sums."""
    runs, expected = trained(there), trained(others)
    assert runs.keys() == expected.keys() and runs
    for name, (parameters, logits, record) in runs.items():
        other_parameters, other_logits, other = expected[name]
        for arrays, others in ((parameters, other_parameters), (logits, other_logits)):
            assert arrays.keys() == others.keys() and arrays
            for key, values in arrays.items():
                message = f"{key} of {record['head']}"
                np.testing.assert_allclose(values, others[key], 1e-5, 1e-5, err_msg=message)
        for part in ("metrics", "history"):
            assert flat(record[part]) == pytest.approx(flat(other[part]), abs=1e-5)


def flat(content, path=""):
    """The numbers in JSON by where they are."""
    if not isinstance(content, dict | list):
        return {path: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    parts = [flat(part, f"{path}/{name}") for name, part in items]
    return dict(itertools.chain.from_iterable(part.items() for part in parts))


@pytest.fixture(scope="module")
def alone(folder):
    """A training by one process, in memory and streamed."""
    resident, streamed = folder(), folder()
    done = [*train(resident, 1), *train(streamed, 1, STREAMED)]
    assert [end.returncode for end in done] == [0, 0], done
    return {"": resident, STREAMED: streamed}


@pytest.mark.parametrize("prefix", ["", STREAMED], ids=["in memory", "streamed"])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_train_what_one_process_trains(folder, alone, size, prefix):
    there = folder()
    done = train(there, size, prefix)
    assert [end.returncode for end in done] == [0] * size, done
    count = str(len(trained(there)))
    assert [end.stdout.strip() for end in done] == [count, *["0"] * (size - 1)]
    check_same(there, alone[prefix])


def test_a_killed_training_goes_on_with_another_number_of_ranks(folder, alone):
    killed = folder()
    done = train(killed, 2, DIES)
    assert done[0].returncode == -signal.SIGKILL
    assert done[1].returncode == 1 and ranks.ENDED in done[1].stderr
    for size in (1, 3):
        there = folder()
        shutil.copytree(killed, there, dirs_exist_ok=True)
        shows = "import logging; logging.basicConfig(level='INFO')\n"
        done = train(there, size, shows)
        assert [end.returncode for end in done] == [0] * size, done
        assert all("continuing after epoch 2 of 3" in end.stderr for end in done)
        shared = (
            f"{size} processes share the tokens of each pass; each of them trains linear, mlp; "
        )
        assert (f"{shared}process 0 fits logreg, tfidf, additive" in done[0].stderr) == (size > 1)
        assert not list((there / checkpoints.FOLDER).glob("*.safetensors"))
        check_same(there, alone[""])


READS = """
from spacelite.cache.split import CachedSplit
real, rows = CachedSplit.read_examples, {}
def read(self, first, last, into=None):
    rows[self.name] = rows.get(self.name, 0) + int(self.offsets[last] - self.offsets[first])
    return real(self, first, last, into)
CachedSplit.read_examples = read
loop_train = loop.train
def train(data, *given, **named):
    trained = loop_train(data, *given, **named)
    print(json.dumps({name: [rows[name], data.splits[name].tokens] for name in rows}))
    return trained
loop.train = train
"""


def test_each_rank_reads_a_part_of_the_tokens(folder):
    done = train(folder(), 3, READS, {"head": "space", "baselines": False})
    assert [end.returncode for end in done] == [0, 0, 0], done
    of_ranks = [json.loads(end.stdout.splitlines()[0]) for end in done]
    for name in ("train", "validation", "test"):
        total = of_ranks[0][name][1]
        read = [of_rank[name][0] for of_rank in of_ranks]
        assert sum(read) == total
        assert max(read) - min(read) <= 2 * 32  # the longest text, at both ends


def test_sample_weights(folder):
    weights = [i % 4 / 2 for i in range(60)]
    settings = {"sample_weight": weights, "inter": 0.2, "epochs": 2}
    settings |= {"head": ["space", "linear", "additive"], "blocks": "ngrams+space"}
    one, two = folder(), folder()
    assert [end.returncode for end in train(one, 1, settings=settings)] == [0]
    assert [end.returncode for end in train(two, 2, settings=settings)] == [0, 0]
    check_same(two, one)


def test_a_cache_of_several_files(tmp_path, bert, reviews):
    settings = {"head": ["space", "linear"], "inter": 0.2, "intra": 0.001, "epochs": 2}
    folders = [tmp_path / "one", tmp_path / "two"]
    for size, there in enumerate(folders, 1):
        path = embed(
            backbone=str(bert), dataset=str(reviews), cache_dir=there, device="cpu",
            dtype="float32", shard_size=15_000,
        ).path  # fmt: skip
        assert path.is_dir()
        assert [end.returncode for end in train(there, size, settings=settings)] == [0] * size
    check_same(*reversed(folders))


def test_fewer_examples_in_a_batch_than_ranks(folder):
    settings = {"head": "space", "batch_size": 1, "epochs": 1, "inter": 0.2, "intra": 0.001}
    one, three = folder(), folder()
    assert [end.returncode for end in train(one, 1, settings=settings)] == [0]
    assert [end.returncode for end in train(three, 3, settings=settings)] == [0, 0, 0]
    check_same(three, one)


def test_a_search_chooses_the_same(folder):
    settings = {"search": True, "epochs": 8, "patience": 3, "learning_rate": [0.1, 0.01, 1e-5]}
    settings |= {"head": ["space", "linear"], "latent": 2, "weight_decay": 0, "seeds": 2}
    one, two = folder(), folder()
    assert [end.returncode for end in train(one, 1, settings=settings)] == [0]
    assert [end.returncode for end in train(two, 2, settings=settings)] == [0, 0]
    check_same(two, one)


def test_more_ranks_than_examples(monkeypatch, cache_path):
    with Cache(cache_path) as cache:
        stored, held = cache.splits["train"], []
        for rank in range(3):
            monkeypatch.setattr(ranks, "_job", ranks.Job(rank, 3, rank, 3))
            split = batches.TokenSplit(in_memory(stored, [4]))
            examples = split.in_order()[split.held]
            held += [split.gather(examples, Scratch()).numpy()] if len(examples) else []
            assert [piece.tolist() for piece in split.chunks(100)] == [[0]]
            assert split.dealt(np.array([0]))[0].tolist() == [0]
            assert len(split.groups(examples, 2)) == len(examples)
        np.testing.assert_array_equal(held, [stored.read_hidden(4, 5)])


def test_processes_of_a_host_share_its_memory(monkeypatch, cache_path):
    configs, training = [heads.config("space", latent=200)], TrainingConfig(epochs=1)
    with Cache(cache_path) as cache:
        needed = memory.needed(configs, cache, training, "cpu")
        monkeypatch.setattr(memory, "free_memory", lambda device: 2 * needed + 10**6)
        alone = memory.resident_budget("cpu")
        memory.require(cache, configs, training, "cpu")
        monkeypatch.setattr(ranks, "_job", ranks.Job(0, 4, 0, 2))  # two hosts
        assert memory.resident_budget("cpu") == 2 * alone
        assert memory.resident_budget("cuda") == 4 * alone
        assert "1 head needs about" in refusal(memory.require, cache, configs, training, "cpu")


def test_ranks_whose_weights_differ_end(folder):
    differs = "optimizer.Adam.EPSILON = [1e-8, 1e-3][int(os.environ['RANK'])]\n"
    done = train(folder(), 2, differs)
    assert [end.returncode for end in done] == [1, 1]
    line = "after epoch 1, the weights in the processes 1 are not those in process 0"
    assert all(line in end.stderr for end in done)


def damaged(path):
    """Change a bit of the hidden states of the last training example."""
    with Cache(path) as cache:
        split = cache.splits["train"]
        file, start, size = split.datasets["tokens"].place(len(split) - 1)
    content = bytearray(file.read_bytes())
    content[start + size // 2] ^= 1
    file.write_bytes(content)


def test_damage_that_one_rank_sees_ends_all_with_one_line(folder):
    there = folder()
    (cache,) = there.rglob("*.h5")
    damaged(cache)
    with job(2) as environments:
        started = [
            processes.spacelite("train", "--cache-dir", there, "--epochs", 2, env=env)
            for env in environments
        ]
        done = [process.wait() for process in started]
    assert [end.returncode for end in done] == [1, 1]
    assert "".join(end.stdout for end in done) == ""
    errors = [line for end in done for line in end.stderr.splitlines() if "error" in line]
    assert len(errors) == 1 and "damaged" in errors[0]
    assert "Traceback" not in done[0].stderr + done[1].stderr


TORCHRUN = """
import runpy, sys
sys.argv[0] = "torchrun"
runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_torchrun(folder):
    one, two = folder(), folder()
    command = "train", "--head", "space,linear", "--epochs", 3, "--batch-size", 16, "--json"
    alone = processes.spacelite(*command, "--cache-dir", one).wait()
    several = ("--standalone", "--nproc-per-node", 2, "-m", "spacelite_cli")
    done = processes.run(TORCHRUN, *several, *command, "--cache-dir", two)
    assert done.returncode == 0, done
    ids = [[run["id"] for run in json.loads(text)] for text in (alone.stdout, done.stdout)]
    assert ids[0] == ids[1]
    check_same(two, one)
