"""KLoM: how far the margins of unlearned models lie from those of retrained ones, per image.

Source: Rinberg et al. 2025 (EasyDUB; first in Georgiev et al. 2024, appendix E.1). The histogram is
that of RoyRin/data-unlearning-bench at eb261f9, `compute_binned_KL_div` called as its run.py does.
"""

from __future__ import annotations

import numpy as np

BINS = 20
CLIP = 100.0
SMALLEST_SHARE = 1e-5
_CHUNK = 4096


def klom(retrained: np.ndarray, unlearned: np.ndarray) -> np.ndarray:
    """Return KL(retrained || unlearned) of each image's margins in nats, shape (E,).

    Margins are clipped to +-100 and counted in 20 equal bins from the smallest to the largest of
    both worlds; a share of the unlearned models that is 0 where retrained ones lie counts 1e-5,
    and both are divided by their sums. As in the reference, bins are open on the right, so that
    the largest margin is in none of them.

    Parameters
    ----------
    retrained, unlearned : (K, E) margins, log p_y - log(1 - p_y); NaN where a model does not count

    Returns NaN where an image has fewer than 2 values in a world. Few models give large values
    also for equal worlds: read it beside that of the control.
    """
    out = np.full(retrained.shape[1], np.nan)
    for start in range(0, len(out), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = _klom(retrained[:, part], unlearned[:, part])
    return out


def _klom(retrained: np.ndarray, unlearned: np.ndarray) -> np.ndarray:
    enough = np.minimum((~np.isnan(retrained)).sum(0), (~np.isnan(unlearned)).sum(0)) >= 2
    result = np.full(len(enough), np.nan)
    p, q = (np.clip(world[:, enough], -CLIP, CLIP) for world in (retrained, unlearned))
    if not enough.any():
        return result
    low, high = np.nanmin(np.r_[p, q], 0), np.nanmax(np.r_[p, q], 0)
    edges = np.linspace(low, np.where(low >= high, low + 1, high), BINS + 1)
    shares_p, shares_q = _shares(p, edges), _shares(q, edges)
    shares_q = np.where(shares_p > 0, np.maximum(shares_q, SMALLEST_SHARE), shares_q)
    # A world that lies on the largest margin alone is in no bin: the reference gives NaN there.
    with np.errstate(divide="ignore", invalid="ignore"):
        shares_p, shares_q = shares_p / shares_p.sum(0), shares_q / shares_q.sum(0)
        terms = np.where(shares_p > 0, shares_p * np.log(shares_p / shares_q), 0.0)
    result[enough] = np.where(np.isnan(shares_p).any(0), np.nan, terms.sum(0))
    return result


def _shares(world: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the share of each image's margins in each bin, shape (20, E)."""
    below = np.stack([(world >= edge).sum(0) for edge in edges])
    counts = (below[:-1] - below[1:]).astype(float)
    return counts / np.maximum(counts.sum(0), 1)


def summary(
    values: np.ndarray, person_of_image: np.ndarray, *, seed: int = 0, num_bootstrap: int = 1000
) -> dict[str, float | list[float] | int] | None:
    """Return mean and 95th percentile over images, with 95 % bootstrap intervals over people.

    None where no image has a value.
    """
    known = ~np.isnan(values)
    values, people = values[known], person_of_image[known]
    if not len(values):
        return None
    order = np.argsort(people, kind="stable")
    groups = np.split(values[order], np.flatnonzero(np.diff(people[order])) + 1)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(num_bootstrap):
        sample = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        drawn.append(_mean_and_p95(sample))
    mean, p95 = _mean_and_p95(values)
    bounds = np.quantile(np.array(drawn), [0.025, 0.975], axis=0).T.tolist()
    return {
        "mean": mean, "p95": p95, "mean_interval": bounds[0], "p95_interval": bounds[1],
        "num_images": len(values),
    }  # fmt: skip


def _mean_and_p95(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(np.quantile(values, 0.95))
