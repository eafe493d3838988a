"""A look into the ledger's file says no only where that is certain."""

from dpdau.ledger.peek import may_have_plan
from simulation.ledger_cases import file_of, folder_in_memory, open_ledger, open_request, url_of


def test_a_plan_that_is_there_is_seen() -> None:
    """Before the ledger is made and before the plan opens there is none; afterwards there is."""
    with folder_in_memory() as folder:
        seen = [may_have_plan(url_of(folder), "plan-2026-02")]
        ledger = open_ledger(folder)
        seen.append(may_have_plan(url_of(folder), "plan-2026-02"))
        ledger.open_plan(open_request())
        seen.append(may_have_plan(url_of(folder), "plan-2026-02"))
        seen.append(may_have_plan(url_of(folder), "plan-2026-03"))
        ledger.close()
    assert [False, False, True, False] == seen


def test_what_cannot_be_read_may_have_it() -> None:
    """A database elsewhere, and a file that is no ledger, are for `Ledger` to judge."""
    with folder_in_memory() as folder:
        file_of(folder).parent.mkdir()
        file_of(folder).write_bytes(b"no database at all" * 100)
        assert may_have_plan(url_of(folder), "plan-2026-02")
    assert may_have_plan("postgresql://there/ledger", "plan-2026-02")
