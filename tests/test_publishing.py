"""
Publishing through the whole program: exactly one post at every destination, whatever dies when.

The destinations are doubles in virtual time; what is tried against real servers is in
tests/test_whole_peer.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from daemon import alerts, cli, control, journal
from daemon.app import opened_database, opened_parts
from daemon.journal import RunOutcome, RunState
from daemon.sources import published
from ledger.database import Database
from tests.doubles.bluesky import Trouble
from tests.doubles.wire import Answer, Fault, Request
from tests.platforms import Platforms
from tests.stage import Kill, Killed, MortalDatabase, Silent, blog_pages, renamed
from tests.virtual import START

EVERYWHERE = {"outbox": "published", "devto": "published", "bluesky": "published"}
SITE = "https://notes.example"


def approve(stage: Platforms, run: str) -> None:
    with opened_database(stage.settings.location) as database, database.write() as tx:
        journal.change_run(tx, run, state=RunState.PARKED, approved_at=stage.time.clock.now())
        alerts.clear(tx, alerts.Kind.APPROVAL, run, at=stage.time.clock.now())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a publication whose one article is finished and approved, and nowhere yet."""
    folder = tmp_path_factory.mktemp("finished")
    stage = Platforms(folder, PENSTOCK_APPROVAL="manual")
    stage.deposit("5")
    report = stage.once()
    assert report.outcome is RunOutcome.AWAITING_APPROVAL
    assert report.run is not None
    approve(stage, report.run)
    return folder


class Ready(Platforms):
    """A stage that goes on from there."""

    def __init__(self, finished: Path, folder: Path, /, **changes: str) -> None:
        shutil.copytree(finished, folder, dirs_exist_ok=True)
        super().__init__(folder, **{"PENSTOCK_APPROVAL": "manual"} | changes)
        # Its first run drew from another.
        self._chance = random.Random(8)
        with self.reading() as tx:
            self.run: str = journal.runs(tx)[0].id

    def judge_posts(self) -> None:
        """Exactly one article and one announcement, and no second at any time."""
        assert len(self.devto.public) == 1
        assert self.devto.public_most == 1
        assert len(self.bluesky.posts()) == 1
        assert len(self.articles()) == 1


@pytest.fixture
def ready(finished: Path, tmp_path: Path) -> Ready:
    return Ready(finished, tmp_path)


def card(stage: Platforms) -> dict[str, Any] | None:
    """The link card of the one announcement."""
    (record,) = stage.bluesky.posts().values()
    embed = record.get("embed")
    return None if embed is None else embed["external"]


def kinds(stage: Platforms) -> list[tuple[str, bool]]:
    return [(told["kind"], told["cleared"]) for told in stage.webhook.told]


# Where it goes


def test_an_article_goes_everywhere_and_the_announcement_links_to_it(ready: Ready) -> None:
    report = ready.once()
    assert report.outcome is RunOutcome.PUBLISHED
    assert ready.states(ready.run) == EVERYWHERE
    ready.judge_posts()
    (article,) = ready.devto.public
    assert article.fields["ai_disclosure_level"] == "fully_autonomous"
    assert ready.run in article.fields["body_markdown"].rstrip().rpartition("\n")[2]
    assert "canonical_url" not in article.fields
    shown = card(ready)
    assert shown is not None
    assert shown["uri"] == f"https://dev.to/penstock/{article.slug}"
    assert shown["title"] == report.title
    assert "thumb" in shown
    (record,) = ready.bluesky.posts().values()
    assert record["langs"] == ["en"]
    with ready.reading() as tx:
        kept = published.article(tx, ready.run)
    assert kept is not None
    assert kept.url == shown["uri"]
    assert [told for told in kinds(ready) if told[0] != "approval"] == []


def test_a_site_makes_the_canonical_address_and_the_cover(finished: Path, tmp_path: Path) -> None:
    stage = Ready(finished, tmp_path, PENSTOCK_SITE_URL=SITE, DEVTO_SERIES="Notes")
    stage.once()
    (article,) = stage.devto.public
    (page,) = stage.outbox.glob("2*.html")
    assert article.fields["canonical_url"] == f"{SITE}/{page.name}"
    assert article.fields["main_image"] == f"{SITE}/{page.stem}.png"
    assert article.fields["series"] == "Notes"
    assert (stage.outbox / f"{page.stem}.png").is_file()
    shown = card(stage)
    assert shown is not None
    assert shown["uri"].startswith("https://dev.to/")


@pytest.mark.parametrize(("site", "link"), [(SITE, f"{SITE}/2026-11-23-"), ("", None)])
def test_without_devto_the_site_is_announced_or_the_post_stands_alone(
    finished: Path, tmp_path: Path, site: str, link: str | None
) -> None:
    stage = Ready(finished, tmp_path, PENSTOCK_PUBLISHERS="bluesky,outbox", PENSTOCK_SITE_URL=site)
    assert stage.once().outcome is RunOutcome.PUBLISHED
    shown = card(stage)
    if link is None:
        assert shown is None
    else:
        assert shown is not None
        assert shown["uri"].startswith(link)


