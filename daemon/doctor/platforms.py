"""
Destinations, Stripe and the webhook: whether they take what they are given, without giving them
anything.

Bluesky counts logins strictly (300 a day, at times 100), and every attempt must be written down
before it is made, which nothing here may do. So nothing here logs in, or renews a session: a kept
one is shown to the service, and without one the password is tried at the first publication.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from daemon import plugins, tls
from daemon.clock import Clock
from daemon.doctor.asking import Answer, Asker, Times, Unreached, Watched, asker
from daemon.doctor.configured import SESSION, UNREADABLE
from daemon.doctor.findings import Finding, Findings, fail, ok, skipped, told, warn
from daemon.doctor.patient import Patient
from daemon.revenue.port import SourceBarred, SourceError
from daemon.revenue.stripe import Stripe
from daemon.settings import BlueskyAccount, Settings
from publishers.plugin import Surroundings

# As our publisher says it; tests/test_doctor.py compares.
DEVTO_HEADERS = {
    "accept": "application/vnd.forem.api-v1+json",
    "user-agent": "Penstock (autonomous publication; api client)",
}
_APP_PASSWORD = re.compile(r"[a-z0-9]{4}(?:-[a-z0-9]{4}){3}")
APP_PASSWORDS = "https://bsky.app/settings/app-passwords"


@dataclass(frozen=True, slots=True)
class Outside:
    """How the platforms are reached."""

    clock: Clock
    times: Times
    transport: httpx.AsyncBaseTransport | None


async def devto(patient: Patient, outside: Outside) -> Findings:
    """Whose key it is."""
    chosen = patient.settings
    if chosen is None:
        return [skipped("devto", UNREADABLE)]
    account = chosen.publishing.devto
    if "devto" not in chosen.publishing.publishers:
        return [skipped("devto", "PENSTOCK_PUBLISHERS does not name it")]
    if not account.key:
        return [skipped("devto", "there is no DEVTO_API_KEY yet")]
    headers = {**DEVTO_HEADERS, "api-key": account.key.reveal()}
    async with asker(outside.times, outside.transport, chosen.fetch.timeout_s) as ask:
        try:
            answer = await ask.get(f"{account.url}/api/users/me", headers)
        except Unreached as error:
            return [fail("devto", f"{account.url} {error}", "look at DEVTO_URL and the network")]
    who = answer.fields.get("username")
    if answer.status == httpx.codes.OK and isinstance(who, str):
        return [ok("devto", f"{account.url} takes the key, which is @{who}'s")]
    return [_devto_trouble(account.url, answer)]


def _devto_trouble(url: str, answer: Answer) -> Finding:
    said = f"{url} answers HTTP {answer.status}{answer.said}"
    if answer.status == httpx.codes.TOO_MANY_REQUESTS:
        return warn("devto", said, "come again in a minute")
    if answer.status >= 500:
        return fail("devto", said, "look whether the site is well, and come again later")
    remedy = "look at DEVTO_URL: there is no API of Forem there"
    if answer.redirects:
        remedy = "put the site's final URL in DEVTO_URL"
    elif answer.status == httpx.codes.UNAUTHORIZED:
        remedy = f"make a new key at {url}/settings/extensions for DEVTO_API_KEY"
    elif answer.status == httpx.codes.FORBIDDEN:
        remedy = f"ask the people who run {url} whether they keep this address or account out"
    return fail("devto", said, remedy)


@dataclass(frozen=True, slots=True)
class Session:
    """What the publisher keeps of Bluesky, as far as it concerns this account."""

    handle: str = ""
    pds: str = ""
    access: str = field(default="", repr=False)
    refresh: str = field(default="", repr=False)
    refusal: str = ""
    refused_until: datetime | None = None


def kept_session(path: Path, owner: list[str]) -> Session | None:
    """The session in a file; None where there is none for this owner."""
    try:
        stored = json.loads(path.read_bytes())
        if stored["owner"] != owner:
            return None
        found = Session()
        if (refusal := stored["refusal"]) is not None:
            found = Session(
                refusal=str(refusal[1]), refused_until=datetime.fromisoformat(refusal[0])
            )
        if (tokens := stored["session"]) is not None:
            handle, _, access, refresh, pds = (str(part) for part in tokens)
            found = Session(
                handle, pds, access, refresh, found.refusal, found.refused_until
            )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return found


async def bluesky(patient: Patient, outside: Outside) -> Findings:
    """The service, the handle, and the session where one is kept."""
    chosen = patient.settings
    if chosen is None:
        return [skipped("bluesky", UNREADABLE)]
    account = chosen.publishing.bluesky
    if "bluesky" not in chosen.publishing.publishers:
        return [skipped("bluesky", "PENSTOCK_PUBLISHERS does not name it")]
    identifier = account.handle.strip().removeprefix("@")
    path = chosen.location.state_dir / SESSION
    session = kept_session(path, [account.url, identifier])
    if session is not None:
        patient.mask.add((session.access, session.refresh))
    found = _password(account)
    async with asker(outside.times, outside.transport, chosen.fetch.timeout_s) as ask:
        if session is not None and session.access:
            shown = await _shown(account, session, ask, patient.at)
            if shown is not None:
                return [*found, shown]
        return [*found, *await _known(account, identifier, session, ask, patient.at)]


def _password(account: BlueskyAccount) -> list[Finding]:
    """What the password looks like."""
    password = account.app_password
    if password and not _APP_PASSWORD.fullmatch(password.reveal()):
        said = "BLUESKY_APP_PASSWORD does not look like an app password (four times four letters)"
        return [warn("bluesky", said, f"make one at {APP_PASSWORDS}; not the account's own")]
    return []


async def _shown(
    account: BlueskyAccount, session: Session, ask: Asker, at: datetime
) -> Finding | None:
    """What the service says to the kept session; None where that cannot be asked now."""
    ends = _ends_at(session.access)
    in_the_clear = account.url.startswith("https:") and not session.pds.startswith("https:")
    if in_the_clear or (ends is not None and ends <= at):
        return None
    bearer = {"authorization": f"Bearer {session.access}"}
    try:
        answer = await ask.get(f"{session.pds}/xrpc/com.atproto.server.getSession", bearer)
    except Unreached as error:
        return fail("bluesky", f"{session.pds} {error}", "look whether it is well, and the network")
    if answer.status != httpx.codes.OK:
        return None
    if answer.fields.get("active") is False:
        status = answer.fields.get("status", "not active")
        return fail(
            "bluesky", f"the account {session.handle} is {status}", "log in at https://bsky.app"
        )
    return ok("bluesky", f"{session.pds} takes the kept session of {session.handle}")


async def _known(
    account: BlueskyAccount, identifier: str, session: Session | None, ask: Asker, at: datetime
) -> list[Finding]:
    """Without a session to show: whether the service is one, and knows the handle."""
    try:
        server = await ask.get(f"{account.url}/xrpc/com.atproto.server.describeServer")
        if server.status != httpx.codes.OK or "did" not in server.fields:
            said = f"{account.url} answers HTTP {server.status}{server.said}, as no PDS does"
            return [fail("bluesky", said, "look at BLUESKY_URL, or come again later")]
        found = [await _resolved(account, identifier, ask)] if identifier else []
    except Unreached as error:
        return [fail("bluesky", f"{account.url} {error}", "look at BLUESKY_URL and the network")]
    return [*found, _not_tried(session, at)]


async def _resolved(account: BlueskyAccount, identifier: str, ask: Asker) -> Finding:
    if identifier.startswith("did:") or "@" in identifier:
        return ok("bluesky", f"{account.url} is there")
    nsid = "com.atproto.identity.resolveHandle"
    answer = await ask.get(f"{account.url}/xrpc/{nsid}", params={"handle": identifier})
    if answer.status == httpx.codes.OK and answer.fields.get("did"):
        return ok("bluesky", f"{account.url} knows {identifier} ({answer.fields['did']})")
    if answer.status == httpx.codes.BAD_REQUEST:
        said = f"{account.url} does not know {identifier}{answer.said}"
        return fail("bluesky", said, "look at BLUESKY_HANDLE: it is such as name.bsky.social")
    said = f"{account.url} answers HTTP {answer.status} when asked for {identifier}"
    return warn("bluesky", said, "come again later")


def _not_tried(session: Session | None, at: datetime) -> Finding:
    if session is not None and session.refused_until is not None and session.refused_until > at:
        remedy = "look at BLUESKY_HANDLE and BLUESKY_APP_PASSWORD; a new one is tried at once"
        return fail("bluesky", f"the last login was refused: {session.refusal}", remedy)
    if session is not None and session.access:
        said = "the kept session has to be renewed, which the next publication does"
        return skipped("bluesky", f"{said}; it was not tried, since nothing may be written here")
    said = "the app password was not tried: logins are counted, and the first publication makes one"
    return skipped("bluesky", said)


def _ends_at(token: str) -> datetime | None:
    """When a token ends, as it says itself; None for one that does not say."""
    try:
        body = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


async def plugin(patient: Patient, name: str, outside: Outside) -> Findings:
    """Whether a plug-in can be made of its settings, in a folder that is thrown away."""
    assert patient.settings is not None
    with tempfile.TemporaryDirectory(prefix="penstock-doctor.") as folder:
        around = _surroundings(patient.settings, name, outside.clock, Path(folder))
        try:
            publisher = plugins.made(name, around)
        except plugins.SettingsRefused as error:
            return [fail("plugin", str(error), f"look at {plugins.prefix(name)}*")]
        except plugins.PluginError as error:
            return [fail("plugin", str(error), "ask whoever wrote it, or install it again")]
        if close := getattr(publisher, "close", None):
            await close()
    return [ok("plugin", f"{name} is installed and takes its settings; it was not reached")]


def _surroundings(settings: Settings, name: str, clock: Clock, folder: Path) -> Surroundings:
    own: Mapping[str, str] = settings.publishing.plugins.get(name, {})
    return Surroundings(
        clock=clock,
        timeout_s=settings.fetch.timeout_s,
        state_dir=folder,
        publication=settings.brief.publication,
        tls=tls.context(),
        settings=own,
    )


async def stripe(patient: Patient, outside: Outside) -> Findings:
    """Whether the key may read what is booked."""
    chosen = patient.settings
    if chosen is None:
        return [skipped("stripe", UNREADABLE)]
    key = chosen.earning.stripe_key
    if not key:
        return [skipped("stripe", "STRIPE_API_KEY is empty: no revenue from Stripe is booked")]
    source = Stripe(
        key,
        url=chosen.earning.stripe_url,
        timeout_s=chosen.fetch.timeout_s,
        transport=Watched(outside.times, outside.transport),
    )
    try:
        await source.received(patient.at)
    except (SourceBarred, SourceError) as error:
        return [told("stripe", str(error), "look at STRIPE_API_KEY")]
    finally:
        await source.close()
    if key.reveal().startswith("sk_"):
        remedy = (
            "make a restricted one with Read on Balance at https://dashboard.stripe.com/apikeys"
        )
        return [warn("stripe", "the key is taken, and it may do everything", remedy)]
    return [ok("stripe", "the key is taken, and may read the balance")]


def alert_url(patient: Patient) -> Findings:
    """What the webhook looks like; it is not rung."""
    chosen = patient.settings
    if chosen is None:
        return [skipped("alert_url", UNREADABLE)]
    if not chosen.alert_url:
        remedy = "put a webhook into PENSTOCK_ALERT_URL, as of ntfy, Slack or Healthchecks"
        return [skipped("alert_url", "nobody is told when a person is needed", remedy)]
    return [ok("alert_url", "it is a URL; whether somebody answers there was not tried")]
