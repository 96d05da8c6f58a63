"""The HDF5 files of a cache, read as plain bytes.

Beside each file lies its seal, a JSON file that says what is where in it, with the checksum of all
its bytes but those that are written later or have a checksum of their own. Readers check it first,
and need no HDF5 library then: damaged metadata can crash that, or keep it busy for ever. Files of
older versions have no seal: their metadata are read in a process of their own with a time limit.
"""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import tempfile
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import override

from spacelite import files
from spacelite.errors import SpaceliteError, one_line
from spacelite.types import Array

# Datasets that the checksum leaves out.
UNSEALED = ("tokens", "pooled", "means", "token_ids", "done", "crc32", "pooled_crc32")
TYPES = ("int8", "uint8", "uint16", "uint32", "int32", "int64", "float16", "float32", "float64")
MANY = 20  # more members than a file of a cache, or a group of it, has
PAGE = 4096  # bytes; large arrays start at a multiple of this
DRAFTS = "/dev/shm"  # noqa: S108 - a folder in memory, where there is one
OFFSETS = "/offsets"  # the end of the names of datasets that count the tokens of their file
SHARD = "shard"  # the attribute of a file that is one of several
CHUNK = 2**20  # bytes that are checked at a time
STARTING = 60  # seconds in which the process that reads files without a seal starts
READY = b"ready\n"  # what it says then
SECONDS = 10  # in which the metadata of such a file can be read, whatever the machine
AT_ONCE = 200  # such files that a process reads
MEMORY = 2**32  # bytes that it may take
LONGEST = 2**24  # characters of what it says of a file
READER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from spacelite.cache.hdf5 import _answer; _answer(sys.argv[1:])"
)


class Place(NamedTuple):
    """Where the values of a dataset are in its file."""

    offset: int
    shape: tuple[int, ...]
    dtype: str  # one of TYPES

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def stop(self) -> int:
        """The offset of the first byte after the values."""
        return self.offset + self.shape[0] * self.row_bytes


