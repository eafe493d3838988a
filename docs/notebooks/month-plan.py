# %% [markdown]
# # What a month plan buys
#
# The same ε can be spent number by number, or once for a whole month.
# This notebook sets both to the same total and compares the noise: first as it is stated before
# anything is bought, then as it was in a month of synthetic activity.
#
# Buying number by number, the ε of the month is shared out over 30 days: by basic composition for
# DAU (Laplace noise), in zCDP for MAU (Gaussian noise), and each total pays for *one* metric.
# The plan's total pays for DAU, WAU and MAU of every day together.

# %%
import datetime as dt
import io
import tempfile
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from IPython.display import SVG, Markdown, display
from matplotlib.figure import Figure

from dpdau.accounting.calibration import rho_cap, zcdp_epsilon
from dpdau.cli.experiments import open_app
from dpdau.domain import Metric
from dpdau.eval.experiments import run
from dpdau.eval.grid import Experiment, Level, Size
from dpdau.eval.measures import measure
from dpdau.eval.streams import Removal

DELTA = Fraction(1, 10**6)
DAYS = 30
TOTALS = ("0.5", "1.0", "3.0")


def shared_out(total: str) -> Level:
    """The ε of the plan, and the ε of one DAU and of one MAU that add up to it over the month."""
    each = zcdp_epsilon(rho_cap(Fraction(total), DELTA) / DAYS, DELTA)
    return Level(plan=total, dau=f"{float(total) / DAYS:.4f}", mau=f"{each:.4f}")


levels = {total: shared_out(total) for total in TOTALS}
print(
    "ε of one release on demand, for 3.0 a month: DAU", levels["3.0"].dau, "MAU", levels["3.0"].mau
)

# %% [markdown]
# ## As it is stated
#
# `price_month` and `price` say the half width of the 95 % interval before anything is bought.
# Both look at settings and the ledger alone; there is no data here at all.

# %%
NOW = dt.datetime(2026, 5, 2, tzinfo=dt.UTC)
LAST = dt.date(2026, 4, 30)


def half_widths(level: Level) -> dict[tuple[str, Metric], int]:
    """(way of buying, metric) → users, the widest of the month."""
    values = {
        "PLAN_EPSILON": Decimal(level.plan),
        "EPSILON_DAU": Decimal(level.dau),
        "EPSILON_MAU": Decimal(level.mau),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        open_app(Path(folder), lambda: NOW, values).closing() as app,
    ):
        found = {
            ("plan", line.metric): max(line.half_widths_95)
            for line in app.price_month("2026-04").lines
        }
        for metric in (Metric.DAU, Metric.MAU):
            found["on demand", metric] = app.price(metric, LAST, fresh=True).half_width_95
    return found


stated = {total: half_widths(level) for total, level in levels.items()}
rows = [
    f"| {total} | ± {found['on demand', Metric.DAU]} | ± {found['plan', Metric.DAU]} "
    f"| ± {found['on demand', Metric.MAU]} | ± {found['plan', Metric.MAU]} |"
    for total, found in stated.items()
]
head = [
    "| ε of the month | DAU, on demand | DAU, plan | MAU, on demand | MAU, plan |",
    "|---|---|---|---|---|",
]
display(Markdown("\n".join(head + rows)))

# %%
figure = Figure(figsize=(8, 3.6), layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
for axis, metric in zip(axes, (Metric.DAU, Metric.MAU), strict=True):
    for way, color, marker in (("on demand", "#777777", "P"), ("plan", "#0072B2", "o")):
        widths = [stated[total][way, metric] for total in TOTALS]
        axis.plot([float(total) for total in TOTALS], widths, color=color, marker=marker, label=way)
    axis.set(title=metric.upper(), xlabel="ε of the month", yscale="log")
    axis.grid(color="#dddddd")
axes[0].set_ylabel("half width of the 95 % interval, users")
axes[0].legend(frameon=False)
picture = io.StringIO()
figure.savefig(picture, format="svg")
display(
    SVG(picture.getvalue()), metadata={"alt": "Half width by ε, bought on demand and as a plan"}
)

# %% [markdown]
# The plan is the narrower one at every ε, for three metrics instead of one.
# For DAU on demand the noise is that of 30 equal shares; the plan's is correlated over the month,
# and one user's month moves what it is added to by much less than 30 separate numbers.

# %%
for found in stated.values():
    for metric in (Metric.DAU, Metric.MAU):
        assert found["plan", metric] < found["on demand", metric]

# %% [markdown]
# ## As it was
#
# The same at ε = 3 through the product: 300 synthetic users, a month of days that are sent,
# closed and released one by one.
# Noise comes from the operating system, so the errors differ in each run of this notebook, and
# their size does not.

# %%
level = levels["3.0"]
experiment = Experiment(
    name="notebook",
    sizes=(Size(users=300, plain=1, removed=1),),
    removals=(Removal(0.0),),
    levels=(level,),
    main=level,
    totals=(),
)
(outcome,) = run(experiment, seed=20260401, open_app=open_app, timer=time.perf_counter)

lines = [
    "| method | metric | numbers | their ε | error (RMS), users | days inside |",
    "|---|---|---|---|---|---|",
]
for row in outcome["estimates"]:
    found = measure(outcome["exact"][row["metric"]], row["values"], row["half_widths"])
    lines.append(
        f"| {row['method'].replace('_', ' ')} | {row['metric']} | {row['numbers']} "
        f"| {row['epsilon']:.2f} | {found.root_mean_square:.1f} | {found.inside.value:.0%} |"
    )
display(Markdown("\n".join(lines)))

# %% [markdown]
# On demand still has its place: for a number that no plan publishes, such as another window or a
# segment that is not listed.
# [Month plans](../guides/plans.md) and [budgets](../guides/budgets.md) say how each is bought.
