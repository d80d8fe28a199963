"""A rank that adds one number with the others: python -m dlfd_dist.runtime.selfcheck."""

from __future__ import annotations

import sys

import torch

from ..config import RuntimeConfig
from .env import rank_info
from .init import process_group


def main() -> int:
    info = rank_info()
    with process_group(RuntimeConfig(device="cpu", init_timeout_s=60), info) as collectives:
        total = collectives.all_reduce_sum(torch.ones(1))
    return 0 if int(total) == info.world_size else 1


if __name__ == "__main__":
    sys.exit(main())
