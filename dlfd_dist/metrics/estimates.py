"""A mean with its error: its interval, whether it is 0, whether it is nearly 0, what it would miss.

An estimate is over people within a run or over seeds within a table; both end here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from .people import mean_variance

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error and the degrees of freedom of that error."""

    mean: float
    error: float
    freedom: float

    def interval(self, coverage: float = 0.95) -> list[float]:
        """Return the interval of Student's t, [lo, hi]."""
        half = float(stdtrit(self.freedom, (1 + coverage) / 2)) * self.error
        return [self.mean - half, self.mean + half]

    @property
    def p(self) -> float:
        """Two-sided p of the mean being 0; 1 where nothing differs, for t is then 0 / 0."""
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stdtr(self.freedom, -abs(self.mean) / self.error))

    def p_equivalent(self, margin: float) -> float:
        """Return the p of the mean lying within +-margin: the larger of two one-sided tests.

        Source: Schuirmann 1987. Below 0.05 exactly where the 90 % interval lies within.
        """
        if self.error == 0:
            return 0.0 if abs(self.mean) < margin else 1.0
        return float(stdtr(self.freedom, (abs(self.mean) - margin) / self.error))

    def detectable(self, level: float = LEVEL, power: float = POWER) -> float:
        """Return the smallest true mean that a two-sided test at `level` finds with `power`.

        By the non-central t, with the error at hand; the far tail is left out, which at this power
        is below 1e-4.
        """
        limit = stdtrit(self.freedom, 1 - level / 2)
        return float(nctdtrinc(self.freedom, 1 - power, limit)) * self.error


def people_mean(values: np.ndarray, people: np.ndarray) -> Estimate | None:
    """Return the mean over images with its error over people; None of fewer than two people.

    The images of a person count together, with a person fewer as degrees of freedom.

    Parameters
    ----------
    values, people : (n,) of the same images
    """
    count = len(np.unique(people))
    if count < 2:
        return None
    error = np.sqrt(mean_variance(values, np.ones(len(values)), people))
    return Estimate(float(values.mean()), float(error), count - 1)
