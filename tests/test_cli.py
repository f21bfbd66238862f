"""The command line from outside: exit codes, what is said and what is left behind."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import re
import shlex
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli_helpers import (
    EXAMPLE_FEEDS,
    KEY,
    NOBODY,
    PENSTOCK,
    Books,
    Desk,
    Result,
    World,
    assert_billed_exactly,
    assert_covered,
    await_true,
    books,
    checked,
    checked_books,
    digest_desk,
    in_a_shell,
    ladder,
    micro,
    mounting,
    open_to_all,
    python_for_all,
    small_world,
)
from tests.doubles.model import Kind, ModelDouble
from tests.ledger_helpers import tamper

ROOT = Path(__file__).parents[1]
DONE, FAILED, SETTINGS, NOT_NOW, NOTHING_FIT, PAUSED, BOOKS_WRONG, LOCKED = range(8)


# Most of a command's time is Python starting, so tests that share nothing run two at a time: a
# test marked `beside` is begun by the first of them, and reports when its turn comes.

Body = Callable[..., None]
_BODIES: dict[str, Body] = {}


def beside(body: Body) -> Callable[[dict[str, Future[None]]], None]:
    """Mark a test of `tmp_path`, and of `world` if it wants one, that may run beside others."""
    name = body.__name__
    _BODIES[name] = body

    def test(stage: dict[str, Future[None]]) -> None:
        stage[name].result()

    test.__name__ = name
    return test


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """Every chosen test that runs beside others, begun."""

    def play(body: Body, folder: Path) -> None:
        if "world" in inspect.signature(body).parameters:
            with small_world() as world:
                body(folder, world)
        else:
            body(folder)

    chosen = [item.name for item in request.session.items if item.name in _BODIES]
    Desk(tmp_path_factory.mktemp("template")).initialised()  # Made before two want it at once.
    Desk(tmp_path_factory.mktemp("template")).initialised(None)
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(play, _BODIES[name], tmp_path_factory.mktemp("beside"))
            for name in chosen
        }
        pool.shutdown(cancel_futures=True)


def together(*acts: Callable[[], Result]) -> list[Result]:
    """Commands of different machines, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return [done.result() for done in [pool.submit(act) for act in acts]]


def outcomes(desk: Desk) -> list[str]:
    """How each run ended, oldest first."""
    return [run["outcome"] or run["state"] for run in desk.read("runs", "list")]


def leaks(folder: Path, secret: str) -> list[str]:
    """Files below a folder that have a secret in their bytes."""
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


# init


