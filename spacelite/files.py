"""What all formats on disk need: atomic writes, locks, folders, human-readable sizes."""

from __future__ import annotations

import errno
import glob
import json
import logging
import math
import os
import re
import shutil
import stat
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)

CACHE_DIR = Path("cache")
CACHE_VARIABLE, DATA_VARIABLE = "SPACELITE_CACHE", "SPACELITE_DATA"
CHECKSUM = "checksum"  # the key of a JSON object's checksum
CHANGED = "it does not match its checksum"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
LARGEST_JSON = 2**28  # bytes
LARGEST_WHOLE = 2**63 - 1
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def cache_folder(given: str | Path | None = None) -> Path:
    """The folder of caches and runs: the one that was given, else that of the environment, else
    `cache`."""
    return Path(given or os.environ.get(CACHE_VARIABLE) or CACHE_DIR)


def data_folder(given: str | Path | None = None) -> Path | None:
    """The folder of data sets by name: the one that was given, else that of the environment."""
    folder = given or os.environ.get(DATA_VARIABLE)
    return Path(folder) if folder else None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path to write to, which is renamed to `path` once
    its bytes are on disk, or deleted if writing fails.

    Each process has its own temporary file, so two processes may write the same file: the last to
    finish wins.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    _remove_abandoned(path)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Write a folder that is not there yet atomically: yield an empty one beside it, which gets its
    name once the files in it are on disk, or is deleted if that fails. Raises OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    _remove_abandoned(path)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in sorted(partial.rglob("*")):
            sync(file)
        sync(partial)
        partial.rename(path)
    finally:
        if partial.exists():
            shutil.rmtree(partial)


def _remove_abandoned(path: Path) -> None:
    """Delete the temporary files and folders of `path` that killed processes left behind."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        process = partial.name.split(".")[-2]
        if process.isdecimal() and not _process_exists(int(process)):
            delete(partial)


def _process_exists(process: int) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it exists and belongs to another user
        pass
    return True


def write_bytes(path: Path, content: bytes) -> str:
    """Write a file atomically; return its checksum. Raises OSError."""
    with atomic_write(path) as partial:
        partial.write_bytes(content)
    return checksum(content)


@contextmanager
def writing(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn what goes wrong in writing a file or to a folder into a SpaceliteError, whose message
    ends with a `remedy`."""
    try:
        yield
    except OSError as error:
        problem = f"{path} cannot be written: {error.strerror or error}{remedy}"
        raise SpaceliteError(problem, ["cache_dir"] if "cache_dir" in remedy else []) from error


def checksum(content: bytes) -> str:
    """CRC-32 of a file's content, eight hexadecimal digits."""
    return f"{zlib.crc32(content):08x}"


def finite(content: Any) -> Any:
    """Content for a JSON document: NaN and infinity become null, and what JSON lacks its text."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content if isinstance(content, str | int | float | bool | None) else str(content)


def canonical(content: Any) -> str:
    """Canonical JSON, from which checksums, keys and ids are computed: sorted keys, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def require_format(path: Path, version: Any, latest: int) -> None:
    """Raise SpaceliteError if a file or folder is of a later version than the `latest` that can be
    read, and TypeError if its version is no number."""
    if version > latest:
        raise SpaceliteError(
            f"{path} has format {version}, this spacelite reads {latest}: upgrade spacelite"
        )


def write_json(path: Path, content: Any, *, sealed: bool = True) -> str:
    """Write an indented JSON document atomically; return the checksum of the file. An object is
    `sealed`: it gets the item `checksum`, that of the canonical JSON of all others. Raises
    OSError."""
    if sealed and isinstance(content, Mapping):
        content = {key: value for key, value in content.items() if key != CHECKSUM}
        content[CHECKSUM] = _checksum_of(json.loads(json.dumps(content)))  # as it will be read
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    return write_bytes(path, f"{text}\n".encode())


