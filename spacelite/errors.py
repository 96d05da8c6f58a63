"""The one exception of the library."""


class SpaceliteError(Exception):
    """A failure that the user can cause or mend: one line, what is wrong and what to do."""

    def __init__(self, message: str) -> None:
        # A path or name in the message may hold anything, even a line break.
        super().__init__(" ".join(message.split()))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the CPU or on a GPU."""
    # torch's CPU allocator has no exception of its own; torch itself is not imported for this.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "MemoryError"}) or "DefaultCPUAllocator" in str(error)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The words of another library's exception on one line: the cause's, where it was wrapped."""
    words = (str(cause) for cause in (error.__cause__, error) if cause is not None)
    text = " ".join(next((text for text in words if text.strip()), "").split())
    text = text or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