@beside
def test_init_writes_every_setting_for_its_owner_alone_and_makes_the_state(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "home")
    result = desk.run("init")
    assert result.code == DONE, result
    written = desk.home / ".env"
    assert written.read_text() == (ROOT / ".env.example").read_text()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(desk.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(desk.database.stat().st_mode) == 0o600
    assert desk.read("ledger", "check")["ok"] is True


@beside
def test_init_where_no_file_can_be_written_says_what_helps(tmp_path: Path) -> None:
    desk, gone = Desk(tmp_path), tmp_path / "gone"
    gone.mkdir()
    left = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", PENSTOCK, "init"]
    done = subprocess.run(left, cwd=gone, env=desk.env(), capture_output=True, timeout=60)
    result = checked(left, done.returncode, done.stdout, done.stderr)
    assert (result.code, desk.state.exists()) == (2, False)
    assert ".env cannot be written: No such file" in result.err
    assert "--env-file" in result.err


@beside
def test_init_on_a_full_disk_leaves_no_half_of_the_settings(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    line = f"ulimit -f 2; exec {shlex.quote(PENSTOCK)} init --env-file a.env"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=desk.env(), capture_output=True, timeout=60
    )
    assert done.returncode == SETTINGS
    assert b"a.env cannot be written: File too large; make room" in done.stderr
    assert not (tmp_path / "a.env").exists()


@beside
def test_a_broken_line_of_the_settings_locks_nobody_out_who_needs_none_of_them(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path)
    assert desk.run("init").code == DONE
    file = tmp_path / "broken.env"
    places: Mapping[str, str | None]
    for places, broken in (
        ({}, f"a broken line\nPENSTOCK_STATE_DIR={desk.state}\n"),
        ({"PENSTOCK_STATE_DIR": str(desk.state)}, "PENSTOCK_DAILY_CAP=1 # a comment\n"),
    ):
        file.write_text(broken)
        for words in (("pause",), ("status",), ("ledger", "check"), ("resume",)):
            result = desk.run(*words, "--env-file", str(file), settings=places)
            assert result.code == DONE, result
            assert f"{file} line 1: " in result.out + result.err
        assert desk.run("once", "--env-file", str(file), settings=places).code == SETTINGS
    # Where that line may be what names the place, it is not supposed to be another.
    for broken in ('PENSTOCK_STATE_DIR="/else where\n', "PENSTOCK_STATE_DIR=/elsewhere # no\n"):
        file.write_text(broken)
        assert desk.run("pause", "--env-file", str(file)).code == SETTINGS


@beside
def test_a_list_of_a_time_in_which_nothing_was_does_not_say_that_nothing_ever_was(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path)
    assert desk.run("init").code == DONE
    assert desk.run("ledger", "deposit", "5", "--ref", "first").code == DONE
    assert "deposit:first" in desk.run("ledger", "entries").out
    for words in (
        ("ledger", "entries"),
        ("ledger", "attempts"),
        ("runs", "list"),
        ("posts", "list"),
    ):
        assert desk.run(*words, "--since", "2099-01-01").out == "none since 2099-01-01\n"


def test_init_keeps_what_is_there_and_can_be_repeated(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (tmp_path / ".env").write_text("PENSTOCK_NICHE=kept\n")
    for _ in range(2):
        assert desk.run("init").code == DONE
    assert (tmp_path / ".env").read_text() == "PENSTOCK_NICHE=kept\n"


@beside
def test_a_state_folder_that_was_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.state.mkdir(mode=0o755)
    desk.state.chmod(0o755)
    assert desk.run("init").code == DONE
    assert stat.S_IMODE(desk.state.stat().st_mode) == 0o700


@beside
def test_without_a_state_setting_the_state_is_systemds_else_the_users(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    unset = {"PENSTOCK_STATE_DIR": None}
    systemd = {**unset, "STATE_DIRECTORY": str(tmp_path / "var")}
    for settings in (unset, systemd):
        assert desk.run("init", settings=settings).code == DONE
    assert (tmp_path / ".local/state/penstock/penstock.db").is_file()
    assert (tmp_path / "var/penstock.db").is_file()


# Settings: exit 2, every problem at once


@beside
def test_no_feeds_is_exit_2_and_names_the_setting(tmp_path: Path) -> None:
    result = Desk(tmp_path).run("once")
    assert result.code == SETTINGS
    assert "PENSTOCK_FEEDS" in result.err
    assert result.out == ""


@beside
def test_a_paid_ladder_needs_a_niche_a_url_a_key_and_a_price(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path, **ladder("llm/never-heard-of-it"))
    at_home = {"PENSTOCK_PROVIDER_LLM_URL": "http://127.0.0.1:9/v1"}
    abroad = {"PENSTOCK_PROVIDER_LLM_URL": "https://models.example/v1", "PENSTOCK_NICHE": "clocks"}
    local, remote = together(
        lambda: desk.once(settings=at_home), lambda: desk.once(settings=abroad)
    )
    assert local.code == remote.code == SETTINGS
    assert "PENSTOCK_NICHE" in local.err
    assert "PENSTOCK_PROVIDER_LLM_KEY" not in local.err
    assert "PENSTOCK_NICHE" not in remote.err
    assert "PENSTOCK_PROVIDER_LLM_KEY" in remote.err
    for result in (local, remote):
        assert "PENSTOCK_PRICES" in result.err
        assert "llm/never-heard-of-it" in result.err
        assert not desk.database.exists()


MALFORMED = {
    "PENSTOCK_TIMEZONE": "Mars/Olympus",
    "PENSTOCK_WORDS": "900-600",
    "PENSTOCK_FRESH_DAYS": "soon",
    "PENSTOCK_FETCH_ALLOW": "127.0.0.1",
    "PENSTOCK_PUBLISH_CRON": "0 9 * * someday",
    "PENSTOCK_COLLECT_CRON": "* * *",
    "PENSTOCK_FEED_CRON": "99 * * * *",
    "PENSTOCK_MAX_POSTS_PER_DAY": "-1",
    "PENSTOCK_MODELS_WRITE": "digest > llm/alpha",
    "PENSTOCK_MODEL_OPTIONS": "llm/alpha=tokens:4",
    "PENSTOCK_PRICES": "llm/alpha=3,15",
    "PENSTOCK_CALL_TIMEOUT": "0",
    "PENSTOCK_HTTP_TIMEOUT": "nan",
    "PENSTOCK_RUN_BUDGET": "-0.25",
    "PENSTOCK_DAILY_CAP": "1.0000001",
    "PENSTOCK_MONTHLY_CAP": "fifteen",
    "PENSTOCK_RESERVE": "1e400",
    "PENSTOCK_RUNWAY_DAYS": "1.5",
    "PENSTOCK_RATES": "devto.views=0.0002",
    "PENSTOCK_PUBLISHERS": "inbox",
    "PENSTOCK_APPROVAL": "first:",
    "PENSTOCK_SITE_URL": "http://blog.example",
    "PENSTOCK_LOG_LEVEL": "loud",
    "PENSTOCK_PROVIDER_LLM_URL": "models.example/v1",
    "PENSTOCK_DATABASE_URL": "sqlite://",
}


@beside
def test_every_malformed_value_is_reported_at_once_with_its_name(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path, **MALFORMED, PENSTOCK_DAYLY_CAP="2")
    result = desk.run("once")
    assert result.code == SETTINGS, result
    reported = set(re.findall(r"^(?:penstock: )?(PENSTOCK_\w+): ", result.err, re.MULTILINE))
    assert reported == {*MALFORMED, "PENSTOCK_DAYLY_CAP"}
    assert "did you mean PENSTOCK_DAILY_CAP" in result.err


@beside
def test_an_unknown_name_is_refused_in_the_environment_and_in_a_file(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path)
    named = tmp_path / "other.env"
    named.write_text("PENSTOCK_MAX_POST_PER_DAY=1\n")
    results = together(
        lambda: desk.once(settings={"PENSTOCK_MAX_POSTS_PER_DAYS": "1"}),
        lambda: desk.once("--env-file", str(named)),
        lambda: desk.once(settings={"PENSTOCK_PROVIDER_ACME_URL": "https://acme.example/v1"}),
    )
    assert [result.code for result in results] == [SETTINGS] * 3
    for result in results[:2]:
        assert "did you mean PENSTOCK_MAX_POSTS_PER_DAY" in result.err
    assert "PENSTOCK_PROVIDER_ACME_URL" in results[2].err


@beside
def test_lines_of_an_env_file_that_cannot_be_parsed_are_all_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.env"
    bad.write_text(
        "PENSTOCK_NICHE=clocks\n"
        "this is no setting\n"
        "PENSTOCK_DAILY_CAP=1.00 # a day\n"
        "PENSTOCK_RESERVE\n"
        "PENSTOCK_VOICE='dry\n"
    )
    binary = tmp_path / "binary.env"
    binary.write_bytes(b"PENSTOCK_NICHE=\xff\xfe\n")
    desk = digest_desk(tmp_path)
    lines, encoding = together(
        *(lambda path=path: desk.once("--env-file", str(path)) for path in (bad, binary))
    )
    assert lines.code == encoding.code == SETTINGS
    assert re.findall(r"bad\.env line (\d)", lines.err) == ["2", "3", "4", "5"]
    assert f"{binary}: cannot be read" in encoding.err


@beside
def test_an_env_file_that_is_not_there_or_no_file_is_exit_2(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path)
    results = together(
        lambda: desk.run("status", "--env-file", str(tmp_path / "nowhere.env")),
        lambda: desk.run("once", "--env-file", str(tmp_path)),
    )
    for result in results:
        assert result.code == SETTINGS, result
        assert str(tmp_path) in result.err


@beside
def test_a_file_fills_what_the_environment_lacks_and_no_more(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path)
    (tmp_path / ".env").write_text('PENSTOCK_NICHE="wall time"\nPENSTOCK_MAX_POSTS_PER_DAY=0\n')
    result = desk.once(settings={"PENSTOCK_MAX_POSTS_PER_DAY": "1"})
    assert result.code == DONE, result
    assert result.json["title"].startswith("Wall time: ")


@beside
def test_reading_and_depositing_need_no_settings_but_the_place_of_the_state(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, {"PENSTOCK_DAYLY_CAP": "2", "PENSTOCK_WORDS": "many"}).initialised()
    results = together(
        lambda: desk.run("ledger", "deposit", "1", "--ref", "second"),
        lambda: desk.run("runs", "list"),
        lambda: desk.run("pause"),
        lambda: desk.run("status", "--json"),
    )
    assert [result.code for result in results] == [DONE] * 4
    assert results[3].json["pace"] is None
    assert any("PENSTOCK_WORDS" in alert for alert in results[3].json["alerts"])


@beside
def test_a_command_before_init_says_what_to_do(tmp_path: Path) -> None:
    result = Desk(tmp_path).run("ledger", "balance")
    assert result.code == SETTINGS
    assert "penstock init" in result.err
    assert not (tmp_path / "state").exists()


@beside
def test_words_that_are_off_are_exit_2(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    off = (
        "",
        "publish",
        "once --topc x",
        "ledger deposit 5",
        "runs show r-unknown",
        "runs resume r-unknown",
        "drafts approve r-unknown",
        "runs list --since yesterday",
        "runs list --limit 0",
    )
    results = together(*(lambda words=words: desk.run(*words.split()) for words in off))
    assert [r.args for r in results if r.code != SETTINGS or r.out] == []


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "list", "--since", "999999w"),
        ("ledger", "entries", "--since", "0001-01-01T00:00+14:00"),
        ("ledger", "attempts", "--limit", "99999999999999999999"),
        ("ledger", "deposit", "1", "--ref", b"\xff"),
        ("ledger", "deposit", "1", "--ref", ""),
    ],
    ids=["since-before-time", "since-before-utc", "limit", "ref-not-utf-8", "ref-empty"],
)
def test_values_beyond_all_bounds_are_refused(
    tmp_path: Path, words: tuple[str | bytes, ...]
) -> None:
    result = Desk(tmp_path).initialised().run(*words)
    assert result.code == SETTINGS, result


# Deposits


@beside
def test_a_deposit_that_is_no_amount_is_exit_2_and_books_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised(None)
    bad = ("0", "-5", "0.0000001", "five", "1000000001")
    results = together(
        *(lambda a=a: desk.run("ledger", "deposit", "--ref", "x", "--", a) for a in bad)
    )
    assert {a: r.code for a, r in zip(bad, results, strict=True)} == dict.fromkeys(bad, SETTINGS)
    assert desk.read("ledger", "entries") == []


@beside
def test_a_ref_books_once_and_stands_for_one_amount(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised(None)
    codes = [
        desk.run("ledger", "deposit", amount, "--ref", "r 1").code
        for amount in ("5", "5.000000", "5.01")
    ]
    assert codes == [DONE, DONE, SETTINGS]
    entries = desk.read("ledger", "entries")
    assert [(e["amount"], e["ref"]) for e in entries] == [("5.000000", "r 1")]


@beside
def test_deposits_made_at_the_same_time_are_all_booked(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised(None)
    results = together(
        *(
            lambda ref=ref: desk.run("ledger", "deposit", "1", "--ref", ref)
            for ref in ("one", "same", "same")
        )
    )
    assert [result.code for result in results] == [DONE] * 3
    assert desk.read("ledger", "balance")["posted"] == "2.000000"


# Digests, the clamp, the topic, the dry run


@beside
def test_a_digest_is_published_once_a_day_and_then_it_says_why_not(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path, PENSTOCK_NICHE="small servers")
    first, second = desk.once(), desk.run("once")
    assert (first.code, second.code) == (DONE, NOT_NOW)
    assert first.json["outcome"] == "published"
    assert first.json["cost"] == "0.000000"
    assert "PENSTOCK_MAX_POSTS_PER_DAY" in second.out
    assert len(desk.articles) == 1
    for name in ("index.html", "feed.xml", f"{desk.articles[0].stem}.html"):
        assert (desk.outbox / name).is_file()
    assert first.json["run"] in desk.articles[0].read_text()


@beside
def test_progress_goes_to_stderr_and_results_to_stdout(tmp_path: Path) -> None:
    result = digest_desk(tmp_path).initialised(None).run("once")
    assert result.code == DONE
    assert "feeds done" in result.err
    assert "feeds done" not in result.out
    assert "\x1b" not in result.said
    assert len(result.out.splitlines()) <= 4


@beside
def test_a_clamp_of_zero_lets_nothing_out(tmp_path: Path) -> None:
    result = digest_desk(tmp_path, PENSTOCK_MAX_POSTS_PER_DAY="0").initialised(None).once()
    assert result.code == NOT_NOW
    assert result.json["outcome"] == "skipped"
    assert "PENSTOCK_MAX_POSTS_PER_DAY" in result.json["reason"]


@beside
def test_the_clamp_holds_for_a_digest_that_could_not_be_written_before(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path)
    desk.state.mkdir(mode=0o700)
    desk.outbox.write_text("a file where the folder should be")
    failed = desk.once()
    assert failed.code == FAILED, failed
    assert str(desk.outbox) in failed.json["reason"]
    desk.outbox.unlink()
    assert desk.once(settings={"PENSTOCK_MAX_POSTS_PER_DAY": "0"}).code == NOT_NOW
    assert desk.articles == []
    assert desk.once().code == DONE
    assert outcomes(desk) == ["published"]


@beside
def test_a_dry_run_shows_the_digest_and_publishes_nothing(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised(None)
    rehearsal = desk.run("once", "--dry-run")
    assert rehearsal.code == DONE
    assert re.search(r"^## \[", rehearsal.out, re.MULTILINE)
    assert desk.articles == []
    assert desk.read("posts", "list") == []
    again = desk.once("--dry-run")
    assert again.json["outcome"] == "dry_run"
    assert again.json["publications"] == []
    # Nothing was used up: the real run has the same entries.
    published = desk.once()
    assert published.code == DONE, published
    assert published.json["title"] == again.json["title"]


@beside
def test_a_topic_steers_a_digest_too(tmp_path: Path) -> None:
    found = digest_desk(tmp_path, PENSTOCK_NICHE="small servers").once("--topic", "time")
    assert found.code == DONE, found
    assert found.json["title"].startswith("Time: five new reads, ")


@beside
def test_a_title_names_no_subject_that_its_links_do_not_speak_of(tmp_path: Path) -> None:
    found = digest_desk(tmp_path, PENSTOCK_NICHE="hothouse roses").once()
    assert found.code == DONE, found
    assert found.json["title"].startswith("Eight new reads, ")


@beside
def test_a_topic_steers_what_leads(tmp_path: Path, world: World) -> None:
    results = together(
        *(
            lambda words=words: world.desk(tmp_path / words[0]).once("--topic", " ".join(words))
            for words in (("backups", "snapshots"), ("checkpoints", "log"))
        )
    )
    assert [result.code for result in results] == [DONE, DONE]
    titles = [result.json["title"] for result in results]
    assert "Backups" in titles[0]
    assert "Checkpoints" in titles[1]
    asked = [a.text for a in world.model.requests if a.schema == "plan"]
    topics = re.findall(r"The operator asks for this topic: (.+)", "\n".join(asked))
    assert sorted(topics) == ["backups snapshots", "checkpoints log"]


@beside
def test_without_money_a_paid_ladder_is_dormant_and_makes_a_digest(
    tmp_path: Path, world: World
) -> None:
    desk = Desk(tmp_path, world.settings).initialised(None)
    result = desk.once()
    assert result.code == DONE, result
    assert result.json["tier"] == "dormant"
    assert len(desk.articles) == 1
    assert world.model.requests == []
    assert desk.read("status")["pace"]["tier"] == "dormant"


# Feeds


@beside
def test_nothing_fresh_and_feeds_that_are_all_dead_are_exit_4(tmp_path: Path) -> None:
    stale = digest_desk(tmp_path / "stale", PENSTOCK_FRESH_DAYS="1")
    dead = digest_desk(
        tmp_path / "dead", PENSTOCK_FEEDS=f"{tmp_path}/none.xml,http://127.0.0.1:9/feed.xml"
    )
    results = together(stale.once, dead.once)
    assert [result.code for result in results] == [NOTHING_FIT] * 2
    assert [result.json["outcome"] for result in results] == ["abstained"] * 2
    assert "none.xml" in results[1].json["reason"]
    assert "127.0.0.1:9" in results[1].json["reason"]


@beside
def test_a_bad_feed_costs_the_run_that_feed_and_a_line(tmp_path: Path) -> None:
    good = (EXAMPLE_FEEDS / "sluice.xml").read_bytes()
    utf16 = good.decode().encode("utf-16-le")[1::2] * 2
    bad = {
        "empty.xml": b"",
        "page.xml": b"<!doctype html><html><body><h1>Not found</h1></body></html>",
        "huge.xml": good.replace(b"</feed>", b"<!--" + b"x" * 6_000_000 + b"--></feed>"),
        "wrong.xml": b'<?xml version="1.0" encoding="utf-8"?>' + utf16,
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    names = ["missing.xml", *bad]
    feeds = ",".join([*(str(tmp_path / name) for name in names), str(EXAMPLE_FEEDS / "sluice.xml")])
    desk = digest_desk(tmp_path / "home", PENSTOCK_FEEDS=feeds)
    result = desk.once()
    assert result.code == DONE, result
    for name in names:
        lines = [line for line in result.err.splitlines() if str(tmp_path / name) in line]
        assert len(lines) == 1, (name, result.err)


@beside
def test_a_feed_that_lies_about_its_encoding_is_read_or_named(tmp_path: Path) -> None:
    lies = {"utf-8": "latin-1", "utf-16": "utf-8", "no-such-encoding": "utf-8"}
    odd = (EXAMPLE_FEEDS / "sluice.xml").read_text()
    for declared, actual in lies.items():
        marked = odd.replace("The Sluice Letter", f"Schleuse für {declared}")
        marked = marked.replace("https://sluice.example/", f"https://{declared}.example/")
        marked = marked.replace('encoding="UTF-8"', f'encoding="{declared}"')
        (tmp_path / f"{declared}.xml").write_bytes(marked.encode(actual, "replace"))
    feeds = ",".join(str(tmp_path / f"{declared}.xml") for declared in lies)
    desk = digest_desk(tmp_path, PENSTOCK_FEEDS=f"{feeds},{EXAMPLE_FEEDS / 'millrace.xml'}")
    result = desk.once()
    assert result.code == DONE, result
    # One story is told once, whoever tells it, so the article does not say who could be read.
    feeds_read = {feed for (feed,) in desk.rows("SELECT feed FROM entry")}
    for declared in lies:
        location = str(tmp_path / f"{declared}.xml")
        assert (location in feeds_read) != (location in result.err), (declared, result.err)


# Pause, lock, tampering


@beside
def test_a_pause_stops_the_next_run_and_resume_lifts_it(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised(None)
    assert desk.run("pause", "--reason", "moving house").code == DONE
    stopped = desk.once()
    assert stopped.code == PAUSED
    assert "moving house" in stopped.json["reason"]
    assert desk.read("status")["paused"] is True
    again = desk.run("pause", "--json")
    assert again.json == {"paused": True, "reason": "moving house"}
    assert desk.run("resume").code == DONE
    assert desk.once().code == DONE


@beside
def test_a_pause_parks_the_run_in_hand_and_resume_lets_it_go_on(
    tmp_path: Path, world: World
) -> None:
    desk = world.desk(tmp_path)
    world.model.misbehave("slow", seconds=6.0, times=1)
    with desk.started("once", "--json") as process:
        await_true(lambda: bool(world.model.requests))
        assert desk.run("pause").code == DONE
        assert process.wait(20) == PAUSED
    # The answer that was under way was paid for and kept; nothing more was asked.
    assert [asked.schema for asked in world.model.requests] == ["plan"]
    assert outcomes(desk) == ["parked"]
    assert desk.once().code == PAUSED
    assert len(world.model.requests) == 1
    assert desk.run("resume").code == DONE
    assert desk.once().code == DONE
    assert Counter(asked.schema for asked in world.model.requests)["plan"] == 1
    assert_billed_exactly(books(desk), world.model)


@beside
def test_only_one_penstock_works_and_the_others_may_read_and_deposit(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised(None)
    with (desk.state / "penstock.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        once, status, deposit = together(
            desk.once,
            lambda: desk.run("status"),
            lambda: desk.run("ledger", "deposit", "1", "--ref", "beside"),
        )
    assert once.code == LOCKED
    assert "another penstock" in once.err.lower()
    assert (status.code, deposit.code) == (DONE, DONE)
    assert desk.once().code == DONE


@beside
def test_an_edited_entry_is_found_by_check_and_stops_the_next_run(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised()
    tamper(desk.database)
    assert desk.run("ledger", "check").code == DONE
    tamper(desk.database, "UPDATE transfer SET amount_micro = amount_micro + 1")
    check, once = desk.run("ledger", "check", "--json"), desk.once()
    assert (check.code, once.code) == (BOOKS_WRONG, BOOKS_WRONG)
    assert check.json["ok"] is False
    edited = "transfer 1 (deposit:first) was changed after it was booked"
    assert edited in check.json["problems"]
    assert desk.articles == []


@beside
def test_the_books_refuse_to_be_edited_while_their_triggers_stand(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    for statement in ("UPDATE transfer SET amount_micro = 1", "DELETE FROM transfer"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            desk.sql(statement)


@beside
def test_a_database_that_is_none_is_exit_6_and_an_empty_file_becomes_one(tmp_path: Path) -> None:
    desks = [digest_desk(tmp_path / name) for name in ("empty", "other")]
    for desk, content in zip(desks, (b"", b"not a database at all\n" * 500), strict=True):
        desk.state.mkdir(mode=0o700, parents=True)
        desk.database.write_bytes(content)
    reading = [desk.run("ledger", "balance").code for desk in desks]
    working = [desk.run("once").code for desk in desks]
    assert reading == [SETTINGS, BOOKS_WRONG]
    assert working == [DONE, BOOKS_WRONG]


# The provider misbehaves


UNKNOWN: tuple[tuple[str, Kind, dict[str, Any]], ...] = (
    ("plan", "reset_after", {}),
    ("notes", "drop_after", {}),
    ("notes", "no_usage", {}),
    ("notes", "zero_usage", {}),
    ("notes", "error_in_200", {}),
    ("notes", "status", {"code": 503}),
)


def always_failing(model: ModelDouble) -> None:
    model.misbehave("status", code=500, times=None)


def inventing(model: ModelDouble) -> None:
    model.misbehave("invented_quote", times=None)


def mumbling(model: ModelDouble) -> None:
    model.misbehave("not_json", schema="plan", model="alpha", times=2)
    model.misbehave("truncated_json", schema="notes", times=1)
    model.misbehave("length", schema="draft", times=1)


def picky(model: ModelDouble) -> None:
    model.misbehave("max_completion_tokens", times=None)
    model.misbehave("no_json_schema", times=None)
    model.misbehave("no_json_object", times=None)
    model.misbehave("status", code=429, retry_after="0", schema="draft")


def unclear(model: ModelDouble) -> None:
    for schema, kind, details in UNKNOWN:
        model.misbehave(kind, schema=schema, model="alpha", **details)


def exacting(model: ModelDouble) -> None:
    again = {"verdict": "revise", "score": 3, "problems": [], "unsupported": [], "questions": []}
    model.reviews = [again] * 9


def renamed(model: ModelDouble) -> None:
    model.misbehave("other_model", model="beta", times=None)


@dataclass(frozen=True, slots=True)
class Scene:
    """A provider that misbehaves in its way, the machine that met it, and what came of it."""

    world: World
    desk: Desk
    result: Result
    books: Books


Play = tuple[Callable[[ModelDouble], None], dict[str, str], tuple[str, ...]]
TWO_RUNGS = ladder("llm/alpha > llm/beta")
OR_DIGEST = ladder("llm/alpha > digest")
UNREACHABLE = {"PENSTOCK_PROVIDER_LLM_URL": "http://127.0.0.1:9/v1"}
PLAYS: dict[str, Play] = {
    # Those that wait for something come first.
    "unreachable": (always_failing, OR_DIGEST | UNREACHABLE, ()),
    "unclear": (unclear, TWO_RUNGS | {"PENSTOCK_MODEL_OPTIONS": "llm/alpha=timeout:2"}, ()),
    "picky": (picky, {}, ()),
    "failing": (always_failing, TWO_RUNGS, ()),
    "failing to a digest": (always_failing, OR_DIGEST, ()),
    "inventing": (inventing, {}, ()),
    "mumbling": (mumbling, TWO_RUNGS, ()),
    "exacting": (exacting, {"PENSTOCK_RUN_BUDGET": "0.20"}, ()),
    "renamed": (renamed, {}, ("--dry-run",)),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    """Every play, three at a time: they have nothing in common but the clock."""
    home = tmp_path_factory.mktemp("scenes")

    def play(name: str, world: World) -> Scene:
        trouble, settings, words = PLAYS[name]
        trouble(world.model)
        desk = world.desk(home / name, **settings)
        result = desk.run("once", *words) if words else desk.once()
        return Scene(world, desk, result, books(desk))

    Desk(home).initialised()  # The template is made before several want it.
    with ExitStack() as worlds, ThreadPoolExecutor(3) as pool:
        going = {
            name: pool.submit(play, name, worlds.enter_context(small_world())) for name in PLAYS
        }
        yield {name: scene.result() for name, scene in going.items()}


def test_a_model_that_invents_every_quote_gets_no_draft_bought(scenes: dict[str, Scene]) -> None:
    scene = scenes["inventing"]
    assert scene.result.code == NOTHING_FIT, scene.result
    assert scene.result.json["outcome"] == "abstained"
    assert {asked.schema for asked in scene.world.model.requests} == {"plan", "notes"}
    assert_billed_exactly(scene.books, scene.world.model)
    claims = scene.desk.read("runs", "show", scene.result.json["run"])["claims"]
    assert claims
    assert not any(claim["verified"] for claim in claims)


def test_a_provider_that_always_fails_ends_the_run_and_its_holds_stay(
    scenes: dict[str, Scene],
) -> None:
    scene = scenes["failing"]
    assert scene.result.code == FAILED, scene.result
    assert scene.result.json["outcome"] == "failed"
    assert scene.desk.articles == []
    found = checked_books(scene.desk)
    assert_covered(found, scene.world.model)
    assert len(found.attempts) == len(scene.world.model.requests) == 2
    assert [a["outcome"] for a in found.attempts] == ["unknown"] * 2
    status = scene.desk.read("status")
    assert micro(status["balance"]["held"]) == found.held > 0
    assert status["alerts"]
    # The provider recovers, and the feed's entries were not used up.
    scene.world.model.troubles.clear()
    assert scene.desk.once().code == DONE
    assert outcomes(scene.desk) == ["failed", "published"]


def test_a_ladder_that_ends_in_a_digest_makes_one_instead(scenes: dict[str, Scene]) -> None:
    for name in ("failing to a digest", "unreachable"):
        scene = scenes[name]
        assert scene.result.code == DONE, scene.result
        assert scene.result.json["outcome"] == "published"
        assert "new reads" in scene.result.json["title"]
        assert [p["platform"] for p in scene.result.json["publications"]] == ["outbox"]
        assert len(scene.desk.articles) == 1
    assert scenes["failing to a digest"].books.held > 0


def test_a_request_that_reached_nobody_costs_nothing(scenes: dict[str, Scene]) -> None:
    found = scenes["unreachable"].books
    assert found.held == found.booked == 0
    assert {attempt["outcome"] for attempt in found.attempts} == {"unsent"}
    assert {attempt["cost"] for attempt in found.attempts} == {"0.000000"}


def test_an_answer_that_is_no_json_twice_sends_the_question_to_the_next_rung(
    scenes: dict[str, Scene],
) -> None:
    scene = scenes["mumbling"]
    assert scene.result.code == DONE, scene.result
    assert_billed_exactly(scene.books, scene.world.model)
    asked = Counter((a["step"], a["model"]) for a in scene.books.attempts)
    assert (asked["plan", "alpha"], asked["plan", "beta"]) == (2, 1)
    repairs = [a for a in scene.world.model.requests if (a.schema, a.model) == ("plan", "alpha")]
    assert "rather explain it in my own words" in repairs[1].text


def test_an_answer_that_was_cut_is_repaired_by_at_most_one_further_call(
    scenes: dict[str, Scene],
) -> None:
    asked = Counter((a["step"], a["model"]) for a in scenes["mumbling"].books.attempts)
    assert max(asked.values()) == 2
    assert sum(count - 1 for (step, _), count in asked.items() if step.startswith("notes")) <= 1
    assert asked["draft-1", "alpha"] == 2
    # The second editor is another model, where there is one.
    others = {"plan", "review-1-second"}
    assert {model for (step, model) in asked if step not in others} == {"alpha"}


def test_what_a_model_does_not_accept_is_learnt_once_and_costs_nothing(
    scenes: dict[str, Scene],
) -> None:
    scene = scenes["picky"]
    assert scene.result.code == DONE, scene.result
    assert_billed_exactly(scene.books, scene.world.model)
    refused = scene.books.outcomes("refused")
    assert Counter((a["step"], a["http_status"]) for a in refused) == {
        ("plan", 400): 3, ("draft-1", 429): 1,
    }  # fmt: skip
    assert {a["cost"] for a in refused} == {"0.000000"}
    assert sum(entry["state"] == "voided" for entry in scene.books.entries) == 4


def test_where_an_outcome_is_unknown_the_hold_stays_and_the_next_rung_answers(
    scenes: dict[str, Scene],
) -> None:
    scene = scenes["unclear"]
    model = scene.world.model
    assert scene.result.code == DONE, scene.result
    found = checked_books(scene.desk)
    assert_covered(found, model)
    unknown = found.outcomes("unknown")
    assert len(unknown) == len(UNKNOWN), [(a["step"], a["outcome"]) for a in found.attempts]
    assert len(found.attempts) == len(model.requests)
    assert {a["hold"] for a in unknown} == set(found.pending)
    answered = {(a["step"], a["model"]) for a in found.outcomes("ok")}
    assert {(a["step"], "beta") for a in unknown} <= answered
    # Who failed so often in a row rests; the draft goes to the next rung at once.
    assert {a["model"] for a in found.attempts if a["step"] == "draft-1"} == {"beta"}
    # What is certain is booked to the last millionth.
    certain = sum(charge.micro for charge in model.bill if charge.model == "beta")
    assert sum(micro(a["cost"]) for a in found.outcomes("ok") if a["model"] == "beta") == certain
    assert scene.desk.read("status")["alerts"]


def test_an_editor_who_is_never_content_ends_within_the_budget(scenes: dict[str, Scene]) -> None:
    scene = scenes["exacting"]
    assert scene.result.code == NOTHING_FIT, scene.result
    assert_billed_exactly(scene.books, scene.world.model)
    assert 0 < scene.books.booked <= 200_000


def test_a_paid_dry_run_shows_the_article_and_publishes_nothing(scenes: dict[str, Scene]) -> None:
    scene = scenes["renamed"]
    assert scene.result.code == DONE, scene.result
    assert "## What is known" in scene.result.out
    assert scene.desk.articles == []


def test_a_model_that_answers_for_another_is_booked_at_its_own_price(
    scenes: dict[str, Scene],
) -> None:
    scene = scenes["renamed"]
    assert_billed_exactly(scene.books, scene.world.model)
    attempts = scene.books.attempts
    assert {(a["model"], a["model_returned"]) for a in attempts} == {("alpha", "beta")}
    assert {a["price"]["output"] for a in attempts} == {"5.000000"}


# Secrets


@beside
def test_no_secret_is_printed_stored_or_published(tmp_path: Path, world: World) -> None:
    # A provider that quotes the key back, as some do, and secrets that are not used yet.
    body = {"error": {"message": f"Incorrect API key provided: {KEY}.", "type": "auth"}}
    world.model.misbehave("status", code=401, body=body, schema="notes", times=1)
    others = {
        "DEVTO_API_KEY": "devto-0123456789abcdef",
        "BLUESKY_APP_PASSWORD": "abcd-efgh-ijkl-mnop",
        "PENSTOCK_ALERT_URL": "https://hooks.example/T0123/token-to-the-hook",
    }
    desk = world.desk(tmp_path, **ladder("llm/alpha > llm/beta"), **others)
    once = desk.run("once")
    assert once.code == DONE, once
    run = desk.read("runs", "list")[0]["run"]
    said = [
        once,
        *together(
            lambda: desk.run("status"),
            lambda: desk.run("ledger", "attempts", "--json"),
            lambda: desk.run("runs", "show", run),
            lambda: desk.run("runs", "trace", run, "--json"),
        ),
    ]
    for secret in (KEY, *others.values()):
        assert [result.args for result in said if secret in result.said] == []
        assert leaks(tmp_path, secret) == []


@beside
def test_a_malformed_secret_is_reported_without_its_value(tmp_path: Path) -> None:
    result = digest_desk(tmp_path, PENSTOCK_ALERT_URL="ftp://hooks.example/token-0123").run("once")
    assert result.code == SETTINGS
    assert "PENSTOCK_ALERT_URL" in result.err
    assert "token-0123" not in result.said


@beside
def test_a_secret_may_stand_in_a_file_or_be_a_credential(tmp_path: Path, world: World) -> None:
    # The double counts only requests that bear the right key; one is enough to see.
    world.model.misbehave("status", code=402, times=None)
    keys = tmp_path / "keys"
    keys.mkdir()
    key = keys / "penstock_provider_llm_key"
    key.write_text(f"{KEY}\n")
    without = {k: v for k, v in world.settings.items() if k != "PENSTOCK_PROVIDER_LLM_KEY"}
    ways = {
        "file": {"PENSTOCK_PROVIDER_LLM_KEY_FILE": str(key)},
        "credential": {"CREDENTIALS_DIRECTORY": str(keys)},
        "missing": {"PENSTOCK_PROVIDER_LLM_KEY_FILE": str(tmp_path / "nowhere")},
    }
    desks = [Desk(tmp_path / name, without | way).initialised() for name, way in ways.items()]
    in_file, credential, missing = together(*(desk.once for desk in desks))
    assert (in_file.code, credential.code, missing.code) == (FAILED, FAILED, SETTINGS)
    assert len(world.model.requests) == 2
    assert "PENSTOCK_PROVIDER_LLM_KEY_FILE" in missing.err
    assert [leak for desk in desks for leak in leaks(desk.home, KEY)] == []


@beside
def test_what_looks_like_a_secret_in_a_feed_does_not_reach_the_outbox(tmp_path: Path) -> None:
    token = "ghp_" + "a1B2c3D4e5" * 4
    feed = (EXAMPLE_FEEDS / "sluice.xml").read_text()
    (tmp_path / "feed.xml").write_text(feed.replace("A gap in the log", f"A gap {token}"))
    desk = digest_desk(tmp_path, PENSTOCK_FEEDS=str(tmp_path / "feed.xml"))
    result = desk.once()
    assert result.code == DONE, result
    # Of the four entries the other three are listed.
    assert result.json["title"].startswith("Three new reads, ")
    assert token not in result.said
    assert leaks(desk.outbox, token) == []


# Approval

PUBLIC = {"PENSTOCK_SITE_URL": "https://example.org"}


@beside
def test_a_public_outbox_waits_for_a_person_who_approves(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path, **PUBLIC).initialised(None)
    waiting = desk.once()
    assert waiting.code == DONE
    assert waiting.json["outcome"] == "awaiting_approval"
    assert desk.articles == []
    run = waiting.json["run"]
    assert [draft["run"] for draft in desk.read("drafts", "list")] == [run]
    assert desk.read("drafts", "show", run)["article"]["title"] == waiting.json["title"]
    assert desk.read("status")["drafts_waiting"] == 1
    blocked = desk.once()
    assert blocked.code == NOT_NOW
    assert "approval" in blocked.json["reason"]
    assert desk.run("drafts", "approve", run).code == DONE
    # A day without room only delays it.
    full = desk.once(settings={"PENSTOCK_MAX_POSTS_PER_DAY": "0"})
    assert full.code == NOT_NOW, full
    assert full.json["outcome"] == "skipped"
    published = desk.once()
    assert published.code == DONE, published
    assert (published.json["run"], published.json["outcome"]) == (run, "published")
    assert published.json["publications"][0]["url"].startswith("https://example.org/")
    assert 'rel="canonical" href="https://example.org/' in next(
        path.read_text() for path in desk.outbox.glob("*.html") if path.stem != "index"
    )
    assert desk.run("drafts", "approve", run).code == SETTINGS


@beside
def test_a_rehearsal_does_not_use_up_an_approved_draft(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path, **PUBLIC).initialised(None)
    run = desk.once().json["run"]
    assert desk.run("drafts", "approve", run).code == DONE
    assert desk.once("--dry-run").code == DONE
    assert desk.articles == []
    published = desk.once()
    assert (published.code, published.json["run"]) == (DONE, run)
    assert len(desk.articles) == 1


@beside
def test_a_rejected_draft_is_dropped_with_its_reason(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path, **PUBLIC).initialised(None)
    run = desk.once().json["run"]
    assert desk.run("drafts", "reject", run, "--reason", "too dry").code == DONE
    assert desk.read("drafts", "list") == []
    shown = desk.read("runs", "show", run)
    assert (shown["state"], shown["outcome"]) == ("finished", "abstained")
    assert "too dry" in str(shown["decisions"])
    assert desk.articles == []
    assert desk.run("runs", "resume", run).code == DONE
    assert desk.articles == []


@beside
def test_approval_can_be_automatic(tmp_path: Path) -> None:
    result = digest_desk(tmp_path, **PUBLIC, PENSTOCK_APPROVAL="auto").once()
    assert (result.code, result.json["outcome"]) == (DONE, "published")


# Interrupted, out of space, run as root


@beside
def test_an_interrupt_from_the_keyboard_is_no_traceback_and_loses_nothing(
    tmp_path: Path, world: World
) -> None:
    world.model.misbehave("slow", seconds=0.5, schema="notes", times=None)
    desk = world.desk(tmp_path)
    with desk.started("once") as process:
        await_true(lambda: any(asked.schema == "notes" for asked in world.model.requests))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert b"Traceback" not in err, err
    assert process.returncode == FAILED
    result = desk.once()
    assert result.code == DONE, result
    assert outcomes(desk) == ["published"]
    assert_covered(books(desk), world.model)


@beside
def test_an_interrupt_that_comes_too_late_leaves_what_the_run_came_to(tmp_path: Path) -> None:
    for later_ms in (0, 10, 20, 40, 50):
        desk = digest_desk(tmp_path / str(later_ms))
        with desk.started("once", "--json") as process:
            assert process.stderr is not None
            while b"publish:outbox done" not in process.stderr.readline():
                assert process.poll() is None
            time.sleep(later_ms / 1000)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert b"Traceback" not in err, err
        # Where it is over nobody is told to go on with it: that would be another run.
        is_over = json.loads(out)["outcome"] == "published"
        assert outcomes(desk) == ["published" if is_over else "running"], later_ms
        assert process.returncode in ({DONE, -signal.SIGINT} if is_over else {FAILED})


FULL_DISK = """
set -eu
cp {template} {state}/penstock.db
free=$(df -k --output=avail {state} | tail -1)
dd if=/dev/zero of={state}/filler bs=1k count=$((free - {left})) 2>/dev/null
code() {{
    at={home}/$1
    shift
    "$@" >$at.out 2>$at.err && echo 0 >$at.code || echo $? >$at.code
}}
code full {penstock} once --json
rm {state}/filler
code check {penstock} ledger check --json
code again {penstock} once --json
cp -r {state} {home}/kept
"""


@beside
def test_a_disk_that_is_full_at_once_leaves_the_books_whole(tmp_path: Path, world: World) -> None:
    run_on_a_full_disk(tmp_path, world, left_kb=8)


@beside
def test_a_disk_that_fills_up_in_a_run_leaves_the_books_whole(tmp_path: Path, world: World) -> None:
    run_on_a_full_disk(tmp_path, world, left_kb=200)


def run_on_a_full_disk(tmp_path: Path, world: World, left_kb: int) -> None:
    """Run out of space: a message and an exit code; then free some and go on."""
    desk = world.desk(tmp_path / "home")
    disk = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(desk.state)]
    template = tmp_path / "template.db"
    desk.database.rename(template)
    names = {
        "state": desk.state, "home": desk.home, "template": template, "penstock": PENSTOCK,
        "left": left_kb,
    }  # fmt: skip
    script = FULL_DISK.format(**{k: shlex.quote(str(v)) for k, v in names.items()})
    done = subprocess.run(
        [*mounting(disk), "sh", "-c", script], env=desk.env(), cwd=desk.home,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done

    def result(name: str) -> Result:
        out, err, code = (
            (desk.home / f"{name}.{end}").read_text() for end in ("out", "err", "code")
        )
        assert "Traceback" not in out + err
        assert "unexpected:" not in out + err
        return Result((name, "--json"), int(code), out, err)

    full, again = result("full"), result("again")
    assert full.code == FAILED, full
    assert full.json["outcome"] == "failed"
    assert re.search(r"space|full", full.said), full
    assert result("check").json["ok"] is True
    assert again.code == DONE, again
    kept = Desk(desk.home, desk.settings | {"PENSTOCK_STATE_DIR": str(desk.home / "kept")})
    assert len(kept.articles) == 1
    found = checked_books(kept)
    assert_covered(found, world.model)
    assert set(Counter(a["step"] for a in found.outcomes("ok")).values()) == {1}


def test_as_root_a_command_becomes_the_owner_of_the_state() -> None:
    python_for_all()
    with open_to_all() as folder:
        desk = digest_desk(folder).initialised()
        for path in (desk.state, *desk.state.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        results = [
            desk.run("ledger", "deposit", "1", "--ref", "second"),
            desk.run("status"),
            desk.once(),
        ]
        assert [result.code for result in results] == [DONE] * 3, results
        assert {path.stat().st_uid for path in desk.state.rglob("*")} == {NOBODY}
        assert len(desk.articles) == 1


@beside
def test_a_state_folder_that_cannot_be_is_a_message_and_a_code(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    desk = digest_desk(tmp_path, PENSTOCK_STATE_DIR=str(tmp_path / "file" / "state"))
    for result in together(desk.once, lambda: desk.run("status"), lambda: desk.run("init")):
        assert result.code == SETTINGS, result
        assert str(tmp_path / "file") in result.err


@beside
def test_a_state_folder_may_have_any_name(tmp_path: Path) -> None:
    for number, name in enumerate(("wäßrig, 100%25 sure; a#b", "what?x=y&z")):
        place = tmp_path / str(number)
        place.mkdir()
        desk = digest_desk(tmp_path, PENSTOCK_STATE_DIR=str(place / name))
        result = desk.once()
        assert result.code == DONE, result
        assert {path.name for path in (place / name).iterdir()} >= {"penstock.db", "outbox"}
        assert [path.name for path in place.iterdir()] == [name]


@beside
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    done = in_a_shell(desk, "ledger entries --json | exec sleep 0", "${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == (f"{DONE}\n", "")


@beside
def test_a_stderr_that_cannot_be_written_stops_no_work_and_changes_no_code(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("NOT RUN: this machine has no /dev/full")
    desk = digest_desk(tmp_path).initialised()
    for words, code in (("once", DONE), ("runs show nope", SETTINGS)):
        assert in_a_shell(desk, f"{words} >/dev/null 2>/dev/full").stdout == f"{code}\n"
    assert len(desk.articles) == 1


@beside
def test_the_module_and_the_command_are_the_same(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    command = desk.run("--version")
    module = subprocess.run(
        [sys.executable, "-m", "daemon", "--version"], env=desk.env(), cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (command.code, module.stdout) == (DONE, command.out)
