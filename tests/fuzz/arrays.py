"""NumPy archives and idx files that are damaged, lie in their heads, or hold what is no plain array."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedmpi.data import make as make_shards
from fedmpi.data.importers.archive import npz
from fedmpi.data.importers.idx import idx
from tests.fuzz.judge import Case, Wrong
from tests.fuzz.shards import flip

Archive = dict[str, Any]


def meaning(name: str) -> float:
    return float({"True": 1, "False": 0}.get(name, name))


HEAD = "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 3), }"


def make(rng: random.Random, folder: Path) -> Case:
    return _npz(rng, folder) if rng.random() < 0.6 else _idx(rng, folder)


def _whole(rng: random.Random) -> Archive:
    random_ = np.random.default_rng(rng.randrange(1000))
    arrays = {"x": random_.normal(size=(6, 3)).astype(np.float32), "y": np.array([0, 1, 2, 0, 1, 2])}
    if rng.random() < 0.5:
        arrays |= {"x_test": random_.normal(size=(2, 3)).astype(np.float32), "y_test": np.array([2, 1])}
    if rng.random() < 0.3:
        arrays["client"] = np.array(["a", "b", "a", "b", "a", "b"])
    return arrays


def _npz(rng: random.Random, folder: Path) -> Case:
    """An archive with one thing wrong; what is accepted holds the numbers that were written."""
    arrays, path = _whole(rng), folder / "set.npz"
    way = rng.choice([_damaged, _damaged, _members, _members, _heads, _heads, _odd])
    told, refuse, truth = way(rng, path, arrays)

    def run() -> None:
        columns = npz(path)
        if truth is None:
            make_shards("npz", folder / "set", clients=1, source_options={"source": path})
            return
        parts = [
            ("x", columns.x),
            ("client", columns.groups),
            ("x_test", None if columns.test is None else columns.test[0]),
        ]
        for name, found in parts:
            _same(name, found, truth.get(name))
        for name, found in (("y", columns.y), ("y_test", None if columns.test is None else columns.test[1])):
            if truth.get(name) is not None and columns.classes:
                found = np.array([meaning(columns.classes[int(label)]) for label in found])
            _same(name, found, truth.get(name))

    return Case(f"npz: {told}", run, refuse)


def _same(name: str, found: Any, meant: Any) -> None:
    if (found is None) != (meant is None):
        raise Wrong(f"{name} is {'not ' * (found is None)}there")
    if found is None:
        return
    found, meant = np.asarray(found), np.asarray(meant)
    if len(found) != len(meant) or found.size != meant.size:  # an image gains its channel, (N, 1) loses its column
        raise Wrong(f"{name} is {found.shape}, it should be {meant.shape}")
    found = found.reshape(meant.shape)
    alike = (
        found.astype(str) == meant.astype(str)
        if meant.dtype.kind in "SU"
        else found.astype(float) == meant.astype(float)
    )
    if not np.all(alike.ravel()):
        raise Wrong(f"{name} holds other values")


Way = tuple[str, bool, Archive | None]  # what was done, whether it must be refused, what it holds where that is known


def _damaged(rng: random.Random, path: Path, arrays: Archive) -> Way:
    (np.savez_compressed if rng.random() < 0.5 else np.savez)(path, **arrays)
    data = path.read_bytes()
    at = rng.randrange(len(data))
    way = rng.choice(["flipped", "flipped", "cut", "hole", "longer"])
    if way == "flipped":
        return flip(rng, path, rng.choice([1, 1, 3])), False, arrays
    hole = data[:at] + bytes(len(data[at : at + 40])) + data[at + 40 :]
    path.write_bytes({"cut": data[:at], "hole": hole, "longer": data + rng.randbytes(30)}[way])
    return f"{way} at {at}", way == "cut", arrays


def _members(rng: random.Random, path: Path, arrays: Archive) -> Way:
    """Whole arrays of a kind, a shape or a name that may not fit."""
    name = rng.choice(["x", "y"])
    array = arrays[name]
    good: dict[str, Callable[[], Any]] = {
        "float64": lambda: array.astype(np.float64),
        "float16": lambda: np.float16(array),
        "of the other byte order": lambda: array.astype(array.dtype.newbyteorder(">")),
        "in Fortran's order": lambda: np.asfortranarray(array),
        "uint8": lambda: np.abs(array).astype(np.uint8),
        "int16": lambda: array.astype(np.int16),
        "Booleans": lambda: array > 0,
    }
    bad: dict[str, Callable[[], Any]] = {
        "complex": lambda: array.astype(np.complex64),
        "objects": lambda: array.astype(object),
        "dates": lambda: array.astype(np.int64).astype("datetime64[D]"),
        "records": lambda: np.zeros(6, dtype=[("a", "f4"), ("b", "i4")]),
        "a number": lambda: np.array(3.0),
        "shorter": lambda: array[:-1],
        "empty": lambda: array[:0],
        "void": lambda: np.zeros(6, dtype="V8"),
    }
    unknown: dict[str, Callable[[], Any]] = {
        "NaN": lambda: np.full(array.shape, np.nan, np.float32),
        "text": lambda: array.astype("U8"),
        "bytes": lambda: array.astype("S8"),
        "one column more": lambda: np.stack([array, array], axis=-1),
        "without columns": lambda: np.zeros((6, 0), np.float32),
        "longdouble": lambda: array.astype(np.longdouble),
        "uint64": lambda: np.abs(array).astype(np.uint64) + np.uint64(2**63),
    }
    kind = rng.choice([good, bad, unknown])
    told = rng.choice(list(kind))
    others = arrays | {name: kind[told]()}
    np.savez(path, **others)
    return f"{name} is {told}", kind is bad, others if kind is good else None


def _heads(rng: random.Random, path: Path, arrays: Archive) -> Way:
    """A member whose head says something else than what is there."""
    heads = [
        HEAD.replace("(6, 3)", "(6, 4)"), HEAD.replace("(6, 3)", "(5, 3)"), HEAD.replace("(6, 3)", "(-6, -3)"),
        HEAD.replace("(6, 3)", f"({10**18}, 3)"), HEAD.replace("(6, 3)", "(6.0, 3)"), HEAD.replace("(6, 3)", "6"),
        HEAD.replace("(6, 3)", "(6, 3, 0)"), HEAD.replace("(6, 3)", "(True, 18)"),
        HEAD.replace("(6, 3)", f"({2**64}, 0)"),
        HEAD.replace("'<f4'", "'<f8'"), HEAD.replace("'<f4'", "'|O'"), HEAD.replace("'<f4'", "'zzz'"),
        HEAD.replace("'<f4'", "3"),
        HEAD.replace("'<f4'", "[('a', '<f4')]"), HEAD.replace("'<f4'", "'<U1'"), HEAD.replace("'<f4'", "'|V4'"),
        HEAD.replace("False", "'no'"), HEAD.replace("'shape'", "'form'"), HEAD.replace("}", ""),
        "{" * 300, "(" * 5000, "", "\0" * 50,
        "3", "[]", "__import__('os').getcwd()", HEAD + "\u00e9", "1_", "0777", "'", "b'x",
    ]  # fmt: skip
    head = rng.choice(heads)
    version = rng.choice([(1, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 0)])
    told = head.encode("utf-8") + b" " * (63 - len(head) % 64) + b"\n"
    size = struct.pack("<H" if version[0] == 1 else "<I", len(told) + rng.choice([0, 0, 0, 1, 5000]))
    member = (
        rng.choice([b"\x93NUMPY", b"\x93NUMPY", b"\x93NUMPX"]) + bytes(version) + size + told + arrays["x"].tobytes()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", member if name == "x" else _npy(array))
    return f"the head {head[:60]!r}, version {version}", True, None


def _odd(rng: random.Random, path: Path, arrays: Archive) -> Way:
    """A file that is no archive of arrays at all, or one with members of its own."""
    plain = {f"{name}.npy": _npy(array) for name, array in arrays.items()}

    def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return out.getvalue()

    method = bytearray(zipped(plain))
    for place in _finds(method, b"PK\x01\x02", 10) + _finds(method, b"PK\x03\x04", 8):
        method[place : place + 2] = struct.pack("<H", rng.choice([1, 6, 12, 14, 99, 7777]))
    locked = bytearray(zipped(plain))
    for place in _finds(locked, b"PK\x01\x02", 8) + _finds(locked, b"PK\x03\x04", 6):
        locked[place] |= 1
    ways: dict[str, tuple[bytes, bool]] = {
        "one array, not an archive": (_npy(arrays["x"]), True),
        "a pickle": (b"\x80\x04K\x03.", True),
        "text": (b"hello\n", True),
        "nothing": (b"", True),
        "an empty archive": (zipped({}), True),
        "noise": (rng.randbytes(300), True),
        "a method of its own": (bytes(method), False),
        "locked": (bytes(locked), True),
        "LZMA": (zipped(plain, zipfile.ZIP_LZMA), False),
        "bzip2": (zipped(plain, zipfile.ZIP_BZIP2), False),
        "a text beside the arrays": (zipped(plain | {"readme.txt": b"hello"}), False),
        "a folder beside the arrays": (zipped(plain | {"more/": b""}), False),
        "x of nothing": (zipped(plain | {"x.npy": b""}), True),
        "x that is text": (zipped(plain | {"x.npy": b"hello, this is text"}), True),
        "other names": (zipped({f"{name}s.npy": _npy(array) for name, array in arrays.items()}), True),
        "half a test split": (zipped(plain | {"x_test.npy": _npy(arrays["x"])}), "y_test" not in arrays),
        "an archive in it": (zipped({"x.npy": zipped(plain)}), True),
    }
    told = rng.choice(list(ways))
    path.write_bytes(ways[told][0])
    truth = arrays if told in ("LZMA", "bzip2") else None
    if rng.random() < 0.1:
        path.unlink()
        {"folder": path.mkdir, "none": lambda: None}[rng.choice(["folder", "none"])]()
        return "no file", True, None
    return told, ways[told][1], truth


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _finds(data: bytearray, mark: bytes, beyond: int) -> list[int]:
    places, at = [], data.find(mark)
    while at >= 0:
        places.append(at + beyond)
        at = data.find(mark, at + 1)
    return places


def _idx(rng: random.Random, folder: Path) -> Case:
    """A folder of idx files, one of which is broken; what is accepted is what a reader of forty bytes makes of it."""
    random_ = np.random.default_rng(rng.randrange(1000))
    files = {"train-images-idx3-ubyte": random_.integers(0, 256, (6, 3, 4), dtype=np.uint8)}
    files["train-labels-idx1-ubyte"] = random_.integers(0, 3, 6, dtype=np.uint8)
    if rng.random() < 0.5:
        files["t10k-images-idx3-ubyte"] = random_.integers(0, 256, (2, 3, 4), dtype=np.uint8)
        files["t10k-labels-idx1-ubyte"] = random_.integers(0, 3, 2, dtype=np.uint8)
    packed = rng.random() < 0.5
    for name, array in files.items():
        data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        (folder / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(data) if packed else data)
    path = rng.choice(sorted(folder.iterdir()))
    data = path.read_bytes()
    head = 4 + 4 * data[3] if not packed else len(data)
    at = rng.randrange(min(head, len(data)))
    ways: dict[str, Callable[[], Any]] = {
        "a byte of its head changed": lambda: path.write_bytes(
            data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        ),
        "cut": lambda: path.write_bytes(data[: rng.randrange(len(data))]),
        "longer": lambda: path.write_bytes(data + rng.choice([b"\0", rng.randbytes(9), data])),
        "empty": lambda: path.write_bytes(b""),
        "noise": lambda: path.write_bytes(rng.randbytes(100)),
        "sizes that overflow": lambda: path.write_bytes(b"\0\0\x08\x04" + b"\xff" * 16 + data),
        "no dimensions": lambda: path.write_bytes(b"\0\0\x08\0" + b"a"),
        "255 dimensions": lambda: path.write_bytes(b"\0\0\x08\xff" + struct.pack(">255I", *[1] * 255) + b"a"),
        "floats": lambda: path.write_bytes(b"\0\0\x0d\1" + struct.pack(">I6f", 6, *[float("nan")] * 6)),
        "gone": path.unlink,
        "the other kind": lambda: path.write_bytes(gzip.compress(data) if not packed else gzip.decompress(data)),
        "twice packed": lambda: path.write_bytes(gzip.compress(data)),
        "a copy of another": lambda: path.write_bytes(rng.choice(sorted(folder.iterdir())).read_bytes()),
    }
    told = rng.choice(list(ways))
    ways[told]()

    def run() -> None:
        columns = idx(folder)
        if not columns.classes:
            make_shards("idx", folder / "set", clients=1, source_options={"source": folder})
            return
        for name, found, labels in (("train", columns.x, columns.y), ("t10k", *(columns.test or (None, None)))):
            images = _plain(folder, f"{name}-images-idx3-ubyte")
            _same(f"{name} images", found, None if images is None else images)
            if images is not None:
                meant = _plain(folder, f"{name}-labels-idx1-ubyte")
                _same(f"{name} labels", [float(columns.classes[int(label)]) for label in labels], meant)

    return Case(f"idx: {path.name}: {told}", run)


def _plain(folder: Path, name: str) -> Any:
    """What an idx file holds, read by its definition."""
    path = next((folder / each for each in (name, f"{name}.gz") if (folder / each).exists()), None)
    if path is None:
        return None
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    kind = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}[data[2]]
    return np.frombuffer(data[4 + 4 * data[3] :], kind).reshape(shape)