def test_what_went_where_nobody_reads_it_is_none_of_the_first_articles(
    finished: Path, tmp_path: Path
) -> None:
    chosen = {"PENSTOCK_PUBLISHERS": "outbox", "PENSTOCK_APPROVAL": "first:1"}
    stage = Ready(finished, tmp_path, **chosen)
    assert stage.once().outcome is RunOutcome.PUBLISHED
    publishing = replace(stage.settings.publishing, site_url=SITE)
    stage.settings = replace(stage.settings, publishing=publishing)
    stage.deposit("5", "second")
    stage.blog.pages = renamed(blog_pages())
    stage.sleep(86_400)
    report = stage.once()
    assert report.outcome is RunOutcome.AWAITING_APPROVAL
    assert report.reason == "the first 1 public articles wait for a person, and 0 are out"
    assert report.run is not None
    # One that the public can read does count.
    approve(stage, report.run)
    assert stage.once().outcome is RunOutcome.PUBLISHED
    with stage.reading() as tx:
        assert journal.articles_reached(tx, ["outbox"]) == 1


def test_where_it_is_announced_since_its_approval_it_has_no_words_that_nobody_saw(
    tmp_path: Path,
) -> None:
    stage = Platforms(tmp_path, PENSTOCK_APPROVAL="manual", PENSTOCK_PUBLISHERS="devto")
    stage.deposit("5")
    report = stage.once()
    assert report.run is not None
    approve(stage, report.run)
    bought = len(stage.model.bill)
    publishing = replace(stage.settings.publishing, publishers=("devto", "bluesky"))
    stage.settings = replace(stage.settings, publishing=publishing)
    assert stage.once().outcome is RunOutcome.PUBLISHED
    assert len(stage.model.bill) == bought
    (record,) = stage.bluesky.posts().values()
    assert record["text"].startswith(str(report.title))


# What is refused, and what waits


def test_a_platform_that_is_down_blocks_nothing_and_is_pursued(ready: Ready) -> None:
    ready.devto.misbehave("status", times=None, code=503)
    report = ready.once()
    assert report.outcome is RunOutcome.PUBLISHED
    assert ready.states(ready.run) == {
        "outbox": "published", "devto": "intended", "bluesky": "intended",
    }  # fmt: skip
    assert "503" in report.reason
    # The next run is opened all the same.
    ready.deposit("5", "second")
    assert ready.once().run != ready.run
    assert not ready.bluesky.posts()
    ready.devto.troubles.clear()
    ready.sleep(3600)
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE
    ready.judge_posts()
    shown = card(ready)
    assert shown is not None
    assert shown["uri"].startswith("https://dev.to/")
    with ready.reading() as tx:
        row = journal.run(tx, ready.run)
    assert row is not None
    assert row.reason == "published to outbox, devto, bluesky"


def test_an_announcement_without_an_address_lapses_after_a_day(ready: Ready) -> None:
    ready.devto.misbehave("status", times=None, code=503)
    ready.once()
    for _ in range(26):
        ready.sleep(3600)
        ready.pursue()
    assert ready.states(ready.run)["bluesky"] == "failed"
    ready.devto.troubles.clear()
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE | {"bluesky": "failed"}
    assert not ready.bluesky.posts()
    assert kinds(ready).count(("lapsed", False)) == 1


@pytest.mark.parametrize(("site", "link"), [(SITE, f"{SITE}/2026"), ("", None)])
def test_where_devto_refuses_for_good_the_site_steps_in_at_once(
    finished: Path, tmp_path: Path, site: str, link: str | None
) -> None:
    stage = Ready(finished, tmp_path, PENSTOCK_SITE_URL=site)
    error = {"error": "Tag list exceed the maximum of 4 tags", "status": 422}
    stage.devto.misbehave("status", method="POST", times=None, code=422, body=error)
    report = stage.once()
    assert report.outcome is RunOutcome.PUBLISHED
    assert stage.states(stage.run) == EVERYWHERE | {"devto": "failed"}
    shown = card(stage)
    assert (shown is None) if link is None else (shown and shown["uri"].startswith(link))
    assert ("refused", False) in kinds(stage)
    (alert,) = [told for told in stage.webhook.told if told["kind"] == "refused"]
    assert "maximum of 4 tags" in alert["message"]
    assert alert["run"] == stage.run
    # Let go: nothing is sent again.
    sent = len(stage.devto.requests)
    stage.sleep(7200)
    stage.pursue()
    assert len(stage.devto.requests) == sent


