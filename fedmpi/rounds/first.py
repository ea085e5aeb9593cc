"""The first model of a run: home's, laid whole on every rank and written once, since not all of it travels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fedmpi.flat import FlatModel
from fedmpi.flow import Comm, Refused
from fedmpi.job import JobError
from fedmpi.records.checkpoint import read_tensors, write_tensors
from fedmpi.records.folder import RunFolder

SMALL = 2**20  # bytes: smaller tensors travel together, a larger one by itself, in place


def alike(comm: Comm, flat: FlatModel) -> None:
    """Lay home's parameters and buffers on every rank, whether they travel later or not.  Collective.

    A script's own module may be drawn anew on each rank, and frozen parts are never sent again.  Names, shapes and
    types are compared first: JobError on every rank, printed by one, where a rank has built another model than home.
    """
    if comm.size == 1:
        return
    mine = _described(flat)
    theirs = _shared_text(comm, mine)
    comm.settle(None if mine == theirs else _other(comm.me, mine, theirs))
    values = flat.values.cpu()
    comm.broadcast(values)
    rest = {name: tensor for name, tensor in flat.tensors().items() if name not in flat.slices}
    pieces: dict[str, Tensor] = {}
    with torch.no_grad():
        flat.values.copy_(values)
        for names in _together(rest):
            piece = torch.cat([_bytes(rest[name]) for name in names])
            comm.broadcast(piece)
            sizes = [rest[name].numel() * rest[name].itemsize for name in names]
            pieces |= dict(zip(names, torch.split(piece, sizes), strict=True))
            for name in names:
                own = rest[name]
                own.data.copy_(pieces.pop(name).clone().view(own.dtype).view(own.shape))
    flat.note()


def keep(folder: RunFolder, flat: FlatModel) -> None:
    """Write all tensors of the run's first model to `first.safetensors`.  Refused where the disk is full."""
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in flat.tensors().items()}
    write_tensors(folder.first, tensors, {})


def recall(folder: RunFolder, flat: FlatModel) -> bool:
    """Lay the tensors of `first.safetensors` in the model; return False where there is no such file.

    JobError where the model has other tensors than the run's.
    """
    if not folder.first.exists():
        return False
    tensors, _ = read_tensors(folder.first)
    own = flat.tensors()
    before, now = _lines(tensors), _lines(own)
    if before != now:
        raise JobError(f"model: is another than the run in {folder.path} began with: {_difference(now, before, 'it')}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.data.copy_(tensors[name])
    flat.note()
    return True


def digest(flat: FlatModel) -> str:
    """Return 64 bits of SHA-256, in hexadecimal, over the model's tensors: names, types, shapes, values."""
    seen = hashlib.sha256()
    for name, tensor in sorted(flat.tensors().items()):
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        seen.update(_bytes(tensor).numpy().data)
    return seen.hexdigest()[:16]


def check(metadata: Mapping[str, object], now: str, folder: RunFolder) -> None:
    """Refuse to go on with another first model than the checkpoint's; older checkpoints do not hold its digest."""
    if metadata.get("first", now) != now:
        raise Refused(
            f"{folder.first}: is not what this run began with"
            if folder.first.exists()
            else f"{folder.first}: is gone, and the model as it is built now is another than the run began with; put "
            "the file back, or begin anew with --overwrite"
        )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)


def _together(tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Yield the names of tensors for each broadcast: a large one alone, small ones together."""
    group: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        many = tensor.numel() * tensor.itemsize
        if not many:
            continue
        if group and size + many > SMALL:
            yield group
            group, size = [], 0
        group.append(name)
        size += many
    if group:
        yield group


def _lines(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return each tensor's type and shape as text, by name."""
    return {name: f"{str(tensor.dtype)[6:]} {tuple(tensor.shape)}" for name, tensor in tensors.items()}


def _described(flat: FlatModel) -> dict[str, str]:
    """Return each tensor's type and shape, and whether it is trained: the ranks must agree on them."""
    frozen = {name for name, parameter in flat.model.named_parameters() if not parameter.requires_grad}
    lines = _lines(flat.tensors())
    return {name: line + (" frozen" if name in frozen else "") for name, line in lines.items()}


def _shared_text(comm: Comm, lines: Mapping[str, str]) -> dict[str, str]:
    """Return home's lines on every rank.  Collective."""
    joined = "\n".join(f"{name}\t{line}" for name, line in lines.items())
    text = torch.frombuffer(bytearray(joined.encode()), dtype=torch.uint8)
    size = torch.tensor([len(text)])
    comm.broadcast(size)
    if not comm.is_home:
        text = torch.empty(int(size), dtype=torch.uint8)
    comm.broadcast(text)
    return dict(line.split("\t") for line in bytes(text.numpy()).decode().split("\n"))


def _other(me: int, mine: Mapping[str, str], theirs: Mapping[str, str]) -> JobError:
    return JobError(f"model: rank {me} has built another than rank 0: {_difference(mine, theirs, f'rank {me}')}")


def _difference(mine: Mapping[str, str], theirs: Mapping[str, str], who: str) -> str:
    """Return the first difference in words; `who` has `mine`."""
    for name in [*theirs, *mine]:
        if mine.get(name) != theirs.get(name):
            return f"{name!r} is {theirs.get(name, 'not there')}, and {who} has {mine.get(name, 'none')}"
    return "their tensors come in another order"
