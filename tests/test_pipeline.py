"""Stages that overlap: in order, bounded, never hanging; and `embed` on a slow disk or backbone."""

import gc
import signal
import threading
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from test_embedding import digest, run

from spacelite import pipeline
from spacelite.backbones.files import locate
from spacelite.backbones.model import Backbone, Forward, Transfers, plan_batches
from spacelite.backbones.tokenizer import tokenize
from spacelite.cache import split, store
from spacelite.cache.folder import states, verify
from spacelite.cache.writing import Writer
from spacelite.errors import SpaceliteError
from spacelite.pipeline import Clock, Stage

PATIENCE = 120  # seconds until a test that hangs fails


def results(items, *stages, ahead=4, clock=None):
    return pipeline.run(items, stages, ahead=ahead, clock=clock or Clock())


def stage_threads():
    return [one for one in threading.enumerate() if one.name.startswith("stage")]


def test_results_come_in_order_whatever_the_threads_do():
    random = np.random.default_rng(0)
    waits = random.uniform(0, 0.01, 60)

    def work(item):
        time.sleep(waits[item])
        return item

    found = results(
        range(60), Stage("stage a", work, 4), Stage("stage b", lambda item: item**2, 3), ahead=9
    )
    assert list(found) == [item**2 for item in range(60)]
    assert not stage_threads()


def test_no_more_items_are_taken_than_may_be_on_the_way():
    taken = []

    def items():
        for number in range(30):
            taken.append(number)
            yield number

    found = results(items(), Stage("stage a", lambda item: item), ahead=5)
    for number, item in enumerate(found):
        assert item == number and len(taken) <= number + 5


def test_each_stage_works_while_the_others_do():
    """A stage goes on only once the next stage has begun the item before: if they took turns, this
    would never end."""
    begun = {name: [threading.Event() for _ in range(6)] for name in "abc"}

    def work(name, after):
        def step(item):
            begun[name][item].set()
            if after and item:
                assert begun[after][item - 1].wait(PATIENCE), f"{name} waits for {after}"
            return item

        return step

    stages = [Stage("stage a", work("a", "b")), Stage("stage b", work("b", "c"))]
    for item in results(range(6), *stages, ahead=6):
        begun["c"][item].set()
        if item < 5:
            assert begun["b"][item + 1].wait(PATIENCE), "reading results holds the stages up"


def test_the_time_is_that_of_the_slowest_stage_not_the_sum():
    """All three meet at every item: that they work at once does not depend on a clock."""
    clock, meeting = Clock(), threading.Barrier(3, timeout=PATIENCE)

    def work(first):
        def step(item):
            if first <= item < first + 28:  # the others are one and two items behind
                meeting.wait()
            return item

        return step

    started = time.perf_counter()
    stages = [Stage("stage a", work(2)), Stage("stage b", work(1))]
    for item in results(range(30), *stages, ahead=6, clock=clock):
        with clock.measure("reader"):
            work(0)(item)
    total = time.perf_counter() - started
    assert set(clock.busy) == {"stage a", "stage b", "reader"}
    assert all(0 < busy <= total for busy in clock.busy.values())


@pytest.mark.parametrize("where", ["items", "stage a", "stage b", "reader"])
def test_an_exception_anywhere_ends_all_threads(where):
    def fail(name, item):
        if name == where and item == 7:
            raise OSError("no more")
        return item

    def items():
        for number in range(100):
            yield fail("items", number)

    stages = [
        Stage(name, lambda item, name=name: fail(name, item), 2) for name in ("stage a", "stage b")
    ]
    read = []

    with (
        pytest.raises(OSError, match="no more"),
        pipeline.reading(results(items(), *stages)) as found,
    ):
        read.extend(fail("reader", item) for item in found)
    assert not stage_threads()
    if where == "items":  # some were on the way
        assert read == list(range(len(read))) and len(read) < 7
    else:
        assert read == list(range(7))


def test_nothing_is_begun_once_reading_has_stopped():
    begun, release = [], threading.Event()

    def first(item):
        if item == 2:
            release.wait(PATIENCE)
        return item

    found = results(range(50), Stage("stage a", first), Stage("stage b", begun.append), ahead=8)
    next(found)
    threading.Timer(0.1, release.set).start()
    found.close()
    processes.until(lambda: not stage_threads())
    assert set(begun) <= {0, 1}, "item 2, which was running, is not passed on"