def test_a_refused_key_is_told_once_and_has_its_all_clear(ready: Ready) -> None:
    ready.devto.key = "another"
    assert ready.once().outcome is RunOutcome.PUBLISHED
    for _ in range(3):
        ready.sleep(3600)
        ready.pursue()
    assert kinds(ready).count(("barred", False)) == 1
    (alert,) = [told for told in ready.webhook.told if told["kind"] == "barred"]
    assert "DEVTO_API_KEY" in alert["message"]
    ready.devto.key = ready.settings.publishing.devto.key.reveal()
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE
    assert kinds(ready).count(("barred", True)) == 1
    ready.judge_posts()


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (401, "AuthenticationRequired", "BLUESKY_APP_PASSWORD"),
        (401, "AccountTakedown", "takedown"),
        (401, "AuthFactorTokenRequired", "BLUESKY_APP_PASSWORD"),
    ],
)
def test_an_account_that_lets_nobody_in_waits_for_a_person(
    ready: Ready, status: int, error: str, says: str
) -> None:
    ready.bluesky.login_answer = Answer.of({"error": error, "message": "Not today"}, status)
    assert ready.once().outcome is RunOutcome.PUBLISHED
    assert ready.states(ready.run) == EVERYWHERE | {"bluesky": "intended"}
    (alert,) = [told for told in ready.webhook.told if told["kind"] == "barred"]
    assert says.casefold() in alert["message"].casefold()
    ready.bluesky.login_answer = None
    ready.sleep(87_000)
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE
    ready.judge_posts()


def test_a_picture_that_is_too_large_for_the_service_is_parked_with_the_reason(
    ready: Ready,
) -> None:
    ready.bluesky.misbehave(
        "uploadBlob", Answer.of({"error": "PayloadTooLarge", "message": "too big"}, 413)
    )
    assert ready.once().outcome is RunOutcome.PUBLISHED
    assert ready.states(ready.run) == EVERYWHERE | {"bluesky": "failed"}
    (alert,) = [told for told in ready.webhook.told if told["kind"] == "refused"]
    assert "too big" in alert["message"]


def test_what_is_not_known_is_looked_up_before_anything_is_sent_again(ready: Ready) -> None:
    # Every answer to the update that publishes is lost, and the listing lags for an hour.
    ready.devto.list_delay_s = 3600
    ready.devto.misbehave("reset_after", method="PUT", times=None)
    assert ready.once().outcome is RunOutcome.UNCONFIRMED
    assert ready.states(ready.run) == EVERYWHERE | {
        "devto": "unconfirmed", "bluesky": "intended",
    }  # fmt: skip
    ready.devto.troubles.clear()
    ready.sleep(3600)
    sent = len(ready.devto.sent("POST"))
    ready.pursue()
    assert len(ready.devto.sent("POST")) == sent
    assert ready.states(ready.run) == EVERYWHERE
    ready.judge_posts()
    with ready.reading() as tx:
        row = journal.run(tx, ready.run)
    assert row is not None
    assert row.outcome == RunOutcome.PUBLISHED


