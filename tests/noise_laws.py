"""The exact laws of integer noise, written independently of the product, and tests against them."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


def laplace_law(scale: float) -> Floats:
    """(reach + 1,) P(|noise| = k) of the discrete Laplace law; the rest is below e^-40."""
    k = np.arange(math.ceil(40 * scale) + 2, dtype=np.float64)
    return _folded(np.exp(-k / scale))


def gaussian_law(sigma: float) -> Floats:
    """(reach + 1,) P(|noise| = k) of the discrete Gaussian law; the rest is below e^-50."""
    k = np.arange(math.ceil(10 * sigma) + 2, dtype=np.float64)
    return _folded(np.exp(-(k**2) / (2 * sigma**2)))


def _folded(weights: Floats) -> Floats:
    """Weights of k ≥ 0 of a symmetric law, normalized with both signs counted."""
    weights[1:] *= 2
    return weights / math.fsum(weights)


def signed(folded: Floats) -> tuple[NDArray[np.int64], Floats]:
    """(2r + 1,) integers -r..r and their probabilities."""
    reach = folded.size - 1
    half = folded[1:] / 2
    return np.arange(-reach, reach + 1), np.concatenate([half[::-1], folded[:1], half])


def stddev(folded: Floats) -> float:
    """Standard deviation, by summation."""
    k = np.arange(folded.size, dtype=np.float64)
    return math.sqrt(math.fsum(k**2 * folded))


def chi_square_p(draws: Sequence[int], folded: Floats, cells: int = 64) -> float:
    """P-value of Pearson's test; neighboring integers are pooled to about equal cells."""
    x, p = signed(folded)
    edges = np.unique(np.searchsorted(np.cumsum(p), np.arange(1, cells) / cells))
    cell_of = np.searchsorted(x[edges], x, side="left")
    expected = np.bincount(cell_of, weights=p, minlength=edges.size + 1) * len(draws)
    where = np.searchsorted(x[edges], np.asarray(draws), side="left")
    observed = np.bincount(where, minlength=edges.size + 1).astype(np.float64)
    thick = expected >= 20
    if not thick.all():
        observed = np.append(observed[thick], observed[~thick].sum())
        expected = np.append(expected[thick], expected[~thick].sum())
        if expected[-1] < 20:
            observed[-2] += observed[-1]
            expected[-2] += expected[-1]
            observed, expected = observed[:-1], expected[:-1]
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, expected.size - 1))


def lag_correlation(draws: Sequence[int]) -> float:
    """Correlation of each draw with the next."""
    values = np.asarray(draws, dtype=np.float64)
    if values.std() == 0:
        return 1.0
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


def share_bounds(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Clopper-Pearson bounds on a probability, each wrong with probability at most alpha / 2."""
    low = stats.beta.ppf(alpha / 2, successes, trials - successes + 1) if successes else 0.0
    high = (
        stats.beta.ppf(1 - alpha / 2, successes + 1, trials - successes)
        if successes < trials
        else 1.0
    )
    return float(low), float(high)


def losses_lower_bound(
    ours: Sequence[int], theirs: Sequence[int], alpha: float
) -> tuple[float, float]:
    """Lower bounds on ε (pure) and on KL divergence (so on ρ) from releases of two neighbors.

    Looks at the events "at most t" and "above t" for nine quantiles t, each seen from both sides;
    Clopper-Pearson bounds, shared out so that all hold together with probability 1 - alpha.
    """
    a, b = np.asarray(ours), np.asarray(theirs)
    quantiles = np.unique(np.quantile(np.concatenate([a, b]), np.linspace(0.1, 0.9, 9)).astype(int))
    epsilon = divergence = 0.0
    for t in quantiles:
        a_low, a_high = share_bounds(int((a <= t).sum()), a.size, alpha / (2 * quantiles.size))
        b_low, b_high = share_bounds(int((b <= t).sum()), b.size, alpha / (2 * quantiles.size))
        for p, q in ((a_low, b_high), (b_low, a_high), (1 - a_high, 1 - b_low)):
            if 0 < q < p < 1:
                epsilon = max(epsilon, math.log(p / q))
                divergence = max(
                    divergence, p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
                )
    return epsilon, divergence


def exact_delta(losses: Floats, probabilities: Floats, epsilon: float) -> float:
    """δ(ε) = Σ P(x) max(0, 1 - exp(ε - loss(x))), by summation over a loss distribution."""
    over = losses > epsilon
    return math.fsum(probabilities[over] * -np.expm1(epsilon - losses[over]))


def renyi(p: Floats, q: Floats, order: float) -> float:
    """Rényi divergence of two laws on the same integers, by summation in logarithms."""
    both = (p > 0) & (q > 0)
    logs = order * np.log(p[both]) + (1 - order) * np.log(q[both])
    top = logs.max()
    return float((top + math.log(math.fsum(np.exp(logs - top)))) / (order - 1))
