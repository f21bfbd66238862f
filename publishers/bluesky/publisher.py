"""
The destination: what is sent in which order, and what every end of it means.

A post's key, its time and its words are in the intent; what the account adds to them, a thread's
references to itself, follows from the account's DID, which is noted before the first request that
changes anything. So the record is the same bytes on every attempt, `putRecord` with
`swapRecord: null` makes it once and says 200 to its repetition, and nothing can be posted twice.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from publishers.bluesky import records
from publishers.bluesky.records import POSTS, PROFILES, Planned, Record
from publishers.bluesky.session import Account, SessionFile, is_about_token
from publishers.bluesky.xrpc import Json, NotSent, Refused, Unclear, Wire, XrpcError, dumped
from publishers.clock import Clock
from publishers.errors import OutcomeUnknown, PublisherError, Rejected, Transient
from publishers.port import Engagement, Intent, Note, Post, Receipt

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Pauses before the first and the further attempts at what may be repeated.
PAUSES_S = (0.0, 2.0, 10.0)
# What is said of the post itself; other refusals are about who asks, or where.
FINAL = frozenset({400, 409, 413, 415, 422})
# app.bsky.feed.getPosts
URIS_PER_REQUEST = 25
COUNTS = {
    "like": "likeCount",
    "repost": "repostCount",
    "reply": "replyCount",
    "quote": "quoteCount",
}
BOT = "bot"
_LABELS = "com.atproto.label.defs#selfLabels"


class Bluesky:
    """
    Args:
        handle: the account's handle (an `@` before it is ignored), DID or mail address.
        app_password: made in the account's settings; not the account's own password.
        service: the root of the service to log in to.
        session_file: where the session is kept, in a folder that only we may read.
        transport: how bytes travel; None for real sockets.
        tls: None for what httpx makes itself.
    """

    name = "bluesky"
    public = True
    announces = True

    def __init__(
        self,
        *,
        handle: str,
        app_password: str,
        session_file: Path,
        clock: Clock,
        service: str = "https://bsky.social",
        transport: httpx.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._identifier = handle.strip().removeprefix("@")
        self._password = app_password
        self._service = service.rstrip("/")
        self._clock = clock
        self._transport = transport
        self._tls = tls
        self._file = SessionFile(session_file, service=self._service, identifier=self._identifier)
        # Two who find the session ended would both renew it.
        self._one_at_a_time = asyncio.Lock()

    def intend(self, post: Post) -> Intent:
        """Fix keys, times and words; the same for the same post."""
        return records.intend(post)

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        """
        Put every post of the thread where it is not yet; repeating it changes nothing.

        What was refused after the first post went out is left out, and the receipt has the rest:
        a thread cut short is live, and its first post has the link.

        Raises:
            Transient: nothing new went out, or a later post must wait; publishing again goes on.
            Rejected: the service refuses the first post, or the account is closed.
            OutcomeUnknown: no answer could be had to several attempts.
        """
        planned = _planned(intent)
        try:
            async with self._account() as account:
                return await self._publish(account, intent, planned, note)
        except Rejected as error:
            if intent.noted is None or isinstance(error, _Decided):
                raise
            # The account was closed between two attempts, the first of which may have gone through.
            raise OutcomeUnknown(f"an earlier attempt may be live: {error}", intent.key) from error

    async def find(self, intent: Intent) -> Receipt | None:
        """
        The receipt of what is live, read from the account's own server; None without a first post.

        Raises:
            Transient, Rejected: it cannot be read.
        """
        planned = _planned(intent)
        async with self._account() as account:
            did = intent.noted or account.did
            live = await self._live(account, records.thread(planned, did))
            handle = account.handle if did == account.did else ""
            return records.receipt(did, handle, live) if live else None

    async def engagement(self, receipts: Sequence[Receipt]) -> Sequence[Engagement]:
        """
        Counts over all posts of a thread, without the replies that make it one.

        A first post that the network does not show is gone only where its own server says so too,
        since the one lags behind the other.
        """
        wanted: dict[str, records.Landed] = {}
        for receipt in receipts:
            try:
                wanted[receipt.remote_id] = records.landed(receipt)
            except ValueError:
                logger.warning("bluesky.engagement: %r is no post of ours", receipt.remote_id[:200])
        if not wanted:
            return []
        found: list[Engagement] = []
        async with self._account() as account:
            try:
                for batch in _batches(wanted):
                    found += await self._counted(account, batch)
            except (XrpcError, PublisherError) as error:
                if not found:
                    raise _not_read(error) from error
                logger.warning("bluesky.engagement: only %d of %d posts could be counted: %s",
                               len(found), len(wanted), error)  # fmt: skip
        return found

    async def withdraw(self, receipt: Receipt, reason: str) -> None:
        """
        Delete every post of the thread, the one with the link first. Bluesky has no place for
        the reason.
        """
        try:
            landed = records.landed(receipt)
        except ValueError as error:
            raise Rejected(str(error)) from error
        async with self._account() as account:
            if landed.did != account.did:
                raise Rejected(f"{receipt.remote_id} is not {account.handle}'s to delete")
            for rkey in landed.rkeys:
                body = dumped({"repo": landed.did, "collection": POSTS, "rkey": rkey})
                await self._settled(account, "com.atproto.repo.deleteRecord", body, landed.rkeys[0])

    # Publishing

    async def _publish(
        self, account: Account, intent: Intent, planned: records.Plan, note: Note
    ) -> Receipt:
        if intent.noted is None:
            await note(account.did)
        elif intent.noted != account.did:
            raise Rejected(
                f"it was begun as {intent.noted}, and BLUESKY_HANDLE is {account.did} now"
            )
        posts = records.thread(planned, account.did)
        # With nothing noted nothing was sent, so there is nothing to look for.
        live = await self._live(account, posts) if intent.noted is not None else []
        if len(live) < len(posts):
            await self._say_bot(account)
        if not live and planned.thumb is not None:
            await self._upload(account, planned.thumb)
        for post in posts[len(live) :]:
            try:
                await self._put(account, post, intent.key)
            except Rejected as error:
                if not live:
                    raise
                logger.warning("bluesky.publish: %s went out with %d of %d posts: %s",
                               intent.key, len(live), len(posts), error)  # fmt: skip
                break
            live.append(post.rkey)
        return records.receipt(account.did, account.handle, live)

    async def _live(self, account: Account, posts: Sequence[Planned]) -> list[str]:
        """The keys of the posts that are there already, from the first."""
        live: list[str] = []
        for post in posts:
            there = await self._reading(self._cid_at(account, post.uri))
            if there is None:
                break
            if there != post.cid:
                # Nothing but ours has this key, so somebody changed it and wants it so.
                logger.warning("bluesky.publish: %s was changed at Bluesky", post.uri)
            live.append(post.rkey)
        return live

    async def _put(self, account: Account, post: Planned, key: str) -> None:
        body = {"repo": account.did, "collection": POSTS, "rkey": post.rkey, "record": post.record,
                "swapRecord": None}  # fmt: skip

        def understood(answer: Json) -> None:
            if not _is_at(answer.get("uri"), post.uri) or not isinstance(answer.get("cid"), str):
                raise Unclear(f"the answer to {post.uri} is not about it")
            if answer["cid"] != post.cid:
                # It is there all the same; the next posts refer to it by a hash it does not have.
                logger.warning("bluesky.publish: %s was stored as other bytes than were sent",
                               post.uri)  # fmt: skip

        nsid = "com.atproto.repo.putRecord"
        await self._settled(account, nsid, dumped(body), key, understood)

    async def _upload(self, account: Account, thumb: bytes) -> None:
        """Bring the picture, which the record names by its hash already. Nothing is live by it."""
        reference = records.blob(thumb)
        trouble: XrpcError | None = None
        for pause_s in PAUSES_S:
            await self._wait(pause_s)
            try:
                answer = await account.procedure(
                    "com.atproto.repo.uploadBlob", thumb, reference["mimeType"]
                )
            except Refused as error:
                raise _verdict(error, "the card's picture") from error
            except XrpcError as error:
                trouble = error
                continue
            uploaded = answer.get("blob")
            if isinstance(uploaded, dict) and "ref" in uploaded:
                if uploaded != reference:
                    # The record asks for ours: where that is missing, putRecord is refused.
                    logger.warning("bluesky.upload: another picture was stored than was sent")
                return
            trouble = Unclear("the answer to the card's picture is not about it")
        raise Transient(f"the card's picture could not be uploaded: {trouble}") from trouble

    async def _settled(
        self,
        account: Account,
        nsid: str,
        body: bytes,
        key: str,
        understood: Callable[[Json], None] = lambda answer: None,
    ) -> None:
        """
        Send what may be repeated verbatim until the answer is clear.

        Raises:
            Transient, Rejected: it has no effect.
            OutcomeUnknown: it may have one.
        """
        unclear: XrpcError | None = None
        for pause_s in PAUSES_S:
            await self._wait(pause_s)
            try:
                understood(await account.procedure(nsid, body))
            except Unclear as error:
                unclear = error
            except NotSent as error:
                if unclear is None:
                    raise Transient(f"Bluesky is not reached: {error}") from error
            except Refused as error:
                verdict = _verdict(error, "the post")
                if unclear is None or isinstance(verdict, Rejected):
                    raise verdict from error
                break
            except PublisherError as error:
                if unclear is None:
                    raise
                raise OutcomeUnknown(f"{unclear}; then {error}", key) from error
            else:
                return
        raise OutcomeUnknown(f"{nsid} may have taken effect: {unclear}", key) from unclear

    async def _cid_at(self, account: Account, address: str) -> str | None:
        """The content id of a record at the account's own server; None where there is no record."""
        there = await self._record(account, address)
        if there is None:
            return None
        cid, value = there
        try:
            return cid or records.record_cid(value)
        except (ValueError, TypeError, RecursionError):
            raise Unclear("the answer is no record") from None

    async def _record(self, account: Account, address: str) -> tuple[str, Record] | None:
        repo, collection, rkey = address.removeprefix("at://").split("/")
        params = {"repo": repo, "collection": collection, "rkey": rkey}
        try:
            answer = await account.query("com.atproto.repo.getRecord", params)
        except Refused as error:
            # Servers up to 2024 had no word of its own for it.
            if error.error == "RecordNotFound" or error.message.startswith("Could not locate"):
                return None
            raise
        value = answer.get("value")
        if (
            not isinstance(value, dict)
            or value.get("$type") != collection
            or not _is_at(answer.get("uri"), address)
        ):
            raise Unclear(f"the answer to {address} is not about it")
        return str(answer.get("cid") or ""), value

    # The profile

    async def _say_bot(self, account: Account) -> None:
        """
        Label the profile as a bot's, once; whatever else is in it stays, known to us or not.

        A profile that cannot be labelled is no reason to say nothing: it is tried again with the
        next post.
        """
        if account.is_labelled:
            return
        try:
            for _ in PAUSES_S:
                if await self._labelled(account):
                    account.labelled()
                    return
            trouble = "it changes while it is read"
        except XrpcError as error:
            trouble = str(error)
        logger.warning("bluesky.label: the profile could not be labelled as a bot's: %s", trouble)

    async def _labelled(self, account: Account) -> bool:
        """Read, change, write if nobody wrote meanwhile. False if somebody did."""
        there = await self._record(account, f"at://{account.did}/{PROFILES}/self")
        cid, profile = there if there is not None else (None, {"$type": PROFILES})
        labels = profile.get("labels", {"$type": _LABELS, "values": []})
        if cid == "" or not isinstance(labels, dict) or labels.get("$type") != _LABELS:
            raise Unclear("the profile is of a kind that is not known here")
        values = list(labels.get("values") or [])
        if any(isinstance(value, dict) and value.get("val") == BOT for value in values):
            return True
        # A dict and not the SDK's model, which knows the fields of its day only.
        changed = {**profile, "labels": {**labels, "values": [*values, {"val": BOT}]}}
        body = {"repo": account.did, "collection": PROFILES, "rkey": "self", "record": changed,
                "swapRecord": cid}  # fmt: skip
        try:
            await account.procedure("com.atproto.repo.putRecord", dumped(body))
        except Refused as error:
            if error.error != "InvalidSwap":
                raise
            return False
        return True

    # Counting

    async def _counted(
        self, account: Account, batch: dict[str, records.Landed]
    ) -> list[Engagement]:
        uris = [uri for landed in batch.values() for uri in landed.uris]
        views: dict[str, Json] = {}
        for start in range(0, len(uris), URIS_PER_REQUEST):
            params = {"uris": uris[start : start + URIS_PER_REQUEST]}
            answer = await account.query("app.bsky.feed.getPosts", params)
            shown = answer.get("posts")
            if not isinstance(shown, list):
                raise Unclear("the answer has no posts")
            views |= {str(view.get("uri")): view for view in shown if isinstance(view, dict)}
        found = []
        for remote_id, landed in batch.items():
            shown_of_it = [views[uri] for uri in landed.uris if uri in views]
            if landed.uris[0] in views:
                found.append(Engagement(remote_id, _counts(shown_of_it)))
            elif landed.did == account.did and not await self._record(account, landed.uris[0]):
                found.append(Engagement(remote_id, gone=True))
        return found

    # The account

    @asynccontextmanager
    async def _account(self) -> AsyncIterator[Account]:
        """The account with a session that will do, and its connections closed afterwards."""
        secrets = {self._password}
        wire = Wire(
            self._service, clock=self._clock, secrets=secrets, transport=self._transport,
            tls=self._tls,
        )  # fmt: skip
        async with self._one_at_a_time, wire:
            account = Account(
                wire, self._file, clock=self._clock, service=self._service,
                identifier=self._identifier, password=self._password, known=secrets,
            )  # fmt: skip
            await account.open()
            yield account

    async def _reading(self, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except XrpcError as error:
            raise _not_read(error) from error

    async def _wait(self, seconds: float) -> None:
        if seconds:
            await self._clock.sleep(seconds)


class _Decided(Rejected):
    """Refused for what it is, so an earlier attempt was refused too."""


def _is_at(uri: object, address: str) -> bool:
    """Whether it is this record's address, though it may name the account by its handle."""
    return isinstance(uri, str) and uri.split("/")[3:] == address.split("/")[3:]


def _planned(intent: Intent) -> records.Plan:
    try:
        return records.plan(intent)
    except ValueError as error:
        raise Rejected(f"the intent cannot be read: {error}") from error


def _verdict(error: Refused, what: str) -> PublisherError:
    """What a refusal means for a post."""
    if error.is_not_now:
        return Transient(f"Bluesky takes nothing now: {error}", error.retry_after_s)
    if is_about_token(error) or error.status not in FINAL:
        # The session was renewed a moment ago, so its owner may have to look.
        return Transient(f"Bluesky does not let us write: {error}; look at the app password")
    return _Decided(f"Bluesky refuses {what}: {error}")


def _not_read(error: XrpcError | PublisherError) -> PublisherError:
    if isinstance(error, PublisherError):
        return error
    if isinstance(error, Refused):
        if error.is_not_now:
            return Transient(f"Bluesky answers nothing now: {error}", error.retry_after_s)
        if error.status == 400 and not is_about_token(error):
            return Rejected(f"Bluesky refuses to be read: {error}")
    return Transient(f"Bluesky cannot be read now: {error}")


def _batches(wanted: dict[str, records.Landed]) -> Iterator[dict[str, records.Landed]]:
    """Receipts together as far as their posts fit into one request; a longer one goes alone."""
    batch: dict[str, records.Landed] = {}
    size = 0
    for remote_id, landed in wanted.items():
        if batch and size + len(landed.rkeys) > URIS_PER_REQUEST:
            yield batch
            batch, size = {}, 0
        batch[remote_id] = landed
        size += len(landed.rkeys)
    if batch:
        yield batch


def _counts(views: Sequence[Json]) -> dict[str, int]:
    """What readers did with the posts of one thread; a thread's own replies are not readers'."""
    sums = {
        metric: sum(count for view in views if (count := _count(view.get(name))) is not None)
        for metric, name in COUNTS.items()
        if any(_count(view.get(name)) is not None for view in views)
    }
    if "reply" in sums:
        sums["reply"] = max(0, sums["reply"] - (len(views) - 1))
    return sums


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