@pytest.mark.skipif(not hasattr(threading, "_maintain_shutdown_locks"), reason="of another Python")
def test_the_garbage_collector_may_end_reading_while_a_thread_starts(monkeypatch):
    """Which holds a lock then that ending threads take, too."""
    found = results(range(50), Stage("stage a", lambda item: item))
    next(found)
    cycle = [found]
    cycle.append(cycle)
    del found, cycle
    real = threading._maintain_shutdown_locks

    def collect():
        gc.collect()
        real()

    monkeypatch.setattr(threading, "_maintain_shutdown_locks", collect)
    # Not waited for if it hangs.
    other = threading.Thread(target=lambda: None, daemon=False)
    starter = threading.Thread(target=other.start, daemon=True)
    starter.start()
    starter.join(PATIENCE / 10)
    assert not starter.is_alive()
    processes.until(lambda: not stage_threads())


def test_a_thread_that_cannot_begin_is_an_error():
    def begin():
        raise MemoryError

    with pytest.raises(Exception, match="initializer"):
        list(results(range(3), Stage("stage a", lambda item: item, begin=begin)))


# `embed`, with a slow or broken stage.


@pytest.fixture
def slow(monkeypatch):
    """A slow backbone and a slow disk, and one worker: when each of them was at work."""
    real, write = Backbone.hidden_states, Writer.put
    computing, writing = [], []

    def nap(seconds, spans):
        begun = time.perf_counter()
        time.sleep(seconds)
        spans.append((begun, time.perf_counter()))

    def hidden_states(self, *given):
        nap(0.03, computing)
        return real(self, *given)

    def put(self, *given):
        nap(0.003, writing)
        return write(self, *given)

    monkeypatch.setattr(Backbone, "hidden_states", hidden_states)
    monkeypatch.setattr(Writer, "put", put)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield computing, writing
    torch.set_num_threads(threads)


def test_a_slow_disk_and_a_slow_backbone_overlap(bert, reviews, tmp_path, slow):
    done = run(tmp_path, bert, reviews, reuse=False, tokens_per_batch=30)
    computing, writing = slow
    meanwhile = [span for span in writing if any(a < span[1] and span[0] < b for a, b in computing)]
    assert len(computing) > 20 and len(meanwhile) > len(writing) / 2  # none if they took turns
    assert done.speed.limit in ("computing", "writing")
    with store.Cache(done.path) as cache:
        assert done.speed.tokens == cache.tokens and cache.complete


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_bytes_do_not_depend_on_the_number_of_threads(dtype, bert, reviews, tmp_path):
    paths, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            done = run(tmp_path / str(threads), bert, reviews, dtype=dtype, tokens_per_batch=64)
            assert torch.get_num_threads() == threads, "as many as before"
            paths.append(done.path)
    finally:
        torch.set_num_threads(before)
    assert len({digest(path) for path in paths}) == 1


