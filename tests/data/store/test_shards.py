"""Shard sets: what was written is what is served, or a ShardError; never a crash, never other data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.data import ShardError, ShardSet, make, write_shards
from tests.data import shard_sets

LAWS = settings(derandomize=True, database=None, deadline=None, max_examples=40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(tmp_path / "set", shard_sets.clients([4, 0, 7, 1, 12]), files=2)
    return tmp_path / "set"


@LAWS
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    shape=st.sampled_from([(), (1,), (3,), (1, 4, 4)]),
    dtype=st.sampled_from(["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]),
    data=st.data(),
)
def test_what_is_written_is_read(sizes: list[int], shape: tuple[int, ...], dtype: str, data: st.DataObject) -> None:
    given_ = shard_sets.clients(sizes, shape, dtype)
    files = data.draw(st.integers(1, len(sizes)))
    with shard_sets.scratch() as folder:  # what is mapped outlives its name
        shards = write_shards(folder, given_, classes=list("abcd"), holdout=0, files=files)
        shards.sizes(np.arange(len(sizes))), shards.test()
    for client, (name, (x, y)) in enumerate(given_.items()):
        got = shards.train(client)
        np.testing.assert_array_equal(got[0].numpy(), x, strict=True)
        np.testing.assert_array_equal(got[1].numpy(), y, strict=True)
        assert shards.id(client) == name
        assert shards.find(name) == client
    assert shards.clients == len(sizes)
    assert shards.examples == sum(sizes)
    assert shards.largest == max(sizes)
    assert shards.shape == shape
    assert shards.target_shape == ()
    assert shards.dtype == dtype
    everyone = np.arange(len(sizes))
    assert shards.sizes(everyone).tolist() == sizes
    assert shards.sizes(everyone[::-1]).tolist() == sizes[::-1]
    assert not shards.heldout_sizes(everyone).any()


@LAWS
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), holdout=st.sampled_from([None, 0.0, 0.5]))
def test_train_and_held_out_are_the_data(sizes: list[int], holdout: float | None) -> None:
    given_ = shard_sets.clients(sizes, dtype="float64")
    with shard_sets.scratch() as folder:  # what is mapped outlives its name
        shards = write_shards(folder, given_, classes=list("abcd"), holdout=holdout)
        shards.sizes(np.arange(len(sizes))), shards.test()
    central = []
    for client, (x, y) in enumerate(given_.values()):
        (x_train, y_train), (x_aside, y_aside) = shards.train(client), shards.heldout(client)
        rows = torch.cat([torch.cat([x_train, x_aside]), torch.cat([y_train, y_aside])[:, None]], dim=1)
        assert sorted(rows.tolist()) == sorted(np.column_stack([x, y]).tolist())
        assert len(y_aside) == shards.heldout_sizes(np.array([client]))[0]
        central.append(x_aside)
    assert torch.equal(shards.test()[0], torch.cat(central))  # no split of its own: all that clients keep aside
    assert shards.heldout_examples == shards.test_examples == len(shards.test()[1])


@pytest.mark.parametrize("storage", [{"chunks": True}, {"compression": "gzip"}, {"chunks": True, "shuffle": True}])
def test_read_and_mapped_columns_are_the_same(folder: Path, storage: dict[str, Any]) -> None:
    mapped = shard_sets.everything(ShardSet.open(folder))
    digest = ShardSet.open(folder).digest
    for path in folder.glob("*.h5"):
        shard_sets.rewrite(path, **storage)
    shards = ShardSet.open(folder)
    for one, other in zip(mapped, shard_sets.everything(shards), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert shards.id(4) == "e4"
    assert shards.find("e4") == 4
    assert shards.digest == digest
    assert shards.pooled().train(0)[0].shape == (shards.examples, 3)


def test_ids_may_be_of_variable_length(folder: Path) -> None:
    path = folder / "test.h5"
    with h5py.File(path, "r+") as file:
        ids = [name.decode() for name in file["client_ids"][()]]
        del file["client_ids"]
        file.create_dataset("client_ids", data=ids, dtype=h5py.string_dtype())
    shard_sets.resize(path)
    assert len(ShardSet.open(folder).heldout(4)[1]) == 2


SIZES = (4, 0, 7)
FILES = st.sampled_from([name for name in shard_sets.written(SIZES, 2) if name.endswith(".h5")])


@settings(LAWS, max_examples=200)
@given(name=FILES, place=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found_or_harmless(name: str, place: int, bit: int) -> None:
    with shard_sets.scratch() as folder:
        shard_sets.lay(folder, shard_sets.written(SIZES, 2))
        good = shard_sets.everything(ShardSet.open(folder))
        content = bytearray((folder / name).read_bytes())
        content[place % len(content)] ^= 1 << bit
        (folder / name).write_bytes(content)
        try:
            served = shard_sets.everything(ShardSet.open(folder))
        except ShardError:
            return
        for one, other in zip(good, served, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


@LAWS
@given(split=st.sampled_from(["train", "heldout"]), column=st.sampled_from("xy"), data=st.data())
def test_a_flipped_byte_of_a_client_is_always_found(split: str, column: str, data: st.DataObject) -> None:
    with shard_sets.scratch() as folder:
        shard_sets.lay(folder, shard_sets.written((4, 5)))
        path = folder / ("test.h5" if split == "heldout" else "train-00000-of-00001.h5")
        with h5py.File(path, "r") as file:
            start, size = file[column].id.get_offset(), file[column].nbytes
            first = int(file["offsets"][1]) * size // len(file[column])  # the second client's first byte
        content = bytearray(path.read_bytes())
        content[start + data.draw(st.integers(first, size - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        damaged = ShardSet.open(folder)
        getattr(damaged, split)(0)
        with pytest.raises(ShardError, match=f"{path.name}: the examples of client 'b1' .* are damaged"):
            getattr(damaged, split)(1)
        if split == "heldout":
            with pytest.raises(ShardError, match="test examples are damaged"):
                damaged.test()


@settings(LAWS, max_examples=100)
@given(name=FILES, share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_at_once(name: str, share: float) -> None:
    with shard_sets.scratch() as folder:
        content = dict(shard_sets.written(SIZES, 2))
        content[name] = content[name][: int(share * len(content[name]))]
        shard_sets.lay(folder, content)
        with pytest.raises(ShardError, match=f"{name}: is cut short"):
            ShardSet.open(folder)


@settings(LAWS, max_examples=100)
@given(share=st.floats(0, 1, exclude_max=True), along=st.booleans())
def test_a_file_truncated_later_is_no_bus_error(share: float, along: bool) -> None:
    """Cut after the set was opened, or cut along with its manifest."""
    with shard_sets.scratch() as folder:
        shard_sets.lay(folder, shard_sets.written((4, 5)))
        shards, path = ShardSet.open(folder), folder / "train-00000-of-00001.h5"
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        if along:
            shard_sets.resize(path)
            shards = ShardSet.open(folder)
        with pytest.raises(ShardError, match=path.name):
            shards.train(0)


def test_tensors_are_views_of_one_mapping(folder: Path) -> None:
    shards = ShardSet.open(folder)
    assert shards.train(2)[0].data_ptr() == shards.train(2)[0].data_ptr()
    assert shards.train(2)[0].data_ptr() - shards.train(0)[0].data_ptr() == len(shards.train(0)[0]) * 3


def test_writing_to_what_is_served_leaves_the_file(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    shards = ShardSet.open(folder)
    shards.train(2)[0].fill_(0)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_split_of_its_own_is_the_central_score(tmp_path: Path) -> None:
    split = np.full((6, 3), 255, np.uint8), np.arange(6) % 4
    shards = write_shards(tmp_path / "none", shard_sets.clients([10, 10]), test=split)
    np.testing.assert_array_equal(shards.test()[0].numpy(), split[0])
    np.testing.assert_array_equal(shards.test()[1].numpy(), split[1])
    assert (shards.examples, shards.heldout_examples, shards.test_examples) == (20, 0, 6)
    shards = write_shards(tmp_path / "some", shard_sets.clients([10, 10]), test=split, holdout=0.3)
    np.testing.assert_array_equal(shards.test()[0].numpy(), split[0])
    assert shards.heldout_sizes(np.arange(2)).tolist() == [3, 3]
    assert (shards.examples, shards.heldout_examples, shards.test_examples) == (14, 6, 6)


def test_no_held_out_examples_at_all(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, shard_sets.clients([3, 3]), holdout=0)
    assert shards.test_examples == 0
    assert [tuple(tensor.shape) for tensor in (*shards.test(), *shards.heldout(1))] == [(0, 3), (0,), (0, 3), (0,)]


@pytest.mark.parametrize("files", [1, 3])
def test_pooled_is_one_client_with_everybodys_data(tmp_path: Path, files: int) -> None:
    shards = write_shards(tmp_path, shard_sets.clients([4, 0, 7, 9]), files=files)
    pooled = shards.pooled()
    for split in ("train", "heldout"):
        for place in range(2):
            parts = [getattr(shards, split)(client)[place] for client in range(4)]
            assert torch.equal(getattr(pooled, split)(0)[place], torch.cat(parts))
    assert (pooled.clients, pooled.examples, pooled.largest) == (1, shards.examples, shards.examples)
    assert pooled.sizes(np.array([0])).tolist() == [shards.examples]
    assert pooled.heldout_sizes(np.array([0])).tolist() == [shards.heldout_examples]
    assert torch.equal(pooled.test()[0], shards.test()[0])
    assert (pooled.id(0), pooled.find("pooled"), pooled.digest) == ("pooled", 0, shards.digest)
    assert pooled.pooled().clients == 1
    assert pooled.summary()["labels"]["pooled"] == {
        str(label): int((pooled.train(0)[1] == label).sum()) for label in range(4)
    }


def test_pooled_finds_damage(folder: Path) -> None:
    path = folder / "train-00001-of-00002.h5"
    with h5py.File(path, "r+") as file:
        file["x"][-1] ^= 1
    with pytest.raises(ShardError, match="damaged"):
        ShardSet.open(folder).pooled().train(0)


def test_the_digest_tells_data_apart(tmp_path: Path) -> None:
    one = write_shards(tmp_path / "one", shard_sets.clients([4, 5]))
    same = write_shards(tmp_path / "same", shard_sets.clients([4, 5]))
    other = shard_sets.clients([4, 5])
    other["a0"][0][0, 0] ^= 1
    assert one.digest == same.digest
    assert one.digest != write_shards(tmp_path / "other", other).digest
    renamed = {name.upper(): arrays for name, arrays in shard_sets.clients([4, 5]).items()}
    assert one.digest != write_shards(tmp_path / "renamed", renamed).digest


def test_an_unknown_id_is_refused_with_near_ones(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, zip(["north", "east", "south"], shard_sets.clients([3] * 3).values(), strict=True))
    with pytest.raises(ShardError, match=r"no client 'soth'; there are 3, such as south, north"):
        shards.find("soth")
    with pytest.raises(ShardError, match=r"such as north to south"):
        shards.find("client-17")


def test_ids_may_be_any_text(tmp_path: Path) -> None:
    names = ["Zürich", "京都", "a b/c", "x" * 300]
    shards = write_shards(tmp_path, zip(names, shard_sets.clients([3] * 4).values(), strict=True))
    assert [shards.id(client) for client in range(4)] == names
    assert [shards.find(name) for name in names] == [0, 1, 2, 3]


@pytest.mark.parametrize("client", [-1, 5])
def test_a_client_out_of_range_is_an_error(folder: Path, client: int) -> None:
    with pytest.raises(IndexError):
        ShardSet.open(folder).train(client)


def test_the_summary_counts(folder: Path) -> None:
    shards = ShardSet.open(folder)
    summary = shards.summary()
    sizes = [len(shards.train(client)[1]) for client in range(5)]
    assert summary["clients"] == 5
    assert (summary["smallest"], summary["median"], summary["largest"]) == (min(sizes), np.median(sizes), max(sizes))
    assert summary["examples"] == sum(sizes)
    assert {name: sum(counts.values()) for name, counts in summary["labels"].items()} == dict(
        zip(["a0", "b1", "c2", "d3", "e4"], sizes, strict=True)
    )
    assert summary["bytes"] == sum(path.stat().st_size for path in folder.glob("*.h5"))


@LAWS
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    files=st.integers(1, 3),
    own=st.integers(0, 3),
    known=st.booleans(),
)
def test_the_range_of_labels_is_that_of_all_targets(sizes: list[int], files: int, own: int, known: bool) -> None:
    """Of held-out examples and a test split too; read from the files where the manifest does not know it."""
    split = None if not own else (np.zeros((own, 3), np.uint8), np.arange(own) % 4)
    with shard_sets.scratch() as folder:
        shards = write_shards(
            folder,
            shard_sets.clients(sizes),
            test=split,
            holdout=0.3,
            files=min(files, len(sizes)),
            classes=["a", "b", "c", "d"],
        )
        if not known:
            shard_sets.change(folder, labels=None)
            shards = ShardSet.open(folder)
        served = [shards.train(client)[1] for client in range(len(sizes))]
        served += [shards.heldout(client)[1] for client in range(len(sizes))]
        every = torch.cat([*served, shards.test()[1]])
        assert shards.labels() == ((int(every.min()), int(every.max())) if len(every) else None)
        assert shards.pooled().labels() == shards.labels()


def test_numbers_have_no_range_of_labels(tmp_path: Path) -> None:
    assert make("linear", tmp_path / "set", clients=2).labels() is None


SERVE = """
import sys, time
import numpy as np
from fedmpi.data import ShardSet

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

few, many = sys.argv[1:]
def serve(folder):
    began = time.perf_counter()
    shards = ShardSet.open(folder)
    drawn = np.linspace(0, shards.clients - 1, 100).astype(int)
    assert shards.sizes(drawn).all()
    for client in drawn:
        shards.train(int(client)), shards.heldout(int(client))
    return time.perf_counter() - began, shards

serve(few)  # what any set costs: libraries, allocators
before = anonymous()
seconds, shards = serve(many)
print(seconds, anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_thousand_clients_cost_no_memory(tmp_path: Path) -> None:
    """Offsets alone are 1.6 MB here, mapped: served from the page cache, they must not become this process's own."""
    for name, clients in (("few", 1000), ("many", 100_000)):
        make("linear", tmp_path / name, clients=clients, source_options={"examples": clients * 10}, files=4)
    told = subprocess.run(
        [sys.executable, "-c", SERVE, tmp_path / "few", tmp_path / "many"], capture_output=True, text=True, check=True
    )
    seconds, kilobytes = told.stdout.split()
    assert float(seconds) < 1
    assert int(kilobytes) < 1000
