"""
The environment, read once into frozen values.

The settings stand side by side in `options`. Every problem is reported at once, with the
setting's name and what would be right. Each part of the program receives its own slice.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

from daemon import cadence, plugins
from daemon.crew.brief import Brief
from daemon.governor import Policy
from daemon.inference.ladder import Ladder, Role, Rung
from daemon.inference.port import Endpoint, ModelOptions, UsageApi
from daemon.inference.prices import PriceBook, UnknownPrice
from daemon.options import (
    OPTIONS,
    TOO_LONG,
    Option,
    did_you_mean,
    is_loopback,
    is_misspelt,
    is_too_long,
)
from daemon.options import url as parse_url
from daemon.secret import Secret
from daemon.sources.policy import FeedPolicy, FetchPolicy
from ledger.database import sqlite_path
from ledger.money import MicroCredits

ETC_ENV_FILE = Path("/etc/penstock/penstock.env")
DATABASE_NAME = "penstock.db"
# What the names of our settings begin with.
OURS = ("PENSTOCK_", "DEVTO_", "BLUESKY_", "STRIPE_")
# What stands behind a closing quote, or behind a space and a hash where there are no quotes.
_TRAILING_COMMENT = re.compile(
    r"""^(?:'(?:\\.|[^'\\])*'\s*\S|"(?:\\.|[^"\\])*"\s*\S|[^'"].*\s#|\#)""", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the settings: which, what it got (unless secret), what is right."""

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class SettingsError(Exception):
    """The settings cannot be used; `problems` has all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class BrokenLines(SettingsError):
    """
    Lines of a settings file that cannot be read.

    Args:
        rest: what the other lines say; None where one of these may name the place of the state.
    """

    def __init__(self, problems: list[Problem], rest: Mapping[str, str] | None) -> None:
        super().__init__(problems)
        self.rest = rest


@dataclass(frozen=True, slots=True)
class Location:
    """Where the state is: all that the reading commands need."""

    state_dir: Path
    database_url: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """When things happen, and how often at most."""

    publish: cadence.Schedule
    collect: cadence.Schedule
    feed: cadence.Schedule
    posts_per_day_max: int

    def runs_per_day(self, at: datetime) -> float:
        """How often a run is due: whatever the schedule asks, no more articles than the clamp."""
        return min(self.publish.per_day(at), float(self.posts_per_day_max))


@dataclass(frozen=True, slots=True)
class DevToAccount:
    """An author on a Forem site."""

    key: Secret
    url: str
    series: str


@dataclass(frozen=True, slots=True)
class BlueskyAccount:
    """An account at a Bluesky service."""

    handle: str
    app_password: Secret
    url: str


@dataclass(frozen=True, slots=True)
class Publishing:
    """
    Where articles go, and whether a person is asked first.

    `plugins` has each plug-in's own settings, by its name, then theirs in lower case.
    """

    publishers: tuple[str, ...]
    approval: str
    outbox_dir: Path
    site_url: str
    devto: DevToAccount
    bluesky: BlueskyAccount
    plugins: Mapping[str, Mapping[str, str]] = field(repr=False)

    @property
    def announces(self) -> bool:
        """Whether a destination may want an announcement; of a plug-in it alone knows."""
        return any(name not in ("outbox", "devto") for name in self.publishers)


