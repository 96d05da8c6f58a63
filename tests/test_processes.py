"""The processes of tests begin, speak, end and die as those of the interpreter do."""

import os
import signal

import processes
import pytest

both = pytest.mark.parametrize("fresh", [False, True], ids=["fork", "fresh"])


@both
def test_arguments_environment_folder_and_exit_code(fresh, tmp_path):
    code = (
        "import os, sys\nprint(sys.argv, os.environ['GIVEN'], 'HOME' in os.environ, os.getcwd())\n"
        "print('é', file=sys.stderr)\nsys.exit(3)"
    )
    environment = {"GIVEN": "x", "HOME": None}
    done = processes.run(code, "a", 1, fresh=fresh, env=environment, cwd=tmp_path)
    assert done == (3, f"['-c', 'a', '1'] x False {tmp_path}\n", "é\n")


@both
def test_errors_exit_as_they_do(fresh):
    done = processes.run("print('so far')\n1 / 0", fresh=fresh)
    assert done[:2] == (1, "so far\n") and "ZeroDivisionError" in done.stderr
    done = processes.run("import sys; sys.exit('in words')", fresh=fresh)
    assert done == (1, "", "in words\n")
    done = processes.run("print('é')", fresh=fresh, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1 and "UnicodeEncodeError" in done.stderr
    code = "import os; os.close(1); os.open(os.devnull, os.O_RDONLY); print('nowhere')"
    done = processes.run(code, fresh=fresh, env={"PYTHONUNBUFFERED": None})
    assert done.returncode == 120


@both
def test_what_is_printed_at_the_end_is_there(fresh):
    code = (
        "import atexit, threading, time\natexit.register(print, 'last')\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()"
    )
    assert processes.run(code, fresh=fresh) == (0, "thread\nlast\n", "")


def test_more_than_a_pipe_holds_is_read_while_it_runs():
    code = "print('x' * 10**6, flush=True)\nprint('done', flush=True)\nimport time; time.sleep(600)"
    with processes.start(code) as process:
        assert len(process.line()) == 10**6 and process.line() == "done"
    assert process.returncode == -signal.SIGKILL


def test_ctrl_c_and_kill():
    code = (
        "import time\ntry:\n    print('here', flush=True); time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('again', flush=True); time.sleep(600)"
    )
    process = processes.start(code)
    assert process.line() == "here"
    process.send_signal(signal.SIGINT)
    assert process.line() == "again"
    assert process.kill() == (-signal.SIGKILL, "here\nagain\n", "")


def test_a_terminal_and_an_input():
    reading, writing = os.pipe()
    os.write(writing, b"given\n")
    os.close(writing)
    code = "import sys; print(input(), sys.stdout.isatty(), sys.stderr.isatty())"
    with processes.terminal() as (terminal, shown):
        process = processes.start(code, stdin=reading, stdout=terminal)
    os.close(reading)
    assert process.wait().returncode == 0 and shown.all() == "given True False\r\n"


@pytest.mark.parametrize(("step", "died"), [(1, True), (2, True), (3, False)])
def test_death_just_before_a_call_that_changes_a_file(step, died, tmp_path):
    code = (
        "import os, sys\nfile = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "os.pwrite(file, b'abc', 0); os.fsync(file)"
    )
    assert processes.killed_at(step, code, tmp_path / "file") == died
    assert (tmp_path / "file").stat().st_size == (0 if step == 1 else 3)


def test_nothing_outlives_its_reader():
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    process = processes.start(code)
    pid = int(process.line())
    del process

    def gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    processes.until(gone)
