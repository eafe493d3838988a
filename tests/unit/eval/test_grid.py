"""The grid of the experiment: what is run, at which ε, and how often."""

from dpdau.eval.grid import FULL, QUICK
from dpdau.eval.streams import Kind, Pattern


def test_the_full_grid_is_the_one_that_was_asked_for() -> None:
    """10,000 and 100,000 users, three shares, two patterns and kinds, and each ε."""
    assert {10_000, 100_000} == {size.users for size in FULL.sizes}
    assert {0.0, 0.05, 0.20} == {removal.share for removal in FULL.removals}
    assert set(Pattern) == {removal.pattern for removal in FULL.removals}
    assert set(Kind) == {removal.kind for removal in FULL.removals}
    assert {"0.1", "0.3", "1.0"} == {level.dau for level in FULL.levels}
    assert {"0.1", "0.5", "1.0", "1.5"} == {level.plan for level in FULL.levels}
    assert ("cdnow", "nycflights") == FULL.data_sets


def test_every_workload_has_its_methods_on_exact_counts_once() -> None:
    """Of the levels of a workload, one carries the totals; heavy ones have the main level alone."""
    tasks = FULL.tasks(seed=1)
    heavy = [task for task in tasks if task.workload.erasures > 2_000]

    assert len(FULL.workloads(seed=1)) == sum(bool(task.totals) for task in tasks)
    assert heavy
    assert {FULL.main} == {task.level for task in heavy}


def test_seeds_differ_between_streams_and_not_between_removals() -> None:
    """Streams with and without removals are the same streams."""
    seeds = {
        removal.label: {one.seed for one in FULL.workloads(7) if one.removal == removal}
        for removal in FULL.removals
    }

    assert {7, 8, 9} == seeds["none"]
    assert all(found <= seeds["none"] for found in seeds.values())


def test_the_quick_grid_is_one_level() -> None:
    """It stays small: two workloads at one level."""
    assert 2 == len(QUICK.tasks(seed=1))
