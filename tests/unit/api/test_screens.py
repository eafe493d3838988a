"""The pages as HTML, JSON and CSV, and the forms that open a plan or erase a user."""

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import Request

from dpdau.api.auth import TRAFFIC_SCOPE_KEY, Traffic
from dpdau.api.screens import NAVIGATION, _while_valid
from dpdau.api.server import create_api
from dpdau.api.sheets import SHEETS
from dpdau.api.visits import PLAIN_COOKIE
from dpdau.app import App
from dpdau.app.sessions import Sessions
from dpdau.domain import Metric, Scope
from in_process import key_of, refusal, service
from products import DAY, event, product, send

MONTH = DAY.strftime("%Y-%m")
LAST = "2026-03-13"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A product with a month in course, two segments and one number on demand."""
    with product(
        tmp_path_factory.mktemp("pages"),
        RELEASE_POLICY="plan",
        DIMENSIONS="platform",
        PLAN_SEGMENTS="platform=ios,platform=web",
    ) as app:
        rows = [event(f"u{one}", DAY, metadata={"platform": "ios"}) for one in range(40)]
        send(app, [*rows, event("")])
        app.take_due()
        app.release(Metric.DAU, DAY, fresh=True)
        yield app


@pytest.fixture(scope="module")
def pages(published: App) -> Iterator[httpx.Client]:
    """A client with the bootstrap key."""
    with service(published) as client:
        yield client


@pytest.fixture
def planning(tmp_path: Path) -> Iterator[App]:
    """A product without an open plan."""
    with product(tmp_path, RELEASE_POLICY="plan", DIMENSIONS="platform") as app:
        yield app


@pytest.mark.parametrize("name", SHEETS)
def test_each_page_has_three_forms(pages: httpx.Client, name: str) -> None:
    """HTML that obeys the policy and marks its place, JSON, and CSV with the same rows."""
    page = pages.get(f"/pages/{name}")
    facts = pages.get(f"/pages/{name}.json")
    table = pages.get(f"/pages/{name}.csv")

    assert [200, 200, 200] == [one.status_code for one in (page, facts, table)]
    assert 1 == page.text.count('aria-current="page"')
    assert f'href="/pages/{name}.json"' in page.text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", page.text)
    assert not re.search(r"<link(?![^>]*href=\"/)|https?://", page.text)
    assert "no-store" == page.headers["cache-control"]
    assert "application/json" == facts.headers["content-type"]
    assert f'attachment; filename="dpdau-{name}.csv"' == table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert all(None not in row and None not in row.values() for row in rows)


def test_the_first_page_is_the_overview(pages: httpx.Client) -> None:
    """At `/`, and every page is linked from it."""
    first, page = pages.get("/").text, pages.get("/pages/overview").text

    assert first == page
    for _, path, title in NAVIGATION:
        assert re.search(rf'<a href="{path}"[^>]*>{title}</a>', first)


def test_the_overview_shows_what_was_released(pages: httpx.Client) -> None:
    """The same numbers as `/series`, the newest on cards, their ratio, and what is not final."""
    facts = pages.get("/pages/overview.json").json()
    query = {"metrics": "dau,wau,mau", "from": facts["from"], "to": facts["to"]}
    series = pages.get("/series", params=query).json()["releases"]

    assert {one["release_id"] for one in series} == {one["release_id"] for one in facts["releases"]}
    assert ("2026-03-01", LAST) == (facts["first_day"], facts["last_day"])
    newest = {one["metric"]: one["release"] for one in facts["latest"]}
    assert {"dau": 0, "wau": 40, "mau": 40} == {
        name: one["estimate"] for name, one in newest.items()
    }
    assert "on one or more of the 7 days" in newest["wau"]["definition"]
    on_day = next(one for one in facts["days"] if one["day"] == DAY.isoformat())
    assert 100.0 == on_day["stickiness"]["estimate"]
    assert on_day["stickiness"]["lower"] < 100 < on_day["stickiness"]["upper"]
    assert {"from": "2026-03-14", "to": "2026-03-15"}.items() <= facts["waiting"].items()


def test_a_view_says_that_it_is_not_final(pages: httpx.Client) -> None:
    """A model's numbers are marked in all three forms."""
    page = pages.get("/", params={"view": "consistent"}).text
    rows = csv.DictReader(io.StringIO(pages.get("/pages/overview.csv?view=consistent").text))

    assert "It is not final" in page
    assert {"consistent"} == {row["status"] for row in rows}


