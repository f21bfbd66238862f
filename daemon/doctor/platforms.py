"""
Destinations, Stripe and the webhook: whether they take what they are given, without giving them
anything.

Bluesky counts logins strictly (300 a day, at times 100), and every attempt must be written down
before it is made, which nothing here may do. So nothing here logs in, or renews a session: a kept
one is shown to the service, and without one the password is tried at the first publication.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from daemon import app, plugins
from daemon.doctor.asking import Answer, Getter, Times, Unreached, Watched, getter
from daemon.doctor.findings import Finding, Findings, fail, ok, skipped, told, warn
from daemon.doctor.patient import UNREADABLE, Patient
from daemon.revenue.port import SourceBarred, SourceError
from daemon.settings import BlueskyAccount

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

    world: app.World
    times: Times

    def getter(self, timeout_s: float) -> AbstractAsyncContextManager[Getter]:
        """Someone who asks them."""
        return getter(self.times, self.world.platforms, timeout_s)


async def devto(patient: Patient, outside: Outside) -> Findings:
    """Whose key it is."""
    chosen = patient.settings
    assert chosen is not None
    account = chosen.publishing.devto
    if "devto" not in chosen.publishing.publishers:
        return [skipped("devto", "PENSTOCK_PUBLISHERS does not name it")]
    if not account.key:
        return [skipped("devto", "there is no DEVTO_API_KEY yet")]
    headers = {**DEVTO_HEADERS, "api-key": account.key.reveal()}
    async with outside.getter(chosen.fetch.timeout_s) as ask:
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


async def bluesky(patient: Patient, outside: Outside) -> Findings:
    """The service, the handle, and the session where one is kept."""
    chosen = patient.settings
    assert chosen is not None
    account = chosen.publishing.bluesky
    if "bluesky" not in chosen.publishing.publishers:
        return [skipped("bluesky", "PENSTOCK_PUBLISHERS does not name it")]
    kept = app.bluesky_session(chosen).load()
    refused = kept.refusal is not None and kept.refusal.until > patient.at
    reason = kept.refusal.reason if kept.refusal is not None and refused else ""
    not_tried = _not_tried(reason, has_session=kept.tokens is not None)
    found = _password(account)
    async with outside.getter(chosen.fetch.timeout_s) as ask:
        if (own := kept.tokens) is not None:
            patient.mask.add((own.access, own.refresh))
            in_the_clear = account.url.startswith("https:") and not own.pds.startswith("https:")
            ended = own.ends_at is not None and own.ends_at <= patient.at
            if not in_the_clear and not ended:
                shown = await _shown(own.pds, own.handle, own.access, ask)
                if shown is not None:
                    return [*found, shown]
        return [*found, *await _known(account, not_tried, ask)]


def _password(account: BlueskyAccount) -> list[Finding]:
    """What the password looks like."""
    password = account.app_password
    if password and not _APP_PASSWORD.fullmatch(password.reveal()):
        said = "BLUESKY_APP_PASSWORD does not look like an app password (four times four letters)"
        return [warn("bluesky", said, f"make one at {APP_PASSWORDS}; not the account's own")]
    return []


async def _shown(pds: str, handle: str, access: str, ask: Getter) -> Finding | None:
    """What the service says to the kept session; None where it does not take it."""
    bearer = {"authorization": f"Bearer {access}"}
    try:
        answer = await ask.get(f"{pds}/xrpc/com.atproto.server.getSession", bearer)
    except Unreached as error:
        return fail("bluesky", f"{pds} {error}", "look whether it is well, and the network")
    if answer.status != httpx.codes.OK:
        return None
    if answer.fields.get("active") is False:
        status = answer.fields.get("status", "not active")
        return fail("bluesky", f"the account {handle} is {status}", "log in at https://bsky.app")
    return ok("bluesky", f"{pds} takes the kept session of {handle}")


async def _known(account: BlueskyAccount, not_tried: Finding, ask: Getter) -> list[Finding]:
    """Without a session to show: whether the service is one, and knows the handle."""
    try:
        server = await ask.get(f"{account.url}/xrpc/com.atproto.server.describeServer")
        if server.status != httpx.codes.OK or "did" not in server.fields:
            said = f"{account.url} answers HTTP {server.status}{server.said}, as no PDS does"
            return [fail("bluesky", said, "look at BLUESKY_URL, or come again later")]
        found = [await _resolved(account, ask)] if account.handle else []
    except Unreached as error:
        return [fail("bluesky", f"{account.url} {error}", "look at BLUESKY_URL and the network")]
    return [*found, not_tried]


async def _resolved(account: BlueskyAccount, ask: Getter) -> Finding:
    identifier = account.handle
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


def _not_tried(refusal: str, *, has_session: bool) -> Finding:
    if refusal:
        remedy = "look at BLUESKY_HANDLE and BLUESKY_APP_PASSWORD; a new one is tried at once"
        return fail("bluesky", f"the last login was refused: {refusal}", remedy)
    if has_session:
        said = "the kept session has to be renewed, which the next publication does"
        return skipped("bluesky", f"{said}; it was not tried, since nothing may be written here")
    said = "the app password was not tried: logins are counted, and the first publication makes one"
    return skipped("bluesky", said)


async def plugin(patient: Patient, name: str, outside: Outside) -> Findings:
    """Whether a plug-in can be made of its settings, in a folder that is thrown away."""
    assert patient.settings is not None
    with tempfile.TemporaryDirectory(prefix="penstock-doctor.") as folder:
        location = replace(patient.settings.location, state_dir=Path(folder))
        settings = replace(patient.settings, location=location)
        try:
            publisher = app.plugin(name, app.Wiring(settings, outside.world, None))
        except plugins.SettingsRefused as error:
            return [fail("plugin", str(error), f"look at {plugins.prefix(name)}*")]
        except plugins.PluginError as error:
            return [fail("plugin", str(error), "ask whoever wrote it, or install it again")]
        if close := getattr(publisher, "close", None):
            await close()
    return [ok("plugin", f"{name} is installed and takes its settings; it was not reached")]


async def stripe(patient: Patient, outside: Outside) -> Findings:
    """Whether the key may read what is booked."""
    chosen = patient.settings
    assert chosen is not None
    watched = Watched(outside.times, outside.world.platforms)
    source = app.stripe(chosen, replace(outside.world, platforms=watched))
    if source is None:
        return [skipped("stripe", "STRIPE_API_KEY is empty: no revenue from Stripe is booked")]
    try:
        await source.received(patient.at)
    except SourceBarred as error:
        return [told("stripe", str(error), "look at STRIPE_API_KEY")]
    except SourceError as error:
        # No word was said about the key.
        return [told("stripe", str(error), "look at STRIPE_URL and the network")]
    finally:
        await source.close()
    if chosen.earning.stripe_key.reveal().startswith("sk_"):
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
