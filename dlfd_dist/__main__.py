"""Entry of a rank, started by python, torchrun or srun.

python -m dlfd_dist VERB key=value ...
python -m dlfd_dist RUN_DIR/config.yaml ...     (several are run one after another)
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

from .garbage import without_collection

with without_collection():
    from .access import making, read_regular
    from .compose import compose_job, load_config
    from .config import JobConfig
    from .data.loaders import DataReader
    from .digests import remember_files
    from .errors import DlfdError
    from .jobs import Prepared, prepare, run_prepared
    from .logs import setup_console
    from .plain import visible_output
    from .run_dir import RunDir
    from .runtime.allocator import keep_freed_memory
    from .runtime.env import RankInfo, rank_info
    from .runtime.init import process_group
    from .runtime.preemption import StoppedEarly, stop_flag

Prepare = Callable[[JobConfig, int], Prepared]
"""Makes a configuration ready for a number of ranks, as jobs.prepare does."""

DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)


def read_configs(arguments: list[str]) -> list[JobConfig]:
    """Return the configurations that the arguments name."""
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        for argument in arguments:
            _remember(RunDir(Path(argument).parent))
        return [load_config(Path(a)) for a in arguments]
    return [compose_job(arguments[0] if arguments else "", arguments[1:])]


def _remember(run_dir: RunDir) -> None:
    """Take over the digests that whoever claimed the run directory wrote down.

    They only save reading: files that are not as they were then are read here.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        remember_files(json.loads(read_regular(run_dir.prepared)))


def disk_message(err: OSError) -> str:
    """Return one sentence for a disk that is full or cannot be written."""
    where = f" {err.filename}" if err.filename else ""
    return f"Cannot write{where}: {err.strerror}. Free some space or choose another run.dir."


def run_ranks(configs: list[JobConfig], ready: Prepare | None = None) -> int:
    """Run configurations one after another on this rank; return the exit status.

    One that fails alike on all ranks does not stop the others; its exit status is returned.

    Parameters
    ----------
    ready : gives what the caller has prepared or read already; None: everything is read here, data
        that the configurations share once
    """
    info, status = rank_info(), 0
    ready = ready or functools.partial(prepare, reader=DataReader())
    setup_console(info.rank)
    keep_freed_memory()
    try:
        with (
            making(configs[0].run.mode),
            stop_flag() as stop,
            process_group(configs[0].runtime, info) as collectives,
        ):
            for config in configs:
                try:
                    run_prepared(ready(config, info.world_size), collectives, stop)
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


def main(arguments: list[str] | None = None, ready: Prepare | None = None) -> int:
    """Run what the arguments name on this rank; `ready` as in run_ranks."""
    with visible_output():
        return _main(arguments, ready)


def _main(arguments: list[str] | None, ready: Prepare | None) -> int:
    try:
        configs = read_configs(sys.argv[1:] if arguments is None else arguments)
    except DlfdError as err:
        print(f"dlfd: {err}", file=sys.stderr)
        return err.exit_status
    return run_ranks(configs, ready)


if __name__ == "__main__":
    sys.exit(main())
