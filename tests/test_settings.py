"""Settings are read once, whole or not at all, and say everything that is wrong in one go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from daemon import options, settings
from daemon.inference.ladder import Ladder, Role, Rung
from daemon.inference.port import ModelOptions
from daemon.options import OPTIONS
from daemon.secret import Secret
from daemon.settings import Settings, SettingsError, environment, load, locate
from ledger.money import MicroCredits
from tests.cli_helpers import as_another

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = "sk-very-private-0123456789"

# The least that is enough for a publication without a model, and for one with.
FREE = {"PENSTOCK_FEEDS": "https://blog.example/feed", "PENSTOCK_STATE_DIR": "/srv/penstock"}
PAID = FREE | {
    "PENSTOCK_NICHE": "sluices, weirs",
    "PENSTOCK_PROVIDER_LLM_URL": "https://api.openai.com/v1",
    "PENSTOCK_PROVIDER_LLM_KEY": SECRET,
    "PENSTOCK_MODELS_WRITE": "llm/gpt-4o > digest",
}


def problems(env: Mapping[str, str]) -> dict[str, str]:
    """What is wrong, by setting; it must be something."""
    with pytest.raises(SettingsError) as refused:
        load(env, at=NOW)
    found = {problem.name: problem.message for problem in refused.value.problems}
    assert len(found) == len(refused.value.problems), "one problem a setting"
    assert str(refused.value).splitlines() == [str(p) for p in refused.value.problems]
    return found


def problem(name: str, value: str, base: Mapping[str, str] = FREE) -> str:
    """What is wrong with one value; nothing else may be."""
    found = problems({**base, name: value})
    assert list(found) == [name]
    return found[name]


# Defaults: what operators were promised

DEFAULTS = {
    "PENSTOCK_STATE_DIR": "",
    "PENSTOCK_DATABASE_URL": "",
    "PENSTOCK_TIMEZONE": "UTC",
    "PENSTOCK_NICHE": "",
    "PENSTOCK_LANGUAGE": "en",
    "PENSTOCK_WORDS": "600-1200",
    "PENSTOCK_FEEDS": "",
    "PENSTOCK_FEED_CRON": "7 * * * *",
    "PENSTOCK_FRESH_DAYS": "30",
    "PENSTOCK_SEARCH_URL": "",
    "PENSTOCK_FETCH_ALLOW": "",
    "PENSTOCK_PUBLISH_CRON": "0 9 * * mon,wed,fri",
    "PENSTOCK_COLLECT_CRON": "*/30 * * * *",
    "PENSTOCK_MAX_POSTS_PER_DAY": "1",
    "PENSTOCK_PROVIDERS": "llm",
    "PENSTOCK_MODELS_RESEARCH": "digest",
    "PENSTOCK_MODELS_WRITE": "digest",
    "PENSTOCK_MODELS_EDIT": "digest",
    "PENSTOCK_MODEL_OPTIONS": "",
    "PENSTOCK_PRICES": "",
    "PENSTOCK_CALL_TIMEOUT": "120",
    "PENSTOCK_HTTP_TIMEOUT": "20",
    "PENSTOCK_HOLD_EXPIRY": "24",
    "PENSTOCK_RUN_BUDGET": "0.25",
    "PENSTOCK_DAILY_CAP": "1.00",
    "PENSTOCK_MONTHLY_CAP": "15.00",
    "PENSTOCK_RESERVE": "0.10",
    "PENSTOCK_RUNWAY_DAYS": "14",
    "PENSTOCK_RATES": (
        "devto.view=0.0002,devto.reaction=0.005,devto.comment=0.01,bluesky.like=0.002,"
        "bluesky.repost=0.005,bluesky.reply=0.005,bluesky.quote=0.005"
    ),
    "PENSTOCK_EARN_DAILY_CAP": "0.50",
    "PENSTOCK_PUBLISHERS": "outbox",
    "PENSTOCK_APPROVAL": "first:3",
    "DEVTO_API_KEY": "",
    "DEVTO_URL": "https://dev.to",
    "BLUESKY_HANDLE": "",
    "BLUESKY_APP_PASSWORD": "",
    "BLUESKY_URL": "https://bsky.social",
    "PENSTOCK_OUTBOX_DIR": "",
    "PENSTOCK_SITE_URL": "",
    "PENSTOCK_ALERT_URL": "",
    "PENSTOCK_LOG_LEVEL": "info",
    "PENSTOCK_RETENTION_DAYS": "180",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_setting_of_the_contract_is_read_and_has_its_default(name: str) -> None:
    (option,) = (option for option in OPTIONS if option.name == name)
    assert option.default == DEFAULTS[name]


def test_there_is_no_setting_that_the_contract_does_not_have() -> None:
    sensible = {"PENSTOCK_AUDIENCE", "PENSTOCK_VOICE"}
    # Adding one is free.
    added = {"DEVTO_SERIES", "STRIPE_API_KEY", "STRIPE_URL", "PENSTOCK_METRICS_PORT"}
    assert {option.name for option in OPTIONS} == DEFAULTS.keys() | sensible | added
    assert all(option.default for option in OPTIONS if option.name in sensible)


def test_what_nobody_set_is_the_default_in_every_slice() -> None:
    read = load(FREE, at=NOW)
    amount = MicroCredits.parse
    assert (read.policy.run_budget, read.policy.daily_cap) == (amount("0.25"), amount("1"))
    assert (read.policy.monthly_cap, read.policy.reserve) == (amount("15"), amount("0.1"))
    assert read.policy.runway_days == 14
    assert read.schedule.posts_per_day_max == 1
    assert read.schedule.publish.expression == "0 9 * * mon,wed,fri"
    assert read.schedule.collect.expression == "*/30 * * * *"
    assert read.schedule.publish.zone == read.zone == ZoneInfo("UTC")
    assert (read.feeds.feeds, read.feeds.fresh_days) == (("https://blog.example/feed",), 30)
    assert (read.fetch.allow, read.fetch.timeout_s) == (frozenset(), 20)
    assert read.call_timeout_s == 120
    assert (read.brief.words_min, read.brief.words_max, read.brief.language) == (600, 1200, "en")
    assert (read.publishing.publishers, read.publishing.approval) == (("outbox",), "first:3")
    assert read.publishing.outbox_dir == Path("/srv/penstock/outbox")
    assert read.location.state_dir == Path("/srv/penstock")
    assert read.ladders == dict.fromkeys(Role, Ladder())
    assert not read.paid


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "PENSTOCK_FEEDS"])
def test_an_empty_value_is_the_default(name: str) -> None:
    env = {**FREE, name: ""}
    if name == "PENSTOCK_STATE_DIR":
        env["STATE_DIRECTORY"] = FREE[name]
    assert repr(load(env, at=NOW)) == repr(load(FREE, at=NOW))


def test_what_was_set_reaches_the_part_that_uses_it() -> None:
    env = PAID | {
        "PENSTOCK_TIMEZONE": "Europe/Berlin",
        "PENSTOCK_WORDS": " 300 - 500 ",
        "PENSTOCK_FEEDS": " https://a.example/ , /srv/b.opml ,, ",
        "PENSTOCK_FETCH_ALLOW": "LocalHost:8080, [::1]:81",
        "PENSTOCK_MAX_POSTS_PER_DAY": "40",
        "PENSTOCK_DAILY_CAP": "0.000001",
        "PENSTOCK_MODEL_OPTIONS": (
            "llm/gpt-4o=max_output:4000,timeout:60.5,effort:low; llm/a:b=c=timeout:5"
        ),
        "PENSTOCK_PRICES": "llm/*=0,0,0",
        "PENSTOCK_PUBLISHERS": "Outbox,outbox",
        "PENSTOCK_APPROVAL": "manual",
        "PENSTOCK_SITE_URL": "https://site.example/blog/",
        "PENSTOCK_OUTBOX_DIR": "/srv/out",
        "PENSTOCK_LOG_LEVEL": "DEBUG",
    }
    read = load(env, at=NOW)
    assert read.zone == read.schedule.publish.zone == ZoneInfo("Europe/Berlin")
    assert (read.brief.words_min, read.brief.words_max) == (300, 500)
    assert read.brief.niche == ("sluices", "weirs")
    assert read.feeds.feeds == ("https://a.example/", "/srv/b.opml")
    assert read.fetch.allow == {"localhost:8080", "[::1]:81"}
    assert read.schedule.posts_per_day_max == 40
    assert read.policy.daily_cap == MicroCredits(1)
    assert read.model_options == {
        Rung("llm", "gpt-4o"): ModelOptions(4000, 60.5, "low"),
        Rung("llm", "a:b=c"): ModelOptions(None, 5.0, None),
    }
    assert read.ladders[Role.WRITE] == Ladder((Rung("llm", "gpt-4o"),))
    assert read.prices.price(Rung("llm", "gpt-4o"), NOW).source == "PENSTOCK_PRICES"
    assert read.publishing.publishers == ("outbox",)
    assert read.publishing.site_url == "https://site.example/blog"
    assert read.publishing.outbox_dir == Path("/srv/out")
    assert read.publishing.approval == "manual"
    assert read.endpoints["llm"].url == "https://api.openai.com/v1"
    assert read.endpoints["llm"].key == Secret(SECRET)
    assert read.paid


# Problems


def test_every_problem_is_told_at_once_with_its_name_and_what_is_right() -> None:
    found = problems(
        {
            "PENSTOCK_TIMEZONE": "Berlin",
            "PENSTOCK_WORDS": "1200-600",
            "PENSTOCK_PUBLISH_CRON": "0 9 * *",
            "PENSTOCK_COLLECT_CRON": "0 0 30 2 *",
            "PENSTOCK_DAILY_CAP": "1,50",
            "PENSTOCK_RESERVE": "-1",
            "PENSTOCK_DAYLY_CAP": "1",
            "PENSTOCK_MODELS_WRITE": "digest > llm/gpt-4o",
            "PENSTOCK_MODELS_EDIT": "other/model",
            "PENSTOCK_DATABASE_URL": "postgresql://host/db",
            "PENSTOCK_SITE_URL": "http://site.example",
            "PENSTOCK_LOG_LEVEL": "warn",
        }
    )
    expected = {
        "PENSTOCK_TIMEZONE": "Europe/Berlin",
        "PENSTOCK_WORDS": "600-1200",
        "PENSTOCK_PUBLISH_CRON": "five fields",
        "PENSTOCK_COLLECT_CRON": "never fires",
        "PENSTOCK_DAILY_CAP": "'1,50' is not a decimal number",
        "PENSTOCK_RESERVE": "must not be negative",
        "PENSTOCK_DAYLY_CAP": "did you mean PENSTOCK_DAILY_CAP?",
        "PENSTOCK_MODELS_WRITE": "can only be the last",
        "PENSTOCK_MODELS_EDIT": "not among PENSTOCK_PROVIDERS",
        "PENSTOCK_DATABASE_URL": "not supported yet",
        "PENSTOCK_SITE_URL": "https is needed",
        "PENSTOCK_LOG_LEVEL": "did you mean warning?",
        "PENSTOCK_FEEDS": "at least one feed",
        "PENSTOCK_NICHE": "before a model is paid",
    }
    assert found.keys() == expected.keys()
    for name, words in expected.items():
        assert words in found[name]


WRONG = [
    ("PENSTOCK_TIMEZONE", "../etc/passwd", "IANA"),
    ("PENSTOCK_TIMEZONE", "Europe", "IANA"),
    ("PENSTOCK_TIMEZONE", "/etc/localtime", "IANA"),
    ("PENSTOCK_WORDS", "600", "range"),
    ("PENSTOCK_WORDS", "10-20", "range"),
    ("PENSTOCK_WORDS", "600-99999", "range"),
    ("PENSTOCK_WORDS", "-600", "range"),
    ("PENSTOCK_FEEDS", " , ", "at least one"),
    ("PENSTOCK_FEED_CRON", "* * * * 8", "weekday"),
    ("PENSTOCK_FRESH_DAYS", "0", "whole number from 1"),
    ("PENSTOCK_FRESH_DAYS", "1.5", "whole number"),
    ("PENSTOCK_FRESH_DAYS", "٣", "whole number"),
    ("PENSTOCK_SEARCH_URL", "ftp://s.example", "http"),
    ("PENSTOCK_FETCH_ALLOW", "localhost", "not host:port"),
    ("PENSTOCK_FETCH_ALLOW", "localhost:http", "not host:port"),
    ("PENSTOCK_FETCH_ALLOW", "localhost:0", "not host:port"),
    ("PENSTOCK_FETCH_ALLOW", "localhost:65536", "not host:port"),
    ("PENSTOCK_FETCH_ALLOW", ":80", "not host:port"),
    ("PENSTOCK_FETCH_ALLOW", "localhost:²", "not host:port"),
    ("PENSTOCK_FETCH_ALLOW", "http://localhost:80", "not host:port"),
    ("PENSTOCK_FETCH_ALLOW", "127.0.0.1:80 127.0.0.1:81", "not host:port"),
    ("PENSTOCK_MAX_POSTS_PER_DAY", "-1", "whole number"),
    ("PENSTOCK_MAX_POSTS_PER_DAY", "one", "whole number"),
    ("PENSTOCK_PROVIDERS", "my-llm", "letters, digits and underscores"),
    ("PENSTOCK_PROVIDERS", "a/b", "letters, digits and underscores"),
    ("PENSTOCK_MODELS_RESEARCH", "digest > digest", "only be the last"),
    ("PENSTOCK_MODELS_RESEARCH", "llm/a >", "provider/model"),
    ("PENSTOCK_MODELS_RESEARCH", "gpt-4o", "provider/model"),
    ("PENSTOCK_MODELS_RESEARCH", "llm/", "provider/model"),
    ("PENSTOCK_MODEL_OPTIONS", "llm/a", "provider/model="),
    ("PENSTOCK_MODEL_OPTIONS", "llm/a=colour:red", "provider/model="),
    ("PENSTOCK_MODEL_OPTIONS", "llm/a=timeout:5,colour:red", "colour"),
    ("PENSTOCK_MODEL_OPTIONS", "llm/a=max_output:0", "whole number"),
    ("PENSTOCK_MODEL_OPTIONS", "llm/a=timeout:-1", "seconds"),
    ("PENSTOCK_MODEL_OPTIONS", "a=timeout:1", "provider/model"),
    ("PENSTOCK_PRICES", "llm/a=1,2", "provider/model=input,cached,output"),
    ("PENSTOCK_PRICES", "llm/a=1,2,x", "decimal"),
    ("PENSTOCK_PRICES", "llm/a=1,2,-3", "negative"),
    ("PENSTOCK_CALL_TIMEOUT", "0", "seconds"),
    ("PENSTOCK_CALL_TIMEOUT", "nan", "seconds"),
    ("PENSTOCK_CALL_TIMEOUT", "inf", "seconds"),
    ("PENSTOCK_HTTP_TIMEOUT", "-1", "seconds"),
    ("PENSTOCK_HTTP_TIMEOUT", "5s", "seconds"),
    ("PENSTOCK_HOLD_EXPIRY", "-1", "whole number"),
    ("PENSTOCK_RUN_BUDGET", "0.0000001", "finer than a millionth"),
    ("PENSTOCK_RUN_BUDGET", "1.0000000000000000000000000000001", "finer than a millionth"),
    ("PENSTOCK_RUN_BUDGET", "1e-9999999", "not a decimal number"),
    ("PENSTOCK_DAILY_CAP", "nan", "not a decimal number"),
    ("PENSTOCK_DAILY_CAP", "inf", "not a decimal number"),
    ("PENSTOCK_DAILY_CAP", "$1", "decimal"),
    ("PENSTOCK_DAILY_CAP", "1e10", "not a decimal number"),
    ("PENSTOCK_DAILY_CAP", "1e9999999", "not a decimal number"),
    ("PENSTOCK_MONTHLY_CAP", "-0.01", "negative"),
    ("PENSTOCK_EARN_DAILY_CAP", "unlimited", "decimal"),
    ("PENSTOCK_RUNWAY_DAYS", "0", "whole number"),
    ("PENSTOCK_RATES", "devto.views=1", "did you mean devto.view?"),
    ("PENSTOCK_RATES", "devto.view", "decimal"),
    ("PENSTOCK_RATES", "devto.view=-1", "negative"),
    ("PENSTOCK_PUBLISHERS", "medium", "outbox"),
    ("PENSTOCK_PUBLISHERS", ",", "at least one"),
    ("PENSTOCK_APPROVAL", "first", "first:N"),
    ("PENSTOCK_APPROVAL", "first:-1", "first:N"),
    ("PENSTOCK_APPROVAL", "never", "auto, manual"),
    ("DEVTO_URL", "dev.to", "http or https URL"),
    ("PENSTOCK_SEARCH_URL", "https://searx.example:80a80", "host or its port"),
    ("PENSTOCK_SEARCH_URL", "https://searx.example:99999", "host or its port"),
    ("PENSTOCK_SEARCH_URL", "https://[::g]/", "host or its port"),
    ("PENSTOCK_ALERT_URL", "https://se\u200barx.example", "host or its port"),
    ("PENSTOCK_SITE_URL", "https://site.example/?a=b", "without query"),
    ("PENSTOCK_LOG_LEVEL", "loud", "debug, info, warning"),
    ("PENSTOCK_RETENTION_DAYS", "0", "whole number"),
    ("PENSTOCK_DATABASE_URL", "not a url", "database URL"),
    ("PENSTOCK_DATABASE_URL", "sqlite://", "in memory"),
    ("PENSTOCK_DATABASE_URL", "sqlite:///:memory:", "in memory"),
    ("PENSTOCK_DATABASE_URL", "mysql://h/d", "not supported"),
    ("PENSTOCK_STATE_DIR", "~nobody-of-that-name/x", ""),
    ("PENSTOCK_OUTBOX_DIR", "~nobody-of-that-name/x", ""),
]


@pytest.mark.parametrize(("name", "value", "right"), WRONG, ids=[f"{r[0]}={r[1]}" for r in WRONG])
def test_a_wrong_value_is_refused_and_told_what_would_be_right(
    name: str, value: str, right: str
) -> None:
    assert right in problem(name, value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PENSTOCK_DAYLY_CAP", "PENSTOCK_DAILY_CAP"),
        ("PENSTOCK_MAX_POST_PER_DAY", "PENSTOCK_MAX_POSTS_PER_DAY"),
        ("PENSTOCK_MONTLY_CAP", "PENSTOCK_MONTHLY_CAP"),
        ("PENSTOCK_PROVIDER_LLM_KEYS", "PENSTOCK_PROVIDER_LLM_KEY"),
        ("PENSTOCK_PROVIDER_LMM_URL", "PENSTOCK_PROVIDER_LLM_URL"),
        ("PENSTOCK_DEVTO_API_KEY", "DEVTO_API_KEY"),
        ("PENSTOCK_DAILY_CAP_FILE", "PENSTOCK_DAILY_CAP"),
        ("PENSTOCK_daily_cap", "PENSTOCK_"),
        ("PENSTOK_DAILY_CAP", "PENSTOCK_DAILY_CAP"),
        ("PENSTOCKS_RESERVE", "PENSTOCK_RESERVE"),
        ("penstock_reserve", "PENSTOCK_"),
    ],
)
def test_a_name_nobody_knows_is_an_error_with_the_nearest_that_is_known(
    name: str, nearest: str
) -> None:
    message = problem(name, SECRET)
    assert "there is no such setting" in message
    assert nearest in message or name in ("PENSTOCK_daily_cap", "penstock_reserve")
    assert SECRET not in message


@pytest.mark.parametrize("name", ["PENSTOCK_", "PENSTOCK_X", "PENSTOCK_" + "Z" * 500])
def test_a_name_near_to_nothing_is_an_error_too(name: str) -> None:
    assert "there is no such setting" in problem(name, "")


def test_names_of_others_are_none_of_our_business() -> None:
    load(
        FREE
        | {
            "PATH": "/bin",
            "MY_PENSTOCK_X": "1",
            "PENSTOCKS": "2",
            "LANG": "C",
            "OPENSTACK_URL": "x",
            "DAILY_CAP": "3",
            "STRIPE_KEY": "4",
        },
        at=NOW,
    )


def test_a_wrong_provider_list_does_not_make_right_names_unknown() -> None:
    found = problems(PAID | {"PENSTOCK_PROVIDERS": "llm, my-other"})
    assert list(found) == ["PENSTOCK_PROVIDERS"]


# Ladders


def test_a_ladder_of_an_unknown_provider_names_it() -> None:
    message = problem("PENSTOCK_MODELS_EDIT", "other/model", PAID)
    assert message.startswith("'other' is not among PENSTOCK_PROVIDERS")


def test_an_unpriced_model_is_refused_with_the_line_to_add() -> None:
    env = PAID | {"PENSTOCK_PROVIDER_LLM_URL": "https://gateway.example/v1"}
    found = problems(env)
    assert list(found) == ["PENSTOCK_PRICES"]
    assert "PENSTOCK_PRICES=llm/gpt-4o=INPUT,CACHED,OUTPUT" in found["PENSTOCK_PRICES"]
    assert load(env | {"PENSTOCK_PRICES": "llm/gpt-4o=2.5,1.25,10"}, at=NOW).paid


def test_one_unpriced_model_is_told_once_however_many_ladders_name_it() -> None:
    env = PAID | {f"PENSTOCK_MODELS_{role.upper()}": "llm/no-such-model" for role in Role}
    assert list(problems(env)) == ["PENSTOCK_PRICES"]


@pytest.mark.parametrize(
    "lacking", ["PENSTOCK_PROVIDER_LLM_URL", "PENSTOCK_PROVIDER_LLM_KEY", "PENSTOCK_NICHE"]
)
def test_what_a_paid_ladder_needs_is_asked_for(lacking: str) -> None:
    env = {name: value for name, value in PAID.items() if name != lacking}
    env |= {"PENSTOCK_PRICES": "llm/*=1,1,1"}
    assert list(problems(env)) == [lacking]


def test_a_model_on_loopback_needs_no_key_but_a_price() -> None:
    env = PAID | {
        "PENSTOCK_PROVIDER_LLM_URL": "http://127.0.0.1:11434/v1",
        "PENSTOCK_PROVIDER_LLM_KEY": "",
    }
    assert list(problems(env)) == ["PENSTOCK_PRICES"]
    read = load(env | {"PENSTOCK_PRICES": "llm/*=0,0,0"}, at=NOW)
    assert not read.endpoints["llm"].key


def test_several_providers_have_their_own_names_in_any_case() -> None:
    env = FREE | {
        "PENSTOCK_NICHE": "x",
        "PENSTOCK_PROVIDERS": "Big, local_1",
        "PENSTOCK_PROVIDER_BIG_URL": "https://openrouter.ai/api/v1/",
        "PENSTOCK_PROVIDER_BIG_KEY": SECRET,
        "PENSTOCK_PROVIDER_LOCAL_1_URL": "http://localhost:8000/v1",
        "PENSTOCK_PRICES": "local_1/*=0,0,0",
        "PENSTOCK_MODELS_WRITE": "BIG/anthropic/claude-sonnet-4.5 > local_1/q:4b > digest",
    }
    read = load(env, at=NOW)
    assert read.ladders[Role.WRITE].paid == (
        Rung("big", "anthropic/claude-sonnet-4.5"),
        Rung("local_1", "q:4b"),
    )
    assert read.endpoints["big"].url == "https://openrouter.ai/api/v1"
    assert not read.endpoints["local_1"].key


@pytest.mark.parametrize(
    "name",
    ["PENSTOCK_PROVIDER_LLM_URL", "DEVTO_URL", "BLUESKY_URL", "PENSTOCK_ALERT_URL",
     "PENSTOCK_SITE_URL", "PENSTOCK_SEARCH_URL"],
)  # fmt: skip
def test_plain_http_is_for_loopback_only(name: str) -> None:
    for url in (
        "http://127.0.0.1:1/v1",
        "http://localhost",
        "http://[::1]:80/",
        "http://127.8.8.8",
    ):
        load({**FREE, name: url}, at=NOW)
    for url in (
        "http://example.org/v1",
        "http://10.0.0.1/",
        "http://127.0.0.1.example.org/",
        "http://localhost.example.org/",
        "http://127.0.0.1@example.org/",
        "http://127.0.0.1:80@example.org/",
        "http://example.org:80/@127.0.0.1",
        "http://0.0.0.0/",
    ):
        assert "https is needed" in problem(name, url), url


# Secrets

SECRETS = ["PENSTOCK_PROVIDER_LLM_KEY", "DEVTO_API_KEY", "BLUESKY_APP_PASSWORD"]


def without_key() -> dict[str, str]:
    return {name: value for name, value in PAID.items() if name != "PENSTOCK_PROVIDER_LLM_KEY"}


def key(env: Mapping[str, str]) -> str:
    return load(env, at=NOW).endpoints["llm"].key.reveal()


def test_a_secret_is_read_from_a_name_a_file_or_a_credential(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}-file\n")
    (tmp_path / "penstock_provider_llm_key").write_text(f" {SECRET}-credential\n")
    by_name = {"PENSTOCK_PROVIDER_LLM_KEY": f"{SECRET}-name"}
    by_file = {"PENSTOCK_PROVIDER_LLM_KEY_FILE": str(file)}
    by_credential = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert key(without_key() | by_credential) == f"{SECRET}-credential"
    assert key(without_key() | by_file | by_credential) == f"{SECRET}-file"
    assert key(without_key() | by_name | by_file | by_credential) == f"{SECRET}-name"


@pytest.mark.parametrize("name", ["DEVTO_API_KEY", "BLUESKY_APP_PASSWORD", "PENSTOCK_ALERT_URL"])
def test_every_secret_may_be_a_file(name: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    found = problems({**FREE, f"{name}_FILE": str(missing)})
    assert list(found) == [f"{name}_FILE"]
    assert str(missing) in found[f"{name}_FILE"]
    missing.write_text("https://hook.example/x\n")
    load({**FREE, f"{name}_FILE": str(missing)}, at=NOW)


def test_a_credential_that_is_not_there_is_no_secret(tmp_path: Path) -> None:
    env = without_key() | {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert list(problems(env)) == ["PENSTOCK_PROVIDER_LLM_KEY"]


def test_a_secret_file_that_cannot_be_read_is_told_without_its_content(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\xff\xfe" + SECRET.encode())
    found = problems(without_key() | {"PENSTOCK_PROVIDER_LLM_KEY_FILE": str(file)})
    assert "cannot be read" in found["PENSTOCK_PROVIDER_LLM_KEY_FILE"]
    assert SECRET not in str(found)


def everything_printed(read: Settings) -> str:
    parts: list[Any] = [read, *read.endpoints.values(), *(e.key for e in read.endpoints.values())]
    return "".join(f"{part!r}{part}{part:}" for part in parts)


def test_secrets_do_not_print() -> None:
    env = (
        PAID
        | dict.fromkeys(SECRETS, SECRET)
        | {"PENSTOCK_ALERT_URL": f"https://h.example/{SECRET}"}
    )
    read = load(env, at=NOW)
    assert read.endpoints["llm"].key.reveal() == SECRET
    assert SECRET not in everything_printed(read)
    assert str(read.endpoints["llm"].key) == "***"


def test_secrets_do_not_print_when_something_is_wrong_with_them_or_near_them() -> None:
    env = PAID | dict.fromkeys(SECRETS, SECRET)
    env |= {
        "PENSTOCK_ALERT_URL": f"http://hook.example/{SECRET}",
        "PENSTOCK_PROVIDER_LLM_KY": SECRET,
        "PENSTOCK_BLUESKY_APP_PASSWORD": SECRET,
        "PENSTOCK_WORDS": "x",
    }
    with pytest.raises(SettingsError) as refused:
        load(env, at=NOW)
    assert len(refused.value.problems) == 4
    assert SECRET not in f"{refused.value}{refused.value!r}{refused.value.problems!r}"


# Where the state is


def test_the_state_is_found_when_everything_else_is_wrong(tmp_path: Path) -> None:
    env = dict.fromkeys(DEFAULTS, "nonsense !") | {
        "PENSTOCK_STATE_DIR": str(tmp_path),
        "PENSTOCK_DATABASE_URL": "",
        "PENSTOCK_NO_SUCH_NAME": "x",
    }
    found = locate(env)
    assert found.state_dir == tmp_path
    assert found.database_url == f"sqlite:///{tmp_path}/penstock.db"


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"PENSTOCK_STATE_DIR": "/a", "STATE_DIRECTORY": "/b", "HOME": "/h"}, "/a"),
        ({"STATE_DIRECTORY": "/b:/c", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/b"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/penstock"),
        ({"HOME": "/h"}, "/h/.local/state/penstock"),
        ({"PENSTOCK_STATE_DIR": "", "STATE_DIRECTORY": "/b"}, "/b"),
        ({"PENSTOCK_STATE_DIR": "  ", "STATE_DIRECTORY": "/b"}, "/b"),
    ],
)  # fmt: skip
def test_the_state_folder_is_the_operators_else_systemds_else_the_users(
    env: dict[str, str], folder: str
) -> None:
    assert locate(env).state_dir == Path(folder)


def test_a_relative_state_folder_is_made_absolute() -> None:
    assert locate({"PENSTOCK_STATE_DIR": "state"}).state_dir == Path.cwd() / "state"


def test_a_database_url_moves_the_database_alone() -> None:
    env = {"PENSTOCK_STATE_DIR": "/a", "PENSTOCK_DATABASE_URL": "sqlite:////b/c.db"}
    found = locate(env)
    assert (found.state_dir, found.database_url) == (Path("/a"), "sqlite:////b/c.db")


# The env file


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, and no file in /etc."""
    monkeypatch.setattr(settings, "ETC_ENV_FILE", tmp_path / "etc" / "penstock.env")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def from_file(folder: Path, content: str | bytes) -> dict[str, str]:
    file = folder / "some.env"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return environment({}, file)


