"""Several processes that work together, as torchrun starts them: what they tell each other, and
trainings that they share."""

import contextlib
import json
import signal

import processes
import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from spacelite import ranks


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
