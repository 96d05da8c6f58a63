"""Processes that tests start, race and kill: forks of one that has torch and the library loaded.

A new interpreter imports for seconds before a command's first line; a fork begins with it at once.
What a process prints is read as it comes, so that none waits for its reader. Tests of what is
imported, and of the first moments, give `fresh=True`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import NamedTuple

COMMAND = "from spacelite_cli import main; main()"
SERVER = "SPACELITE_TESTS_FORK_AT"  # the address of the process that forks
PATIENCE = 240  # seconds until a process that says nothing fails its test, however busy the machine
NAP = 0.01  # seconds between two looks
# What the server imports before it forks: nothing that starts threads.
LOADED = """
import datasets, h5py, pandas, pyarrow.csv, pyarrow.parquet, sklearn.model_selection, torch
import pytest  # of conftest
import pydantic.type_adapter, rich._emoji_codes, safetensors.numpy
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertModel, PreTrainedTokenizerFast
import spacelite_cli.app
from spacelite import reports
from spacelite.api import results
from spacelite.inference import explanation, prediction
from spacelite.runs import store
from spacelite.cache import embedding, encoding
from spacelite.training import loop
"""


KILLED_AT = """
import os, signal, sys
step, steps = int(sys.argv.pop()), 0
def counted(real):
    def call(*arguments):
        global steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return call
for name in ("pwrite", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
"""


class Done(NamedTuple):
    """How a process ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class _Output:
    """What arrives at one end of a pipe or terminal, read in a thread."""

    def __init__(self, file: int) -> None:
        self._content = bytearray()
        self._ended = False
        self._more = threading.Condition()
        self._position = 0
        threading.Thread(target=self._read, args=(file,), daemon=True).start()

    def _read(self, file: int) -> None:
        piece = b"more"
        while piece:
            try:
                piece = os.read(file, 1 << 16)
            except OSError:  # a terminal that nobody writes to any more
                piece = b""
            with self._more:
                self._content += piece
                self._ended = not piece
                self._more.notify_all()
        os.close(file)

    def line(self) -> str:
        """The next line without its end; an error if none comes."""
        with self._more:
            if not self._more.wait_for(lambda: self._end() or self._ended, PATIENCE):
                raise TimeoutError(f"no line within {PATIENCE} s")
            start, self._position = self._position, self._end() or len(self._content)
            return self._content[start : self._position].decode().removesuffix("\n")

    def _end(self) -> int:
        return self._content.find(b"\n", self._position) + 1

    def all(self) -> str:
        """Everything, once the process has ended."""
        with self._more:
            if not self._more.wait_for(lambda: self._ended, PATIENCE):
                raise TimeoutError("the output does not end: another process writes to it")
            return self._content.decode(errors="surrogateescape")


class Process:
    """A running process. As a context manager it is killed at the end of the block."""

    def __init__(self, pid: int, ended, stdout: _Output | None, stderr: _Output | None) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended, self._stdout, self._stderr = ended, stdout, stderr

    def line(self) -> str:
        """The next line of the standard output."""
        return self._stdout.line()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                os.kill(self.pid, number)

    def wait(self) -> Done:
        """Wait until it ends; it is killed, and an error, if it takes longer than PATIENCE."""
        if self.returncode is None:
            self.returncode = self._ended(PATIENCE)
        if self.returncode is None:
            self.kill()
            raise TimeoutError(f"process did not end: {self._said()}")
        return self._said()

    def kill(self) -> Done:
        """Kill -9, and what it had printed."""
        self.send_signal(signal.SIGKILL)
        self.returncode = self._ended(PATIENCE) if self.returncode is None else self.returncode
        return self._said()

    def _said(self) -> Done:
        outputs = [output.all() if output else "" for output in (self._stdout, self._stderr)]
        return Done(self.returncode, *outputs)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def start(
    code: str,
    *arguments: object,
    fresh: bool = False,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    env: dict[str, str | None] | None = None,
    cwd: object = None,
) -> Process:
    """Run Python code with these arguments in a process of its own.

    Args:
        code: What it runs, as `python -c` would.
        arguments: Its `sys.argv[1:]`.
        fresh: Whether an interpreter is started for it.
        stdin: A file to read, without one an empty one.
        stdout: A file to print to, without one the output is kept for `line` and `wait`.
        stderr: The same for messages.
        env: Variables on top of the environment; those that are None are taken out of it.
        cwd: The folder it runs in.
    """
    ours: list[_Output | None] = []
    files = [os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin)]
    for given in (stdout, stderr):
        reading, writing = os.pipe() if given is None else (None, os.dup(given))
        ours.append(None if reading is None else _Output(reading))
        files.append(writing)
    words = [str(argument) for argument in arguments]
    changed = {**os.environ, **(env or {})}
    environment = {name: value for name, value in changed.items() if value is not None}
    try:
        if fresh:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *words],
                stdin=files[0], stdout=files[1], stderr=files[2], env=environment, cwd=cwd,
            )  # fmt: skip
            return Process(process.pid, functools.partial(_popen_ended, process), *ours)
        connection = _connected()
        request = {"code": code, "arguments": words, "env": environment}
        request["cwd"] = str(cwd or Path.cwd())
        socket.send_fds(connection, [b"f"], files)
        connection.sendall(json.dumps(request).encode() + b"\n")
        answers = connection.makefile("r")
        pid = int(answers.readline())
        return Process(pid, functools.partial(_fork_ended, connection, answers), *ours)
    finally:
        for file in files:
            os.close(file)