@dataclass(frozen=True, slots=True)
class Earning:
    """
    What comes in.

    `rates` is income per unit of engagement, such as `devto.view`; `daily_cap` the most that
    engagement can add in 24 hours.
    """

    rates: Mapping[str, MicroCredits]
    daily_cap: MicroCredits
    stripe_key: Secret
    stripe_url: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the operator set, by the part that uses it."""

    location: Location
    zone: ZoneInfo
    brief: Brief
    feeds: FeedPolicy
    fetch: FetchPolicy
    search_url: str
    schedule: Schedule
    endpoints: Mapping[str, Endpoint]
    ladders: Mapping[Role, Ladder]
    model_options: Mapping[Rung, ModelOptions]
    prices: PriceBook
    call_timeout_s: float
    policy: Policy
    hold_expiry: timedelta
    publishing: Publishing
    earning: Earning
    alert_url: Secret
    retention_days: int
    metrics_port: int
    log_level: str

    @property
    def paid(self) -> bool:
        """Whether any ladder names a model."""
        return any(ladder.paid for ladder in self.ladders.values())

    def secrets(self) -> list[str]:
        """Everything that must never stand in an article, or in the log."""
        chosen = self.publishing
        found = [
            *(endpoint.key.reveal() for endpoint in self.endpoints.values()),
            chosen.devto.key.reveal(),
            chosen.bluesky.app_password.reveal(),
            self.earning.stripe_key.reveal(),
            self.alert_url.reveal(),
            *(
                value
                for own in chosen.plugins.values()
                for name, value in own.items()
                # Which of a plug-in's settings are secret, it alone knows; its name tells most
                # often.
                if re.search(r"key|token|secret|password", name)
            ),
        ]
        return [secret for secret in found if secret]


_BY_NAME = {option.name: option for option in OPTIONS}


# Names that `locate` reads.
_OF_THE_PLACE = (
    "PENSTOCK_STATE_DIR", "PENSTOCK_DATABASE_URL", "STATE_DIRECTORY", "XDG_STATE_HOME", "HOME",
)  # fmt: skip


def environment(
    env: Mapping[str, str], env_file: Path | None = None, *, cwd: Path | None = None
) -> dict[str, str]:
    """
    The environment, filled up from the env file.

    Args:
        env_file: the one named; else what `found_env_file` has.
    Raises:
        SettingsError: the file cannot be read.
        BrokenLines: it has a line that cannot be parsed.
    """
    path = env_file or found_env_file(cwd)
    return filled_up(env, {} if path is None else _read_env_file(path))


def filled_up(env: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """The environment, with a file's values where it has nothing."""
    return dict(values) | {
        name: value for name, value in env.items() if value != "" or name not in values
    }


def found_env_file(cwd: Path | None = None) -> Path | None:
    """
    `.env` in the working directory, else /etc/penstock/penstock.env, else none.

    systemd may have read the last for us, as root, so it is passed over where we may not read it.
    What cannot be looked for, since its folder is gone or closed to us, is not there for us.
    """
    # Joined to nothing, the name is looked for in the working directory, deleted or not.
    beside = cwd / ".env" if cwd else Path(".env")
    if is_file(beside):
        return beside.absolute()
    return ETC_ENV_FILE if is_file(ETC_ENV_FILE) and os.access(ETC_ENV_FILE, os.R_OK) else None


def is_file(path: Path) -> bool:
    """Whether there is a file, as far as we may look; never an error."""
    try:
        return path.is_file()
    except OSError:
        return False


def locate(env: Mapping[str, str]) -> Location:
    """
    Where the state is, whatever else is missing or wrong.

    Raises:
        SettingsError: the database URL names something we cannot open.
    """
    state_dir = (
        env.get("PENSTOCK_STATE_DIR", "").strip()
        or env.get("STATE_DIRECTORY", "").partition(":")[0]
    )
    if not state_dir:
        home = env.get("XDG_STATE_HOME") or str(
            Path(env.get("HOME") or "~").expanduser() / ".local/state"
        )
        state_dir = str(Path(home) / "penstock")
    try:
        path = Path(state_dir).expanduser().absolute()
    except RuntimeError as error:
        raise SettingsError(
            [Problem("PENSTOCK_STATE_DIR", f"{error} (got {state_dir!r})")]
        ) from None
    except FileNotFoundError:
        message = "the working directory is gone; give a path that begins with /"
        raise SettingsError(
            [Problem("PENSTOCK_STATE_DIR", f"{message} (got {state_dir!r})")]
        ) from None
    if not _is_text(str(path)):
        message = "the path is not UTF-8; set it to one that is"
        raise SettingsError([Problem("PENSTOCK_STATE_DIR", message)])
    if not _is_text(env.get("PENSTOCK_DATABASE_URL", "")):
        raise SettingsError(
            [Problem("PENSTOCK_DATABASE_URL", "it is not UTF-8; write it in UTF-8")]
        )
    url = env.get("PENSTOCK_DATABASE_URL", "").strip() or _sqlite_url(path / DATABASE_NAME)
    try:
        database = sqlite_path(url)
    except ValueError as error:
        raise SettingsError([Problem("PENSTOCK_DATABASE_URL", str(error))]) from None
    for name, place in (("PENSTOCK_STATE_DIR", path), ("PENSTOCK_DATABASE_URL", database)):
        if is_too_long(place):
            raise SettingsError([Problem(name, TOO_LONG)])
    return Location(path, url)


