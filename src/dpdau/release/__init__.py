"""Opens plans (charge) and takes their steps (count, noise, record): the one road out."""

from dpdau.release.calendar import Calendar
from dpdau.release.growth import GrowthReleaser
from dpdau.release.months import MonthReleaser, NoiseDesk
from dpdau.release.on_demand import Releaser

__all__ = ["Calendar", "GrowthReleaser", "MonthReleaser", "NoiseDesk", "Releaser"]