def file_problems(folder: Path, content: str | bytes) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        from_file(folder, content)
    return [str(problem) for problem in refused.value.problems]


def test_the_environment_wins_over_the_file_which_fills_what_is_lacking(nowhere: Path) -> None:
    (nowhere / ".env").write_text("A=file\nB=file\nC=file\nD=\n")
    assert environment({"A": "env", "C": "", "E": "env", "F": ""}) == {
        "A": "env", "B": "file", "C": "file", "D": "", "E": "env", "F": "",
    }  # fmt: skip


def test_the_file_named_wins_over_the_working_directory_which_wins_over_etc(nowhere: Path) -> None:
    assert environment({"A": "env"}) == {"A": "env"}
    settings.ETC_ENV_FILE.parent.mkdir()
    settings.ETC_ENV_FILE.write_text("A=etc\n")
    assert environment({}) == {"A": "etc"}
    (nowhere / ".env").write_text("A=work\n")
    assert environment({}) == {"A": "work"}
    named = nowhere / "named.env"
    named.write_text("B=named\n")
    assert environment({}, named) == {"B": "named"}
    assert environment({}, cwd=nowhere.parent) == {"A": "etc"}


def test_only_the_file_in_etc_is_passed_over_where_it_may_not_be_read(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ETC_ENV_FILE.parent.mkdir()
    settings.ETC_ENV_FILE.write_text("A=etc\n")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert settings.found_env_file() is None
    (nowhere / ".env").write_text("A=work\n")
    assert settings.found_env_file() == nowhere / ".env"


@pytest.mark.parametrize(
    "name",
    [
        "PENSTOCK_NICHE", "PENSTOCK_FEEDS", "PENSTOCK_STATE_DIR", "PENSTOCK_DATABASE_URL",
        "PENSTOCK_ALERT_URL", "PENSTOCK_PROVIDER_LLM_KEY", "DEVTO_API_KEY", "BLUESKY_HANDLE",
    ],
)  # fmt: skip
def test_bytes_that_are_no_utf_8_are_a_problem_of_their_setting(name: str) -> None:
    """Python hands them over as lone surrogates, which no database, log or request takes."""
    spoilt = os.fsdecode(b"sqlite:///sk-\xff\xfe")
    assert problem(name, spoilt, PAID) == "it is not UTF-8; write it in UTF-8"
    assert settings.alert_url({"PENSTOCK_ALERT_URL": spoilt}) == Secret()


def test_a_name_that_is_no_utf_8_is_shown_in_letters() -> None:
    assert list(problems(FREE | {os.fsdecode(b"PENSTOCK_\xff"): "1"})) == ["PENSTOCK_\\udcff"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("PENSTOCK_STATE_DIR", "PENSTOCK_STATE_DIR"),
        ("PENSTOCK_DATABASE_URL", "PENSTOCK_DATABASE_URL"),
        ("STATE_DIRECTORY", "PENSTOCK_STATE_DIR"),
        ("HOME", "PENSTOCK_STATE_DIR"),
    ],
)
def test_a_place_that_is_no_utf_8_is_none(name: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"{told}: .* not UTF-8"):
        locate({name: os.fsdecode(b"/srv/\xff")})