@pytest.mark.parametrize("stage", ["preparing", "computing", "finishing", "writing"])
def test_an_error_in_any_stage_keeps_what_was_written(stage, bert, reviews, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", bert, reviews, tokens_per_batch=30).path
    owner, name = {
        "preparing": (Transfers, "ready"),
        "computing": (Backbone, "hidden_states"),
        "finishing": (split.Checked, "of"),
        "writing": (Writer, "write"),
    }[stage]
    real, count = getattr(owner, name), [0]

    def broken(*given):
        count[0] += 1
        if count[0] >= 30:
            raise SpaceliteError(f"{stage} failed: mend it")
        return real(*given)

    monkeypatch.setattr(owner, name, staticmethod(broken) if stage == "finishing" else broken)
    with pytest.raises(SpaceliteError, match=f"{stage} failed: mend it"):
        run(tmp_path, bert, reviews, tokens_per_batch=30)
    names = ("preparing", "computing", "finishing")
    assert not [one for one in threading.enumerate() if one.name.startswith(names)]
    monkeypatch.undo()
    (state,) = states(tmp_path)
    assert not state.complete and verify(state.path) == []
    done = run(tmp_path, bert, reviews, tokens_per_batch=30)
    assert digest(done.path) == digest(whole)


COMMAND = """
import sys, time
how = sys.argv[1]
from spacelite.backbones.model import Backbone
real, count = Backbone.hidden_states, [0]
def hidden_states(self, *given):
    count[0] += 1
    if count[0] > 40:
        if how == "fail":
            raise RuntimeError("the device is lost")
        print("now", flush=True)
        time.sleep(0.5)
    return real(self, *given)
Backbone.hidden_states = hidden_states
from spacelite_cli import main
del sys.argv[1]
main()
"""


@pytest.mark.parametrize("how", ["fail", "interrupt"])
def test_the_command_ends_with_one_line(how, bert, reviews, tmp_path):
    arguments = ["embed", "--backbone", bert, "--dataset", reviews, "--cache-dir", tmp_path,
                 "--tokens-per-batch", 30, "--device", "cpu"]  # fmt: skip
    process = processes.start(COMMAND, how, *arguments)
    if how == "interrupt":
        assert process.line().startswith("now")
        process.send_signal(signal.SIGINT)
    code, _, messages = process.wait()
    last = messages.strip().splitlines()[-1]
    assert "Traceback" not in messages
    if how == "interrupt":
        assert code == 130 and last.startswith("interrupted")
    else:
        assert code == 1 and "RuntimeError: the device is lost" in last
    (state,) = states(Path(tmp_path))
    assert 0 < state.tokens_done < state.tokens and verify(state.path) == []


# What a GPU does, with a stream and an event that only note what is asked of them.


@pytest.fixture
def fake_cuda(monkeypatch):
    """Notes what happens on the device, in order."""
    notes, empty = [], torch.empty

    class Stream:
        def __init__(self, device=None):
            self.device = device

        def wait_stream(self, other):
            notes.append(f"copies wait for {other}")

        def __enter__(self):
            notes.append("begin a copy")

        def __exit__(self, *exception):
            notes.append("copy begun")

    class Event:
        def record(self, stream):
            self.stream = stream

        def synchronize(self):
            assert isinstance(self.stream, Stream)
            notes.append(f"waited in {threading.current_thread().name.split('_')[0]}")

    def pinned(*given, pin_memory=False, **options):
        if pin_memory:
            notes.append("page-locked memory")
        return empty(*given, **options)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the forward pass")
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    return notes


def test_a_gpu_goes_on_while_results_are_copied_back(fake_cuda, bert):
    files = locate(str(bert))
    tokens = tokenize(files, ["a good film", "a bad film", "the story was dull"] * 4, max_length=16)
    own = Backbone(files, layer=-1, device="cpu", all_layers=True)
    lengths = np.array([len(ids) for ids in tokens.ids])

    class OnDevice:
        """The backbone, as if it were on a GPU."""

        device = "cuda"

        def hidden_states(self, ids, *others):
            assert torch.is_tensor(ids) and ids.dtype == torch.int64
            fake_cuda.append("forward pass")
            return own.hidden_states(ids, *others)

    clock = Clock()
    found = {}
    for model in (OnDevice(), own):
        run = Forward(model, tokens, lambda hidden: hidden.half(), 8, clock=clock)
        plan = plan_batches(lengths, 8)
        found[model.device] = list(run.batches(plan, lambda batch, output: output))
    for one, other in zip(found["cuda"], found["cpu"], strict=True):
        np.testing.assert_allclose(one.hidden, other.hidden, atol=1e-3)
        np.testing.assert_allclose(one.means, other.means, atol=1e-3)
    batches = len(found["cuda"])
    assert fake_cuda.count("forward pass") == batches
    copies = [note for note in fake_cuda if note != "forward pass"]
    waits = [note for note in copies if note.startswith("waited")]
    # Hidden states, pooled outputs and layer means; never waited for where passes are launched.
    assert waits == ["waited in computing"] * 3 * batches
    assert copies.count("copies wait for the forward pass") == 3 * batches
    assert copies.count("page-locked memory") == 3 * batches
    assert clock.busy["launching"] > 0 and "launching" in clock.busy


def test_a_cache_that_was_begun_with_other_batches_is_finished(bert, reviews, tmp_path):
    """As those of a former version are, whose batches were larger."""

    def interrupt(phase, done, total):
        if phase == "embed" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, bert, reviews, tokens_per_batch=200, on_progress=interrupt)
    (state,) = states(tmp_path)
    done = run(tmp_path, bert, reviews)
    assert done.path == state.path and 0 < done.speed.tokens < state.tokens
    assert verify(done.path) == []
    whole = run(tmp_path / "whole", bert, reviews)
    with store.Cache(done.path) as one, store.Cache(whole.path) as two:
        for name, split in two.splits.items():
            rows = one.splits[name].read_hidden(0, len(split))
            np.testing.assert_allclose(rows, split.read_hidden(0, len(split)), atol=2e-3)


def test_two_that_run_at_once_give_torch_its_threads_back(bert):
    files = locate(str(bert))
    tokens = tokenize(files, ["a good film"] * 6, max_length=16)
    model = Backbone(files, layer=-1, device="cpu")
    before = torch.get_num_threads()

    def passes():
        run = Forward(model, tokens, lambda hidden: hidden, 8)
        return run.batches(np.arange(6)[:, None], lambda batch, output: batch[0])

    one, two = passes(), passes()
    assert [next(one), next(two)] == [0, 0]
    assert [*one, *two] == [1, 2, 3, 4, 5] * 2
    assert torch.get_num_threads() == before
