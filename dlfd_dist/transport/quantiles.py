"""Transport on a line: the plan pairs quantiles, over the rows of all ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.collectives import Collectives


def quantiles_at(values: Tensor, levels: Tensor) -> Tensor:
    """Return the quantiles of a sample, linear between the midpoints (j + 1/2) / m of its m values.

    Parameters
    ----------
    values : (m,), m >= 1
    levels : (n,) in 0..1; beyond the outermost midpoints the extreme value counts
    """
    ordered, last = values.sort().values, len(values) - 1
    place = (levels * len(values) - 0.5).clamp(0, last)
    below = place.floor().long()
    above = (below + 1).clamp(max=last)
    return torch.lerp(ordered[below], ordered[above], place - below)


def match_quantiles(
    values: Tensor, reference: Tensor, *, total: int, collectives: Collectives
) -> Tensor:
    """Return this rank's part of the mean smooth L1 between two samples paired by quantile.

    The values of all ranks are gathered without gradient and ranked, and each is paired with the
    reference quantile at the middle of its rank: the optimal plan on a line for any convex cost.
    Only a rank's own values carry a gradient, and the pairing is a constant (envelope theorem), so
    the sum over ranks has the gradient of the one global value. Equal values keep their order.

    Parameters
    ----------
    values : (n_local,) this rank's shard of `total` values, with gradient
    reference : (m,) the whole other sample, the same on every rank, without gradient
    """
    gathered = collectives.gather_rows(values, total)
    ranks = torch.empty(total, dtype=values.dtype, device=values.device)
    order = gathered.argsort(stable=True)
    ranks[order] = torch.arange(total, dtype=values.dtype, device=values.device)
    target = quantiles_at(reference.detach(), (ranks + 0.5) / total)[collectives.shard(total)]
    return F.smooth_l1_loss(values, target, reduction="sum") / total