class DataFile:
    """An HDF5 file of a cache, open for reading. Use it as a context manager.

    Attributes:
        attributes: Of the file (""), and of each group and dataset that has any, by its path.
        places: Of each dataset, by its path: `train/tokens`.
        is_sealed: Whether it has a seal, which was checked.
        crc32: The checksum of its metadata; "" without a seal.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError if there is no such file, and ValueError or OSError, which say
        what is wrong, if it cannot be read or is damaged."""
        self.path = path
        self._file = files.open_regular(path, 0)
        try:
            size = os.fstat(self.handle).st_size
            sealed = _read_seal(path)
            self.is_sealed = sealed is not None
            self.crc32 = "" if sealed is None else str(sealed.get("crc32"))
            if sealed is not None and sealed.get("size") != size:
                raise ValueError(f"it has {size:,} bytes, and had {sealed.get('size')}")
            contents = _examined(path) if sealed is None else sealed
            self.attributes, self.places = _parsed(contents, size)
            if self.is_sealed and self.crc32 != _checksum(self.handle, size, self.places):
                raise ValueError("its metadata do not match their checksum")
        except BaseException:
            self.close()
            raise

    def read(self, name: str, first: int = 0, last: int | None = None) -> Array:
        """Rows first:last (by default all) of a dataset. Raises SpaceliteError as `read_into`."""
        place = self.places[name]
        count = (place.shape[0] if last is None else last) - first
        values = np.empty((count, *place.shape[1:]), place.dtype)
        self.read_into(name, first, values)
        return values

    def read_into(self, name: str, first: int, values: Array) -> None:
        """Read rows of a dataset from `first` on into memory in one piece. Raises SpaceliteError if
        that fails."""
        if not values.size:
            return
        place = self.places[name]
        view, offset = values.data.cast("B"), place.offset + first * place.row_bytes
        while len(view):
            try:
                count = os.preadv(self.handle, [view], offset)
            except OSError as error:
                raise SpaceliteError(f"{self.path} cannot be read: {error.strerror}") from error
            if not count:
                raise SpaceliteError(f"{self.path} was cut off while it was read: embed again")
            view, offset = view[count:], offset + count

    def advise(self, name: str, first: int, last: int) -> None:
        """Tell the system that rows first:last of a dataset will be read soon, so that it reads
        several parts at once."""
        if hasattr(os, "posix_fadvise"):  # macOS has none
            place = self.places[name]
            offset, size = place.offset + first * place.row_bytes, (last - first) * place.row_bytes
            os.posix_fadvise(self.handle, offset, size, os.POSIX_FADV_WILLNEED)

    def locate(self, name: str, row: int) -> tuple[DataFile, int]:
        """The file that holds a row of a dataset, and where in it the row begins."""
        place = self.places[name]
        return self, place.offset + row * place.row_bytes

    @property
    def parts(self) -> Sequence[DataFile]:
        """The files that it consists of, in order."""
        return [self]

    def of_split(self, split: str) -> list[DataFile]:
        """Those that hold examples of a split."""
        return [self]

    @property
    def handle(self) -> int:
        """The open file, for reading at an offset."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class JoinedFile(DataFile):
    """Files of the shards of a cache, read as one: the rows of each dataset end to end, but those
    of `common` groups, which are the same in all of them."""

    def __init__(self, path: Path, parts: Sequence[DataFile], common: Collection[str] = ()) -> None:
        """Raises ValueError if a file does not fit the others."""
        self.path, self._parts = path, parts
        self.is_sealed, self.crc32 = all(part.is_sealed for part in parts), ""
        self.attributes: dict[str, dict[str, Any]] = {}
        self.places: dict[str, Place] = {}
        # Of each dataset, the files that hold some of it, and where in its rows each begins.
        self._holders: dict[str, tuple[list[DataFile], list[int]]] = {}
        sums: dict[str, list[int]] = {}  # of the indexes of each split
        for part in parts:
            for name, attributes in part.attributes.items():
                if "index_crc32" in attributes:
                    sums.setdefault(name, []).append(attributes["index_crc32"])
                    continue
                alike = {key: value for key, value in attributes.items() if key != SHARD}
                if self.attributes.setdefault(name, alike) != alike:
                    raise ValueError(f"{part.path.name} differs from the other shards")
            for name, place in part.places.items():
                self._add(part, name, place, name.partition("/")[0] in common)
        for name, values in sums.items():
            joined = values[0] if len(values) == 1 else zlib.crc32(np.array(values, "<u4").data)
            self.attributes[name] = {"index_crc32": joined}

    def _add(self, part: DataFile, name: str, place: Place, is_common: bool) -> None:
        before = self.places.setdefault(name, place)
        holders, starts = self._holders.setdefault(name, ([], []))
        rows = before.shape[0] if holders else 0
        if (before.dtype, before.shape[1:]) != (place.dtype, place.shape[1:]) or (
            is_common and before.shape != place.shape
        ):
            raise ValueError(f"{name} of {part.path.name} differs from the other shards'")
        if holders and is_common:
            return
        if holders and name.endswith(OFFSETS):
            rows -= 1  # the last offset of a file is the first of the next
        holders.append(part)
        starts.append(rows)
        self.places[name] = Place(0, (rows + place.shape[0], *place.shape[1:]), place.dtype)

    @override
    def read_into(self, name: str, first: int, values: Array) -> None:
        last = first + len(values)
        before = 0  # tokens of the files before
        for part, start in zip(*self._holders[name], strict=True):
            rows = part.places[name].shape[0]
            low, high = max(first, start), min(last, start + rows)
            if low < high:
                of_part = values[low - first : high - first]
                part.read_into(name, low - start, of_part)
                if name.endswith(OFFSETS):
                    of_part += before
            if name.endswith(OFFSETS):
                before += part.places[f"{name.removesuffix(OFFSETS)}/token_ids"].shape[0]

    @override
    def advise(self, name: str, first: int, last: int) -> None:
        for part, start in zip(*self._holders[name], strict=True):
            low, high = max(first, start), min(last, start + part.places[name].shape[0])
            if low < high:
                part.advise(name, low - start, high - start)

    @override
    def locate(self, name: str, row: int) -> tuple[DataFile, int]:
        holders, starts = self._holders[name]
        at = bisect_right(starts, row) - 1
        return holders[at].locate(name, row - starts[at])

    @property
    @override
    def parts(self) -> Sequence[DataFile]:
        return self._parts

    @override
    def of_split(self, split: str) -> list[DataFile]:
        return self._holders[f"{split}/done"][0]

    @override
    def close(self) -> None:
        for part in self._parts:
            part.close()


def seal_path(path: Path) -> Path:
    """The seal of an HDF5 file."""
    return path.with_suffix(".seal.json")


def lay_out(
    partial: Path,
    attributes: Mapping[str, Mapping[str, Any]],
    shapes: Mapping[str, tuple[Any, str]],
    values: Mapping[str, Array],
) -> dict[str, Any]:
    """Create a file with these attributes of its groups and datasets, and with datasets of these
    shapes and types, of which some have values and the others zeros; return what is where in it.
    Raises OSError.

    HDF5 writes its metadata into memory, since a write that fails can crash it.
    """
    least = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
    partial.unlink(missing_ok=True)  # left by a killed process; a pipe or a link is not opened
    with partial.open("xb", buffering=0) as file:
        _reserve(file.fileno(), least)  # what the file may not hold, the draft may not either
        with _drafted(attributes, shapes) as (draft, contents):
            size = os.fstat(draft).st_size
            places = _parsed(contents, size)[1]
            _reserve(file.fileno(), size)
            file.truncate(size)
            for offset, piece in _outside(draft, size, places.values()):
                files.write_at(file.fileno(), piece, offset)
        for name, array in values.items():
            content = np.ascontiguousarray(array, places[name].dtype)
            files.write_at(file.fileno(), content.data.cast("B"), places[name].offset)
        os.fsync(file.fileno())
    return contents


def _reserve(handle: int, size: int) -> None:
    """Reserve the file's space on disk, if the system can: a disk that fills up later then cannot
    stop the run half-way."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def write_seal(
    path: Path, of: Path | None = None, contents: Mapping[str, Any] | None = None
) -> None:
    """Write the seal of a file without one. Of one that was laid out just now and is not at `path`
    yet, `of` is where it lies, and `contents` what is where in it. Raises OSError, and ValueError
    if it is damaged."""
    contents = _examined(path) if contents is None else contents
    with (of or path).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        crc32 = _checksum(file.fileno(), size, _parsed(contents, size)[1])
    files.write_json(seal_path(path), {**contents, "size": size, "crc32": crc32})


