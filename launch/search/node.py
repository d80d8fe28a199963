"""Ray on this node of a SLURM job step and, on the first node, the command that uses it.

    srun --ntasks-per-node=1 python -m launch.search.node COMMAND...

One task on each node. When the command ends, Ray ends, and the exit status is the command's: 75, so
that the job comes back, also where the command was killed. Ray's processes end before this one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

from dlfd_dist.errors import STOPPED, ConfigError

from ..children import child_environment, python_words
from ..execute.task import SIGNALS
from .cluster import ADDRESS, ENVIRONMENT, NODES, PORTS
from .sockets import ray_folder

JOIN_S = 120
"""How long the first node may take to be there for the others."""
END_S = 20.0
LINGER_S = "5"
"""How long a node that has lost the first one waits for it; Ray's own default is a minute."""
BLOCKS, SIZE, FIRST_PORT = 70, 300, 10000
"""Ports of a job: one of so many blocks, all below 32768, from where Linux hands out ports."""
LEFT_S = 3.0
"""How long Ray's workers may outlive Ray."""
KILL_ROUNDS = 3
"""A process that hangs in the kernel cannot be killed, and must not hold the job."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Step:
    """This node's place in the job step, and what the job gives it."""

    node: int
    num_nodes: int
    head: str
    """Address of the first node."""
    first_port: int
    cpus: int
    gpus: int
    object_store_mb: int

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Step:
        job, again = (int(env.get(n, "0")) for n in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"))
        seen = env.get("CUDA_VISIBLE_DEVICES", "")
        return cls(
            int(env["SLURM_NODEID"]), int(env["SLURM_NNODES"]),
            socket.gethostbyname(env["MASTER_ADDR"]),
            FIRST_PORT + SIZE * ((job * 31 + again * 7) % BLOCKS),
            int(env.get("SLURM_CPUS_PER_TASK", "1")), len(seen.split(",")) if seen else 0,
            int(env.get("DLFD_OBJECT_STORE_MB", "200")),
        )  # fmt: skip

    @property
    def address(self) -> str:
        return f"{self.head}:{self.first_port}"

    def ray_start(self) -> list[str]:
        """Return the words that start Ray here; every port it takes is named."""
        first = self.first_port
        place = (
            ["--head", f"--node-ip-address={self.head}", f"--port={first}",
             "--include-dashboard=false"]
            if self.node == 0
            else [f"--address={self.address}"]
        )  # fmt: skip
        # The client server runs on the head alone, but its default, 10001, is checked everywhere.
        named = (
            "node-manager-port", "object-manager-port", "dashboard-agent-grpc-port",
            "dashboard-agent-listen-port", "runtime-env-agent-port", "metrics-export-port",
            "ray-client-server-port",
        )  # fmt: skip
        ports = [f"--{name}={first + 1 + n}" for n, name in enumerate(named)]
        return [
            *python_words("ray.scripts.scripts"), "start", "--block", *place, *ports,
            f"--min-worker-port={first + 10}", f"--max-worker-port={first + 199}",
            f"--num-cpus={self.cpus}", f"--num-gpus={self.gpus}",
            f"--object-store-memory={self.object_store_mb * 1_000_000}", "--disable-usage-stats",
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return the environment of Ray and of the command, which are no ranks of this step."""
        kept = {k: v for k, v in os.environ.items() if k not in ("SLURM_STEP_ID", "SLURM_NTASKS")}
        variables = {
            "RAY_raylet_start_wait_time_s": str(JOIN_S),
            ADDRESS: self.address, NODES: str(self.num_nodes),
            PORTS: f"{self.first_port + 200}-{self.first_port + SIZE - 1}",
        }  # fmt: skip
        if self.node > 0:
            variables["RAY_gcs_rpc_server_reconnect_timeout_s"] = LINGER_S
        return child_environment({**ENVIRONMENT, **kept, **ray_folder(kept), **variables})


def main(command: Sequence[str]) -> int:
    for number in SIGNALS:
        # The first node decides; a job that is asked to stop saves before Ray ends.
        signal.signal(number, lambda *_: None)
    step = Step.of(os.environ)
    try:
        step.environment()
    except ConfigError as err:
        print(f"dlfd: {socket.gethostname()}: {err}", file=sys.stderr)
        return err.exit_status
    with leaves_nothing():
        return _lead(command, step) if step.node == 0 else _follow(step)


@contextlib.contextmanager
def leaves_nothing() -> Iterator[None]:
    """End, with the block, every process that was started in it.

    Ray's workers outlive Ray by seconds, as orphans that not every SLURM follows; here they become
    children of this process, and the job ends after them.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _, left = psutil.wait_procs(psutil.Process().children(recursive=True), LEFT_S)
        for _ in range(KILL_ROUNDS):
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, LEFT_S)
            left = psutil.Process().children(recursive=True)


def _lead(command: Sequence[str], step: Step) -> int:
    """Run Ray and the command on the first node; return the exit status."""
    ray = _start(step.ray_start(), step)
    try:
        driver = _start(command, step)
        signals: list[int] = []

        def pass_on(number: int, _frame: object) -> None:
            signals.append(number)
            driver.send_signal(signal.SIGTERM)

        for number in SIGNALS:
            signal.signal(number, pass_on)
        status = _ended(driver, ray)
        # Ray may end a driver that was asked to stop before it exits with 75; its state is on disk.
        return STOPPED if signals and status != 0 else status
    finally:
        _end(ray)


def _start(words: Sequence[str], step: Step) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, that ends when this one does."""

    def prepare() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    is_ray = "--block" in words
    return subprocess.Popen(
        list(words), env=step.environment(), start_new_session=True, preexec_fn=prepare,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if is_ray else None,
    )  # fmt: skip


def _ended(driver: subprocess.Popen[bytes], ray: subprocess.Popen[bytes]) -> int:
    """Return the command's exit status once it has ended."""
    while driver.poll() is None:
        if ray.poll() is not None:
            print("dlfd: Ray ended on the first node; the job comes back.", file=sys.stderr)
            driver.kill()
            driver.wait()
        time.sleep(0.2)
    status = driver.returncode
    return STOPPED if status < 0 or ray.poll() is not None else status


def _follow(step: Step) -> int:
    """Belong to the first node's Ray until it ends. The first node says how it ended."""
    end = time.monotonic() + JOIN_S
    while not _listens(step):
        if time.monotonic() > end:
            print(
                f"dlfd: {socket.gethostname()}: no Ray at {step.address} within {JOIN_S} s.",
                file=sys.stderr,
            )
            return 1
        time.sleep(0.3)
    # A Ray that did not start on a busy node is started again; the command minds the deadline.
    while _listens(step):
        _start(step.ray_start(), step).wait()
        time.sleep(1.0)
    return 0


def _listens(step: Step) -> bool:
    try:
        with socket.create_connection((step.head, step.first_port), timeout=2):
            return True
    except OSError:
        return False


def _end(ray: subprocess.Popen[bytes]) -> None:
    ray.terminate()
    try:
        ray.wait(END_S)
    except subprocess.TimeoutExpired:
        ray.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
