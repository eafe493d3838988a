"""The product's noise against its exact law, and its accounting against exact losses."""

import subprocess
import sys

import pytest

import noise_checks as checks

pytestmark = pytest.mark.statistical

_TWO_PROCESSES = """
import os
from dpdau.mechanisms.sampling import OpenDPNoise
noise = OpenDPNoise()
before = noise.discrete_gaussian(2.0**39, 20).tolist()
reader, writer = os.pipe()
child = os.fork()
after = noise.discrete_gaussian(2.0**39, 20).tolist()
if child == 0:
    os.write(writer, repr(after).encode())
    os._exit(0)
os.waitpid(child, 0)
print(before + after + eval(os.read(reader, 65536).decode()))
"""


def test_discrete_laplace_releases_follow_their_exact_law() -> None:
    """20,000 releases at each of four scales pass a chi-square test against the exact law."""
    checks.laplace_law()


def test_discrete_gaussian_releases_follow_their_exact_law() -> None:
    """20,000 releases at each of three scales pass a chi-square test against the exact law."""
    checks.gaussian_law()


def test_releases_drawn_one_at_a_time_follow_their_exact_law() -> None:
    """20,000 separate draws of each default mechanism pass the same test and are uncorrelated."""
    checks.single_draw_law()


def test_the_published_interval_covers_the_exact_count() -> None:
    """At least 95 % of 20,000 intervals hold the count."""
    checks.intervals_cover()


def test_no_draw_is_ever_repeated() -> None:
    """Draws of an enormous scale are all different, in one vector and across calls."""
    checks.releases_are_fresh()


def test_neighboring_counts_cannot_be_told_apart_better_than_claimed() -> None:
    """A black-box bound from 2 × 20,000 releases does not exceed the claimed ε or ρ."""
    checks.neighbors_are_hidden()


def test_processes_and_forks_draw_different_noise() -> None:
    """Two fresh processes, and the parent and child of a fork, share not one of 120 draws."""
    drawn = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _TWO_PROCESSES], capture_output=True, text=True, check=True
        )
        drawn += eval(done.stdout)
    assert 120 == len(drawn)
    assert len(drawn) == len(set(drawn))
