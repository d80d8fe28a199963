"""Loss weights over the steps of an unlearning run."""


def linear_weight(step: int, num_steps: int, initial: float, final: float) -> float:
    """Return the weight at a step (from 0), linear from the first step to the last.

    >>> [linear_weight(t, 3, 0.0, 1.0) for t in range(3)]
    [0.0, 0.5, 1.0]
    """
    if num_steps <= 1:
        return initial
    return initial + (final - initial) * step / (num_steps - 1)