def test_no_page_has_an_exact_count(published: App) -> None:
    """Also where the service puts exact values into answers."""
    with service(published, unsafe_debug=True) as client:
        for name in SHEETS:
            assert "exact_value" not in client.get(f"/pages/{name}.json").text


def test_segments_are_switched(pages: httpx.Client) -> None:
    """One at a time, beside the newest numbers of all; one that is not declared is refused."""
    facts = pages.get("/pages/segments.json", params={"segment": "platform=ios"}).json()
    page = pages.get("/pages/segments", params={"segment": "browser=x"})

    assert {"platform=ios"} == {one["segment"] for one in facts["releases"]}
    assert [None, "platform=ios", "platform=web"] == [one["segment"] for one in facts["newest"]]
    assert 40 == facts["newest"][1]["mau"]["estimate"]
    assert 422 == page.status_code
    assert "That did not work" in page.text


def test_the_budget_burns_down(pages: httpx.Client) -> None:
    """The plan is paid at once, a number on demand costs its price, and the end is forecast."""
    facts = pages.get("/pages/budget.json").json()
    spent = {one["metric"]: one["epsilon_spent"] for one in facts["budgets"]}

    assert (MONTH, "2026-02", "2026-04") == tuple(
        facts[name] for name in ("month", "month_before", "month_after")
    )
    assert {"plan": 3.0, "dau": 0.3, "wau": 0.0, "mau": 0.0} == spent
    assert 13 == facts["plan"]["days_taken"]
    assert {"plan": 100, "dau": 100} == {
        name: facts["burn_down"][0][name] for name in ("plan", "dau")
    }
    last = [row for row in facts["burn_down"] if "dau" in row][-1]
    assert (0, 90) == (last["plan"], last["dau"])
    assert "used up on 2026-03-24" in pages.get("/pages/budget").text


def test_the_log_is_paged_and_filtered(pages: httpx.Client) -> None:
    """Newest first, each with its definition; the pages hold every release once."""
    found, query = [], {"limit": "50"}
    while True:
        answer = pages.get("/pages/releases.json", params=query)
        body = answer.json()
        found += body["releases"]
        if body["next"] is None:
            break
        assert f"after={body['next']}" in answer.headers["link"]
        query["after"] = body["next"]
    only = pages.get(
        "/pages/releases.json", params={"metric": "dau", "from": LAST, "segment": "platform=web"}
    ).json()["releases"]

    assert 13 * 9 + 1 == len({one["release_id"] for one in found})
    assert ("dau", DAY.isoformat()) == (found[0]["metric"], found[0]["day"])
    assert "Distinct users active on 2026-03-10 (UTC)." == found[0]["definition"]
    assert ["Distinct users of platform=web active on 2026-03-13 (UTC)."] == [
        one["definition"] for one in only
    ]


def test_what_became_of_events_is_for_operators_and_in_steps(
    published: App, pages: httpx.Client
) -> None:
    """A key that only reads is told that it is not shown; an operator sees no count."""
    readers = key_of(published, Scope.READ)

    assert {} == pages.get("/pages/health.json", headers=readers).json()["intake"]
    assert {
        "received": "under 1,000",
        "accepted": "over 50 %",
        "duplicate": "none",
        "late": "none",
        "rejected": "1 to 10 %",
    } == pages.get("/pages/health.json").json()["intake"]
    assert pages.get("/pages/health.json").json()["is_ready"]


def test_pages_ask_for_the_scope(published: App, pages: httpx.Client) -> None:
    """`read` for all; receipts and erasing ask for `erase`."""
    senders, readers = key_of(published, Scope.INGEST), key_of(published, Scope.READ)

    assert (403, "not_authorized") == refusal(pages.get("/pages/budget.json", headers=senders))
    assert 403 == pages.get("/pages/budget", headers=senders).status_code
    assert not pages.get("/pages/erasures.json", headers=readers).json()["may_erase"]
    for path in ("/pages/erasures", "/pages/plans"):
        answer = pages.post(path, data={"user_id": "u1", "month": MONTH}, headers=readers)
        assert 403 == answer.status_code


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/pages/nothing", 404),
        ("/pages/budget?month=2026-13", 422),
        ("/pages/overview?from=2026-03-02&to=2026-03-01", 422),
        ("/pages/overview?colour=red", 422),
        ("/pages/plans?epsilon=0", 422),
        ("/pages/plans?epsilon=1e9", 422),
        ("/pages/plans?delta=0.5", 422),
        ("/pages/plans?epsilon=e", 422),
        ("/pages/plans?delta=.", 422),
        ("/pages/releases?after=x", 422),
        ("/pages/erasures?receipt=none", 404),
    ],
)
def test_what_cannot_be_shown_is_told(pages: httpx.Client, path: str, status: int) -> None:
    """On a page for people, and as a problem document elsewhere, without what was asked."""
    page = pages.get(path)
    name, _, query = path.partition("?")

    assert status == page.status_code
    assert "That did not work" in page.text
    assert "colour" not in page.text
    assert status == refusal(pages.get(f"{name}.json?{query}"))[0]


