"""
Every setting, side by side: name, default, meaning, and how its text is read.

`.env.example` is written from here. A parser raises ValueError saying what would be right.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from daemon import plugins
from daemon.inference.ladder import Rung, parse_ladder, parse_rung
from daemon.inference.port import ModelOptions
from daemon.inference.prices import parse_prices
from ledger.money import AmountError, MicroCredits
from publishers.port import METRICS

TZDATA_REMEDY = "install tzdata: `pip install tzdata`, or your distribution's package"
RATES_DEFAULT = (
    "devto.view=0.0002,devto.reaction=0.005,devto.comment=0.01,bluesky.like=0.002,"
    "bluesky.repost=0.005,bluesky.reply=0.005,bluesky.quote=0.005"
)
_RATE_NAMES = tuple(item.partition("=")[0] for item in RATES_DEFAULT.split(","))
# Linux takes 255 and 4,095; a log of a database has a longer name, a file of a folder a longer path.
NAME_BYTES_MAX, PATH_BYTES_MAX = 240, 3_800
TOO_LONG = "the path is too long for a file system; name a shorter one"
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting. `parse` raises ValueError saying what would be right."""

    name: str
    default: str
    meaning: str
    parse: Callable[[str], Any]
    secret: bool = False


def did_you_mean(name: str, known: tuple[str, ...]) -> str:
    """The nearest known name as the end of a message, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def is_misspelt(name: str, known: Iterable[str]) -> bool:
    """Whether it is no name of another program's but one of ours, typed PENSTOK_… or in lower case."""
    typed = name.upper()
    # One slip leaves a half of the word whole; of other names there may be many, and each takes long.
    if not ("PENST" in typed or "STOCK" in typed):
        return False
    ours = [each for each in known if each.startswith("PENSTOCK_")]
    return bool(difflib.get_close_matches(typed, ours, n=1, cutoff=0.9))


def is_too_long(path: Path) -> bool:
    """Whether no file system takes it, with what will stand in it or beside it."""
    names = (len(os.fsencode(part)) for part in path.parts)
    return max(names, default=0) > NAME_BYTES_MAX or len(os.fsencode(path)) > PATH_BYTES_MAX


def _folder(value: str) -> Path | None:
    if not value:
        return None
    try:
        path = Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    except FileNotFoundError:
        raise ValueError(
            "the working directory is gone; a path that begins with / is needed"
        ) from None
    if is_too_long(path):
        raise ValueError(TOO_LONG)
    return path


def _amount(value: str) -> MicroCredits:
    amount = MicroCredits.parse(value)
    if amount.micro < 0:
        raise AmountError("credits must not be negative")
    return amount


def _whole(value: str, low: int, high: int | None = None) -> int:
    if not (value.isascii() and value.isdigit() and low <= int(value) <= (high or 10**9)):
        raise ValueError(f"a whole number from {low}{f' to {high}' if high else ' up'} is needed")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise ValueError("seconds above 0, at most 3600, are needed")
    return seconds


