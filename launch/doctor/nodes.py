"""What dlfd doctor makes of the findings of the nodes (launch/doctor/probe.py)."""

from __future__ import annotations

from collections.abc import Sequence

from dlfd_dist.plain import counted

from .check import Check
from .probe import NodeFinding

MAX_SKEW_S = 5.0
LOCK_REMEDY = "mount it with locks (Lustre: -o flock), or never start the same command twice there"


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def check_nodes(
    findings: Sequence[NodeFinding], nodes: int, gpus_per_node: int, output: str
) -> list[Check]:
    """Return the checks of what the nodes wrote.

    Parameters
    ----------
    nodes, gpus_per_node : what the probe job asked for
    output : the job's output
    """
    if len(findings) < nodes:
        remedy = (
            "dlfd-dist must be importable with that interpreter on every node, and every node "
            "must see shared="
        )
        finding = f"{len(findings)} of {nodes} nodes answered"
        tail = last_line("\n".join(x for x in output.splitlines() if not x.startswith("srun: ")))
        return [Check("python on the nodes", False, f"{finding}: {tail or 'nothing said'}", remedy)]
    checks = [_same_python(findings)]
    if nodes > 1:
        checks.append(_rendezvous(findings))
    if gpus_per_node:
        checks.append(_gpus(findings, gpus_per_node))
    if nodes > 1 and all(f.rendezvous == "" for f in findings):
        checks += [_nccl(findings), _clocks(findings), _shared(findings), _locks(findings)]
    return checks


def _same_python(findings: Sequence[NodeFinding]) -> Check:
    import dlfd_dist

    kinds = {(f.version, f.python, f.python_version, f.torch, f.package) for f in findings}
    version, python, python_version, torch, package = sorted(kinds)[0]
    finding = f"dlfd-dist {version} ({package}), torch {torch}, {python} ({python_version})"
    remedy = "use one environment on a shared file system on all nodes and here"
    if len(kinds) > 1:
        each = "; ".join(f"{f.node}: {f.version}, torch {f.torch}, {f.python}" for f in findings)
        return Check("python on the nodes", False, f"differs: {each}", remedy)
    same = version == dlfd_dist.__version__
    here = "" if same else f", but {dlfd_dist.__version__} here"
    return Check("python on the nodes", same, finding + here, remedy)


def _rendezvous(findings: Sequence[NodeFinding]) -> Check:
    name = f"{counted(len(findings), 'node')} over gloo"
    local = [f.node for f in findings if f.address.startswith("127.")]
    if len(findings) > 1 and local:
        remedy = "take the node's name off the line of 127.0.0.1 or 127.0.1.1 in its /etc/hosts"
        return Check(name, False, f"{', '.join(local)}: the first node is {findings[0].address}",
                     remedy)  # fmt: skip
    failed = [f for f in findings if f.rendezvous != ""]
    if failed:
        remedy = (
            "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the interface that joins the nodes "
            "('ip -br addr' on a node), or open ports 20000 to 32000 and the ephemeral ones "
            "between them"
        )
        reason = failed[0].rendezvous or "ended before it had joined"
        return Check(name, False, f"{failed[0].node}: {reason}", remedy)
    return Check(name, True, f"{', '.join(f.node for f in findings)} at {findings[0].address}")


def _gpus(findings: Sequence[NodeFinding], wanted: int) -> Check:
    wrong = [f for f in findings if f.cuda_devices != wanted]
    name = "GPUs on the nodes"
    if not wrong:
        return Check(name, True, f"{wanted} each")
    finding = "; ".join(
        f"{f.node}: SLURM gave {f.visible_devices or 'none'}, torch sees {f.cuda_devices}"
        for f in wrong
    )
    remedy = "install the torch build of the nodes' CUDA version; check nvidia-smi and gres.conf"
    return Check(name, False, finding, remedy)


def _nccl(findings: Sequence[NodeFinding]) -> Check:
    tried = [f for f in findings if f.nccl is not None]
    if not tried:
        return Check("nodes over NCCL", True, "not tried: no CUDA device was asked for or seen")
    remedy = "set NCCL_SOCKET_IFNAME, and NCCL_DEBUG=INFO to see what NCCL chose"
    return Check("nodes over NCCL", all(f.nccl for f in tried), counted(len(tried), "node"), remedy)


def _clocks(findings: Sequence[NodeFinding]) -> Check:
    offsets = [f.clock_offset_s or 0.0 for f in findings]
    skew = max(offsets) - min(offsets)
    remedy = "the site must run a time service (chrony) on the nodes: SLURM's own keys expire too"
    return Check("clocks", skew <= MAX_SKEW_S, f"{skew:.2f} s apart at most", remedy)


def _shared(findings: Sequence[NodeFinding]) -> Check:
    blind = [f.node for f in findings if f.visible_after_s is None]
    remedy = "give shared=DIR on a file system that all nodes share, not on a node's own disk"
    if blind:
        finding = f"{', '.join(blind)}: does not see what {findings[0].node} writes"
        return Check("folder between nodes", False, finding, remedy)
    slowest = max(f.visible_after_s or 0.0 for f in findings)
    return Check("folder between nodes", True, f"a new file is seen after {slowest:.2f} s")


def _locks(findings: Sequence[NodeFinding]) -> Check:
    wrong = [f for f in findings if f.lock != "exclusive"]
    finding = f"{wrong[0].node}: {wrong[0].lock}" if wrong else "hold between nodes"
    return Check("locks between nodes", not wrong, finding, LOCK_REMEDY)
