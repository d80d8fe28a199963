"""What a node finds out for dlfd doctor: python -m launch.doctor.probe FOLDER, one task per node.

FOLDER lies on the file system in question; every task writes node_RANK.json there.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import dlfd_dist
from dlfd_dist.config import RuntimeConfig
from dlfd_dist.errors import DlfdError
from dlfd_dist.locks import take
from dlfd_dist.run_dir import write_json, write_text
from dlfd_dist.runtime.env import rank_info

if TYPE_CHECKING:
    from dlfd_dist.runtime.collectives import Collectives

JOIN_S = 30
VISIBLE_S = 30
"""How long a file that another node wrote may take to be seen here."""


@dataclass
class NodeFinding:
    """The properties of a node, and what it measured; None: the node did not get so far."""

    rank: int
    node: str
    python: str
    python_version: str
    package: str
    version: str
    torch: str
    cuda_devices: int
    visible_devices: str | None
    address: str
    """What MASTER_ADDR means on this node."""
    rendezvous: str | None = None
    """Empty when the ranks added their numbers; otherwise what went wrong."""
    nccl: bool | None = None
    clock_offset_s: float | None = None
    """This node's clock less that of rank 0, both read right after a barrier."""
    visible_after_s: float | None = None
    lock: str | None = None
    """exclusive, not exclusive, or why there are no locks."""


def main(folder: Path) -> int:
    """Write what this node is, then what the nodes find together."""
    finding = _about_this_node(rank_info().rank)
    path = folder / f"node_{finding.rank}.json"
    write_json(path, asdict(finding))
    if rank_info().world_size > 1 and finding.address.startswith("127."):
        finding.rendezvous = f"MASTER_ADDR is {finding.address} here"
    else:
        _try_together(finding, folder)
    write_json(path, asdict(finding))
    return 1 if finding.rendezvous else 0


def _about_this_node(rank: int) -> NodeFinding:
    import torch

    return NodeFinding(
        rank=rank,
        node=socket.gethostname(),
        python=sys.executable,
        python_version=platform.python_version(),
        package=str(Path(dlfd_dist.__file__ or "").parent),
        version=dlfd_dist.__version__,
        torch=torch.__version__,
        cuda_devices=torch.cuda.device_count(),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        address=_resolve(os.environ.get("MASTER_ADDR", "")),
    )


def _resolve(name: str) -> str:
    try:
        return socket.gethostbyname(name)
    except OSError as err:
        return f"unknown ({err.strerror})"


def _try_together(finding: NodeFinding, folder: Path) -> None:
    try:
        _together(finding, folder)
    except (DlfdError, RuntimeError) as err:
        finding.rendezvous = str(err).splitlines()[0]


def _together(finding: NodeFinding, folder: Path) -> None:
    import torch

    from dlfd_dist.runtime.init import process_group

    cfg = RuntimeConfig(init_timeout_s=JOIN_S, collective_timeout_s=JOIN_S)
    with process_group(cfg, rank_info()) as group:

        def barrier() -> None:
            group.all_reduce_sum(torch.zeros(1))

        total = int(group.all_reduce_sum(torch.ones(1)))
        wrong = total != group.world_size
        finding.rendezvous = f"{group.world_size} ranks added up to {total}" if wrong else ""
        if group.device.type == "cuda":
            ones = torch.ones(1, device=group.device)
            finding.nccl = int(group.all_reduce_sum(ones)) == group.world_size
        finding.clock_offset_s = _clock_offset(group, barrier)
        finding.visible_after_s = _visible_after(folder, group.is_main, barrier)
        with (folder / "lock").open("a") as file:
            finding.lock = _lock(file, group.is_main, barrier)


def _clock_offset(group: Collectives, barrier: Callable[[], None]) -> float:
    import torch

    barrier()
    now = time.time()
    of_main = torch.tensor([now if group.is_main else 0.0], dtype=torch.float64)
    return now - float(group.all_reduce_sum(of_main))


def _visible_after(folder: Path, is_main: bool, barrier: Callable[[], None]) -> float | None:
    """Return how long the main rank's second version of a file took to be seen here."""
    path = folder / "word"
    seen: float | None = None
    for word in ("first", "second"):
        if is_main:
            write_text(path, word)
        barrier()
        seen = _wait_for(lambda word=word: path.read_text(encoding="utf-8") == word)
        barrier()
    return seen


def _wait_for(reached: Callable[[], bool]) -> float | None:
    start = time.monotonic()
    while time.monotonic() - start < VISIBLE_S:
        try:
            if reached():
                return time.monotonic() - start
        except OSError:
            pass
        time.sleep(0.05)
    return None


def _lock(file: IO[Any], is_main: bool, barrier: Callable[[], None]) -> str:
    """Try to take a lock that the main rank holds."""
    of_main = _try_lock(file) if is_main else ""
    barrier()
    if not is_main:
        answer = _try_lock(file)
        of_main = {"taken": "not exclusive", "refused": "exclusive"}.get(answer, answer)
    barrier()
    return "exclusive" if of_main == "taken" else of_main


def _try_lock(file: IO[Any]) -> str:
    try:
        take(file.fileno())
    except BlockingIOError:
        return "refused"
    except OSError as err:
        return err.strerror or str(err)
    return "taken"


def read_findings(folder: Path) -> list[NodeFinding]:
    """Return what the nodes wrote, by rank."""
    findings = [
        NodeFinding(**json.loads(path.read_text(encoding="utf-8")))
        for path in folder.glob("node_*.json")
    ]
    return sorted(findings, key=lambda finding: finding.rank)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
