"""The 95 % interval of a counted share. Without torch, so that a report can be drawn where no network can run."""

from math import sqrt
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)


def wilson(correct: int, n: int, z: float = Z) -> tuple[float, float]:
    """Wilson's interval, 95 % by default, of ``correct`` out of ``n`` images (Wilson 1927); (0, 1) where n is 0.

    Four lines where scipy.stats, which the tests compare with, would be imported by every command.
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = correct / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # exact at the ends, where rounding would leave 1e-17
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)
