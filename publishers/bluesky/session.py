"""
One account: the session that is kept in a file, how it is renewed, and requests in its name.

Logging in is what a service counts most strictly (Bluesky: 30 in five minutes, 300 a day, at times
100), so it is done when there is no session or the service ends it, and at no other time. Every
attempt is written down before it is made, and each within a day waits twice as long as the one
before, so that a crash, a full disk or a service that loses its tokens cannot become a hundred
logins. A refusal is remembered until the password changes or a day has passed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from publishers.bluesky.xrpc import (
    Json,
    NotSent,
    Refused,
    Unclear,
    Wire,
    XrpcError,
    dumped,
)
from publishers.clock import Clock
from publishers.disk import flush_folder
from publishers.errors import Barred, PublisherError, Transient

APP_PASSWORDS = "https://bsky.app/settings/app-passwords"
# The SDK's own margin is 15 minutes; a request takes two at most.
REFRESH_BEFORE = timedelta(minutes=5)
REFUSED_FOR = timedelta(days=1)
# A server that is no PDS may be one again soon, as when the one before it was set up wrongly.
NO_SERVICE_FOR = timedelta(hours=1)
DAY = timedelta(days=1)
# A login that is answered well, and says that the account is closed.
ACTIVE_NOT = 200
LOGIN_PAUSE_S, LOGIN_PAUSE_MAX_S = 60.0, 7_200.0

_TOKEN_ENDED = frozenset({"ExpiredToken", "InvalidToken", "AuthMissing", "AuthenticationRequired"})
_TAKEN_DOWN = frozenset(
    {"AccountTakedown", "AccountSuspended", "RepoTakendown", "RepoSuspended", "takendown",
     "suspended"}
)  # fmt: skip
_DEACTIVATED = frozenset({"AccountDeactivated", "RepoDeactivated", "deactivated"})


@dataclass(frozen=True, slots=True)
class Tokens:
    """A session: who it is for, where its account lives, and what opens it."""

    handle: str
    did: str
    access: str = field(repr=False)
    refresh: str = field(repr=False)
    pds: str

    @property
    def ends_at(self) -> datetime | None:
        """When the access token ends, as it says itself; None for one that does not say."""
        try:
            body = self.access.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            return datetime.fromtimestamp(int(claims["exp"]), UTC)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError):
            return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    A login that was refused.

    Args:
        barred: whether a person must act.
        password: salted hash of handle and password, so that a new one is tried at once.
    """

    until: datetime
    reason: str
    barred: bool
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What the session file holds.

    Args:
        attempts: when logins were attempted, of the last day.
        labelled: accounts whose profile says that they are a bot.
    """

    tokens: Tokens | None = None
    attempts: tuple[datetime, ...] = ()
    refusal: Refusal | None = None
    labelled: frozenset[str] = frozenset()


class SessionFile:
    """
    Args:
        service, identifier: whose session it is; another's in the file is not used.
    """

    def __init__(self, path: Path, *, service: str, identifier: str) -> None:
        self._path = path
        self._owner = [service, identifier]

    def load(self) -> Kept:
        """What is kept; nothing where there is no file or it cannot be read as one."""
        try:
            stored = json.loads(self._path.read_bytes())
            attempts = tuple(datetime.fromisoformat(at) for at in stored["attempts"])
            kept = Kept(attempts=attempts, labelled=frozenset(stored["labelled"]))
            if stored["owner"] != self._owner:
                return kept
            if (tokens := stored["session"]) is not None:
                kept = replace(kept, tokens=Tokens(*(str(part) for part in tokens)))
            if (refusal := stored["refusal"]) is not None:
                until, reason, barred, password = refusal
                until = datetime.fromisoformat(until)
                kept = replace(kept, refusal=Refusal(until, reason, barred, password))
        except (OSError, ValueError, KeyError, TypeError):
            return Kept()
        return kept

    def save(self, kept: Kept) -> None:
        """
        Replace the file in one step; nobody else may read it.

        Raises:
            Transient: the disk does not take it.
        """
        tokens, refusal = kept.tokens, kept.refusal
        content = dumped(
            {
                "owner": self._owner,
                "session": tokens
                and [tokens.handle, tokens.did, tokens.access, tokens.refresh, tokens.pds],
                "attempts": [at.isoformat() for at in kept.attempts],
                "refusal": refusal
                and [refusal.until.isoformat(), refusal.reason, refusal.barred, refusal.password],
                "labelled": sorted(kept.labelled),
            }
        )
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(opened, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            flush_folder(self._path.parent)
        except OSError as error:
            raise Transient(
                f"the Bluesky session cannot be kept in {self._path}: {error.strerror}; make room "
                "there, or make it writable for the user that runs penstock"
            ) from error


class Account:
    """
    Requests in the name of one account, for as long as its wire is open.

    Args:
        known: the wire's secrets; tokens are added as they come.
    """

    def __init__(
        self,
        wire: Wire,
        file: SessionFile,
        *,
        clock: Clock,
        service: str,
        identifier: str,
        password: str,
        known: set[str],
    ) -> None:
        self._wire = wire
        self._file = file
        self._clock = clock
        self._service = service
        self._identifier = identifier
        self._password = password
        self._known = known
        self._kept = file.load()

    @property
    def did(self) -> str:
        """The account's lasting name."""
        return self._tokens.did

    @property
    def handle(self) -> str:
        """The account's name in addresses."""
        return self._tokens.handle

    @property
    def is_labelled(self) -> bool:
        """Whether its profile has been given the bot label."""
        return self.did in self._kept.labelled

    def labelled(self) -> None:
        """Remember that the profile has the bot label."""
        self._keep(replace(self._kept, labelled=self._kept.labelled | {self.did}))

    async def open(self) -> None:
        """
        Have a session that will do, by the cheapest way there is.

        Raises:
            Transient, Barred: there is none to be had; the message has the remedy.
        """
        if self._kept.tokens is None:
            await self._log_in()
            return
        self._use(self._kept.tokens)
        ends = self._tokens.ends_at
        if ends is not None and ends - REFRESH_BEFORE <= self._clock.now():
            await self._refresh()

    async def query(self, nsid: str, params: Mapping[str, Any]) -> Json:
        """Read. Raises XrpcError, and what `open` raises."""
        try:
            return await self._wire.query(nsid, params, self._tokens.access)
        except Refused as error:
            await self._renew(error)
        return await self._wire.query(nsid, params, self._tokens.access)

    async def procedure(self, nsid: str, content: bytes, kind: str = "application/json") -> Json:
        """Write. Raises XrpcError, and what `open` raises."""
        try:
            return await self._wire.procedure(nsid, content, self._tokens.access, kind)
        except Refused as error:
            await self._renew(error)
        return await self._wire.procedure(nsid, content, self._tokens.access, kind)

    @property
    def _tokens(self) -> Tokens:
        assert self._kept.tokens is not None
        return self._kept.tokens

    async def _renew(self, error: Refused) -> None:
        """Have a new session where the refusal was about the old one; else pass it on."""
        if known := _account_trouble(error):
            raise known from error
        if error.status != 401 and not is_about_token(error):
            raise error
        await self._refresh()

    async def _refresh(self) -> None:
        nsid = "com.atproto.server.refreshSession"
        try:
            answer = await self._wire.procedure(nsid, b"", self._tokens.refresh)
            tokens = self._understood(answer)
        except (NotSent, Unclear) as error:
            # Within two hours the old token brings the same successor, so this may be repeated.
            raise Transient(f"the Bluesky session could not be renewed: {error}") from error
        except Refused as error:
            if known := _account_trouble(error):
                raise known from error
            if error.is_not_now:
                raise Transient(
                    f"Bluesky does not renew the session now: {error}", error.retry_after_s
                ) from error
            await self._log_in()
            return
        self._use(tokens)
        self._keep(replace(self._kept, tokens=tokens))

    async def _log_in(self) -> None:
        self._mind_refusal()
        self._mind_attempts()
        now = self._clock.now()
        recent = self._attempts_today()
        # Before it is made, and where this cannot be kept, nor could the session: then not at all.
        self._keep(replace(self._kept, tokens=None, refusal=None, attempts=(*recent, now)))
        content = dumped({"identifier": self._identifier, "password": self._password})
        self._wire.at(self._service)
        try:
            answer = await self._wire.procedure("com.atproto.server.createSession", content)
            if answer.get("active") is False:
                status = str(answer.get("status", ""))
                raise Refused(ACTIVE_NOT, status, "the account is not active")
            tokens = self._understood(answer)
        except Refused as error:
            raise self._refused(error) from error
        except XrpcError as error:
            raise Transient(f"Bluesky could not be logged in to: {error}") from error
        self._use(tokens)
        self._keep(replace(self._kept, tokens=tokens))

    def _mind_refusal(self) -> None:
        """Do not offer a password again that was refused today."""
        refusal, now = self._kept.refusal, self._clock.now()
        # Later than that it was put by a clock that was ahead.
        if refusal is None or not now < refusal.until <= now + REFUSED_FOR:
            return
        if self._hashed(refusal.password.partition("$")[0]) != refusal.password:
            return
        left_s = (refusal.until - now).total_seconds()
        raise (Barred if refusal.barred else Transient)(refusal.reason, left_s)

    def _mind_attempts(self) -> None:
        """Each attempt within a day waits twice as long as the one before."""
        recent = self._attempts_today()
        if not recent:
            return
        pause_s = min(LOGIN_PAUSE_S * 2 ** (len(recent) - 1), LOGIN_PAUSE_MAX_S)
        left_s = pause_s - (self._clock.now() - max(recent)).total_seconds()
        if left_s > 0:
            raise Transient(
                f"Bluesky was logged in to {len(recent)} times within a day; the next attempt "
                f"waits {left_s:.0f} s",
                left_s,
            )

    def _attempts_today(self) -> tuple[datetime, ...]:
        # A clock that was put back must not lock us out.
        now = self._clock.now()
        return tuple(at for at in self._kept.attempts if timedelta(0) <= now - at < DAY)

    def _refused(self, error: Refused) -> PublisherError:
        """What a refused login means; remembered."""
        verdict = _account_trouble(error) or self._login_trouble(error)
        # Where it does not say for how long, the growing pause between attempts holds.
        if verdict.retry_after_s:
            until = self._clock.now() + timedelta(seconds=verdict.retry_after_s)
            password = self._hashed(secrets.token_hex(16))
            refusal = Refusal(until, str(verdict), isinstance(verdict, Barred), password)
            self._keep(replace(self._kept, refusal=refusal))
        return verdict

    def _login_trouble(self, error: Refused) -> Transient:
        who = self._identifier
        day_s = REFUSED_FOR.total_seconds()
        if error.is_not_now:
            return Transient(f"Bluesky takes no login now: {error}", error.retry_after_s)
        if error.error == "AuthFactorTokenRequired":
            return Barred(
                f"Bluesky wants a code that it mails to the owner of {who} ({error}): "
                "BLUESKY_APP_PASSWORD is the account's own password; make an app password at "
                f"{APP_PASSWORDS}",
                day_s,
            )
        if error.status in (400, 401, 403):
            return Barred(
                f"Bluesky does not know {who} by this password ({error}): look at BLUESKY_HANDLE, "
                f"or make a new app password at {APP_PASSWORDS} and put it into "
                "BLUESKY_APP_PASSWORD",
                day_s,
            )
        return Barred(
            f"{self._service} takes no login ({error}): look at BLUESKY_URL",
            NO_SERVICE_FOR.total_seconds(),
        )

    def _understood(self, answer: Json) -> Tokens:
        """The session in an answer; Unclear where there is none."""
        parts = [answer.get(name) for name in ("handle", "did", "accessJwt", "refreshJwt")]
        if not all(isinstance(part, str) and part for part in parts):
            raise Unclear("the answer is no session")
        handle, did, access, refresh = (str(part) for part in parts)
        kept = self._kept.tokens
        pds = _pds(answer.get("didDoc")) or (kept.pds if kept else self._service)
        return Tokens(handle, did, access, refresh, pds)

    def _use(self, tokens: Tokens) -> None:
        self._known.update((tokens.access, tokens.refresh))
        self._wire.at(tokens.pds)

    def _keep(self, kept: Kept) -> None:
        # What was obtained is used even where it cannot be kept; the next login waits.
        self._kept = kept
        self._file.save(kept)

    def _hashed(self, salt: str) -> str:
        secret = f"{self._identifier}\n{self._password}".encode("utf-8", "replace")
        digest = hashlib.scrypt(secret, salt=salt.encode(), n=2**14, r=8, p=1)
        return f"{salt}${digest.hex()}"


