"""What ranks say to each other; with one rank every call is a copy, and no group is needed."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import CollectiveError
from .phases import phase

LOSS = re.compile(r"gloo/|NCCL|Connection (reset|closed) by peer")
"""What the messages of a backend that lost a peer hold."""

_LAST: collections.deque[dist.Work] = collections.deque(maxlen=4)
"""The last collectives of gloo, two for each of its two threads; see `finish`."""


def shard_counts(total: int, world_size: int) -> list[int]:
    """Return how many of `total` consecutive rows each rank holds; the first ranks hold one more.

    >>> shard_counts(7, 3)
    [3, 2, 2]
    """
    base, more = divmod(total, world_size)
    return [base + (rank < more) for rank in range(world_size)]


def shard_slice(total: int, rank: int, world_size: int) -> slice:
    """Return the rows of a rank; the concatenation over ranks is the whole, in order."""
    counts = shard_counts(total, world_size)
    start = sum(counts[:rank])
    return slice(start, start + counts[rank])


class Collectives:
    """The ranks of one job.

    Attributes
    ----------
    rank, world_size : this process and how many there are
    device : where tensors of this rank live
    gathered_bytes, reduced_bytes : what this rank has received of other ranks' rows, and the size
        of what it has added up with them, so far
    """

    def __init__(self, rank: int = 0, world_size: int = 1, device: torch.device | None = None):
        self.rank = rank
        self.world_size = world_size
        self.device = device or torch.device("cpu")
        self.gathered_bytes = self.reduced_bytes = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, total: int) -> slice:
        return shard_slice(total, self.rank, self.world_size)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over ranks, without gradient; the argument is not changed."""
        total = tensor.detach().clone()
        if self.world_size > 1:
            self._call(dist.all_reduce, total)
            self.reduced_bytes += total.nbytes
        return total

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        if self.world_size > 1:
            self._call(dist.all_reduce, total, dist.ReduceOp.MAX)
        return total

    def gather_rows(self, rows: Tensor, total: int) -> Tensor:
        """Return the rows of all ranks in rank order, without gradient.

        Parameters
        ----------
        rows : (n_local, ...) this rank's shard of `total` rows, as shard_counts divides them
        """
        rows = rows.detach()
        if self.world_size == 1:
            return rows
        counts = shard_counts(total, self.world_size)
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        self._call(dist.all_gather, parts, padded)
        self.gathered_bytes += padded.nbytes * (self.world_size - 1)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def gather_numpy(self, rows: np.ndarray, total: int) -> np.ndarray:
        return self.gather_rows(torch.from_numpy(rows).to(self.device), total).cpu().numpy()

    def broadcast_text(self, text: str | None) -> str:
        """Return the text of the main rank on every rank; the others give None."""
        own = (text or "").encode() if self.is_main else b""
        size = int(self.all_reduce_sum(torch.tensor([len(own)], device=self.device)))
        letters = torch.zeros(size, dtype=torch.uint8)
        letters[: len(own)] = torch.tensor(list(own), dtype=torch.uint8)
        return bytes(self.all_reduce_sum(letters.to(self.device)).tolist()).decode()

    def barrier(self) -> None:
        if self.world_size > 1:
            self._call(dist.all_reduce, torch.zeros(1, device=self.device))

    def _call(self, operation, *args) -> None:
        try:
            with phase("gather"):
                finish(operation, *args)
        except RuntimeError as err:
            raise collective_error(self.rank, err) from err


def finish(operation: Callable[..., dist.Work], *args: object) -> None:
    """Do a collective on tensors of any device, and return when it is done.

    A thread of gloo lets go of the tensors some time after that. Were it the last to hold them, it
    would need the interpreter, and would abort a process that is just ending. So they stay here
    until others have come.
    """
    work = operation(*args, async_op=True)
    work.wait()
    _LAST.append(work)


def tells_of_loss(err: Exception, collectives: Collectives) -> bool:
    """Whether what torch raised, in DDP's backward pass say, is that another rank is gone."""
    is_torchs = isinstance(err, RuntimeError) and collectives.world_size > 1
    return is_torchs and bool(isinstance(err, dist.DistError) or LOSS.search(str(err)))


def collective_error(rank: int, err: Exception) -> CollectiveError:
    """Return the sentence on a collective that failed."""
    return CollectiveError(
        f"Rank {rank} lost the other ranks ({str(err).splitlines()[0]}). Common causes: another "
        "rank failed (see its log above), a node went away, or the network interface differs "
        "between nodes (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME)."
    )
