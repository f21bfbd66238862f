"""
Mastodon as a destination of Penstock: one status that says that there is an article.

Mastodon remembers an Idempotency-Key for an hour, and only once the status is made. So before a
request is sent the account's own statuses are looked through for the line that ends every one of
ours; the key is for what is not to be seen yet. Once it was noted that a request is sent, it may
still be under way when nobody waits for its answer any more, so that a second look is taken later.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import re
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx

from publishers.clock import Clock
from publishers.errors import Barred, OutcomeUnknown, PublisherError, Rejected, Transient
from publishers.plugin import Surroundings
from publishers.port import Engagement, Intent, Note, Post, Receipt

T = TypeVar("T")

SETTINGS = "PENSTOCK_PUBLISHER_MASTODON_"
# What a server takes unless its owner changed it; every link counts as 23.
CHARS_MAX = 500
LINK_CHARS = 23
# The server's clock may differ from ours.
MARGIN = timedelta(hours=1)
LOOKS_AFTER_S = (0.0, 30.0)
COUNTS = {"like": "favourites_count", "repost": "reblogs_count", "reply": "replies_count"}


def publisher(surroundings: Surroundings) -> Mastodon:
    """The entry point. Raises ValueError where a setting is missing or wrong."""
    given = surroundings.settings
    url, token = given.get("url", ""), given.get("token", "")
    problems = [f"{SETTINGS}{key.upper()} is unknown" for key in given.keys() - {"url", "token"}]
    if not url.startswith("https://"):
        problems.append(f"{SETTINGS}URL is the server's address, as https://mastodon.example")
    if not (token and token.isascii() and token.isprintable()):
        problems.append(f"{SETTINGS}TOKEN is a token with the scopes read and write:statuses")
    if problems:
        raise ValueError("; ".join(sorted(problems)))
    return Mastodon(url, token, surroundings.clock, surroundings.timeout_s, surroundings.tls)


class Mastodon:
    """One account. `transport` is how bytes travel; None for real sockets."""

    name, public, announces = "mastodon", True, True

    def __init__(
        self, url: str, token: str, clock: Clock, timeout_s: float,
        tls: ssl.SSLContext | None = None, transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:  # fmt: skip
        self._url, self._token = url.rstrip("/"), token
        self._clock, self._timeout_s = clock, timeout_s
        self._client = httpx.AsyncClient(
            transport=transport, verify=True if tls is None else tls, trust_env=False,
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )  # fmt: skip

    async def close(self) -> None:
        await self._client.aclose()

    def intend(self, post: Post) -> Intent:
        """The body of the request; the key is the run, which its last line names."""
        ending = f"{post.link}\n\n{_closing(post.run)}" if post.link else _closing(post.run)
        room = CHARS_MAX - len(f"\n\n{ending}") + max(0, len(post.link or "") - LINK_CHARS)
        words = ("\n\n".join(post.announcement) or post.title).strip()
        if len(words) > room:
            words = f"{words[: max(0, room - 1)].rstrip()}…"
        language = post.language.partition("-")[0].lower()
        text = f"{words}\n\n{ending}".strip().replace("\x00", "")
        status = {"status": text, "visibility": "public", "language": language}
        since = ((post.begun or post.at) - MARGIN).isoformat()
        text = json.dumps({"since": since, "status": status}, ensure_ascii=False)
        # Half a surrogate pair has no bytes in UTF-8.
        return Intent(key=post.run, payload=text.encode("utf-8", "replace"))

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        """Look; note that it is sent; send it; look again, if nobody answers."""
        if found := await (self._look(intent) if intent.noted else self.find(intent)):
            return found
        await note("sending")
        body = json.dumps(json.loads(intent.payload)["status"]).encode()
        key = {"idempotency-key": hashlib.sha256(body).hexdigest()}
        try:
            return await self._ask("POST", "statuses", _receipt, key, body)
        except _Missing as error:
            raise Rejected("it was published, and deleted within the hour") from error
        except _Lost as lost:
            try:
                found = await self._look(intent)
            except Transient as error:
                raise OutcomeUnknown(f"{lost}; then {error}", intent.key) from error
            if found is None:
                raise OutcomeUnknown(f"{lost}; it is not to be seen", intent.key) from lost
            return found

    async def find(self, intent: Intent) -> Receipt | None:
        """The receipt, where one of the account's statuses ends with our line. Reads only."""
        since = datetime.fromisoformat(json.loads(intent.payload)["since"])
        account = await self._read("accounts/verify_credentials", lambda said: str(said["id"]))
        asked = f"accounts/{account}/statuses?limit=40&exclude_reblogs=true"
        page = await self._read(asked, _page)
        while page and page[0][0] >= since:
            for _, text, receipt in page:
                if text.endswith(_closing(intent.key)):
                    return receipt
            page = await self._read(f"{asked}&max_id={page[-1][2].remote_id}", _page)
        return None

    async def engagement(self, receipts: Sequence[Receipt]) -> Sequence[Engagement]:
        found: list[Engagement] = []
        for number in (r.remote_id for r in receipts if _is_id(r.remote_id)):
            try:
                counts = await self._read(f"statuses/{number}", _counts)
                found.append(Engagement(number, counts))
            except _Missing:
                found.append(Engagement(number, gone=True))
            except PublisherError:
                if not found:
                    raise
                break  # what was counted is counted
        return found

    async def withdraw(self, receipt: Receipt, reason: str) -> None:
        """Delete the status; Mastodon has no place for the reason."""
        if not _is_id(receipt.remote_id):
            raise Rejected(f"{receipt.remote_id!r} is no status of Mastodon")
        try:
            await self._ask("DELETE", f"statuses/{receipt.remote_id}", _receipt)
        except _Missing:
            return
        except _Lost as lost:
            raise OutcomeUnknown(f"it may be deleted: {lost}", receipt.remote_id) from lost

    async def _look(self, intent: Intent) -> Receipt | None:
        for pause_s in LOOKS_AFTER_S:
            await self._clock.sleep(pause_s)
            if found := await self.find(intent):
                return found
        return None

    async def _read(self, path: str, understood: Callable[[Any], T]) -> T:
        try:
            return await self._ask("GET", path, understood)
        except _Lost as lost:
            raise Transient(f"it cannot be read now: {lost}") from lost

    async def _ask(
        self, method: str, path: str, understood: Callable[[Any], T],
        headers: dict[str, str] | None = None, content: bytes | None = None,
    ) -> T:  # fmt: skip
        """
        What is understood of the JSON that answers a request.

        Raises:
            Transient, Barred, Rejected: it had no effect.
            _Lost: it may have had one.
        """
        url = f"{self._url}/api/v1/{path}"
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(method, url, headers=headers, content=content)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Transient(f"{self._url} is not reached: {type(error).__name__}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise _Lost(f"no answer to {method}: {type(error).__name__}") from error
        if not answer.is_success:
            raise self._refusal(answer, path)
        try:
            return understood(answer.json())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Lost(f"an answer to {method} that is none of Mastodon's") from error

    def _refusal(self, answer: httpx.Response, path: str) -> Exception:
        # Somebody else's words: on one line, and without our token.
        words = "".join(c if c.isprintable() else " " for c in answer.text[:300])
        said = f"Mastodon answers {answer.status_code} {words}".replace(self._token, "***")
        match answer.status_code:
            case code if code >= 500:
                return _Lost(said)
            case 404 if path.startswith("statuses") and "json" in answer.headers.get(
                "content-type", ""
            ):
                return _Missing(said)
            case 400 | 413 | 422 if path == "statuses":
                return Rejected(said)
            case 429:
                return Transient(said, 300.0)  # the span that its limits are counted over
            case 401 | 403:
                return Barred(f"{said}; look at the account, and at {SETTINGS}TOKEN")
            case _:
                return Barred(f"{said}; look at {SETTINGS}URL")


class _Lost(Exception):
    """The request may have taken effect, and nobody said so."""


class _Missing(Rejected):
    """The server has no such status."""


def _closing(run: str) -> str:
    return f"Written autonomously by software, run {run}"


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _receipt(status: Any) -> Receipt:
    return Receipt(url=status.get("url"), remote_id=str(status["id"]))


def _page(statuses: Any) -> list[tuple[datetime, str, Receipt]]:
    """When each was made, its text without HTML, and its receipt."""
    texts = [html.unescape(re.sub(r"<[^>]*>", "", one["content"])).strip() for one in statuses]
    return [
        (datetime.fromisoformat(one["created_at"]).astimezone(UTC), text, _receipt(one))
        for one, text in zip(statuses, texts, strict=True)
    ]


def _counts(status: Any) -> dict[str, int]:
    return {metric: max(0, int(status[name])) for metric, name in COUNTS.items()}