def test_pricing_shows_other_terms_and_charges_nothing(planning: App) -> None:
    """Less ε gives wider intervals; the terms of the deployment stay what they are."""
    with service(planning) as client:
        own = client.get("/pages/plans.json").json()
        other = client.get(
            "/pages/plans.json", params={"epsilon": "1.5", "delta": "1e-9", "window": "28"}
        ).json()

    assert {"epsilon": 3.0, "delta": 1e-6, "window": 30} == own["configured"] == own["terms"]
    assert {"epsilon": 1.5, "delta": 1e-9, "window": 28} == other["terms"]
    widths = [one["quote"]["lines"][0]["half_widths_95"][5] for one in (own, other)]
    assert 1.9 * widths[0] < widths[1]
    assert 0 == planning.budget("plan", DAY).epsilon_spent


def test_what_is_not_solved_yet_is_told(tmp_path: Path) -> None:
    """A service solves a strategy beside its requests; until then there is no price."""
    settings = {"RELEASE_POLICY": "plan", "MAU_WINDOW_DAYS": 40}
    with product(tmp_path, serve_at="http://127.0.0.1", **settings) as app, service(app) as client:
        facts, page = client.get("/pages/plans.json").json(), client.get("/pages/plans").text

    assert facts["quote"] is None
    assert "found none yet" in facts["refusal"]
    assert "Not priced yet" in page


def test_opening_charges_the_price_that_the_button_named(planning: App) -> None:
    """Another price is refused and nothing is charged; the right one opens, takes the days that
    have closed, and shows the budget."""
    with service(planning) as client:
        fields = {"month": MONTH, "epsilon": "1", "delta": "1e-6"}
        refused = client.post("/pages/plans", data=fields)
        before = planning.budget("plan", DAY).epsilon_spent
        opened = client.post("/pages/plans", data={**fields, "epsilon": "3"})
        again = client.post("/pages/plans", data={**fields, "month": "never"})

    assert (422, 0) == (refused.status_code, before)
    assert "the price that the plan has now" in refused.text
    assert (303, f"/pages/budget?month={MONTH}") == (
        opened.status_code,
        opened.headers["location"],
    )
    assert (3.0, 13) == (
        planning.budget("plan", DAY).epsilon_spent,
        planning.month(MONTH).days_taken,
    )
    assert 422 == again.status_code


def test_an_erasure_shows_its_receipt_and_names_nobody(planning: App) -> None:
    """The id of the user is in no address and on no page; the list has the receipt."""
    send(planning, [event("somebody-who-goes", DAY)])
    with service(planning) as client:
        done = client.post("/pages/erasures", data={"user_id": "somebody-who-goes", "sure": "yes"})
        page = client.get(done.headers["location"])
        recent = client.get("/pages/erasures.json").json()["erasures"]
        empty = client.post("/pages/erasures", data={"user_id": "", "sure": "yes"})
        unsure = client.post("/pages/erasures", data={"user_id": "somebody-who-stays"})
        after = client.get("/pages/erasures.json").json()["erasures"]

    assert 303 == done.status_code
    assert "somebody" not in done.headers["location"] + page.text
    assert "<dt>Days touched</dt><dd>1</dd>" in page.text
    assert [recent[0]["erasure_id"]] == re.findall(r"receipt=(\S+)", done.headers["location"])
    assert [422, 422] == [empty.status_code, unsure.status_code]
    assert recent == after


@pytest.mark.parametrize("name", ["overview", "segments"])
def test_a_page_shows_no_more_days_than_are_released(pages: httpx.Client, name: str) -> None:
    """A range is at most ten years, and costs what is in it; in each form of the page."""
    wide = {"from": "2021-01-01", "to": "2030-12-31"}
    facts = pages.get(f"/pages/{name}.json", params=wide).json()
    page = pages.get(f"/pages/{name}", params=wide)
    beside = pages.get(f"/pages/{name}.json", params={"from": "2026-05-01", "to": "2026-05-31"})

    assert ("2021-01-01", "2030-12-31") == (facts["from"], facts["to"])
    assert ("2026-03-01", LAST, 13) == (
        facts["days"][0]["day"],
        facts["days"][-1]["day"],
        len(facts["days"]),
    )
    assert [200, 200] == [page.status_code, beside.status_code]
    assert ([], []) == (beside.json()["days"], beside.json()["releases"])


