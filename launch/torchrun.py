"""torchrun whose exit status is that of the ranks: python -m launch.torchrun OPTIONS -m MODULE ...

torchrun itself ends with 1 whatever its ranks ended with, and is ended by USR2, which SLURM sends
to every process of a job step. Options and arguments are torchrun's.
"""

from __future__ import annotations

import signal
import sys

from dlfd_dist.errors import STOPPED

from .execute.ranks import exit_status, failed_ranks


def main(arguments: list[str] | None = None) -> int:
    """Run the ranks of this node; return the status of the rank that knows the cause."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.run import parse_args, run

    # A handler and not SIG_IGN, which the ranks would inherit.
    signal.signal(signal.SIGUSR2, lambda *_: None)
    options = parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        codes = failed_ranks(lambda: run(options))
    except SignalException:
        return STOPPED
    return node_status(codes) if codes else 0


def node_status(codes: dict[int, int]) -> int:
    """Return the node's exit status; name the ranks that could not say why they ended."""
    if -signal.SIGUSR2 in codes.values():
        return 128 + signal.SIGUSR2  # as a shell says it: it came before the ranks listened
    status = exit_status(list(codes.values()))
    for local_rank, code in codes.items():
        if status == 1 and code < 0:
            name = signal.Signals(-code).name
            print(f"dlfd: rank {local_rank} of this node was ended by {name}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
