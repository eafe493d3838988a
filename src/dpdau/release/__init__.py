"""Opens plans (charge) and takes their steps (count, noise, record): the one road out."""

from dpdau.release.calendar import Calendar
from dpdau.release.growth import GrowthReleaser
from dpdau.release.live import LiveReleaser
from dpdau.release.months import MonthReleaser
from dpdau.release.noise import NoiseDesk
from dpdau.release.on_demand import Releaser

__all__ = ["Calendar", "GrowthReleaser", "LiveReleaser", "MonthReleaser", "NoiseDesk", "Releaser"]
