"""dpdau: differentially private daily, weekly and monthly active-user counts."""

__version__ = "0.1.0"