def run(code: str, *arguments: object, **options: object) -> Done:
    """Run Python code in a process of its own, and wait for its end."""
    return start(code, *arguments, **options).wait()


def spacelite(*arguments: object, **options: object) -> Process:
    """Start a command of the command line."""
    return start(COMMAND, *arguments, **options)


def killed_at(step: int, code: str, *arguments: object) -> bool:
    """Run Python code and kill it just before the given one of the calls that change a file:
    whether it came that far."""
    return run(KILLED_AT + code, *arguments, step).returncode == -signal.SIGKILL


@contextlib.contextmanager
def terminal():
    """A terminal to give to `start` in the block, and what it shows."""
    shown, writing = os.openpty()
    try:
        yield writing, _Output(shown)
    finally:
        os.close(writing)


def until(condition) -> None:
    """Wait until a condition holds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE, "it never happens"
        time.sleep(NAP)


def _popen_ended(process: subprocess.Popen, seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _fork_ended(connection: socket.socket, answers: io.TextIOBase, seconds: float) -> int | None:
    connection.settimeout(seconds)
    try:
        return int(answers.readline())
    except TimeoutError:
        return None


def serve() -> None:
    """Start the process that forks, for this process and those that it starts. It ends with this
    one."""
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    atexit.register(folder.cleanup)
    address = str(Path(folder.name) / "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, address], stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for pytest alone
    )  # fmt: skip
    atexit.register(process.communicate)
    os.environ[SERVER] = address


def _connected() -> socket.socket:
    """A connection to the process that forks, as soon as there is one."""
    if SERVER not in os.environ:
        serve()
    address = Path(os.environ[SERVER])
    until(address.exists)
    assert not address.is_file(), address.read_text()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(address))
    return connection


# The other side.


def _serve(address: str) -> None:
    """Fork for each connection; tell the process's number, then how it ended. A connection that is
    closed ends its process, and the end of the standard input everything."""
    try:
        exec(LOADED, {})
    except Exception:
        Path(address).write_text(traceback.format_exc())
        raise
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen()
    Path(f"{address}.new").rename(address)
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    for source in (0, listener, told):
        selector.register(source, selectors.EVENT_READ)
    children: dict[int, socket.socket] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            if key.fileobj is listener:
                connection, _ = listener.accept()
                pid = _fork(connection)
                children[pid] = connection
                selector.register(connection, selectors.EVENT_READ, pid)
            elif key.fileobj is told:
                told.recv(100)
                for pid in list(children):
                    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                        continue
                    status = os.waitpid(pid, 0)[1]
                    with children.pop(pid) as connection:
                        with contextlib.suppress(KeyError):
                            selector.unregister(connection)
                        with contextlib.suppress(OSError):
                            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            elif key.data in children:  # nobody waits for it any more
                selector.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)


def _fork(connection: socket.socket) -> int:
    """Fork for one request; the process's number, which the other side is told too."""
    _, files, *_ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r") as lines:
        request = json.loads(lines.readline())
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # A shell starts what runs in the background with Ctrl-C ignored, and so would its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, max(connection.fileno(), *files) + 1)
        os._exit(_run(**request))
    for file in files:
        os.close(file)
    connection.sendall(b"%d\n" % pid)
    return pid


def _run(code: str, arguments: list[str], env: dict[str, str], cwd: str) -> int:
    """Run a request in this process, and end it as the interpreter does: the exit code."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    encoding, _, errors = env.get("PYTHONIOENCODING", "utf-8").partition(":")
    how = {"encoding": encoding or "utf-8", "errors": errors or "strict"}
    sys.stdin = os.fdopen(0, closefd=False, **how)
    sys.stdout = os.fdopen(1, "w", closefd=False, **how)
    how["errors"] = "backslashreplace"
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, **how)
    sys.argv[:] = ["-c", *arguments]
    exit_code = 0
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, int) and end.code is not None:
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        exit_code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored at exit: {error!r}", file=sys.stderr)
        exit_code = 120
    return exit_code


if __name__ == "__main__":
    _serve(sys.argv[1])