def _list(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    if value.lower() not in allowed:
        raise ValueError(f"one of {', '.join(allowed)} is needed{did_you_mean(value, allowed)}")
    return value.lower()


def _zone(value: str) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        if not available_timezones():
            raise ValueError(f"this machine has no time zone data; {TZDATA_REMEDY}") from None
        raise ValueError("an IANA time zone such as Europe/Berlin is needed") from None


def _words(value: str) -> tuple[int, int]:
    low, dash, high = value.partition("-")
    try:
        words = (_whole(low.strip(), 50, 20_000), _whole(high.strip(), 50, 20_000))
    except ValueError:
        words = (1, 0)
    if not dash or words[0] > words[1]:
        raise ValueError("a range such as 600-1200, between 50 and 20000, is needed")
    return words


def url(value: str) -> str:
    """An https URL, or plain http on loopback, without a trailing slash; "" stays empty."""
    if not value:
        return ""
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", value):
        raise ValueError("an http or https URL without query is needed")
    if not _is_reachable(value):
        raise ValueError("its host or its port cannot be one")
    if value.startswith("http://") and not is_loopback(value):
        raise ValueError("https is needed; plain http is for loopback only")
    return value.rstrip("/")


def _is_reachable(value: str) -> bool:
    """Whether what will send there takes it for an address."""
    import httpx

    try:
        port = httpx.URL(value).port
    except httpx.InvalidURL:
        return False
    return port is None or 0 < port < 65536


def is_loopback(address: str) -> bool:
    """Whether a URL points at this machine."""
    host = address.split("://", 1)[-1].split("/", 1)[0]
    host = host.rsplit("@", 1)[-1]
    return re.fullmatch(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", host) is not None


def _fetch_allow(value: str) -> frozenset[str]:
    pairs = _list(value)
    for pair in pairs:
        match = _HOST_PORT.fullmatch(pair)
        if match is None or not 0 < int(match[1]) < 65536:
            raise ValueError(f"{pair!r} is not host:port, such as 127.0.0.1:8080")
    return frozenset(pair.lower() for pair in pairs)


def _publishers(value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.lower() for name in _list(value)))
    for name in names:
        if name not in plugins.BUILT_IN:
            _one_of(name, (*plugins.BUILT_IN, *plugins.names()))
    if not names:
        raise ValueError("at least one destination is needed, such as outbox")
    return names


def _approval(value: str) -> str:
    if not re.fullmatch(r"auto|manual|first:\d{1,6}", value):
        raise ValueError("auto, manual, or first:N is needed")
    return value


def _rates(value: str) -> Mapping[str, MicroCredits]:
    rates = {}
    for item in _list(value):
        name, _, amount = (part.strip() for part in item.partition("="))
        if name not in _RATE_NAMES and not _is_of_plugin(name):
            raise ValueError(f"{name!r} is no unit of engagement{did_you_mean(name, _RATE_NAMES)}")
        rates[name] = _amount(amount)
    return rates


def _is_of_plugin(unit: str) -> bool:
    platform, _, metric = unit.partition(".")
    return metric in METRICS and platform not in plugins.BUILT_IN and platform in plugins.names()


def _devto_key(value: str) -> str:
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("a key of printable ASCII is needed; was it copied whole?")
    return value


def _handle(value: str) -> str:
    # As it is copied from a profile page.
    handle = value.removeprefix("@")
    if re.search(r"[\s/]", handle):
        raise ValueError("a handle such as name.bsky.social is needed")
    return handle


def _model_options(value: str) -> dict[Rung, ModelOptions]:
    options = {}
    for item in filter(None, (part.strip() for part in value.split(";"))):
        # The model's own name may have colons and equals signs; the options' names have none.
        match = re.fullmatch(r"(.+?)=((?:max_output|timeout|effort):.*)", item)
        if match is None:
            raise ValueError(f"{item!r} is not provider/model=max_output:4000,timeout:120")
        pairs = dict(pair.strip().partition(":")[::2] for pair in match[2].split(","))
        unknown = pairs.keys() - {"max_output", "timeout", "effort"}
        if unknown:
            raise ValueError(f"{unknown.pop()!r} is not max_output, timeout or effort")
        options[parse_rung(match[1])] = ModelOptions(
            output_tokens_max=_whole(pairs["max_output"], 1, 1_000_000)
            if "max_output" in pairs
            else None,
            timeout_s=_seconds(pairs["timeout"]) if "timeout" in pairs else None,
            effort=pairs.get("effort"),
        )
    return options


def _names(value: str) -> tuple[str, ...]:
    names = tuple(name.lower() for name in _list(value))
    for name in names:
        # A name becomes part of setting names and of an account's name.
        if not re.fullmatch(r"[a-z0-9_]{1,32}", name):
            raise ValueError(f"{name!r} may only have letters, digits and underscores")
    return names


OPTIONS: tuple[Option, ...] = (
    Option("PENSTOCK_STATE_DIR", "", "folder of database, outbox and backups; empty: $STATE_DIRECTORY, else the user's state folder", str),
    Option("PENSTOCK_DATABASE_URL", "", "SQLite URL, sqlite:///PATH; empty: a file in the state folder", str),
    Option("PENSTOCK_TIMEZONE", "UTC", "IANA time zone of the cron expressions and of the posts-a-day clamp", _zone),
    Option("PENSTOCK_NICHE", "", "what the publication is about, comma-separated phrases; needed where a ladder names a model", _list),
    Option("PENSTOCK_AUDIENCE", "working developers who know the basics and have little time", "whom it is for, in a sentence", str),
    Option("PENSTOCK_VOICE", "plain, precise and friendly; short sentences; no hype", "how it sounds, in a sentence", str),
    Option("PENSTOCK_LANGUAGE", "en", "language of the articles, as a BCP 47 tag", str),
    Option("PENSTOCK_WORDS", "600-1200", "article length in words, from-to", _words),
    Option("PENSTOCK_FEEDS", "", "feed URLs, OPML files or local feed files, comma-separated; required", _list),
    Option("PENSTOCK_FEED_CRON", "7 * * * *", "when feeds are polled between slots (five-field cron)", str),
    Option("PENSTOCK_FRESH_DAYS", "30", "days after which an entry is no longer news", partial(_whole, low=1, high=36_500)),
    Option("PENSTOCK_SEARCH_URL", "", "a SearXNG-compatible search endpoint for research", url),
    Option("PENSTOCK_FETCH_ALLOW", "", "host:port pairs on private addresses or other ports that may be read, comma-separated", _fetch_allow),
    Option("PENSTOCK_PUBLISH_CRON", "0 9 * * mon,wed,fri", "when a run is due (five-field cron, Sunday is 0 or 7)", str),
    Option("PENSTOCK_COLLECT_CRON", "*/30 * * * *", "when engagement is collected (five-field cron)", str),
    Option("PENSTOCK_MAX_POSTS_PER_DAY", "1", "articles published a calendar day at most, whatever asks for more", partial(_whole, low=0)),
    Option("PENSTOCK_PROVIDERS", "llm", "names of model providers, comma-separated; each NAME has PENSTOCK_PROVIDER_NAME_URL and PENSTOCK_PROVIDER_NAME_KEY", _names),
    Option("PENSTOCK_MODELS_RESEARCH", "digest", "ladder of the researcher, best first: llm/claude-sonnet-4.5 > llm/deepseek-v3 > digest", parse_ladder),
    Option("PENSTOCK_MODELS_WRITE", "digest", "ladder of the writer", parse_ladder),
    Option("PENSTOCK_MODELS_EDIT", "digest", "ladder of the editor", parse_ladder),
    Option("PENSTOCK_MODEL_OPTIONS", "", "provider/model=max_output:4000,timeout:120,effort:low; tokens and seconds; ';'-separated", _model_options),
    Option("PENSTOCK_PRICES", "", "provider/model=input,cached_input,output in credits per million tokens; ';'-separated, over the known list prices", parse_prices),
    Option("PENSTOCK_CALL_TIMEOUT", "120", "seconds one model call may take", _seconds),
    Option("PENSTOCK_HTTP_TIMEOUT", "20", "seconds one request to a platform, feed or page may take", _seconds),
    Option("PENSTOCK_HOLD_EXPIRY", "24", "hours an unknown hold stays before it is charged in full; 0 means at the next `penstock reconcile`", partial(_whole, low=0, high=8760)),
    Option("PENSTOCK_RUN_BUDGET", "0.25", "credits one run may spend, open holds included", _amount),
    Option("PENSTOCK_DAILY_CAP", "1.00", "credits that may be spent in the last 24 hours", _amount),
    Option("PENSTOCK_MONTHLY_CAP", "15.00", "credits that may be spent in the last 30 days", _amount),
    Option("PENSTOCK_RESERVE", "0.10", "credits that are never spent", _amount),
    Option("PENSTOCK_RUNWAY_DAYS", "14", "days the balance should last before the governor steps down", partial(_whole, low=1, high=36_500)),
    Option("PENSTOCK_RATES", RATES_DEFAULT, "credits of income per unit of engagement, comma-separated", _rates),
    Option("PENSTOCK_EARN_DAILY_CAP", "0.50", "credits that engagement can add in 24 hours at most", _amount),
    Option("PENSTOCK_PUBLISHERS", "outbox", "destinations in order, comma-separated: outbox, devto, bluesky, or the name of a plug-in", _publishers),
    Option("PENSTOCK_APPROVAL", "first:3", "auto, manual, or first:N: the first N articles for public destinations wait for a person", _approval),
    Option("DEVTO_API_KEY", "", "Dev.to API key (Settings, Extensions); needed for devto", _devto_key, secret=True),
    Option("DEVTO_URL", "https://dev.to", "root of the Forem site", url),
    Option("DEVTO_SERIES", "", "name of the series that every article is put into; empty for none", str),
    Option("BLUESKY_HANDLE", "", "Bluesky handle, such as name.bsky.social; needed for bluesky", _handle),
    Option("BLUESKY_APP_PASSWORD", "", "Bluesky app password (Settings, Privacy and security), not the account's; needed for bluesky", str, secret=True),
    Option("BLUESKY_URL", "https://bsky.social", "root of the Bluesky service", url),
    Option("PENSTOCK_OUTBOX_DIR", "", "folder of the outbox; empty: `outbox` in the state folder", _folder),
    Option("PENSTOCK_SITE_URL", "", "public URL of the outbox, if you serve it; makes it the canonical URL", url),
    Option("STRIPE_API_KEY", "", "restricted Stripe key that may read the balance; empty: no revenue from Stripe", str, secret=True),
    Option("STRIPE_URL", "https://api.stripe.com", "root of Stripe's API", url),
    Option("PENSTOCK_ALERT_URL", "", "webhook that gets a JSON POST when a person is needed", url, secret=True),
    Option("PENSTOCK_METRICS_PORT", "0", "port on loopback where Prometheus finds metrics at /metrics; 0 for none", partial(_whole, low=0, high=65_535)),
    Option("PENSTOCK_LOG_LEVEL", "info", "debug, info, warning or error", partial(_one_of, allowed=("debug", "info", "warning", "error"))),
    Option("PENSTOCK_RETENTION_DAYS", "180", "days after which fetched pages are thinned; books, articles and claims are kept", partial(_whole, low=1, high=36_500)),
)  # fmt: skip


def example() -> str:
    """The text of `.env.example`: one commented line per setting."""
    lines = [
        "# Settings of Penstock. Remove the # in front of a line to change it.",
        "# Comments stand on their own lines and values with spaces are in quotes, because systemd",
        "# reads the same file. A secret X can also be given as X_FILE=/path, or as a systemd",
        "# credential named x in lower case.",
    ]
    for option in OPTIONS:
        lines += ["", f"# {option.meaning}", f"#{option.name}={_quoted(option.default)}"]
        if option.name == "PENSTOCK_PROVIDERS":
            lines += [
                "",
                "# base URL of the provider called llm, OpenAI-compatible, with its /v1, such as"
                " https://openrouter.ai/api/v1",
                "#PENSTOCK_PROVIDER_LLM_URL=",
                "",
                "# its key; give Penstock one of its own, so that its bill is Penstock's alone",
                "#PENSTOCK_PROVIDER_LLM_KEY=",
                "",
                "# how `penstock reconcile` asks what the key has used: auto, openrouter, new-api or"
                " none (none where others use the key, too)",
                "#PENSTOCK_PROVIDER_LLM_USAGE=auto",
            ]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"[\s;#*]", value) else value
