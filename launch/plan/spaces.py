"""The space that trials are drawn from, where it follows the share of the images forgotten."""

from __future__ import annotations

from dlfd_dist.config import JobConfig, Space, at_share, needs_share

_shares: dict[str, float] = {}


def fitted_space(space: Space, config: JobConfig) -> Space:
    """Return a space whose ranges fit the share of the images that a run forgets."""
    return at_share(space, _share_forgotten(config)) if needs_share(space) else space


def _share_forgotten(config: JobConfig) -> float:
    """Return the share of the training images that are to be forgotten.

    Of people who are drawn it is the share of the people; a request is looked up once per process.
    """
    forget = config.drawn_forget
    if forget.fraction is not None and not forget.published:
        return forget.fraction
    key = repr((config.data, forget))
    if key not in _shares:
        from dlfd_dist.data.loaders import resolve_rows

        splits = resolve_rows(config.data, forget, draw=False).splits
        _shares[key] = len(splits.forget) / (len(splits.forget) + len(splits.retain))
    return _shares[key]