def _checksum(handle: int, size: int, places: Mapping[str, Place]) -> str:
    """CRC-32 of all bytes of a file but the values of UNSEALED datasets."""
    value = 0
    unsealed = [place for name, place in places.items() if name.rpartition("/")[2] in UNSEALED]
    for _, piece in _outside(handle, size, unsealed):
        value = zlib.crc32(piece, value)
    return f"{value:08x}"


def _outside(handle: int, size: int, places: Iterable[Place]) -> Iterator[tuple[int, bytes]]:
    """The bytes of a file that are not values of these datasets: offsets and pieces."""
    at = 0
    for start, stop in sorted([*((place.offset, place.stop) for place in places), (size, size)]):
        for offset in range(at, start, CHUNK):
            yield offset, os.pread(handle, min(CHUNK, start - offset), offset)
        at = stop


def _read_seal(path: Path) -> dict[str, Any] | None:
    """The seal of a file; None if it has none. Raises SpaceliteError if the seal is damaged."""
    seal = seal_path(path)
    try:
        content = files.read_json(seal)
        if not isinstance(content, dict) or files.CHECKSUM not in content:
            raise ValueError("it has no checksum")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        name = path.stem.removesuffix(".layers")
        raise SpaceliteError(
            f"{seal} is damaged ({one_line(error, 80)}): delete it, and run spacelite cache verify "
            f"{name}, which writes it again"
        ) from error
    return content


def _parsed(contents: Any, size: int) -> tuple[dict[str, dict[str, Any]], dict[str, Place]]:
    """The attributes and places of a file of this size. Raises ValueError if they cannot be
    those."""
    match contents:
        case {"attributes": dict(attributes), "datasets": dict(datasets)}:
            pass
        case _:
            raise ValueError("what its seal says is incomplete")
    if not all(isinstance(values, dict) for values in attributes.values()):
        raise ValueError("its attributes are damaged")
    places = {}
    for name, of in datasets.items():
        match of:
            case [int(offset), str(dtype), int(), *_] if dtype in TYPES and all(
                isinstance(count, int) and count > 0 for count in of[2:]
            ):
                places[name] = Place(offset, tuple(of[2:]), dtype)
            case _:
                raise ValueError(f"{name} is of another form than a cache's")
    at = 1
    for name, place in sorted(places.items(), key=lambda item: item[1].offset):
        if place.offset < at or place.stop > size:
            raise ValueError(f"{name} lies outside the file or over other values")
        at = place.stop
    return attributes, places


# By the HDF5 library.