@pytest.mark.parametrize("path", ["/srv/" + "a" * 241, "/srv" + "/abcdefghi" * 380])
@pytest.mark.parametrize(
    ("name", "prefix"), [("PENSTOCK_STATE_DIR", ""), ("PENSTOCK_DATABASE_URL", "sqlite:///")]
)
def test_a_place_that_no_file_system_takes_is_none(name: str, prefix: str, path: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: the path is too long"):
        locate({"HOME": "/srv", name: prefix + path})
    assert "too long" in problem("PENSTOCK_OUTBOX_DIR", path)


@pytest.mark.parametrize("depth", [1, 15])
def test_a_place_as_long_as_may_be_holds_a_state(tmp_path: Path, depth: int) -> None:
    """With all that is put into it."""
    folder = tmp_path.joinpath(*["b" * 240] * depth)
    assert locate({"PENSTOCK_STATE_DIR": str(folder)}).state_dir == folder
    (folder / "outbox").mkdir(parents=True)
    (folder / "outbox" / f".2026-11-23-{'t' * 60}-10.json.4194304.part").touch()
    (folder / f"{'d' * 240}-journal").touch()


def test_a_file_that_cannot_be_looked_for_counts_as_none(nowhere: Path) -> None:
    (nowhere / ".env").write_text("A=work\n")
    settings.ETC_ENV_FILE.parent.mkdir()
    settings.ETC_ENV_FILE.write_text("A=etc\n")
    assert as_another(lambda: str(environment({"A": "env"})), nowhere) == "{'A': 'env'}"


def test_a_file_that_was_named_and_may_not_be_read_is_named_with_what_helps(nowhere: Path) -> None:
    named = nowhere / "named.env"
    named.write_text("A=named\n")
    environment({}, named)
    said = as_another(lambda: str(environment({}, named)), nowhere)
    assert said.startswith("SettingsError")
    assert f"{named}: cannot be read: this user may not; let it read the file" in said
    assert "Errno" not in said


def test_in_a_folder_that_is_gone_there_is_no_file_and_no_relative_state(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = nowhere / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert environment({"A": "env"}) == {"A": "env"}
    with pytest.raises(SettingsError, match="PENSTOCK_STATE_DIR: the working directory is gone"):
        locate({"PENSTOCK_STATE_DIR": "state"})
    assert "the working directory is gone" in problem("PENSTOCK_OUTBOX_DIR", "outbox")


def test_credentials_that_cannot_be_looked_for_are_a_problem_and_no_crash(nowhere: Path) -> None:
    folder = nowhere / "credentials"
    folder.mkdir()
    env = FREE | {"CREDENTIALS_DIRECTORY": str(folder)}
    load(env, at=NOW)
    said = as_another(lambda: str(load(env, at=NOW)), nowhere)
    assert said.startswith("SettingsError")
    assert f"DEVTO_API_KEY: {folder / 'devto_api_key'} cannot be read: PermissionError" in said


def test_a_file_that_was_named_must_be_there(nowhere: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        environment({}, nowhere / "missing.env")


def test_a_pipe_and_a_folder_are_said_to_be_that_and_are_not_waited_for(nowhere: Path) -> None:
    pipe = nowhere / "pipe"
    os.mkfifo(pipe)
    for path, what in ((pipe, "it is a pipe or a device"), (nowhere, "it is a folder")):
        with pytest.raises(SettingsError, match=f"{path}: cannot be read: {what}.*; "):
            environment({}, path)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("A=", ""),
        ("A=''", ""),
        ("A='two words'", "two words"),
        ('A="0 9 * * mon,wed,fri"', "0 9 * * mon,wed,fri"),
        ("A='llm/a > llm/b > digest'", "llm/a > llm/b > digest"),
        ("A='a # b'", "a # b"),
        ('A="a # b"', "a # b"),
        ("A=a#b", "a#b"),
        ("A=$HOME/${X}", "$HOME/${X}"),
        ('A="it\'s"', "it's"),
        ("A=ünïcode", "ünïcode"),
        ("A=1\r", "1"),
        ("\ufeffA=1", "1"),
        ("# comment\n\nA=1", "1"),
        ("A=1\nA=2", "2"),
    ],
)
def test_a_line_is_read_as_it_was_meant(nowhere: Path, line: str, value: str) -> None:
    assert from_file(nowhere, f"{line}\n") == {"A": value}
    assert from_file(nowhere, line) == {"A": value}


@pytest.mark.parametrize(
    "line",
    ["PENSTOCK_DAILY_CAP 0.10", "PENSTOCK_DAILY_CAP", "PENSTOCK_DAILY_CAP: 0.10", "=0.10",
     "just some words", "PENSTOCK_NICHE='unclosed", 'PENSTOCK_NICHE="unclosed', "A='a' 'b'",
     "; a comment of another kind", "$$$"],
)  # fmt: skip
def test_a_line_that_cannot_be_parsed_is_an_error_and_never_skipped(
    nowhere: Path, line: str
) -> None:
    (told,) = file_problems(nowhere, f"A=1\n{line}\n")
    assert "some.env line 2" in told
    assert "NAME=value" in told


@pytest.mark.parametrize(
    "line",
    ["A=1 # one", "A=1 #one", "A='1' # one", 'A="a # b" # c', "A= # nothing", "A=1\t# one",
     "A='a # b' # c"],
)  # fmt: skip
def test_a_comment_behind_a_value_is_an_error_since_systemd_would_read_it(
    nowhere: Path, line: str
) -> None:
    (told,) = file_problems(nowhere, f"{line}\n")
    assert "line of its own" in told


def test_each_problem_of_a_file_is_told_with_the_line_it_is_on(nowhere: Path) -> None:
    told = file_problems(nowhere, "# top\n\nA=1\n\n\nBAD\nB=2\n\nC=1 # c\nD=4\n\n# x\n\nWORSE x\n")
    assert [line.split(": ")[0].rpartition(" ")[2] for line in told] == ["6", "9", "14"]


def test_a_file_that_is_no_text_is_refused(nowhere: Path) -> None:
    assert "cannot be read" in file_problems(nowhere, b"A=\xff\xfe\n")[0]


def test_a_secret_in_a_broken_line_does_not_print(nowhere: Path) -> None:
    told = file_problems(nowhere, f"DEVTO_API_KEY {SECRET}\nDEVTO_API_KEY='{SECRET}\n")
    assert SECRET not in "".join(told)


# The example


def test_the_example_has_every_setting_with_default_and_meaning() -> None:
    lines = options.example().splitlines()
    for option in OPTIONS:
        (at,) = (n for n, line in enumerate(lines) if line.startswith(f"#{option.name}="))
        assert lines[at - 1].startswith("# ")
        assert option.meaning in lines[at - 1]


def test_the_example_uncommented_reads_back_as_the_defaults(nowhere: Path) -> None:
    uncommented = "\n".join(
        line.removeprefix("#")
        if line.startswith(("#PENSTOCK_", "#DEVTO_", "#BLUESKY_", "#STRIPE_"))
        else line
        for line in options.example().splitlines()
    )
    values = from_file(nowhere, uncommented)
    for option in OPTIONS:
        assert values[option.name] == option.default
    assert load(values | FREE, at=NOW).policy == load(FREE, at=NOW).policy


def test_the_example_in_the_repository_is_the_one_the_settings_write() -> None:
    file = Path(__file__).parents[1] / ".env.example"
    assert file.read_text(encoding="utf-8") == options.example()


# Destinations


@pytest.mark.parametrize(
    ("publishers", "given", "lacking"),
    [
        ("devto", {}, {"DEVTO_API_KEY"}),
        ("outbox,bluesky", {}, {"BLUESKY_HANDLE", "BLUESKY_APP_PASSWORD"}),
        ("bluesky", {"BLUESKY_HANDLE": "a.test"}, {"BLUESKY_APP_PASSWORD"}),
        ("outbox", {}, set()),
    ],
)
def test_a_destination_needs_its_keys(
    publishers: str, given: dict[str, str], lacking: set[str]
) -> None:
    env = FREE | given | {"PENSTOCK_PUBLISHERS": publishers}
    for wanted in ({"for_run": True}, {"for_run": False, "for_platforms": True}):
        if not lacking:
            load(env, at=NOW, **wanted)
            continue
        with pytest.raises(SettingsError) as refused:
            load(env, at=NOW, **wanted)
        assert {problem.name for problem in refused.value.problems} == lacking
    # Whoever only reads needs none.
    load(env, at=NOW, for_run=False)


@pytest.mark.parametrize("key", ["abc def", "schlüssel", "key\x7f", "a\u200bb"])
def test_a_key_that_no_header_carries_is_told_at_once_and_not_shown(key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(FREE | {"DEVTO_API_KEY": key}, at=NOW)
    (problem,) = refused.value.problems
    assert problem.name == "DEVTO_API_KEY"
    assert key not in str(problem)


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk one", "schlüssel", "key\x7f", "a\u200bb"])
def test_a_providers_key_that_no_header_carries_is_told_at_once_and_not_shown(key: str) -> None:
    assert key not in problem("PENSTOCK_PROVIDER_LLM_KEY", key, PAID)


def test_a_handle_is_taken_as_profiles_show_it() -> None:
    read = load(FREE | {"BLUESKY_HANDLE": "@me.bsky.social"}, at=NOW)
    assert read.publishing.bluesky.handle == "me.bsky.social"
    with pytest.raises(SettingsError):
        load(FREE | {"BLUESKY_HANDLE": "https://bsky.app/profile/me.bsky.social"}, at=NOW)


def test_a_destination_nobody_installed_is_told_with_those_there_are() -> None:
    with pytest.raises(SettingsError) as refused:
        load(FREE | {"PENSTOCK_PUBLISHERS": "outbox,dev.to"}, at=NOW)
    (problem,) = refused.value.problems
    assert problem.name == "PENSTOCK_PUBLISHERS"
    assert "devto" in problem.message


def test_the_rate_card_knows_its_units() -> None:
    read = load(FREE | {"PENSTOCK_RATES": "devto.view=0.001, bluesky.like = 0"}, at=NOW)
    assert {unit: str(rate) for unit, rate in read.earning.rates.items()} == {
        "devto.view": "0.001000", "bluesky.like": "0.000000",
    }  # fmt: skip
    for wrong in ("devto.like=1", "mastodon.like=1", "devto.view=-1", "devto.view"):
        with pytest.raises(SettingsError):
            load(FREE | {"PENSTOCK_RATES": wrong}, at=NOW)
