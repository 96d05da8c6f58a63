"""The one exception of the library."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterable

from spacelite.visible import visible_name

# How libraries say that they got no memory, not even for a thread or for their own code.
SHORTAGES = re.compile(
    r"DefaultCPUAllocator|bad_alloc|unable to allocate|cannot allocate memory(?! in static TLS)|"
    r"can't start new thread|failed to map segment|returned NULL without setting an exception",
    re.IGNORECASE,
)


class SpaceliteError(Exception):
    """A failure that the user can cause or fix: one line that says what is wrong and what to do.

    Args:
        message: The line. It writes arguments of the library's functions by their Python names:
            `limit=10`, `max_length=1000`, just `max_length` if the name has an underscore, or a
            name with a colon at the beginning (`seeds: ...`).
        arguments: Names of the arguments in the message, so that the command line can replace
            them with its options (`for_options`).
    """

    def __init__(self, message: str, arguments: Iterable[str] = ()) -> None:
        # What could not be read or loaded for lack of memory is neither damaged nor wrong.
        handled = sys.exc_info()[1]
        if handled and is_out_of_memory(handled) and "memory" not in message:
            message = out_of_memory(handled)
        self.arguments = tuple(arguments)
        for name in self.arguments:  # an empty string is shown as one
            message = re.sub(rf"(?<![\w./-]){name}=(?=[ :])", f"{name}=''", message)
        # A path or name in the message may contain anything, even a line break.
        super().__init__(visible_name(message.strip()))

    def for_options(self, option: Callable[[str], str]) -> str:
        """The message with command-line options (of arguments' names) in place of arguments:
        `--max-length 1000`."""
        message = str(self)
        for name in self.arguments:
            message = re.sub(rf"^{name}: ", f"{option(name)}: ", message)
            # Whole words only: a path may contain the same letters.
            message = re.sub(rf"(?<![\w./-]){name}=True\b", option(name), message)
            without = re.sub(r"^-+", r"\g<0>no-", option(name))
            message = re.sub(rf"(?<![\w./-]){name}=False\b", without, message)
            word = rf"(?<![\w./-]){name}='([\w.:]+)'"  # no quotes, where a shell needs none
            message = re.sub(word, rf"{option(name)} \1", message)
            message = re.sub(rf"(?<![\w./-]){name}=", f"{option(name)} ", message)
            if "_" in name:  # names without one are also English words
                message = re.sub(rf"(?<![\w./-]){name}\b(?![/.]\w)", option(name), message)
        return message


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, means that memory ran out, on the CPU or on a
    GPU."""
    seen: set[int] = set()
    while error and id(error) not in seen:  # an error may be raised from one that it caused
        seen.add(id(error))
        # By name, so that torch is not imported.
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & {"OutOfMemoryError", "MemoryError"} or SHORTAGES.search(str(error)):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        error = error.__cause__
    return False


def out_of_memory(error: BaseException) -> str:
    """The line for an exception that `is_out_of_memory`."""
    return f"memory ran out ({one_line(error, 150)}): free some, or raise a limit (ulimit -v)"


def one_line(error: BaseException, limit: int = 300) -> str:
    """Another library's error message on one line: that of the exception's cause, if it has one."""
    causes = (cause for cause in (error.__cause__, error) if cause is not None)
    # The words of a KeyError are the key alone.
    words = (f"KeyError: {cause}" if type(cause) is KeyError else str(cause) for cause in causes)
    text = " ".join(next((text for text in words if text.strip()), "").split())
    text = text or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