@contextmanager
def _drafted(
    attributes: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, tuple[Any, str]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """An open file without values, of which only metadata take memory, and what is where in it."""
    import h5py

    memory = DRAFTS if os.access(DRAFTS, os.W_OK) else None
    draft, name = tempfile.mkstemp(prefix="spacelite-", dir=memory)
    try:
        try:
            # Not locked: no other process knows this file.
            with h5py.File(
                name, "w", locking=False, alignment_threshold=PAGE, alignment_interval=PAGE
            ) as file:
                file.attrs.update(attributes[""])
                for path, (shape, dtype) in shapes.items():
                    group = path.rpartition("/")[0]
                    if group not in file:
                        file.create_group(group).attrs.update(attributes.get(group, {}))
                    _create_contiguous(file, path, shape, dtype)
                    file[path].attrs.update(attributes.get(path, {}))
            contents = contents_of(Path(name))
        finally:
            Path(name).unlink()  # what is open stays
        yield draft, contents
    finally:
        os.close(draft)


def _create_contiguous(file: Any, name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Create a dataset that has its place in the file, and no values."""
    import h5py

    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # Without creation times, the same embedding is the same file, byte for byte.
    creation.set_obj_track_times(False)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), creation)


def contents_of(path: Path) -> dict[str, Any]:
    """What is where in an HDF5 file. Damaged ones can take the process: call it only for files that
    were laid out a moment ago, or in a process of their own."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        objects: dict[str, Any] = {"": file}
        for name, member in _members(file):
            objects[name] = member
            if isinstance(member, h5py.Group):
                objects |= {f"{name}/{inner}": value for inner, value in _members(member)}
        return {
            "attributes": {
                path: {name: _plain(value) for name, value in item.attrs.items()}
                for path, item in objects.items()
                if len(item.attrs)
            },
            "datasets": {
                path: _place(path, item)
                for path, item in objects.items()
                if isinstance(item, h5py.Dataset) or "/" in path
            },
        }


def _members(group: Any) -> Iterator[tuple[str, Any]]:
    import h5py

    if len(group) > MANY or len(group.attrs) > MANY:
        raise ValueError("it is an HDF5 file of another program")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        yield name, group[name]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _place(name: str, dataset: Any) -> list[Any]:
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is not a dataset")
    creation, offset = dataset.id.get_create_plist(), dataset.id.get_offset()
    if (
        creation.get_layout() != h5py.h5d.CONTIGUOUS
        or creation.get_external_count()
        or offset is None
        or dataset.ndim == 0
    ):
        raise ValueError(f"{name} does not lie in one piece")
    return [offset, str(dataset.dtype), *dataset.shape]


# In a process of its own.

Version = tuple[str, int, int, int]
_answers: dict[Version, dict[str, Any]] = {}


def _version(path: Path) -> Version:
    """What stands for the content of a file."""
    state = path.stat()
    return str(path), state.st_ino, state.st_size, state.st_mtime_ns


def _examined(path: Path) -> dict[str, Any]:
    """What is where in a file without a seal. Others of its folder are read in the same process, so
    that this takes long only once. Raises ValueError if it cannot be read."""
    version = _version(path)
    if version not in _answers:
        versions = [version]
        for pattern in ("*.h5", "*.layers.hdf5"):
            for other in path.parent.glob(pattern):
                with suppress(OSError):  # it was removed
                    if other.is_file() and not seal_path(other).exists():
                        versions.append(_version(other))
        unknown = dict.fromkeys(version for version in versions if version not in _answers)
        _ask([*unknown][:AT_ONCE])
    answer = _answers[version]
    if "problem" in answer:
        raise ValueError(answer["problem"])
    return answer


def _ask(versions: Sequence[Version]) -> None:
    """Read the metadata of files in a process of their own, up to the first that it cannot read."""
    # Isolated (-I): else it would import a json.py of the working directory.
    command = [sys.executable, "-Ic", READER, json.dumps(sys.path)]
    command += [path for path, *_ in versions]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except OSError as error:
        raise _not_started(versions[0], error.strerror or str(error)) from error
    with child:
        try:
            while (line := _next_line(child, STARTING)) != READY:  # other packages may print
                if not line:
                    raise _not_started(versions[0], "it ended before it read one; try again")
            for version in versions:
                try:
                    _answers[version] = json.loads(_next_line(child, SECONDS))
                except ValueError:
                    # Whatever it died of: the library crashed, or went on for ever.
                    problem = "its metadata cannot be read"
                    _answers[version] = {"problem": problem}
                    break
        finally:
            child.kill()


def _not_started(version: Version, reason: str) -> SpaceliteError:
    return SpaceliteError(
        f"{version[0]} is of an older version, and the process that reads such files cannot be "
        f"started: {reason}"
    )


def _next_line(child: subprocess.Popen[bytes], seconds: float) -> bytes:
    """What a process says next; nothing if it ends, or takes longer and is killed for that."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    timer = Timer(seconds, child.kill)
    timer.start()
    try:
        return child.stdout.readline(LONGEST)
    finally:
        timer.cancel()


def _answer(paths: Sequence[str]) -> None:
    """Say that the process is ready, then what is where in each of these files, a line each."""
    import h5py  # noqa: F401 - takes long, and is no file's fault

    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.stdout.write(READY.decode())
    sys.stdout.flush()
    for path in paths:
        answer: Mapping[str, Any]
        try:
            answer = contents_of(Path(path))
        except OSError:
            answer = {"problem": "it is not an HDF5 file, or incomplete"}
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            answer = {"problem": one_line(error, 80)}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
