"""Problem documents."""

from typing import Any

import pytest

from dpdau.api.problems import internal_problem, problem, problem_of, question_error
from dpdau.errors import (
    OUTCOMES,
    DpdauError,
    NotAuthenticatedError,
    OverloadedError,
    RateLimitedError,
    ReleaseNotReadyError,
)

RETRIED = {RateLimitedError: "7", OverloadedError: "3"}
FACTS = {leaf: {"retry_after_seconds": int(after)} for leaf, after in RETRIED.items()}


@pytest.mark.parametrize("leaf", sorted(OUTCOMES, key=lambda leaf: leaf.code))
def test_every_leaf_has_a_document(leaf: type[DpdauError]) -> None:
    """The status is the table's; 503 and rate limits say when to come again."""
    answer = problem_of(leaf("Expected this, found that.", **FACTS.get(leaf, {})))

    assert OUTCOMES[leaf].http_status == answer.status_code
    assert f"urn:dpdau:problem:{leaf.code}".encode() in answer.body
    retry = RETRIED.get(leaf, "1" if answer.status_code == 503 else None)
    assert retry == answer.headers.get("retry-after")
    asks = "APIKey" if leaf is NotAuthenticatedError else None
    assert asks == answer.headers.get("www-authenticate")


def test_facts_never_replace_a_member_of_the_standard() -> None:
    """A fact called `status` or `detail` is left out; the others are shown."""
    answer = problem_of(ReleaseNotReadyError("Wait.", status=200, code="x", day="2026-01-01"))

    assert (
        b'{"type":"urn:dpdau:problem:not_ready","title":"Conflict","status":409,'
        b'"code":"not_ready","detail":"Wait.","day":"2026-01-01"}'
    ) == answer.body


def test_a_bug_shows_nothing_of_itself() -> None:
    """The internal document is the same for every bug."""
    assert 500 == internal_problem().status_code
    assert internal_problem().body == internal_problem().body


def test_the_title_is_the_phrase_of_the_status() -> None:
    """Any status has its phrase as title."""
    assert b'"title":"Method Not Allowed"' in problem(status=405, code="x", detail="y").body


def test_wrong_parameters_are_named_without_their_values() -> None:
    """The error has field and message of each fault, and not the input; the list has a limit."""
    place = ("query", "end")
    fault: Any = {"type": "date", "loc": place, "msg": "Expected a date", "input": "canary"}

    error = question_error([fault] * 50)

    assert "invalid_plan" == error.code
    assert [{"field": "query.end", "message": "Expected a date"}] * 20 == error.facts["errors"]
    assert "canary" not in f"{error}{error.facts}"


def test_an_unknown_parameter_is_not_named() -> None:
    """The name of a parameter that is not known here is the sender's, and is not repeated."""
    fault: Any = {"type": "extra_forbidden", "loc": ("query", "canary"), "msg": "no", "input": ""}

    error = question_error([fault])

    assert ["query"] == [one["field"] for one in error.facts["errors"]]
    assert "canary" not in f"{error}{error.facts}"
