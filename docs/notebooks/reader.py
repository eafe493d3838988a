# %% [markdown]
# # What a reader can infer
#
# A reader sees every number of a month and every interval.
# This notebook asks what that tells: about the true count, by asking again, and about one person.

# %%
import datetime as dt
import io
import math
import tempfile
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist

import numpy as np
from IPython.display import SVG, Markdown, display
from matplotlib.figure import Figure

from dpdau.accounting.calibration import rho_cap
from dpdau.cli.experiments import open_app
from dpdau.domain import Metric
from dpdau.eval.streams import synthetic
from dpdau.ingest.columns import decode_table
from dpdau.mechanisms.matrix.lattice import LatticeMechanism
from dpdau.mechanisms.matrix.strategies import shipped
from dpdau.mechanisms.sampling import OpenDPNoise

MONTH = dt.date(2026, 4, 1)
DELTA = Fraction(1, 10**6)

# %% [markdown]
# ## About the count: the interval, and what it does not say
#
# A month of 400 synthetic users, sent at once and then released.
# The count lies in the stated 95 % interval on about 95 % of the days.
# Days of one month share noise, so single months lie further from 95 % than independent days would.

# %%
stream = synthetic(400, MONTH, seed=20260401)
after = dt.datetime(2026, 5, 3, tzinfo=dt.UTC)
days = [MONTH + dt.timedelta(place) for place in range(stream.days)]

with (
    tempfile.TemporaryDirectory() as folder,
    open_app(Path(folder), lambda: after, {}).closing() as app,
):
    for place in range(stream.days):
        app.ingest(decode_table(stream.arrivals(place), rules=app.rules()))
    app.release(Metric.DAU, days[-1])
    series = app.series([Metric.DAU], days[0], days[-1])
    exact = app.exact({Metric.DAU: 1}, days[0], days[-1], reason="notebook")[Metric.DAU]
    again = [app.release(Metric.DAU, days[9]) for _ in range(20)]

low = np.array([one.release.lower_95 for one in series])
high = np.array([one.release.upper_95 for one in series])
print(f"the count is inside on {((low <= exact) & (exact <= high)).sum()} of {len(days)} days")

figure = Figure(figsize=(8, 3.4), layout="constrained")
axis = figure.subplots()
axis.fill_between(
    range(1, 31), low, high, color="#0072B2", alpha=0.25, linewidth=0, label="95 % interval"
)
axis.plot(
    range(1, 31), [one.release.estimate for one in series], color="#0072B2", label="published"
)
axis.plot(range(1, 31), exact, color="#000000", linestyle=":", label="true, never published")
axis.set(xlabel="day of the month", ylabel="DAU, users", ylim=(0, None))
axis.legend(frameon=False, ncols=3, loc="lower left")
picture = io.StringIO()
figure.savefig(picture, format="svg")
display(
    SVG(picture.getvalue()),
    metadata={"alt": "What is published, with its interval, and the true count"},
)

# %% [markdown]
# Two days whose intervals overlap much may be equal: a difference between two published numbers
# has noise of its own.
# An interval says nothing of events that never arrived, of people with two accounts, or of what
# changed after the day was published.
#
# ## By asking again
#
# Noise that is drawn anew can be averaged away.
# Twenty questions have one answer, and one charge.

# %%
print({(one.release.estimate, one.budget.epsilon_spent) for one in again})
assert len({one.release.release_id for one in again}) == 1

# %% [markdown]
# ## About one person
#
# Now the reader knows everything but one thing: the exact activity of everybody else, and on
# which days a certain person would have come.
# Was that person there?
# The best a reader can do is a likelihood ratio over all numbers of the month.
#
# With Ā the matrix of the plan, v what the person adds to the counts and s the scale of the
# noise, the published numbers tell the two worlds apart exactly as well as one Gaussian of
# deviation 1 tells 0 from μ = |Āv| / s.
# A reader who holds both worlds for equally likely is right with probability Φ(μ/2); 50 % is a
# guess.

# %%
strategy = shipped(stream.days, 30).strategy
WINDOWS = {Metric.DAU: 1, Metric.WAU: 7, Metric.MAU: 30}


def contribution(active: set[int]) -> np.ndarray:
    """What a person who is active on these days adds to each number of the month, in order."""
    return np.array(
        [
            any(place - WINDOWS[metric] < day <= place for day in active)
            for place in range(stream.days)
            for metric in strategy.metrics
        ],
        dtype=np.int64,
    )


PEOPLE = {
    "one day, the last": {29},
    "one day, the first": {0},
    "every Monday": set(range(5, 30, 7)),
    "every day": set(range(30)),
}
EPSILONS = ("0.5", "1", "3")
plans = {one: LatticeMechanism(strategy, rho_cap(Fraction(one), DELTA)) for one in EPSILONS}


def moved(active: set[int], plan: LatticeMechanism) -> float:
    """μ of a person under a plan."""
    return float(
        np.linalg.norm((strategy.matrix @ contribution(active)).astype(float)) / plan.scale
    )


right = {
    (who, one): NormalDist().cdf(moved(active, plan) / 2)
    for who, active in PEOPLE.items()
    for one, plan in plans.items()
}
worst = {one: NormalDist().cdf(math.sqrt(2 * plan.rho) / 2) for one, plan in plans.items()}
lines = [
    "| right about a person who was there on | "
    + " | ".join(f"ε = {one}" for one in EPSILONS)
    + " |",
    "|---|" + "---|" * len(EPSILONS),
    *(
        "| " + who + " | " + " | ".join(f"{right[who, one]:.1%}" for one in EPSILONS) + " |"
        for who in PEOPLE
    ),
    "| **any days at all, the most** | "
    + " | ".join(f"**{worst[one]:.1%}**" for one in EPSILONS)
    + " |",
]
display(Markdown("\n".join(lines)))

for (who, one), share in right.items():
    assert 0.5 < share <= worst[one], (who, one)

# %% [markdown]
# With exact numbers the same reader is right every time: the counts differ by one.
#
# The formula, tried: the noise of the plan drawn 500 times in each world, and the likelihood
# ratio taken.

# %%
TRIALS = 500
plan, shift = plans["3"], strategy.matrix @ contribution(PEOPLE["every day"])
noise = OpenDPNoise()
size = len(strategy.matrix)
drawn = np.array(noise.discrete_gaussian(plan.scale, 2 * TRIALS * size), dtype=float).reshape(
    2, TRIALS, size
)
score = (drawn / plan.scale) @ (shift / plan.scale)
middle = float(np.linalg.norm(shift / plan.scale)) ** 2 / 2
found = ((score[0] < middle).mean() + ((score[1] + 2 * middle) >= middle).mean()) / 2
print(
    f"right in {found:.1%} of {2 * TRIALS:,} trials; the formula says {right['every day', '3']:.1%}"
)
assert abs(found - right["every day", "3"]) < 6 * math.sqrt(0.25 / (2 * TRIALS))

# %% [markdown]
# ## What ε itself says
#
# ε bounds the worst output, not the usual one: at ε = 3 some outputs, which are rare, may move
# even odds to 20 to 1, which is 95 %.
# The table above is the usual case of the same promise.
# Both are about a reader who knows everyone else; one who knows less learns less.
# [The guarantee](../guarantee.md) has the exact statement, and what it does not cover.