def _is_text(value: str) -> bool:
    """Whether a value can be written down: no lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sqlite_url(path: Path) -> str:
    """The URL of a file whose name may have any character."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def load(
    env: Mapping[str, str], *, at: datetime, for_run: bool = True, for_platforms: bool = False
) -> Settings:
    """
    Read every setting from what `environment` returned.

    Args:
        at: now; a schedule must still fire after it, and prices must be known for it.
        for_run: also ask for what a run cannot do without: feeds, a niche, providers, prices.
        for_platforms: also ask for the keys of the destinations, as a run does.
    Raises:
        SettingsError: with every problem there is.
    """
    reader = _Reader(env)
    values = {option.name: reader.value(option) for option in OPTIONS}
    endpoints = reader.endpoints(values["PENSTOCK_PROVIDERS"] or ())
    own = reader.plugin_settings(values["PENSTOCK_PUBLISHERS"] or ())
    reader.unknown_names(values["PENSTOCK_PROVIDERS"], values["PENSTOCK_PUBLISHERS"])
    if for_run or for_platforms:
        reader.accounts(values)
    ladders = {role: values[f"PENSTOCK_MODELS_{role.upper()}"] for role in Role}
    prices = PriceBook(
        values["PENSTOCK_PRICES"] or {},
        {name: endpoint.url for name, endpoint in endpoints.items()},
    )
    if for_run:
        reader.ladders(ladders, values["PENSTOCK_PROVIDERS"], endpoints, prices, at)
        paid = any(ladder and ladder.paid for ladder in ladders.values())
        reader.subject(values["PENSTOCK_FEEDS"], values["PENSTOCK_NICHE"], paid=paid)
    # Where the zone is wrong, what else is wrong is looked for all the same, in one that needs no
    # data; nothing is made of it then.
    zone = values["PENSTOCK_TIMEZONE"] or cast("ZoneInfo", UTC)
    publish, collect, feed = (
        reader.cron(f"PENSTOCK_{name}_CRON", values[f"PENSTOCK_{name}_CRON"], zone, at)
        for name in ("PUBLISH", "COLLECT", "FEED")
    )
    location = reader.location()
    if reader.problems:
        raise SettingsError(reader.problems)
    assert location is not None
    assert publish is not None
    assert collect is not None
    assert feed is not None
    return Settings(
        location=location,
        zone=zone,
        brief=Brief(
            niche=values["PENSTOCK_NICHE"],
            audience=values["PENSTOCK_AUDIENCE"],
            voice=values["PENSTOCK_VOICE"],
            language=values["PENSTOCK_LANGUAGE"],
            words_min=values["PENSTOCK_WORDS"][0],
            words_max=values["PENSTOCK_WORDS"][1],
        ),
        feeds=FeedPolicy(values["PENSTOCK_FEEDS"], values["PENSTOCK_FRESH_DAYS"]),
        fetch=FetchPolicy(values["PENSTOCK_FETCH_ALLOW"], values["PENSTOCK_HTTP_TIMEOUT"]),
        search_url=values["PENSTOCK_SEARCH_URL"],
        schedule=Schedule(publish, collect, feed, values["PENSTOCK_MAX_POSTS_PER_DAY"]),
        endpoints=endpoints,
        ladders=ladders,
        model_options=values["PENSTOCK_MODEL_OPTIONS"],
        prices=prices,
        call_timeout_s=values["PENSTOCK_CALL_TIMEOUT"],
        policy=Policy(
            run_budget=values["PENSTOCK_RUN_BUDGET"],
            daily_cap=values["PENSTOCK_DAILY_CAP"],
            monthly_cap=values["PENSTOCK_MONTHLY_CAP"],
            reserve=values["PENSTOCK_RESERVE"],
            runway_days=values["PENSTOCK_RUNWAY_DAYS"],
        ),
        hold_expiry=timedelta(hours=values["PENSTOCK_HOLD_EXPIRY"]),
        publishing=Publishing(
            publishers=values["PENSTOCK_PUBLISHERS"],
            approval=values["PENSTOCK_APPROVAL"],
            outbox_dir=values["PENSTOCK_OUTBOX_DIR"] or location.state_dir / "outbox",
            site_url=values["PENSTOCK_SITE_URL"],
            devto=DevToAccount(
                values["DEVTO_API_KEY"], values["DEVTO_URL"], values["DEVTO_SERIES"]
            ),
            bluesky=BlueskyAccount(
                values["BLUESKY_HANDLE"], values["BLUESKY_APP_PASSWORD"], values["BLUESKY_URL"]
            ),
            plugins=own,
        ),
        earning=Earning(
            rates=values["PENSTOCK_RATES"],
            daily_cap=values["PENSTOCK_EARN_DAILY_CAP"],
            stripe_key=values["STRIPE_API_KEY"],
            stripe_url=values["STRIPE_URL"],
        ),
        alert_url=values["PENSTOCK_ALERT_URL"],
        retention_days=values["PENSTOCK_RETENTION_DAYS"],
        metrics_port=values["PENSTOCK_METRICS_PORT"],
        log_level=values["PENSTOCK_LOG_LEVEL"],
    )