def test_a_fault_of_a_destinations_code_stops_no_other(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publishers.devto import DevTo

    async def broken(*args: object) -> None:
        raise KeyError("id")

    monkeypatch.setattr(DevTo, "publish", broken)
    assert ready.once().outcome is RunOutcome.UNCONFIRMED
    states = ready.states(ready.run)
    assert (states["outbox"], states["devto"]) == ("published", "unconfirmed")
    monkeypatch.undo()
    ready.sleep(60)
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE
    ready.judge_posts()


def test_a_platform_that_asks_for_a_moment_gets_it(ready: Ready) -> None:
    ready.devto.misbehave("app_429", method="POST", retry_after="30")
    assert ready.once().outcome is RunOutcome.PUBLISHED
    assert ready.states(ready.run) == EVERYWHERE


def test_a_platform_that_asks_for_an_hour_is_left_alone_for_it(ready: Ready) -> None:
    ready.devto.misbehave("app_429", method="POST", retry_after="3000")
    ready.once()
    sent = len(ready.devto.requests)
    ready.sleep(1800)
    ready.pursue()
    assert len(ready.devto.requests) == sent
    ready.sleep(1300)
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE


def test_a_pause_while_a_platform_has_its_moment_is_kept(ready: Ready) -> None:
    ready.devto.misbehave("app_429", method="POST", retry_after="30")
    handle = ready.devto.handle
    sent: list[str] = []

    async def paused(request: Request) -> Answer:
        if request.method == "POST":
            # Beside the daemon, which holds the lock.
            database = Database(ready.settings.location.database_url)
            with contextlib.closing(database), database.write() as tx:
                control.pause(tx, reason="holiday", at=START)
            sent.append(request.path)
        return await handle(request)

    ready.sources["dev.to"] = SimpleNamespace(handle=paused)
    ready.once()
    assert len(sent) == 1
    assert not ready.devto.public
    assert ready.states(ready.run)["devto"] == "intended"


def test_while_paused_nothing_goes_out(ready: Ready) -> None:
    from daemon import control

    ready.devto.misbehave("status", times=None, code=503)
    ready.once()
    ready.devto.troubles.clear()
    with opened_database(ready.settings.location) as database, database.write() as tx:
        control.pause(tx, reason="holiday", at=START)
    ready.pursue()
    assert not ready.devto.public
    with opened_database(ready.settings.location) as database, database.write() as tx:
        control.resume(tx)
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE


# Death


def boundaries(finished: Path, tmp_path: Path) -> int:
    """Commits and requests of one undisturbed life."""
    counter = Kill(lambda number: False, after=False)
    Ready(finished, tmp_path / "counted").once(kill=counter)
    return counter.commits


def lives(stage: Ready, first: Kill) -> Iterator[int]:
    """Live until everything is out; yields after each life."""
    for number in range(1, 8):
        if number == 1:
            with pytest.raises(Killed):
                stage.once(kill=first)
        else:
            # The title rests for five minutes; a kill may leave a draft with it behind.
            stage.sleep(400)
            stage.once() if _is_open(stage) else stage.pursue()
        yield number
        if stage.states(stage.run) == EVERYWHERE:
            return
    raise AssertionError(f"still {stage.states(stage.run)}")


def _is_open(stage: Ready) -> bool:
    with stage.reading() as tx:
        return journal.interrupted_run(tx) is not None


def test_killed_at_every_boundary_there_is_one_of_each(finished: Path, tmp_path: Path) -> None:
    count = boundaries(finished, tmp_path)
    assert count > 20
    kills = 0
    for number in range(1, count + 1):
        for after in (False, True):
            stage = Ready(finished, tmp_path / f"{number}-{after}")
            for _ in lives(stage, Kill.at(number, after=after)):
                pass
            stage.judge_posts()
            stage.judge()
            kills += 1
            shutil.rmtree(tmp_path / f"{number}-{after}")
    assert kills == 2 * count


def test_killed_twice_there_is_one_of_each(finished: Path, tmp_path: Path) -> None:
    count = boundaries(finished, tmp_path)
    for first in range(3, count, 5):
        for second in range(2, 16, 3):
            folder = tmp_path / f"{first}-{second}"
            stage = Ready(finished, folder)
            with pytest.raises(Killed):
                stage.once(kill=Kill.at(first, after=bool(second % 2)))
            with contextlib.suppress(Killed):
                stage.once(kill=Kill.at(second, after=bool(first % 2)))
            for _ in range(6):
                stage.sleep(400)
                stage.once() if _is_open(stage) else stage.pursue()
                if stage.states(stage.run) == EVERYWHERE:
                    break
            stage.judge_posts()
            shutil.rmtree(folder)


@pytest.mark.parametrize("list_delay_s", [0.0, 90.0, 2000.0])
def test_killed_while_listings_lag_there_is_one_of_each(
    finished: Path, tmp_path: Path, list_delay_s: float
) -> None:
    count = boundaries(finished, tmp_path)
    for number in range(8, count, 3):
        folder = tmp_path / f"{number}"
        stage = Ready(finished, folder)
        stage.devto.list_delay_s = list_delay_s
        with pytest.raises(Killed):
            stage.once(kill=Kill.at(number, after=True))
        for _ in range(12):
            stage.sleep(700)
            stage.once() if _is_open(stage) else stage.pursue()
            if stage.states(stage.run) == EVERYWHERE:
                break
        stage.judge_posts()
        shutil.rmtree(folder)


def test_a_backup_of_any_moment_repeats_nothing(finished: Path, tmp_path: Path) -> None:
    """The database of a moment within the run comes back when everything is out."""
    count = boundaries(finished, tmp_path)
    for number in range(1, count, 2):
        folder = tmp_path / f"{number}"
        stage = Ready(finished, folder)
        with pytest.raises(Killed):
            stage.once(kill=Kill.at(number, after=True))
        database = folder / "penstock.db"
        saved = {
            path.name: path.read_bytes() for path in folder.glob("penstock.db*") if path.is_file()
        }
        for _ in range(6):
            stage.sleep(400)
            stage.once() if _is_open(stage) else stage.pursue()
            if stage.states(stage.run) == EVERYWHERE:
                break
        assert stage.states(stage.run) == EVERYWHERE
        # Two days later, so that nothing depends on the day.
        stage.sleep(2 * 86_400)
        for path in folder.glob("penstock.db*"):
            path.unlink()
        for name, content in saved.items():
            (folder / name).write_bytes(content)
        assert database.is_file()
        for _ in range(6):
            stage.once() if _is_open(stage) else stage.pursue()
            stage.sleep(400)
            if stage.states(stage.run) == EVERYWHERE:
                break
        assert stage.states(stage.run) == EVERYWHERE, stage.rows(stage.run)
        stage.judge_posts()
        shutil.rmtree(folder)


def test_what_was_given_up_is_tried_again_when_a_person_says_so(
    ready: Ready, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from daemon import cli

    error = {"error": "Canonical url has already been taken", "status": 422}
    ready.devto.misbehave("status", method="PUT", times=None, code=422, body=error)
    ready.once()
    assert ready.states(ready.run) == EVERYWHERE | {"devto": "failed"}
    ready.devto.troubles.clear()
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(ready.settings.location.state_dir))
    monkeypatch.chdir(ready.settings.location.state_dir)
    assert cli.main(["posts", "retry", ready.run]) == 0
    assert "devto" in capsys.readouterr().out
    assert cli.main(["posts", "retry", ready.run]) == 2
    assert cli.main(["posts", "retry", "r0"]) == 2
    ready.sleep(60)
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE
    ready.judge_posts()
    with ready.reading() as tx:
        assert alerts.standing(tx, ready.time.clock.now()) == []


def publish_another(stage: Ready) -> None:
    """As if another run had published its article to the outbox now."""
    now = stage.time.clock.now()
    with opened_database(stage.settings.location) as database, database.write() as tx:
        journal.open_run(
            tx, id="r-other", slot=None, tier="standard", kind=journal.ARTICLE, topic=None,
            budget_micro=0, at=now,
        )  # fmt: skip
        journal.finish_run(tx, "r-other", outcome=RunOutcome.PUBLISHED, reason=None, at=now)
        journal.intend(tx, "r-other", "outbox", key="k", payload=b"{}", title="t", at=now)
        journal.change_publication(tx, "r-other", "outbox", state="published")


def test_trying_again_keeps_the_clamp_of_the_day(finished: Path, tmp_path: Path) -> None:
    stage = Ready(finished, tmp_path, PENSTOCK_MAX_POSTS_PER_DAY="1")
    error = {"error": "Not today", "status": 422}
    stage.devto.misbehave("status", times=None, code=422, body=error)
    stage.settings = replace(
        stage.settings, publishing=replace(stage.settings.publishing, publishers=("devto",))
    )
    assert stage.once().outcome is RunOutcome.FAILED
    stage.devto.troubles.clear()
    with opened_database(stage.settings.location) as database, database.write() as tx:
        journal.change_publication(tx, stage.run, "devto", state="intended")
    publish_another(stage)
    stage.pursue()
    assert not stage.devto.public
    stage.sleep(86_400)
    stage.pursue()
    assert len(stage.devto.public) == 1


def test_what_turns_out_to_be_nowhere_waits_for_a_free_day(finished: Path, tmp_path: Path) -> None:
    """It was counted for the day before, on which it may have gone out, and did not."""
    chosen = {"PENSTOCK_PUBLISHERS": "outbox,devto", "PENSTOCK_MAX_POSTS_PER_DAY": "1"}
    stage = Ready(finished, tmp_path, **chosen)
    # A file in the folder's place: nothing can be written there.
    shutil.rmtree(stage.outbox, ignore_errors=True)
    stage.outbox.touch()
    stage.devto.misbehave("reset_before", method="PUT", times=None)
    assert stage.once().outcome is RunOutcome.UNCONFIRMED
    assert stage.states(stage.run) == {"outbox": "intended", "devto": "unconfirmed"}
    stage.outbox.unlink()
    stage.devto.troubles.clear()
    stage.sleep(86_400)
    publish_another(stage)
    stage.pursue()
    assert not stage.devto.public
    assert not stage.articles()
    assert stage.states(stage.run) == {"outbox": "intended", "devto": "intended"}
    for row in stage.rows(stage.run):
        assert "PENSTOCK_MAX_POSTS_PER_DAY" in row.error
    stage.sleep(86_400)
    stage.pursue()
    assert stage.states(stage.run) == {"outbox": "published", "devto": "published"}
    assert len(stage.devto.public) == len(stage.articles()) == 1


def test_what_turns_out_to_be_nowhere_is_sent_on_a_day_that_only_it_has_filled(
    finished: Path, tmp_path: Path
) -> None:
    chosen = {"PENSTOCK_PUBLISHERS": "devto", "PENSTOCK_MAX_POSTS_PER_DAY": "1"}
    stage = Ready(finished, tmp_path, **chosen)
    stage.devto.misbehave("reset_before", method="PUT", times=None)
    assert stage.once().outcome is RunOutcome.UNCONFIRMED
    stage.devto.troubles.clear()
    stage.sleep(3600)
    stage.pursue()
    assert stage.states(stage.run) == {"devto": "published"}


def alone_at_devto(finished: Path, folder: Path) -> Ready:
    """One article a day, and nobody can say whether that of the first day is out."""
    chosen = {"PENSTOCK_PUBLISHERS": "devto", "PENSTOCK_MAX_POSTS_PER_DAY": "1"}
    stage = Ready(finished, folder, **chosen)
    stage.devto.misbehave("reset_before", method="PUT", times=None)
    assert stage.once().outcome is RunOutcome.UNCONFIRMED
    stage.deposit("5", "second")
    stage.blog.pages = renamed(blog_pages())
    return stage


def test_what_may_be_out_counts_for_the_day_it_was_sent_not_for_that_of_its_intent(
    finished: Path, tmp_path: Path
) -> None:
    stage = alone_at_devto(finished, tmp_path)
    stage.sleep(86_400)
    stage.pursue()
    assert stage.states(stage.run) == {"devto": "unconfirmed"}
    report = stage.once()
    assert report.outcome is RunOutcome.SKIPPED
    assert report.reason == "1 published today, and PENSTOCK_MAX_POSTS_PER_DAY is 1"


def test_what_is_found_a_day_later_came_out_when_it_was_sent(
    finished: Path, tmp_path: Path
) -> None:
    stage = alone_at_devto(finished, tmp_path)
    sent = stage.time.clock.now()
    for draft in stage.devto.drafts:
        stage.devto.turn(draft.id, published=True)
    stage.devto.troubles.clear()
    stage.sleep(86_400)
    stage.pursue()
    (row,) = stage.rows(stage.run)
    assert row.state == "published"
    assert row.published_at <= sent
    # So that the day on which it was found has room for another.
    assert stage.once().outcome is RunOutcome.AWAITING_APPROVAL


def test_what_was_under_way_when_the_process_died_is_looked_up_on_a_full_day_too(
    finished: Path, tmp_path: Path
) -> None:
    stage = alone_at_devto(finished, tmp_path)
    for draft in stage.devto.drafts:
        stage.devto.turn(draft.id, published=True)
    stage.devto.troubles.clear()
    with opened_database(stage.settings.location) as database, database.write() as tx:
        journal.change_publication(tx, stage.run, "devto", state="intended")
    stage.sleep(86_400)
    publish_another(stage)
    stage.pursue()
    assert stage.states(stage.run) == {"devto": "published"}


def test_the_articles_of_a_day_are_those_that_came_or_may_have_come_out_on_it(
    ready: Ready,
) -> None:
    now = ready.time.clock.now()
    yesterday, since = now - timedelta(days=1), now - timedelta(hours=1)
    under_way = {"state": "intended", "sent_at": now}

    def counted(**destinations: dict[str, Any]) -> int:
        with opened_database(ready.settings.location) as database, database.write() as tx:
            tx.execute(text("DELETE FROM publication"))
            for name, values in destinations.items():
                journal.intend(tx, ready.run, name, key="k", payload=b"{}", title="t", at=yesterday)
                journal.change_publication(tx, ready.run, name, **values)
            until = now + timedelta(hours=1)
            assert journal.articles_published(tx, since=since, until=until, but=ready.run) == 0
            return journal.articles_published(tx, since=since, until=until)

    def out(at: datetime, state: str = "published") -> dict[str, Any]:
        return {"state": state, "published_at": at}

    assert counted(devto={"state": "intended"}) == 0
    assert counted(devto=under_way) == 1
    assert counted(devto={"state": "unconfirmed"}) == 0
    assert counted(devto={"state": "unconfirmed", "sent_at": now}) == 1
    assert counted(devto={"state": "failed", "sent_at": now}) == 0
    assert counted(devto=out(now), outbox=out(now)) == 1
    assert counted(devto=out(now, "withdrawn")) == 1
    # Out for certain before, so that it is no new one.
    assert counted(devto=out(now), outbox=out(yesterday)) == 0
    assert counted(devto=under_way, outbox=out(yesterday)) == 0
    # Whether it was out yesterday nobody knows.
    assert counted(devto=out(now), outbox={"state": "unconfirmed", "sent_at": yesterday}) == 1


# Taking it back


def test_an_article_is_taken_back_from_wherever_it_went(ready: Ready) -> None:
    ready.once()
    ready.withdraw(ready.run)
    assert ready.states(ready.run) == dict.fromkeys(EVERYWHERE, "withdrawn")
    assert not ready.devto.public
    assert not ready.bluesky.posts()
    assert not ready.articles()
    with ready.reading() as tx:
        kept = published.article(tx, ready.run)
        row = journal.run(tx, ready.run)
    assert kept is not None
    assert (kept.url, kept.published_at) == (None, None)
    assert row is not None
    assert row.outcome == RunOutcome.PUBLISHED
    ready.sleep(60)
    assert ready.pursue() == []


def test_what_another_account_published_is_not_called_withdrawn(ready: Ready) -> None:
    ready.once()
    handle = ready.devto.handle

    async def elsewhere(request: Request) -> Answer:
        missing = Answer.of({"error": "not found", "status": 404}, 404)
        return missing if request.method == "PUT" else await handle(request)

    ready.sources["dev.to"] = SimpleNamespace(handle=elsewhere)
    ready.withdraw(ready.run)
    assert ready.devto.public
    assert ready.states(ready.run)["devto"] == "published"
    ready.sources.clear()
    ready.pursue()
    assert not ready.devto.public
    assert ready.states(ready.run)["devto"] == "withdrawn"


def test_what_was_taken_back_is_not_tried_again(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.devto.misbehave("status", times=None, code=503)
    ready.once()
    for _ in range(26):
        ready.sleep(3600)
        ready.pursue()
    ready.devto.troubles.clear()
    ready.pursue()
    assert ready.states(ready.run)["bluesky"] == "failed"
    ready.withdraw(ready.run)
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(ready.settings.location.state_dir))
    assert cli.main(["posts", "retry", ready.run]) == 2
    assert ready.states(ready.run)["bluesky"] == "failed"


def test_what_cannot_be_taken_back_now_is_taken_back_later(ready: Ready) -> None:
    ready.once()
    ready.devto.misbehave("status", times=None, code=503)
    ready.withdraw(ready.run)
    assert ready.states(ready.run) == {
        "outbox": "withdrawn", "devto": "published", "bluesky": "withdrawn",
    }  # fmt: skip
    ready.devto.troubles.clear()
    ready.sleep(3600)
    ready.pursue()
    assert ready.states(ready.run) == dict.fromkeys(EVERYWHERE, "withdrawn")
    assert not ready.devto.public


def test_what_was_on_its_way_does_not_go_out_any_more(ready: Ready) -> None:
    ready.devto.misbehave("status", times=None, code=503)
    ready.once()
    ready.devto.troubles.clear()
    ready.withdraw(ready.run)
    assert ready.states(ready.run) == {
        "outbox": "withdrawn", "devto": "failed", "bluesky": "failed",
    }  # fmt: skip
    ready.sleep(3600)
    ready.pursue()
    assert not ready.devto.public
    assert not ready.bluesky.posts()


def test_an_article_cut_short_on_its_way_to_the_outbox_leaves_no_file(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publishers.outbox import Outbox

    write = Outbox._write

    def cut(outbox: Outbox, name: str, content: bytes) -> None:
        write(outbox, name, content)
        if name.endswith(".json"):
            raise Killed

    monkeypatch.setattr(Outbox, "_write", cut)
    with pytest.raises(Killed):
        ready.once()
    monkeypatch.undo()
    assert ready.articles()
    ready.withdraw(ready.run)
    # Nobody can tell this process from one that is still writing.
    assert ready.states(ready.run)["outbox"] == "unconfirmed"
    ready.pursue()
    assert ready.states(ready.run)["outbox"] == "failed"
    assert {path.name for path in ready.outbox.glob("[!.]*")} <= {"index.html", "feed.xml"}
    assert ready.run not in "".join(
        path.read_text() for path in ready.outbox.glob("*.xml") if path.is_file()
    )


async def withdraw_beside(stage: Ready) -> None:
    """As `posts withdraw` does it in another process."""
    database = MortalDatabase(stage.settings.location.database_url, None)
    with contextlib.closing(database):
        async with opened_parts(stage.settings, database, Silent(), stage.world()) as parts:
            await parts.press.withdraw(stage.run, "it is wrong")


@pytest.mark.parametrize("already_out", [False, True])
def test_killed_while_it_sends_what_is_taken_back_it_is_found_and_taken_back(
    ready: Ready, already_out: bool
) -> None:
    """The command beside it finds the draft, or takes back what is then sent once more."""
    handle = ready.devto.handle
    kill = Kill(lambda number: False, after=False)
    sent: list[str] = []

    async def beside(request: Request) -> Answer:
        publishes = request.method == "PUT" and request.json["article"].get("published")
        if not publishes:
            return await handle(request)
        sent.append(request.path)
        if already_out and len(sent) == 1:
            answer = await handle(request)
        if len(sent) == 1:
            ready.sources.clear()
            await withdraw_beside(ready)
        if already_out and len(sent) == 1:
            return replace(answer, fault=Fault.RESET)
        await handle(request)
        kill.dead = True
        raise Killed

    ready.sources["dev.to"] = SimpleNamespace(handle=beside)
    with pytest.raises(Killed):
        ready.once(kill=kill)
    assert len(sent) == 1 + already_out
    assert ready.devto.public
    assert ready.states(ready.run)["devto"] == "unconfirmed"
    error = next(row.error for row in ready.rows(ready.run) if row.platform == "devto")
    assert "penstock reconcile" in error
    ready.sleep(60)
    ready.pursue()
    assert ready.states(ready.run)["devto"] == "withdrawn"
    assert not ready.devto.public


def test_taken_back_while_it_is_sent_nothing_stays_once_both_have_ended(ready: Ready) -> None:
    """What the command saw before it went out does not overrule the receipt."""
    handle = ready.devto.handle
    began: list[asyncio.Task[None]] = []

    async def late(request: Request) -> Answer:
        answer = await handle(request)
        if request.method == "GET":
            await ready.time.clock.sleep(15)
        return answer

    async def beside(request: Request) -> Answer:
        if request.method == "PUT" and not began and request.json["article"].get("published"):
            ready.sources["dev.to"] = SimpleNamespace(handle=late)
            began.append(asyncio.ensure_future(withdraw_beside(ready)))
            await ready.time.clock.sleep(5)
        return await handle(request)

    async def both(database: MortalDatabase) -> None:
        async with opened_parts(ready.settings, database, Silent(), ready.world()) as parts:
            await parts.cycle.once()
            assert ready.states(ready.run)["devto"] == "published"
            await began[0]

    ready.sources["dev.to"] = SimpleNamespace(handle=beside)
    ready._life(both, None)
    assert ready.states(ready.run)["devto"] == "withdrawn"
    assert not ready.devto.public


def at(stage: Ready, *publishers: str) -> None:
    """As if PENSTOCK_PUBLISHERS had been changed."""
    publishing = replace(stage.settings.publishing, publishers=publishers)
    stage.settings = replace(stage.settings, publishing=publishing)


def test_what_was_taken_back_goes_to_no_destination_that_is_new(ready: Ready) -> None:
    at(ready, "devto")
    ready.devto.misbehave("status", times=None, code=503)
    assert ready.once().outcome is RunOutcome.FAILED
    ready.withdraw(ready.run)
    # The draft could not be looked for, and its destination is none any more.
    assert ready.states(ready.run) == {"devto": "intended"}
    at(ready, "outbox")
    report = ready.once()
    assert (report.run, report.outcome) == (ready.run, RunOutcome.ABSTAINED)
    assert ready.states(ready.run) == {"devto": "intended"}
    assert not ready.articles()
    # Still wanted back, where it is to be seen again.
    at(ready, "devto")
    ready.devto.troubles.clear()
    ready.sleep(3600)
    ready.pursue()
    assert ready.states(ready.run) == {"devto": "failed"}
    assert not ready.devto.public


def test_what_a_removed_destination_waits_for_holds_up_no_run_and_is_kept(ready: Ready) -> None:
    at(ready, "devto", "bluesky")
    ready.devto.misbehave("status", times=None, code=503)
    ready.bluesky.misbehave(
        "putRecord", *[Answer.of({"error": "InvalidRequest", "message": "no"}, 400)] * 9
    )
    assert ready.once().outcome is RunOutcome.FAILED
    assert ready.states(ready.run) == {"devto": "intended", "bluesky": "intended"}
    at(ready, "bluesky")
    ready.sleep(3600)
    report = ready.once()
    assert report.run == ready.run
    assert ready.states(ready.run) == {"devto": "intended", "bluesky": "failed"}
    assert not _is_open(ready)
    at(ready, "devto")
    ready.devto.troubles.clear()
    ready.sleep(3600)
    ready.pursue()
    assert ready.states(ready.run) == {"devto": "published", "bluesky": "failed"}
    assert len(ready.devto.public) == 1


def test_killed_while_it_takes_back_nothing_stays(finished: Path, tmp_path: Path) -> None:
    first = Ready(finished, tmp_path / "first")
    first.once()
    counter = Kill(lambda number: False, after=False)
    first.withdraw(first.run, kill=counter)
    for number in range(1, counter.commits + 1):
        for after in (False, True):
            stage = Ready(finished, tmp_path / f"{number}-{after}")
            stage.once()
            with pytest.raises(Killed):
                stage.withdraw(stage.run, kill=Kill.at(number, after=after))
            stage.sleep(60)
            if number == 1 and not after:
                # The wish itself was lost.
                stage.withdraw(stage.run)
            else:
                stage.pursue()
            assert set(stage.states(stage.run).values()) == {"withdrawn"}
            assert not stage.devto.public
            assert not stage.bluesky.posts()
            assert not stage.articles()


@pytest.mark.parametrize("was_out", [True, False])
def test_a_key_refused_while_withdrawing_has_its_all_clear(ready: Ready, was_out: bool) -> None:
    key = ready.devto.key
    if was_out:
        ready.once()
    ready.devto.key = "another"
    if not was_out:
        ready.once()
    ready.withdraw(ready.run)
    ready.sleep(3600)
    ready.pursue()
    assert kinds(ready).count(("barred", False)) == 1
    ready.devto.key = key
    ready.sleep(3600)
    ready.pursue()
    assert ready.states(ready.run)["devto"] == ("withdrawn" if was_out else "failed")
    assert kinds(ready).count(("barred", True)) == 1
    assert not ready.devto.public


# What is told, and what is kept


def test_what_the_webhook_did_not_take_is_told_again(ready: Ready) -> None:
    ready.webhook.status = 500
    ready.devto.key = "another"
    ready.once()
    assert ready.webhook.told == []
    ready.webhook.status = 204
    ready.pursue()
    assert ("barred", False) in kinds(ready)


def test_a_disk_that_fills_while_it_is_told_changes_no_outcome(ready: Ready) -> None:
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    ready.webhook.before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, room[1]))
    ready.devto.key = "another"
    try:
        assert ready.once().outcome is RunOutcome.PUBLISHED
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    ready.webhook.before = lambda: None
    ready.pursue()
    assert kinds(ready).count(("barred", False)) == 2


def test_payloads_have_no_secret(ready: Ready) -> None:
    ready.once()
    secrets = (
        ready.settings.publishing.devto.key.reveal(),
        ready.settings.publishing.bluesky.app_password.reveal(),
    )
    stored = json.dumps([list(map(str, row)) for row in ready.rows(ready.run)])
    assert not any(secret in stored for secret in secrets)


def test_a_lost_answer_of_bluesky_makes_no_second_post(ready: Ready) -> None:
    # The first one is the profile's label.
    lost = Trouble(Answer(fault=Fault.RESET), effect=True)
    ready.bluesky.misbehave("putRecord", None, lost, lost, lost)
    ready.once()
    ready.sleep(60)
    ready.pursue()
    assert ready.states(ready.run) == EVERYWHERE
    ready.judge_posts()
