"""The command line: arguments in, calls into `spacelite`, tables and progress bars out."""

import _thread
import atexit
import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spacelite import ranks
from spacelite.errors import SpaceliteError, is_out_of_memory, out_of_memory

INTERRUPTED = 130  # exit code after Ctrl-C
TERMINATED = 128 + signal.SIGTERM  # as shells report it
AGAIN = 0.05  # seconds until a lost interrupt is repeated
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # a full or broken disk


def main() -> None:
    """The `spacelite` command. Ctrl-C never ends it with a traceback: while modules are imported
    and arguments are parsed, and after the command, there is nothing to clean up, and the process
    ends at once; `while_a_command_runs` restores the usual exception in between. A full disk behind
    standard output is an error of one line, and so is too little memory, even to import the
    application; without a standard output there is none. Of the processes of a job, rank 0 alone
    prints."""
    if sys.stdout is None:  # closed by the shell: `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for as long as the process
    if ranks.launched().rank > 0 and not os.environ.get("SPACELITE_DEBUG"):
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as above
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    sys.unraisablehook = repeat_interrupt
    # At its end, all memory of the process goes: the garbage collector need not look through it.
    atexit.register(gc.freeze)
    try:
        from .app import app

        app()
    except SystemExit as end:
        if end.code and ranks.launched().size > 1:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # An orderly exit would wait for what was not added up, and so for a process that hangs.
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise
    except Exception as error:
        if os.environ.get("SPACELITE_DEBUG"):
            raise
        if isinstance(error, OSError) and is_of_a_stream(error):
            line = f"the output cannot be written: {error.strerror}"
        elif isinstance(error, SpaceliteError):  # of an import
            line = str(error)
        elif is_out_of_memory(error):
            line = out_of_memory(error)
        else:
            raise
        os.write(2, f"error: {line}\n".encode())
        # An orderly exit would write what is left of the output, or wait for a thread, and fail.
        os._exit(1)


def is_of_a_stream(error: BaseException) -> bool:
    """Whether an error is that of an output stream, which has no name, on a full or broken disk."""
    return isinstance(error, OSError) and error.filename is None and error.errno in UNWRITABLE


def while_a_command_runs(running: bool) -> None:
    """Let Ctrl-C raise KeyboardInterrupt while a command runs, and end the process otherwise. It
    stays ignored where it was, as in the background of a shell."""
    handlers = (_end, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) is handlers[not running]:
        signal.signal(signal.SIGINT, handlers[running])


@contextmanager
def cleaned_up() -> Iterator[None]:
    """Let SIGTERM end a command by an exception, so that it removes what it has half written."""
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def repeat_interrupt(lost: Any) -> None:
    """For `sys.unraisablehook`: a KeyboardInterrupt that is raised while Python runs a callback of
    its own, such as one of its import locks, is printed and lost. It comes again instead."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return

    def again() -> None:
        time.sleep(AGAIN)
        _thread.interrupt_main()

    _thread.start_new_thread(again, ())


def _terminated(*_: Any) -> None:
    raise SystemExit(TERMINATED)


def _end(*_: Any) -> None:
    if ranks.launched().rank == 0:
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
