"""npz files that are damaged, or made to do harm: refused in one line, or the same arrays."""

import io
import re
import zipfile

import numpy as np
import pytest

from spacelite import npz

ARRAYS = {
    "key": np.array("abc"),
    "train/offsets": np.array([0, 3, 9]),
    "logits": np.arange(12, dtype=np.float32).reshape(3, 4),
    "columns": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "names": np.array(["a", "b\u00e9\U0001f600"]),
    "empty": np.empty((0, 4), np.int32),
}
KNOWN = "|".join(ARRAYS)


def read(source):
    with npz.opened(source, KNOWN) as arrays:
        return {
            name: arrays.read(name, array.dtype.kind, *array.shape)
            for name, array in ARRAYS.items()
        }


def refused(source):
    with pytest.raises(ValueError, match=r".") as caught:
        read(source)
    return str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_are_read_as_they_were_written(tmp_path, compressed):
    npz.write(tmp_path / "a.npz", ARRAYS, compressed=compressed)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.npz"]
    for name, array in read(tmp_path / "a.npz").items():
        assert array.dtype == ARRAYS[name].dtype and array.flags.writeable
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("compressed", [True, False])
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path, compressed):
    npz.write(tmp_path / "a.npz", ARRAYS, compressed=compressed)
    content = (tmp_path / "a.npz").read_bytes()
    accepted = 0
    for at, byte in enumerate(content):
        for bit in {at % 8, (at * 5 + 3) % 8}:
            flipped = content[:at] + bytes([byte ^ 1 << bit]) + content[at + 1 :]
            try:
                arrays = read(flipped)
            except ValueError:
                continue
            accepted += 1  # such as the time of writing
            assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert 0 < accepted < len(content)
    for end in range(0, len(content), 13):
        assert refused(content[:end])


def member(content, name="key.npy", **options):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", **options) as archive:
        for other, array in ARRAYS.items():
            if f"{other}.npy" != name:
                with archive.open(f"{other}.npy", "w") as file:
                    np.save(file, array)
        archive.writestr(name, content)
    return written.getvalue()


def header(text, version=b"\x01\x00"):
    text = text.encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


SHAPE = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n"


@pytest.mark.parametrize(
    "content",
    [
        member(header(SHAPE % ("<i8", "(1000000000000,)"))),
        member(header(SHAPE % ("<U900000000", "(900000000,)"))),
        member(header(SHAPE % ("|O", "()")) + b"cos\nsystem\n."),
        member(header(SHAPE % ("<i8", "(-1,)")) + bytes(8)),
        member(header(SHAPE % ("<i8", "(" * 5000)) + bytes(8)),
        member(header("{'descr': '<i8', 'shape': __import__('os').system('x')}\n")),
        member(header(SHAPE % ("<U3", "()")) + b"\xff" * 12),
        member(header(SHAPE % ("<U3", "()"), b"\x02\x00") + bytes(12)),
        member(header(SHAPE % ("<U3", "()"))[:30]),
        member(b""),
        member(b"x" * 99, compression=zipfile.ZIP_BZIP2),
        member(b"x" * 99, compression=zipfile.ZIP_LZMA),
        member(b"x", "../../x.npy"),
        member(b"x", "key"),
        b"",
        b"PK\x05\x06" + bytes(18),
        b"no zip file",
    ],
)  # fmt: skip
def test_what_numpy_would_not_write_is_refused(content):
    assert not re.search(r"\n|Traceback", refused(content))


def test_an_encrypted_member_and_a_double_one_are_refused():
    content = bytearray(member(b"x" * 50))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.rindex(signature) + place] |= 1
    assert "key.npy is not stored as an array is" in refused(bytes(content))
    double = member(b"x")
    with pytest.warns(UserWarning, match="Duplicate"):
        written = io.BytesIO(double)
        with zipfile.ZipFile(written, "a") as archive:
            archive.writestr("key.npy", b"y")
    assert "it holds an array twice" in refused(written.getvalue())


def test_arrays_of_another_type_or_shape_are_refused(tmp_path):
    npz.write(tmp_path / "a.npz", ARRAYS)
    with npz.opened(tmp_path / "a.npz", KNOWN) as arrays:
        for wanted in (("logits", "i", 3, 4), ("logits", "f", 3), ("logits", "f", None, 5)):
            with pytest.raises(ValueError, match="logits is of another type or shape"):
                arrays.read(*wanted)
        with pytest.raises(ValueError, match="it holds no more"):
            arrays.read("more", "f")
