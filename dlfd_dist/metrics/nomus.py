"""NoMUS, one number for utility and forgetting (Choi and Na 2023)."""


def nomus(test_accuracy: float, forgetting_score: float, weight: float = 0.5) -> float:
    """Return weight * accuracy + (1 - weight) * (1 - 2 * forgetting score), 0..1, higher is better.

    >>> round(nomus(0.620, 0.028), 3)
    0.782
    """
    return weight * test_accuracy + (1 - weight) * (1 - 2 * forgetting_score)
