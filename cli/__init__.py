"""The command line: arguments in, calls into `spacelite`, tables and progress bars out."""

import _thread
import os
import signal
import sys
import time
from typing import Any

INTERRUPTED = 130  # exit code after Ctrl-C
AGAIN = 0.05  # seconds until a lost interrupt is repeated


def main() -> None:
    """The `spacelite` command. Ctrl-C never ends it with a traceback: while modules are imported
    and arguments are parsed, and after the command, there is nothing to clean up, and the process
    ends at once; `while_a_command_runs` restores the usual exception in between."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    sys.unraisablehook = repeat_interrupt
    from .app import app

    app()


def while_a_command_runs(running: bool) -> None:
    """Let Ctrl-C raise KeyboardInterrupt while a command runs, and end the process otherwise. It
    stays ignored where it was, as in the background of a shell."""
    handlers = (_end, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) is handlers[not running]:
        signal.signal(signal.SIGINT, handlers[running])


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


def _end(*_: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
