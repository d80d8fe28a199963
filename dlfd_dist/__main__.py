"""Entry of a rank, started by python, torchrun or srun.

python -m dlfd_dist VERB key=value ...
python -m dlfd_dist RUN_DIR/config.yaml ...     (several are run one after another)
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from .compose import compose_job, load_config
from .config import JobConfig
from .errors import DlfdError
from .jobs import run_job
from .logs import setup_console
from .runtime.env import RankInfo, rank_info
from .runtime.init import process_group
from .runtime.preemption import StoppedEarly, stop_flag

DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)


def read_configs(arguments: list[str]) -> list[JobConfig]:
    """Return the configurations that the arguments name."""
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        return [load_config(Path(a)) for a in arguments]
    return [compose_job(arguments[0] if arguments else "", arguments[1:])]


def disk_message(err: OSError) -> str:
    """Return one sentence for a disk that is full or cannot be written."""
    where = f" {err.filename}" if err.filename else ""
    return f"Cannot write{where}: {err.strerror}. Free some space or choose another run.dir."


def run_ranks(configs: list[JobConfig]) -> int:
    """Run configurations one after another on this rank; return the exit status.

    One that fails alike on all ranks does not stop the others; its exit status is returned.
    """
    info, status = rank_info(), 0
    setup_console(info.rank)
    try:
        with stop_flag() as stop, process_group(configs[0].runtime, info) as collectives:
            for config in configs:
                try:
                    run_job(config, collectives, stop)
                except StoppedEarly:
                    raise
                except DlfdError as err:
                    if info.world_size > 1 and not err.on_all_ranks:
                        raise
                    status = _report(err, info)
    except (DlfdError, OSError) as err:
        return _report(err, info)
    return status


def _report(err: DlfdError | OSError, info: RankInfo) -> int:
    """Say what happened in one sentence; return the exit status."""
    if isinstance(err, OSError):
        if err.errno not in DISK_ERRORS:
            raise err
        print(f"dlfd: {disk_message(err)}", file=sys.stderr)
        return 2
    if info.is_main or not err.on_all_ranks:
        rank = "" if info.is_main else f"[rank {info.rank}] "
        print(f"dlfd: {rank}{err}", file=sys.stderr)
    return err.exit_status


def main(arguments: list[str] | None = None) -> int:
    try:
        configs = read_configs(sys.argv[1:] if arguments is None else arguments)
    except DlfdError as err:
        print(f"dlfd: {err}", file=sys.stderr)
        return err.exit_status
    return run_ranks(configs)


if __name__ == "__main__":
    sys.exit(main())
