"""When a request is sent again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_faults import ManualTime
from dpdau.client.calls import Refusal
from dpdau.client.retry import Retry, jitter
from dpdau.errors import InvalidSettingError, ServiceUnreachableError

ERROR = ServiceUnreachableError("Expected an answer, found none.")
AGAIN = Refusal(ERROR, may_repeat=True)


def waits(time: ManualTime, refusal: Refusal, **options: float) -> list[float]:
    """The waits of a call that is refused each time."""
    attempts = time.retry(**options).begin()
    while (wait := attempts.wait_after(refusal)) is not None:
        time.sleep(wait)
    return time.waits


def test_waits_double_up_to_the_longest() -> None:
    """Each wait is the drawn share of a longest one that doubles."""
    limits = {"attempts_max": 6, "first_wait_seconds": 1.0, "wait_seconds_max": 5.0}

    assert [0.5, 1.0, 2.0, 2.5, 2.5] == waits(ManualTime(), AGAIN, **limits, seconds_max=1e9)


def test_total_time_is_bounded() -> None:
    """A wait that would end after the limit is not begun."""
    time = ManualTime()

    assert [0.5, 1.0] == waits(time, AGAIN, first_wait_seconds=1.0, seconds_max=3.0)


def test_one_attempt_never_repeats() -> None:
    """With one attempt there is no wait."""
    assert [] == waits(ManualTime(), AGAIN, attempts_max=1)


def test_what_may_not_be_repeated_is_not() -> None:
    """A refusal that stays is not tried again."""
    assert [] == waits(ManualTime(), Refusal(ERROR, may_repeat=False))


def test_a_wait_that_is_asked_for_too_long_ends_it() -> None:
    """A Retry-After beyond the total time is not waited for, nor cut short."""
    assert [] == waits(ManualTime(), Refusal(ERROR, may_repeat=True, retry_after_seconds=31.0))


@given(
    asked=st.none() | st.floats(0, 1e6),
    attempt=st.integers(1, 10_000),
    fraction=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_in_its_bounds(asked: float | None, attempt: int, fraction: float) -> None:
    """Never below Retry-After, never above the longest wait where nothing was asked."""
    retry = Retry(fraction=lambda: fraction)
    wait = retry.wait_seconds(attempt, Refusal(ERROR, True, asked))

    if asked is None:
        assert 0 <= wait <= retry.wait_seconds_max
    else:
        assert asked <= wait <= asked + retry.first_wait_seconds


def test_jitter_is_a_fraction() -> None:
    """The drawn share is below 1, and differs from draw to draw."""
    drawn = [jitter() for _ in range(100)]

    assert 0 <= min(drawn) < max(drawn) < 1


@pytest.mark.parametrize("wrong", [{"attempts_max": 0}, {"first_wait_seconds": -1.0}])
def test_limits_that_mean_nothing(wrong: dict[str, float]) -> None:
    """No attempt and a negative wait are refused."""
    with pytest.raises(InvalidSettingError):
        Retry(**wrong)
