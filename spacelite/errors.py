"""The one exception of the library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


class SpaceliteError(Exception):
    """A failure that the user can cause or mend: one line, what is wrong and what to do.

    Args:
        message: The line. Arguments of the library's functions stand in it by their Python names:
            `limit=10`, `max_length=1000`, or `max_length` alone where the name has an underscore.
        arguments: The names of those that do, so that the command line can put its options in
            their place (`for_options`).
    """

    def __init__(self, message: str, arguments: Iterable[str] = ()) -> None:
        # A path or name in the message may hold anything, even a line break.
        super().__init__(" ".join(message.split()))
        self.arguments = tuple(arguments)

    def for_options(self, option: Callable[[str], str]) -> str:
        """The message for people who gave command-line options: `--max-length 1000`.

        Args:
            option: An argument's name -> the option's, with its dashes.
        """
        message = str(self)
        for name in self.arguments:
            # Only as a word of its own: a path may hold the same letters.
            message = re.sub(rf"(?<![\w./-]){name}=", f"{option(name)} ", message)
            if "_" in name:  # others are words of English too
                message = re.sub(rf"(?<![\w./-]){name}\b(?![/.]\w)", option(name), message)
        return message


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the CPU or on a GPU."""
    # torch's CPU allocator has no exception of its own; torch itself is not imported for this.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "MemoryError"}) or "DefaultCPUAllocator" in str(error)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The message of another library's exception on one line: the cause's, where it was wrapped."""
    words = (str(cause) for cause in (error.__cause__, error) if cause is not None)
    text = " ".join(next((text for text in words if text.strip()), "").split())
    text = text or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