def read_json(path: Path, expected: str | None = None) -> Any:
    """Read a JSON file, as `read_bytes`. Raises OSError, and ValueError if it is very large, is not
    JSON in UTF-8, holds a number that is not finite or a whole number of more than 64 bits, or is
    an object that does not match its checksum; in files of older versions there is none."""
    try:
        text = read_bytes(path, expected, LARGEST_JSON).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("its text is not UTF-8") from None
    try:
        content = json.loads(
            text, parse_constant=_not_finite, parse_float=_number, parse_int=_whole
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\u" in text:  # half a character can be written as an escape, and never printed
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half of a character") from None
    sealed = isinstance(content, dict) and CHECKSUM in content
    if sealed and content[CHECKSUM] != _checksum_of(content):
        raise ValueError(CHANGED)
    return content


def _checksum_of(content: Mapping[str, Any]) -> str:
    """The checksum of a JSON object, but for the item that holds it."""
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return checksum(canonical(rest).encode())


def open_regular(path: Path, buffering: int = -1) -> IO[bytes]:
    """Open a file for reading. Raises OSError, and ValueError if it is a folder, a device or a
    pipe, which would be waited for."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a regular file")
    return path.open("rb", buffering)


def read_bytes(path: Path, expected: str | None = None, most: float = math.inf) -> bytes:
    """The content of a file. Raises OSError, and ValueError if it is a folder, a device or a pipe,
    which is not opened, has more than `most` bytes, or not the `expected` checksum."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {human_bytes(size)}")
        content = file.read()
    if expected is not None and checksum(content) != expected:
        raise ValueError(CHANGED)
    return content


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > LARGEST_WHOLE:
        raise ValueError(f"{text[:20]}… is too large a number")
    return int(text)


def sync(path: Path) -> None:
    """Flush the bytes of a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_at(handle: int, content: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset of an open file. Raises OSError."""
    view = memoryview(content)
    while len(view):
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def delete(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it, if there is one. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)  # rmtree would open a pipe, and wait


def clear_away(path: Path) -> None:
    """Delete a file, if it is there. Raises SpaceliteError if that fails, as of a folder."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SpaceliteError(
            f"{path} is in the way and cannot be removed: {error.strerror}; remove it yourself, "
            "and run the command again"
        ) from error


def absolute(path: Path) -> Path:
    """The path in full: it stays right if the program changes its working folder. Links stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow links)


def make_folder(folder: Path, otherwise: str = "choose another folder") -> Path:
    """Create a folder if it is missing, with its parents, and check that files can be written to
    it; `otherwise` is what the error message advises."""
    with writing(folder, f"; {otherwise}"):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return folder


def lock_path(path: Path) -> Path:
    """The hidden file that stands for the lock of `path`."""
    return path.with_name(f".{path.name}.lock")


class LockedError(SpaceliteError):
    """Another process holds a lock that was not waited for."""


@contextmanager
def lock(path: Path, doing: str | None = None, *, wait: bool = True) -> Iterator[None]:
    """Lock `path`, a file or a folder, for writing; while another process holds the lock, say what
    it is `doing`, and `wait`, or raise SpaceliteError. The lock is a hidden file beside `path`,
    deleted at the end.

    The kernel releases it when the process ends, however it ends. Raises SpaceliteError if the file
    system has no locks.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    guard = FileLock(lock_path(path))
    elsewhere = "choose another cache_dir (or set SPACELITE_CACHE)"
    with writing(path.parent, f"; {elsewhere}"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                guard.acquire(timeout=0)
            if isinstance(guard, SoftFileLock):  # which a killed process would hold for ever
                guard.release()
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        except Timeout:
            doing = doing or f"writing {path.name}"
            if not wait:
                raise LockedError(
                    f"another spacelite process is {doing}: wait until it has ended"
                ) from None
            log.warning("another spacelite process is %s: waiting for it", doing)
            guard.acquire()
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            lock_path(path).unlink(missing_ok=True)
            raise SpaceliteError(
                f"the file system of {path.parent} has no locks ({error.strerror}), so that two "
                f"processes could write a file at once: {elsewhere}, or mount it with locks",
                ["cache_dir"],
            ) from error
    try:
        yield
    finally:
        # Deleted while it is held: a process that waits for the deleted file notices that it is
        # gone, and takes a new one. A file that stays locks nothing.
        with suppress(OSError):
            lock_path(path).unlink(missing_ok=True)
        guard.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of `path` now."""
    from filelock import FileLock, Timeout

    if not lock_path(path).exists():
        return False
    guard = FileLock(lock_path(path))
    try:
        guard.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # the folder is read-only
        return False
    lock_path(path).unlink(missing_ok=True)
    guard.release()
    return False


def human_bytes(count: float, places: int = 1) -> str:
    """A number of bytes in readable form: `438.1 MB` (decimal units; `places` decimals)."""
    unit = 0
    while count >= 1000 and unit < len(UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.{places}f} {UNITS[unit]}" if unit else f"{int(count)} bytes"


def bytes_of(text: str) -> int:
    """The number of bytes that `human_bytes` or a user writes: `500MB`, `1.5 GB`, `4096`; 0 if it
    is none."""
    units = {unit.lower(): 1000**power for power, unit in enumerate(UNITS)}
    parts = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?(bytes|[kmgt]?b?)", text.strip().lower())
    if parts is None:
        return 0
    unit = parts[2] if parts[2] in units else f"{parts[2]}b"
    scale: int = units.get(unit, 1)
    return round(float(parts[1]) * scale)