@pytest.mark.parametrize("name", ["overview", "segments", "releases"])
@pytest.mark.parametrize("form", ["", ".json", ".csv"])
@pytest.mark.parametrize(
    "query",
    [
        "from=1901-01-01&to=9998-12-31",
        "from=2016-01-01&to=2026-01-08",
        "to=0001-01-01",
        "from=9999-12-31",
    ],
)
def test_no_range_is_without_end(pages: httpx.Client, name: str, form: str, query: str) -> None:
    """More than ten years, or days at the ends of the calendar, are refused in every form."""
    assert 422 == pages.get(f"/pages/{name}{form}?{query}").status_code


@pytest.mark.parametrize("page", ["budget", "plans"])
@pytest.mark.parametrize(
    ("month", "status"), [("0001-01", 422), ("1899-12", 422), ("9999-12", 422), ("1900-01", 200)]
)
def test_months_are_bounded(pages: httpx.Client, page: str, month: str, status: int) -> None:
    """Each has days before and after it."""
    assert status == pages.get(f"/pages/{page}.json", params={"month": month}).status_code


@pytest.mark.parametrize("path", ["/", "/login", "/docs", *(f"/pages/{one}" for one in SHEETS)])
def test_a_head_is_a_page_without_its_body(pages: httpx.Client, path: str) -> None:
    """For those who look whether a page is there."""
    asked, whole = pages.head(path), pages.get(path)

    assert (whole.status_code, whole.headers.get("content-type"), b"") == (
        asked.status_code,
        asked.headers.get("content-type"),
        asked.content,
    )


def test_the_guarantee_is_the_published_one(pages: httpx.Client) -> None:
    """The figures of the guarantee, computed from the settings."""
    rows = {one["budget"]: one for one in pages.get("/pages/guarantee.json").json()["figures"]}

    def figures(name: str) -> list[float]:
        return [rows[name][f"{one}_epsilon"] for one in ("month", "replace_one", "year")]

    assert [3.0, 6.53, 36.0] == figures("plan")
    assert [3.5, 3.5, 42.0] == figures("wau")
    assert [3.5, 5.16, 42.0] == figures("mau")
    assert [9.19, 12.75, 110.28] == figures("all")
    assert [12.45, 36.0, 14.76, 64.03] == [
        rows[name]["year_together_epsilon"] for name in ("plan", "dau", "wau", "all")
    ]


def test_the_guarantee_is_that_of_a_month(tmp_path: Path) -> None:
    """Of the newest month with a charge, with what was granted; the page leads with all budgets,
    and says what later months will be."""
    with product(tmp_path, RELEASE_POLICY="plan") as app, service(app) as client:
        app.open_month(MONTH)
        app.grant("dau", DAY, reason="an audit")
        page = client.get("/pages/guarantee").text
        facts = client.get("/pages/guarantee.json").json()
        later = client.get("/pages/guarantee.json?month=2026-04").json()
        budget = client.get("/pages/budget").text

    assert (MONTH, True, False) == (facts["month"], facts["is_open"], later["is_open"])
    assert {"plan": True, "dau": False} == {
        one["budget"]: one["is_open"] for one in facts["figures"][:2]
    }
    assert '<strong class="nowrap">ε 12.19 at δ 1e-6</strong>' in page
    assert 'is opened at <span class="nowrap">ε 9.19, δ 1e-6</span>' in page
    assert 9.19 == later["figures"][-1]["month_epsilon"]
    assert "1 more allowance granted" in budget
    assert "grant to DAU on demand" in budget


def test_a_price_is_exact_on_the_button(tmp_path: Path) -> None:
    """With every digit of the settings, on the sliders too; a rounded one opens nothing."""
    settings = {"PLAN_EPSILON": "12.3456789012", "PLAN_DELTA": "2.5e-7"}
    with product(tmp_path, RELEASE_POLICY="plan", **settings) as app, service(app) as client:
        page, facts = client.get("/pages/plans").text, client.get("/pages/plans.json").json()
        fields = {"month": MONTH, "epsilon": "12.3457", "delta": "2.5e-7"}
        rounded = client.post("/pages/plans", data=fields)
        opened = client.post("/pages/plans", data=fields | {"epsilon": "12.3456789012"})
        after = client.get(f"/pages/plans.json?month={MONTH}").json()

    assert "for ε 12.3456789012, δ 2.5e-7</button>" in page
    assert 'max="12.3456789012" step="any" value="12.3456789012"' in page
    assert ["1e-6", "2.5e-7", "1e-7"] == facts["sliders"]["deltas"][3:6]
    assert facts["is_configured"]
    assert [422, 303] == [rounded.status_code, opened.status_code]
    assert (False, None) == (after["can_open"], after["cannot_open"])


