"""CUDA graphs of a CPU: what is captured is recorded op by op, and replayed into the same memory.

torch's own `make_graphed_callables` runs on it, so that a test sees what a graph would do wrong:
read weights where they lay, write over what was returned, or keep a shape that is not its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    def __init__(self, calls: list):
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, output))
        return output


class RecordedGraph:
    """Stands in for torch.cuda.CUDAGraph; `all` are those that were captured, in order."""

    all: list[RecordedGraph] = []  # noqa: RUF012 - emptied for each test

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.num_replays = 0

    @property
    def operations(self) -> list[str]:
        return [str(func) for func, *_ in self.calls]

    @torch.no_grad()
    def replay(self) -> None:
        self.num_replays += 1
        for func, args, kwargs, output in self.calls:
            now = func(*args, **kwargs)
            for there, new in zip(tree_leaves(output), tree_leaves(now), strict=True):
                # A view, or what is written in place, is there already.
                if isinstance(there, Tensor) and there.data_ptr() != new.data_ptr():
                    there.detach().copy_(new)


@contextlib.contextmanager
def _capture(graph: RecordedGraph, **_: Any) -> Iterator[None]:
    """As torch.cuda.graph: what breaks a capture off breaks its end as well."""
    RecordedGraph.all.append(graph)
    try:
        with _Recorder(graph.calls):
            yield
    except RuntimeError:
        raise RuntimeError("operation failed due to a previous error")  # noqa: B904 - as its exit


class SyncDebugMode:
    """As torch.cuda's: in the mode "error" what waits for the device raises."""

    mode = 0

    def get(self) -> int:
        return self.mode

    def set(self, mode: int | str) -> None:
        self.mode = {"default": 0, "warn": 1, "error": 2}.get(str(mode), 0)


def record_graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Let this process capture graphs on its CPU; return the list of those it captures."""
    sync_debug = SyncDebugMode()
    monkeypatch.setattr("dlfd_dist.models.captured.DEVICES", ("cpu",))
    monkeypatch.setattr("dlfd_dist.models.captured._broken_off", [])
    monkeypatch.setattr(RecordedGraph, "all", [])
    for name, stand_in in {
        "CUDAGraph": RecordedGraph,
        "graph": _capture,
        "synchronize": lambda: None,
        "Stream": lambda: None,
        "stream": lambda _: contextlib.nullcontext(),
        "get_sync_debug_mode": sync_debug.get,
        "set_sync_debug_mode": sync_debug.set,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    # Without a word it asks for CUDA.
    asked = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device="cpu": asked(device))
    monkeypatch.setattr("torch.cuda.graphs.graph_pool_handle", lambda: (0, 0))
    return RecordedGraph.all