def is_about_token(error: Refused) -> bool:
    """Whether a refusal is about the session and not about what was asked."""
    return error.error in _TOKEN_ENDED


def _account_trouble(error: Refused) -> Barred | None:
    """What it means that the account itself is closed, in whichever answer that is said."""
    wait_s = REFUSED_FOR.total_seconds()
    if error.error in _TAKEN_DOWN:
        return Barred(
            f"Bluesky has taken down or suspended the account of BLUESKY_HANDLE ({error}); its "
            "moderators decide: write to support@bsky.app",
            wait_s,
        )
    if error.error in _DEACTIVATED:
        return Barred(
            f"the Bluesky account of BLUESKY_HANDLE is deactivated ({error}): log in at "
            "https://bsky.app and activate it",
            wait_s,
        )
    if error.status == ACTIVE_NOT:
        return Barred(
            f"the Bluesky account of BLUESKY_HANDLE is not active ({error}): log in at "
            "https://bsky.app to see why",
            wait_s,
        )
    return None


def _pds(document: object) -> str | None:
    """Where an account lives, by its DID document; None where that does not say."""
    from atproto_core.did_doc import (  # type: ignore[import-untyped]
        DidDocument,
        is_valid_did_doc,
    )

    if not isinstance(document, dict) or not is_valid_did_doc(document):
        return None
    endpoint = DidDocument.from_dict(document).get_pds_endpoint()
    return str(endpoint) if endpoint else None
