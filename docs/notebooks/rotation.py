# %% [markdown]
# # Rotation and MAU
#
# A pseudonym that never changes can be followed for ever, so its key is replaced.
# A counter that forgets who was who at each replacement counts the same person again.
# This notebook sends one stream of synthetic activity to the product under several rotation
# periods, and compares the exact counts with those of counters that forget every day or every
# month.

# %%
import datetime as dt
import io
import secrets
import tempfile
from base64 import b64encode
from pathlib import Path

import numpy as np
from IPython.display import SVG, Markdown, display
from matplotlib.figure import Figure
from pydantic import SecretStr

from dpdau.app import App
from dpdau.domain import Metric, day_number
from dpdau.eval.workloads import generate
from dpdau.ingest.columns import decode_table
from dpdau.settings import Settings

FIRST, DAYS, WINDOW = dt.date(2026, 3, 2), 50, 30
USERS, SEED = 300, 20260302

batches = list(generate(USERS, DAYS, FIRST, seed=SEED))
by_day = {batch.column("day")[0].as_py(): batch for batch in batches if batch.num_rows}


# %% [markdown]
# ## The product
#
# Each day's events arrive at noon of that day; the clock moves day by day, and keys are replaced
# by it.
# `exact` is what an operator alone can ask for, and the audit log says so; no noise is added, so
# that nothing hides a difference.


# %%
class MovedClock:
    """Shows what it was set to."""

    def __init__(self) -> None:
        self.now = dt.datetime.combine(FIRST, dt.time(12), dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


def counted(rotation_days: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Exact DAU and MAU of each day, and the number of the key in use at the end."""
    clock = MovedClock()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_construct(
            DATA_DIR=Path(folder),
            HASH_SALT_SECRET=SecretStr("b64:" + b64encode(secrets.token_bytes(32)).decode()),
            HASH_SALT_ROTATION_DAYS=rotation_days,
            RELEASE_POLICY="on_demand",
        )
        app = App.open(settings, clock=clock, alone=True, reported=False)
        for place in range(DAYS):
            day = FIRST + dt.timedelta(place)
            clock.now = dt.datetime.combine(day, dt.time(12), dt.UTC)
            app.take_due()
            if day in by_day:
                app.ingest(decode_table(by_day[day], rules=app.rules()))
        windows = {Metric.DAU: 1, Metric.MAU: WINDOW}
        found = app.exact(windows, FIRST, day, reason="notebook")
        newest = app.keys.live()[0].epoch_id
        app.close()
    return found[Metric.DAU], found[Metric.MAU], newest


PERIODS = (7, 90)
product = {period: counted(period) for period in PERIODS}
for period, (_, mau, epoch) in product.items():
    print(
        f"a new key every {period} days: key {epoch} in use at the end, "
        f"MAU of the last day {mau[-1]}"
    )

# %% [markdown]
# The MAU of every day is the same under every period: as long as an old key lives, the rows of
# whoever comes back move to the new name before they are counted.

# %%
for period in PERIODS:
    for one, other in zip(product[period][:2], product[90][:2], strict=True):
        assert (one == other).all()

# %% [markdown]
# ## Counters that forget
#
# With a new salt every day, the same person on two days is two visitors, so the count of a month
# is the sum of its days.
# With a new salt every calendar month, only a window that crosses a month's end counts people
# twice.

# %%
active = np.zeros((USERS, DAYS), dtype=bool)
names: dict[str, int] = {}
for batch in batches:
    places = batch.column("day").cast("int32").to_numpy() - day_number(FIRST)
    for name, place in zip(batch.column("user_id").to_pylist(), places.tolist(), strict=True):
        active[names.setdefault(name, len(names)), place] = True
months = np.array([(FIRST + dt.timedelta(place)).month for place in range(DAYS)])


def window(place: int) -> slice:
    """The days of the window that ends at a place."""
    return slice(max(place - WINDOW + 1, 0), place + 1)


true = np.array([active[:, window(place)].any(axis=1).sum() for place in range(DAYS)])
daily = np.array([active[:, window(place)].sum() for place in range(DAYS)])
monthly = np.array(
    [
        sum(
            (active[:, window(place)] & (months[window(place)] == month)).any(axis=1).sum()
            for month in set(months[window(place)])
        )
        for place in range(DAYS)
    ]
)
assert (true == product[90][1]).all()

full = slice(WINDOW - 1, None)
lines = [
    "| counter | MAU of the last day | × the truth, mean over the days with a full window |",
    "|---|---|---|",
    *(
        f"| {name} | {series[-1]:,} | {(series[full] / true[full]).mean():.2f} |"
        for name, series in {
            "dpdau, a new key every 7 days": product[7][1],
            "a new salt every calendar month": monthly,
            "a new salt every day": daily,
        }.items()
    ),
]
display(Markdown("\n".join(lines)))

# %%
figure = Figure(figsize=(8, 3.6), layout="constrained")
axis = figure.subplots()
for name, series, color in (
    ("a new salt every day", daily, "#D55E00"),
    ("a new salt every calendar month", monthly, "#E69F00"),
    ("dpdau, a new key every 7 days", product[7][1], "#0072B2"),
):
    axis.plot(range(1, DAYS + 1), series, color=color, label=name)
axis.set(xlabel="day", ylabel=f"users of the last {WINDOW} days", ylim=(0, None))
axis.grid(color="#dddddd")
axis.legend(frameon=False, loc="upper left")
picture = io.StringIO()
figure.savefig(picture, format="svg")
display(
    SVG(picture.getvalue()), metadata={"alt": "MAU under counters that forget, and under dpdau"}
)

# %% [markdown]
# A counter with a daily salt keeps less about people, and its DAU is right; its MAU is another
# number under the same name.
# dpdau pays for a right MAU with a window in which two keys live, and with rules for what may
# come late: [key rotation](../guides/rotation.md) says both.