def alert_url(env: Mapping[str, str]) -> Secret:
    """Where alerts go, whatever else is wrong with the settings; empty for nowhere."""
    return _Reader(env).value(_BY_NAME["PENSTOCK_ALERT_URL"]) or Secret()


class _Reader:
    """Reads one environment and gathers what is wrong with it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        # Python hands over bytes that are no UTF-8 as lone surrogates, which nothing can store.
        self._spoilt = {
            name
            for name, value in env.items()
            if name.startswith(OURS) and not _is_text(name + value)
        }
        self._env = {name: value for name, value in env.items() if name not in self._spoilt}
        for name in sorted(self._spoilt):
            shown = name.encode("ascii", "backslashreplace").decode()
            self.problems.append(Problem(shown, "it is not UTF-8; write it in UTF-8"))

    def problem(self, name: str, message: str) -> None:
        # What is on record as spoilt is not lacking as well.
        if name not in self._spoilt:
            self.problems.append(Problem(name, message))

    def value(self, option: Option) -> Any:
        """The parsed value; None where it is wrong, which is then a problem on record."""
        text = self.secret(option.name) if option.secret else self._env.get(option.name, "").strip()
        try:
            parsed = option.parse(text or option.default)
        except ValueError as error:
            got = "" if option.secret else f" (got {text!r})"
            self.problem(option.name, f"{error}{got}")
            return None
        return Secret(parsed) if option.secret else parsed

    def secret(self, name: str) -> str:
        """A secret as itself, as a file named by NAME_FILE, or as a systemd credential."""
        if self._env.get(name):
            return self._env[name].strip()
        named = self._env.get(f"{name}_FILE")
        folder = self._env.get("CREDENTIALS_DIRECTORY")
        path = Path(named) if named else Path(folder) / name.lower() if folder else None
        try:
            if path is None or not (named or path.exists()):
                return ""
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            setting = f"{name}_FILE" if named else name
            self.problem(setting, f"{path} cannot be read: {error.__class__.__name__}")
            return ""

    def endpoints(self, names: tuple[str, ...]) -> dict[str, Endpoint]:
        found = {}
        for name in names:
            setting = f"PENSTOCK_PROVIDER_{name.upper()}"
            url = self._env.get(f"{setting}_URL", "").strip()
            key = Secret(self.secret(f"{setting}_KEY"))
            if not all("!" <= character <= "~" for character in key.reveal()):
                self.problem(
                    f"{setting}_KEY", "a key of printable ASCII is needed; was it copied whole?"
                )
            usage_api = self._usage_api(f"{setting}_USAGE")
            try:
                found[name] = Endpoint(name, parse_url(url), key, usage_api)
            except ValueError as error:
                self.problem(f"{setting}_URL", f"{error} (got {url!r})")
        return found

    def _usage_api(self, setting: str) -> UsageApi:
        text = self._env.get(setting, "").strip().lower() or UsageApi.AUTO
        try:
            return UsageApi(text)
        except ValueError:
            self.problem(setting, f"one of {', '.join(UsageApi)} is needed (got {text!r})")
            return UsageApi.AUTO

    def plugin_settings(self, publishers: tuple[str, ...]) -> dict[str, dict[str, str]]:
        """What each plug-in among the destinations was given, resolved from files."""
        found: dict[str, dict[str, str]] = {}
        for publisher in publishers:
            if publisher in plugins.BUILT_IN:
                continue
            prefix = plugins.prefix(publisher)
            names = {
                name.removesuffix("_FILE") for name in self._env if name.startswith(prefix)
            } | self._credentials(prefix)
            found[publisher] = {
                name.removeprefix(prefix).lower(): self.secret(name) for name in sorted(names)
            }
        return found

    def _credentials(self, prefix: str) -> set[str]:
        """Settings that systemd hands over as files."""
        folder = self._env.get("CREDENTIALS_DIRECTORY")
        try:
            if not folder or not Path(folder).is_dir():
                return set()
            return {
                path.name.upper()
                for path in Path(folder).iterdir()
                if path.name.startswith(prefix.lower())
            }
        except OSError as error:
            message = f"{folder} cannot be read: {error.__class__.__name__}"
            self.problem("CREDENTIALS_DIRECTORY", message)
            return set()

    def accounts(self, values: Mapping[str, Any]) -> None:
        """A destination needs its keys."""
        for publisher, names in (
            ("devto", ("DEVTO_API_KEY",)),
            ("bluesky", ("BLUESKY_HANDLE", "BLUESKY_APP_PASSWORD")),
        ):
            for name in names:
                # None is on record as wrong already.
                lacking = values[name] is not None and not values[name]
                if publisher in (values["PENSTOCK_PUBLISHERS"] or ()) and lacking:
                    self.problem(name, f"needed, because PENSTOCK_PUBLISHERS names {publisher}")

    def unknown_names(
        self, providers: tuple[str, ...] | None, publishers: tuple[str, ...] | None
    ) -> None:
        """A typo must not silently switch a limit off."""
        known = set(_BY_NAME)
        known |= {f"{option.name}_FILE" for option in OPTIONS if option.secret}
        for provider in providers or ():
            prefix = f"PENSTOCK_PROVIDER_{provider.upper()}"
            known |= {f"{prefix}_{part}" for part in ("URL", "KEY", "KEY_FILE", "USAGE")}
        for name in sorted(self._env):
            # Where the providers cannot be read, nobody can say which names are theirs.
            unclear = (providers is None and name.startswith("PENSTOCK_PROVIDER_")) or (
                publishers is None and name.startswith("PENSTOCK_PUBLISHER_")
            )
            # A plug-in alone knows which names it has.
            unclear |= any(
                name.startswith(plugins.prefix(publisher))
                for publisher in publishers or ()
                if publisher not in plugins.BUILT_IN
            )
            ours = name.startswith("PENSTOCK_") or is_misspelt(name, known)
            if ours and name not in known and not unclear:
                self.problem(name, f"there is no such setting{did_you_mean(name, tuple(known))}")

    def ladders(
        self,
        ladders: Mapping[Role, Ladder | None],
        providers: tuple[str, ...] | None,
        endpoints: Mapping[str, Endpoint],
        prices: PriceBook,
        at: datetime,
    ) -> None:
        """Every rung must name a provider that can be reached and a model that has a price."""
        lacking: set[str] = set()
        for role, ladder in ladders.items():
            for rung in ladder.paid if ladder else ():
                setting = f"PENSTOCK_MODELS_{role.upper()}"
                if providers is not None and rung.provider not in providers:
                    self.problem(
                        setting, f"{rung.provider!r} is not among PENSTOCK_PROVIDERS ({rung})"
                    )
                elif (endpoint := endpoints.get(rung.provider)) is not None:
                    self._reachable(endpoint, lacking)
                    self._priced(rung, prices, at, lacking)

    def subject(self, feeds: tuple[str, ...], niche: tuple[str, ...], *, paid: bool) -> None:
        """A run needs something to read, and a paid one something to be about."""
        if not feeds:
            self.problem("PENSTOCK_FEEDS", "name at least one feed URL, OPML file or feed file")
        if paid and not niche:
            self.problem(
                "PENSTOCK_NICHE", "say what the publication is about before a model is paid for it"
            )

    def _reachable(self, endpoint: Endpoint, lacking: set[str]) -> None:
        setting = f"PENSTOCK_PROVIDER_{endpoint.name.upper()}"
        wanted = {f"{setting}_URL": bool(endpoint.url)}
        # A local server asks for no key.
        wanted[f"{setting}_KEY"] = bool(endpoint.key) or is_loopback(endpoint.url)
        for name, present in wanted.items():
            if not present and name not in lacking:
                lacking.add(name)
                self.problem(name, "needed, because a ladder names a model of this provider")

    def _priced(self, rung: Rung, prices: PriceBook, at: datetime, lacking: set[str]) -> None:
        try:
            prices.price(rung, at)
        except UnknownPrice as error:
            if str(rung) not in lacking:
                lacking.add(str(rung))
                self.problem("PENSTOCK_PRICES", str(error))

    def cron(
        self, name: str, expression: str, zone: ZoneInfo, at: datetime
    ) -> cadence.Schedule | None:
        try:
            schedule = cadence.parse(expression, zone)
        except ValueError as error:
            self.problem(name, f"{error} (got {expression!r})")
            return None
        if schedule.next_slot(at) is None:
            remedy = "use one that does, such as `0 9 * * mon`"
            self.problem(name, f"this expression never fires; {remedy} (got {expression!r})")
        return schedule

    def location(self) -> Location | None:
        try:
            return locate(self._env)
        except SettingsError as error:
            for found in error.problems:
                self.problem(found.name, found.message)
            return None


def _read_env_file(path: Path) -> dict[str, str]:
    """Parse an env file the way systemd and python-dotenv agree on, or refuse it."""
    # dotenv_values would skip a malformed line with a warning, and a limit with it.
    from dotenv.parser import parse_stream

    try:
        _require_file(path)
        text = path.read_text(encoding="utf-8")
    except PermissionError:
        raise _unreadable(
            path,
            "this user may not; let it read the file and enter the folders above, or call"
            " penstock as the user that may",
        ) from None
    except FileNotFoundError:
        raise _unreadable(
            path, f"there is no such file; `penstock init --env-file '{path}'` writes one"
        ) from None
    except UnicodeDecodeError:
        raise _unreadable(path, "it is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise _unreadable(path, f"{error.strerror}; name another with --env-file") from None
    values: dict[str, str] = {}
    problems, is_place_told = [], True
    for binding in parse_stream(io.StringIO(text)):
        written = binding.original.string
        # The parser counts from the blank lines before a binding.
        blank = written[: len(written) - len(written.lstrip())].count("\n")
        line = f"{path} line {binding.original.line + blank}"
        if binding.error or (binding.key is not None and binding.value is None):
            problems.append(Problem(line, "not NAME=value; put quotes around values with spaces"))
            is_place_told = is_place_told and not any(name in written for name in _OF_THE_PLACE)
        elif binding.key is not None:
            if _TRAILING_COMMENT.search(written.partition("=")[2].strip()):
                problems.append(
                    Problem(line, "put the comment on a line of its own: systemd reads it as value")
                )
                is_place_told = is_place_told and binding.key not in _OF_THE_PLACE
            values[binding.key] = binding.value or ""
    if problems:
        raise BrokenLines(problems, values if is_place_told else None)
    return values


def _require_file(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise _unreadable(path, "it is a folder; name the file in it")
    if not stat.S_ISREG(mode):
        # A pipe gives what it has once: a daemon told to read it again would lose its limits.
        raise _unreadable(
            path,
            "it is a pipe or a device, and settings are read more than once; put them into a file",
        )


def _unreadable(path: Path, why: str) -> SettingsError:
    return SettingsError([Problem(str(path), f"cannot be read: {why}")])


def umask_private() -> None:
    """Keep everything we create to ourselves: state files hold drafts and sessions."""
    os.umask(0o077)