def test_opening_is_offered_where_it_can_be_done(planning: App) -> None:
    """Not for a month that is far ahead, nor for a key without the scope: the page says why."""
    readers = key_of(planning, Scope.READ)
    with service(planning) as client:
        far = client.get("/pages/plans?month=2026-07")
        near, keyless = (client.get("/pages/plans", headers=one) for one in ({}, readers))
        facts = client.get("/pages/plans.json?month=2026-07").json()

    assert 'method="post" action="/pages/plans"' in near.text
    for page, reason in ((far, "within 30 days"), (keyless, "the scope `release`")):
        assert 'method="post" action="/pages/plans"' not in page.text
        assert reason in page.text
    assert not facts["can_open"]


def test_a_gateway_without_activity_offers_nothing(tmp_path: Path) -> None:
    """Neither a plan nor an erasure; and its health names the broker that does not answer."""
    settings = {
        "INGEST_MODE": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "KAFKA_TOPIC": "events",
    }
    with product(tmp_path, RELEASE_POLICY="plan", **settings) as app, service(app) as client:
        texts = {name: client.get(f"/pages/{name}").text for name in ("plans", "erasures")}
        checks = client.get("/pages/health.json").json()["checks"]

    for name, text in texts.items():
        assert "only passes events on" in text
        assert f'method="post" action="/pages/{name}"' not in text
    assert ("fail", "Kafka does not answer, or does not take what it is given") == (
        checks[0]["state"],
        checks[0]["message"],
    )


def test_a_refused_question_is_told_in_words(pages: httpx.Client) -> None:
    """What the parameter may be, and no pattern."""
    told = {
        "budget?month=2026-13": "Expected a month as 2026-03, from 1900-01 to 9998-12 in “month”.",
        "plans?epsilon=e": "Expected a decimal number, as 0.5 or 3 in “epsilon”.",
        "plans?epsilon=99": "Expected ε from 0.01 to 50, found another.",
        "overview?colour=red": "The address has a parameter that this page does not know.",
    }
    assert list(told.values()) == [
        pages.get(f"/pages/{path.replace('?', '.json?')}").json()["detail"] for path in told
    ]


def test_the_first_page_of_an_empty_product_says_what_to_do(tmp_path: Path) -> None:
    """A command to copy, for this address, and what comes next under each policy."""
    for policy, then in (("plan", "opens the plan of its month by itself"), ("on_demand", "/dau/")):
        with product(tmp_path / policy, RELEASE_POLICY=policy) as app, service(app) as client:
            page = client.get("/").text
            odd = client.get("/", headers={"Host": "a'b$(c)"}).text

        assert "/events \\" in page
        assert then in page
        assert "curl http://localhost:8000/events" in odd


def test_a_stream_ends_with_its_session(tmp_path: Path) -> None:
    """A page's live counter says nothing more once its key is revoked."""
    with product(tmp_path, RELEASE_POLICY="plan", LIVE_EPSILON=1.0) as app:
        key_id, key = app.ledger.keys.create("readers", [Scope.READ], None)
        said: list[str] = []

        async def listen() -> None:
            api = create_api(app)
            texts, session = _texts(), Sessions(app).begin(key, place=PLAIN_COOKIE)
            request = Request(
                {
                    "type": "http",
                    "app": api,
                    "path": "/pages/live",
                    "headers": [(b"cookie", f"{PLAIN_COOKIE}={session}".encode())],
                    TRAFFIC_SCOPE_KEY: Traffic(),
                }
            )
            async for text in _while_valid(request, texts):
                said.append(text)
                app.ledger.keys.revoke(key_id)

        async def _texts() -> AsyncIterator[str]:
            for text in ("first", "second", "third"):
                yield text

        asyncio.run(listen())

    assert ["first"] == said


def test_an_empty_product_has_every_page(planning: App) -> None:
    """Each says what to do first."""
    with service(planning) as client:
        texts = {name: client.get(f"/pages/{name}").text for name in SHEETS}
        assert (404, "not_found") == refusal(client.get("/pages/live"))

    assert "Nothing is released yet" in texts["overview"]
    assert "PLAN_SEGMENTS" in texts["segments"]
    assert "No plan is open" in texts["budget"]
    assert "Nobody was erased" in texts["erasures"]
