"""The judge finds what is wrong: each promise broken on purpose, in an otherwise sound history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.simulation.judge import Books, InForce, Lists, Lull, Moments, judge
from tests.simulation.world import INVENTED, LURE, SPELT, STRANGER

SETTINGS = {
    "PENSTOCK_RESERVE": "0.1", "PENSTOCK_RUN_BUDGET": "0.5", "PENSTOCK_DAILY_CAP": "1",
    "PENSTOCK_MONTHLY_CAP": "2", "PENSTOCK_PUBLISH_CRON": "0 10 * * *",
    "PENSTOCK_MAX_POSTS_PER_DAY": "1", "PENSTOCK_APPROVAL": "manual",
    "PENSTOCK_TIMEZONE": "Europe/Berlin",
    "PENSTOCK_RATES": "devto.view=0.0002,bluesky.like=0.002",
    "PENSTOCK_EARN_DAILY_CAP": "0.05",
}  # fmt: skip
BEGAN = datetime(2026, 11, 23, 8, tzinfo=UTC)
KEY = "a-secret-key"


def entry(number: int, **changes: Any) -> Mapping[str, Any]:
    """A hold or what settles it; the same attempt for both."""
    return {
        "id": f"hold:r1.{number}", "at": "2026-11-23T09:00:02.000000Z", "state": "settled",
        "debit": "inference:llm", "credit": "treasury", "amount": "0.020000", "code": "inference",
        "run": "r1", "attempt": f"r1.{number}", "ref": None,
    } | changes  # fmt: skip


def settled(number: int, **changes: Any) -> Mapping[str, Any]:
    return entry(
        number,
        **{
            "id": f"hold:r1.{number}:settle", "state": "posted", "amount": "0.010000",
            "ref": f"hold:r1.{number}",
        } | changes,
    )  # fmt: skip


DEPOSIT = entry(
    0, id="deposit:a", state="posted", debit="treasury", credit="grants", amount="5.000000",
    code="deposit", run=None, attempt=None,
)  # fmt: skip
ATTEMPTS: list[Mapping[str, Any]] = [
    {"id": "r1.1", "outcome": "ok", "provider": "llm", "model_returned": "good",
     "cost": "0.010000"},
    {"id": "r1.2", "outcome": "unknown", "provider": "llm", "model_returned": None,
     "cost": "0.020000"},
]  # fmt: skip


def income(ref: str, amount: str) -> Mapping[str, Any]:
    return entry(
        0, id=f"engagement:{ref}", state="posted", debit="treasury", code="engagement",
        credit=f"engagement:{ref.partition(':')[0]}", amount=amount, attempt=None, ref=ref,
    )  # fmt: skip


VIEWS, LIKES = income("devto:r1:view:0-50", "0.010000"), income("bluesky:r1:like:0-7", "0.014000")
DOUBTFUL = settled(2, amount="0.020000", code="uncertain")


def publication(platform: str, remote_id: str, **changes: Any) -> Mapping[str, Any]:
    return {
        "run": "r1", "platform": platform, "state": "published", "remote_id": remote_id,
        "error": None, "payload": '{"posts": [1, 2]}' if platform == "bluesky" else "{}",
        "withdrawal": None, "counted_at": None, "intended_at": BEGAN,
        "published_at": BEGAN, "waits_for_person": False,
    } | changes  # fmt: skip


def run(name: str, day: int) -> dict[str, Any]:
    slot = datetime(2026, 11, day, 9, tzinfo=UTC)
    return dict.fromkeys(("slot", "started_at", "finished_at", "approved_at"), slot) | {"id": name}


BOOKS = Books(
    at=BEGAN,
    problems=[],
    entries=[DEPOSIT, entry(1), settled(1), entry(2), DOUBTFUL, VIEWS, LIKES],
    attempts=ATTEMPTS,
    runs=[run("r1", 23)],
    decisions=[],
    publications=[
        publication("outbox", "a.md"), publication("devto", "17"),
        publication("bluesky", "at://did/app.bsky.feed.post/3k1 3k2"),
    ],
)  # fmt: skip
SAID = "Logs keep 7 records [[1]](http://blog.test/logs.html)."
LISTS = Lists(
    bill=[("llm", "good", 10_000), ("llm", "good", 7_000)],
    articles=[(17, True, {"title": "Of logs", "body_markdown": SAID})],
    posts={
        "3k1": {"text": "Of logs"},
        "3k2": {"text": "More", "reply": {"parent": {"uri": "at://did/app.bsky.feed.post/3k1"}}},
    },
    files={"a.md": f"# Of logs\n\n{SAID}"},
    removed=frozenset(),
    shown={"devto 17": BEGAN, "bluesky 3k1": BEGAN, "bluesky 3k2": BEGAN},
    peaks={
        ("devto", "17", "view"): 50,
        ("bluesky", "3k1", "like"): 3,
        ("bluesky", "3k2", "like"): 4,
    },
    overheard=[],
    pages={"http://blog.test/logs.html": "<p>Logs keep 7 records.</p>"},
    counters={},
    billed={"llm": 17_000},
    deposits=[5_000_000],
    edited=frozenset(),
    expected=[datetime(2026, 11, day, 9, tzinfo=UTC) for day in (23, 30)],
)
GONE = {
    "id": 1, "kind": "gone", "at": datetime(2026, 11, 24, tzinfo=UTC), "sentence": "gone",
    "inputs": {"platform": "devto", "remote_id": "17"},
}  # fmt: skip
ALERT: dict[str, Any] = {
    "kind": "barred", "message": "the key is refused",
    "told_at": datetime(2026, 11, 24, tzinfo=UTC), "raised_at": BEGAN,
}  # fmt: skip
COUNTED = [
    {**each} | {"counted_at": datetime(2026, 11, 30, tzinfo=UTC)} for each in BOOKS.publications
]
AFTERWARDS = replace(BOOKS, runs=[*BOOKS.runs, run("r2", 30)], publications=COUNTED)
MOMENTS = Moments(calm=BOOKS, posts=BOOKS, holds=BOOKS)


def told(lists: Lists = LISTS, books: Books = AFTERWARDS, moments: Moments = MOMENTS) -> list[str]:
    return judge(lists, moments, books, [InForce(0, BEGAN, SETTINGS)], [KEY]).violations


def test_a_sound_history_is_told_nothing() -> None:
    assert told() == []


def test_a_charge_in_doubt_that_no_counter_covers_may_stand() -> None:
    lists = replace(LISTS, counters={"llm": "openrouter"})
    doubt = BOOKS.entries.index(DOUBTFUL) + 1
    assert told(lists, replace(AFTERWARDS, uncompared={"llm": [slice(0, doubt)]})) == []
    assert told(lists, replace(AFTERWARDS, uncompared={"llm": [slice(0, doubt - 1)]})) != []


@pytest.mark.parametrize("way", [-1, 1])
@pytest.mark.parametrize(("compared", "apart"), [(9, 0), (3, 1), (0, 2)])
def test_only_what_no_counter_covers_may_be_off_by_its_rounding(
    compared: int, apart: int, way: int
) -> None:
    books = replace(AFTERWARDS, compared={"llm": compared})
    lists = replace(LISTS, counters={"llm": "new-api"})

    def off(by: int) -> list[str]:
        found = told(replace(lists, billed={"llm": 30_000 + way * by}), books)
        return [line for line in found if "tells of" in line]

    assert off(apart) == []
    assert off(apart + 1) != []


def test_what_is_sent_before_midnight_may_be_shown_after_it() -> None:
    midnight = datetime(2026, 11, 24, 23, tzinfo=UTC)  # of Berlin
    sent, morning = midnight - timedelta(seconds=2), midnight + timedelta(hours=9)
    lists = replace(LISTS, shown={"devto 18": midnight + timedelta(minutes=5), "devto 19": morning})
    books = replace(AFTERWARDS, publications=[
        *COUNTED, publication("devto", "18", run="r2", published_at=sent),
        publication("devto", "19", run="r3", published_at=morning),
    ])  # fmt: skip
    runs = [*AFTERWARDS.runs, run("r3", 26)]
    said = told(lists, replace(books, runs=runs))
    assert [line for line in said if "came out on" in line] == []


def test_half_a_thread_may_be_called_failed() -> None:
    half = publication("bluesky", "at://did/app.bsky.feed.post/3k1", state="failed")
    posts = {"3k1": LISTS.posts["3k1"]}
    books = replace(AFTERWARDS, publications=[*COUNTED[:2], half])
    assert [line for line in told(replace(LISTS, posts=posts), books) if "failed" in line] == []


def test_what_a_person_took_down_is_not_lost() -> None:
    assert told(replace(LISTS, articles=[], removed=frozenset({"devto 17"}))) == []


def test_a_limit_holds_from_the_entry_on_at_which_it_was_set() -> None:
    def said(*since: int) -> list[str]:
        settings = [SETTINGS, {**SETTINGS, "PENSTOCK_RUN_BUDGET": "0.000001"}, SETTINGS]
        chosen = [InForce(n, BEGAN, each) for n, each in zip(since, settings, strict=False)]
        return judge(LISTS, MOMENTS, AFTERWARDS, chosen, [KEY]).violations

    assert said(0, 2, 3) == [], "one that no hold was made under"
    (told,) = said(0, 3)
    assert told.startswith("hold:r1.2 makes 30000, more than PENSTOCK_RUN_BUDGET")


def test_who_waits_for_a_person_does_not_sleep() -> None:
    waits = GONE | {
        "id": 2,
        "kind": "skip",
        "sentence": "a draft waits for approval (`penstock …`)",
    }
    books = replace(BOOKS, publications=COUNTED, decisions=[waits])
    assert told(replace(LISTS, expected=[]), books) == []
    assert told(replace(LISTS, expected=[]), replace(books, decisions=[])) != []


def test_an_article_for_which_the_day_is_full_waits() -> None:
    there = publication("devto", "17", run="r2")

    def said(day: int = 23, hour: int = 9, **changes: Any) -> list[str]:
        waits = publication("devto", "", **{"state": "intended", "published_at": None} | changes)
        lull = Lull([waits, there], [waits, there], datetime(2026, 11, day, hour, tzinfo=UTC))
        return told(moments=replace(MOMENTS, lulls=[lull]))

    assert said() == []
    assert said(hour=23) == [], "it is looked at within an hour of midnight"
    assert said(day=24) != []
    assert said(state="unconfirmed") != []
    assert said(published_at=BEGAN) != []


def test_what_happened_is_news_for_a_week() -> None:
    def said(days: int, kind: str = "gone") -> list[str]:
        at = BEGAN + timedelta(days=days)
        return told(books=replace(AFTERWARDS, alerts=[ALERT | {"kind": kind}], at=at))

    assert said(6) == []
    assert said(8) != []
    assert said(6, "barred") != []


def with_entries(*entries: Mapping[str, Any]) -> Books:
    return replace(AFTERWARDS, entries=entries)


BROKEN: list[tuple[str, str, Callable[[], list[str]]]] = [
    ("two articles", "Dev.to has 2 articles", lambda: told(replace(
        LISTS, articles=[*LISTS.articles, (18, True, {"title": "Of logs"})]))),
    ("a draft beside an article", "Dev.to has 2 articles", lambda: told(replace(
        LISTS, articles=[*LISTS.articles, (18, False, {"title": "Of logs"})]))),
    ("two threads", "Bluesky has 2 threads", lambda: told(replace(
        LISTS, posts={**LISTS.posts, "3k9": {"text": "Of logs"}}))),
    ("two replies", "Bluesky has 2 replies", lambda: told(replace(
        LISTS, posts={**LISTS.posts, "3k9": LISTS.posts["3k2"]}))),
    ("two files", "the outbox has 2 files", lambda: told(replace(
        LISTS, files={**LISTS.files, "a-2.md": "# Of logs\n\nAgain."}))),
    ("an article that is lost", "Dev.to does not have it", lambda: told(replace(
        LISTS, articles=[]))),
    ("a draft that was said to be out", "Dev.to does not have it", lambda: told(replace(
        LISTS, articles=[(17, False, {"title": "Of logs"})]))),
    ("a post that is lost", "Bluesky does not have it", lambda: told(replace(
        LISTS, posts={}))),
    ("a reply that is lost", "Bluesky does not have it", lambda: told(replace(
        LISTS, posts={"3k1": LISTS.posts["3k1"]}))),
    ("a thread that was cut", "1 of 2 posts are", lambda: told(books=replace(
        AFTERWARDS, publications=[
            *BOOKS.publications[:2], publication("bluesky", "at://did/app.bsky.feed.post/3k1")]))),
    ("an article that is out and called failed", "failed, and it is there", lambda: told(
        books=replace(AFTERWARDS, publications=[
            *BOOKS.publications[1:], publication("outbox", "a.md", state="failed")]))),
    ("a thread that is out and called failed", "failed, and it is there", lambda: told(
        books=replace(AFTERWARDS, publications=[*BOOKS.publications[:2], {
            **BOOKS.publications[2], "state": "failed"}]))),
    ("a file nobody knows of", "of which no book knows", lambda: told(replace(
        LISTS, files={**LISTS.files, "b.md": "# Of pages"}))),
    ("a file that is lost", "the outbox does not have it", lambda: told(replace(
        LISTS, files={}))),
    ("an article that was taken back", "was taken back, and is there", lambda: told(books=replace(
        AFTERWARDS, publications=[
            *BOOKS.publications[1:], publication("outbox", "a.md", withdrawal="wrong")]))),
    ("an article that is there again", "was taken back, and is there", lambda: told(
        replace(LISTS, removed=frozenset({"devto 17"})), replace(AFTERWARDS, decisions=[GONE]))),
    ("an article nobody knows of", "of which no book knows", lambda: told(replace(
        LISTS, articles=[*LISTS.articles, (18, True, {"title": "Of pages"})]))),
    ("a post nobody knows of", "of which no book knows", lambda: told(replace(
        LISTS, posts={**LISTS.posts, "3k9": {"text": "Of pages"}}))),
    ("a bill above the books", "the books only", lambda: told(replace(
        LISTS, bill=[("llm", "good", 10_000), ("llm", "good", 20_001)]))),
    ("a bill below what is certain", "booked for certain", lambda: told(replace(
        LISTS, bill=[("llm", "good", 9_999)]))),
    ("a line that is a millionth off", "which is on no bill", lambda: told(replace(
        LISTS, bill=[("llm", "good", 10_001), ("llm", "good", 7_000)]))),
    ("a millionth too little, hidden by a doubt", "which is on no bill", lambda: told(
        books=with_entries(DEPOSIT, entry(1), settled(1, amount="0.009999"), entry(2), DOUBTFUL))),
    ("a bill for a hold that was voided", "booked for no request", lambda: told(replace(
        LISTS, bill=[*LISTS.bill, ("llm", "good", 500)]))),
    ("an unknown answer that is booked with nothing", "booked with nothing", lambda: told(
        books=with_entries(DEPOSIT, entry(1), settled(1), entry(2, state="voided")))),
    ("books that do not balance", "do not balance", lambda: told(books=replace(
        AFTERWARDS, problems=["a sum differs"]))),
    ("a hold into the reserve", "less than the reserve", lambda: told(books=with_entries(
        {**DEPOSIT, "amount": "0.110000"}, entry(1), settled(1), entry(2), DOUBTFUL))),
    ("a run above its budget", "PENSTOCK_RUN_BUDGET", lambda: told(books=with_entries(
        DEPOSIT, entry(1), settled(1), entry(2, amount="0.490001"), DOUBTFUL))),
    ("a day above its cap", "PENSTOCK_DAILY_CAP", lambda: told(books=with_entries(
        DEPOSIT, entry(1), settled(1), entry(2), DOUBTFUL,
        *(entry(n, run=f"r{n}", amount="0.330000") for n in range(3, 6))))),
    ("a month above its cap", "PENSTOCK_MONTHLY_CAP", lambda: told(books=with_entries(
        DEPOSIT, entry(1), settled(1), entry(2), DOUBTFUL,
        *(entry(n, run=f"r{n}", at=f"2026-12-{n:02}T09:00:00.000000Z", amount="0.400000")
          for n in range(3, 8))))),
    ("a counter that the books have passed", "llm tells of 17000", lambda: told(
        replace(LISTS, counters={"llm": "openrouter"}))),
    ("a counter that the books have not reached", "llm tells of 30001", lambda: told(
        replace(LISTS, counters={"llm": "openrouter"}, billed={"llm": 30_001}))),
    ("a deposit that is lost", "deposits of", lambda: told(replace(
        LISTS, deposits=[5_000_000, 1]))),
    ("readers that are paid for twice", "is credited from 49", lambda: told(books=with_entries(
        *BOOKS.entries, income("devto:r1:view:49-50", "0.000200")))),
    ("readers that never were", "and there were 50 at most", lambda: told(books=with_entries(
        *BOOKS.entries, income("devto:r1:view:50-51", "0.000200")))),
    ("readers above their rate", "and is worth", lambda: told(books=with_entries(
        DEPOSIT, entry(1), settled(1), entry(2), DOUBTFUL,
        income("bluesky:r1:like:0-7", "0.014001")))),
    ("income above its cap", "PENSTOCK_EARN_DAILY_CAP", lambda: told(
        replace(LISTS, peaks={("devto", "17", "view"): 250}),
        with_entries(DEPOSIT, entry(1), settled(1), entry(2), DOUBTFUL,
                     income("devto:r1:view:0-240", "0.048000"),
                     income("devto:r1:view:240-250", "0.002001")))),
    ("readers whom nobody counts", "was not counted", lambda: told(books=replace(
        AFTERWARDS, publications=[*COUNTED[:1], BOOKS.publications[1], *COUNTED[2:]]))),
    ("a slot used twice", "was used 2 times", lambda: told(books=replace(
        AFTERWARDS, runs=[*AFTERWARDS.runs, run("r3", 30)]))),
    ("a slot that was too old", "was used at", lambda: told(books=replace(
        AFTERWARDS, runs=[run("r1", 23) | {"started_at": datetime(2026, 11, 24, 10, tzinfo=UTC)},
                          run("r2", 30)]))),
    ("a slot by another zone's clock", "on no schedule", lambda: told(books=replace(
        AFTERWARDS, runs=[run("r1", 23), run("r2", 30) | {
            "slot": datetime(2026, 11, 30, 10, tzinfo=UTC)}]))),
    ("a link of a hostile page", "shows", lambda: told(replace(
        LISTS, files={"a.md": f"# Of logs\n\nhttp://{LURE}/"}))),
    ("a link that is spelt out", "shows", lambda: told(replace(
        LISTS, files={"a.md": f"# Of logs\n\nGo to {SPELT}."}))),
    ("a stranger who is paged", "shows", lambda: told(replace(
        LISTS, files={"a.md": f"# Of logs\n\nThanks to @{STRANGER}."}))),
    ("what a model made up", "shows", lambda: told(replace(
        LISTS, files={"a.md": f"# Of logs\n\nEleven {INVENTED}."}))),
    ("a link to no page", "which is no page", lambda: told(replace(
        LISTS, files={"a.md": "# Of logs\n\n[See](http://blog.test/other.html)."}))),
    ("a number that is on another page", "says nothing", lambda: told(replace(
        LISTS, files={"a.md": f"# Of logs\n\n{SAID.replace('7', '8')}"}))),
    ("a key in an article", "shows", lambda: told(replace(
        LISTS, articles=[(17, True, {"title": "Of logs", "body_markdown": KEY})]))),
    ("a hold for ever", "is still held", lambda: told(moments=replace(
        MOMENTS, calm=replace(BOOKS, entries=[entry(3, state="pending")]),
        holds=replace(BOOKS, entries=[entry(3, state="pending")])))),
    ("an intent for ever", "is still intended", lambda: told(moments=replace(
        MOMENTS, calm=replace(BOOKS, publications=[publication("devto", "", state="intended")]),
        posts=replace(BOOKS, publications=[publication("devto", "", state="intended")])))),
    ("an intent that an hour's peace did not end", "is still unconfirmed", lambda: told(
        moments=replace(MOMENTS, lulls=[Lull(
            [publication("devto", "", state="intended")],
            [publication("devto", "", state="unconfirmed")], BEGAN,
        )]))),
    ("a key in a wrong place", "was sent the key", lambda: told(replace(
        LISTS, overheard=[("webhook", KEY)]))),
    ("what nobody approved", "nobody approved it", lambda: told(books=replace(
        AFTERWARDS, runs=[run("r1", 23) | {"approved_at": None}, run("r2", 30)]))),
    ("a draft as it was before it was edited", "before it was edited", lambda: told(replace(
        LISTS, edited=frozenset({"r1"}),
        articles=[(17, True, {"title": "Of logs", "description": "Logs."})]))),
    ("two articles in a day", "2 articles came out on 2026-11-23", lambda: told(books=replace(
        AFTERWARDS, publications=[*COUNTED, publication("outbox", "b.md", run="r2")]))),
    ("another day in the books than its readers saw", "2 articles came out on 2026-11-23",
        lambda: told(replace(LISTS, articles=[*LISTS.articles, (18, True, {"title": "Of ice"})],
                             shown={**LISTS.shown, "devto 18": BEGAN}),
                     replace(AFTERWARDS, publications=[*COUNTED, publication(
                         "devto", "18", run="r2", published_at=BEGAN + timedelta(days=2),
                         counted_at=COUNTED[0]["counted_at"])]))),
    ("an earlier day in the books", "2 articles came out on 2026-11-23",
        lambda: told(replace(LISTS, articles=[*LISTS.articles, (18, True, {"title": "Of ice"})],
                             shown={**LISTS.shown, "devto 18": BEGAN}),
                     replace(AFTERWARDS, publications=[*COUNTED, publication(
                         "devto", "18", run="r2", intended_at=BEGAN - timedelta(days=2),
                         published_at=BEGAN - timedelta(days=2),
                         counted_at=COUNTED[0]["counted_at"])]))),
    ("a day that was full with what was taken back unseen", "2 articles came out on 2026-11-23",
        lambda: told(replace(LISTS, shown={**LISTS.shown, "devto 18": BEGAN}),
                     replace(AFTERWARDS, publications=[*COUNTED, publication(
                         "devto", "18", run="r2", state="withdrawn", published_at=None,
                         withdrawal="wrong")]))),
    ("an alert for nobody", "nobody was told: the key is refused", lambda: told(books=replace(
        AFTERWARDS, alerts=[ALERT | {"told_at": None}]))),
    ("an alarm that goes on", "it is still said that the key", lambda: told(books=replace(
        AFTERWARDS, alerts=[ALERT]))),
    ("a slot at which nothing happened", "nothing was done", lambda: told(replace(
        LISTS, expected=[datetime(2026, 11, 25, 9, tzinfo=UTC)]))),
    ("a daemon that sleeps", "no slot was used", lambda: told(books=BOOKS)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "broken"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_what_is_wrong_is_told(said: str, broken: Callable[[], list[str]]) -> None:
    found = broken()
    assert found
    assert any(said in line for line in found), found
