"""
The destination: what is sent in which order, and what every end of it means.

A post's key, its time and its words are in the intent; what the account adds to them, a thread's
references to itself, follows from the account's DID. So the record is the same bytes on every
attempt, `putRecord` with `swapRecord: null` makes it once and says 200 to its repetition, and
nothing can be posted twice.

The keys follow from the run, so an intent that is made a second time, with other words, since the
journal was restored from a backup, meets what the first one made: publishing looks before it puts,
and takes what is there for what was meant.

What an intent can have noted:

    (nothing)      no post was sent, or the first one was refused
    did:plc:abc    posts may have been sent as this account
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx

from publishers.bluesky import records
from publishers.bluesky.records import POSTS, PROFILES, Planned, Record
from publishers.bluesky.session import APP_PASSWORDS, Account, SessionFile, is_about_token
from publishers.bluesky.xrpc import Json, NotSent, Refused, Unclear, Wire, XrpcError, dumped
from publishers.clock import Clock
from publishers.errors import Barred, OutcomeUnknown, PublisherError, Rejected, Transient
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
# A thread of somebody else's making is followed no further than this.
THREAD_MAX = 50
_NOTHING = ""
BOT = "bot"
_LABELS = "com.atproto.label.defs#selfLabels"


class Bluesky:
    """
    Args:
        handle: the account's handle (an `@` before it is ignored), DID or mail address.
        app_password: made in the account's settings; not the account's own password.
        service: the root of the service to log in to.
        session_file: where the session is kept, in a folder that only we may read.
        timeout_s: for one whole answer, from the first connection to the last byte; a picture's
            upload may take longer.
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
        timeout_s: float = 20.0,
        transport: httpx.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._identifier = handle.strip().removeprefix("@")
        self._password = app_password
        self._service = service.rstrip("/")
        self._clock = clock
        self._timeout_s = timeout_s
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
        Look what is there, and put every post of the thread that is not; repeating it changes
        nothing.

        What was refused after the first post went out is left out, and the receipt has the rest:
        a thread cut short is live, and its first post has the link. So it is with a thread whose
        first post is there in other words: it is not gone on with.

        Raises:
            Transient, Barred: nothing new went out, or a later post must wait; publishing again
                goes on.
            Rejected: the service refuses the first post, for what it is.
            OutcomeUnknown: no answer could be had to several attempts, or the account is closed
                since one of them.
        """
        planned = _planned(intent)
        looked = False
        try:
            async with self._account() as account:
                did = intent.noted or account.did
                posts = records.thread(planned, did)
                there = await self._live(account, posts)
                looked = True
                if there.is_over or len(there.rkeys) == len(posts):
                    handle = account.handle if did == account.did else ""
                    return records.receipt(did, handle, there.rkeys)
                if did != account.did:
                    raise Barred(
                        f"it was begun as {did}, and BLUESKY_HANDLE is {account.handle}"
                        f" ({account.did}) now, where it would go out twice: put the handle of"
                        f" {did} into BLUESKY_HANDLE again"
                    )
                return await self._publish(account, intent, planned, there.rkeys, note)
        except Barred as error:
            if looked or not intent.noted:
                raise
            # An earlier attempt may have gone through, and nobody is let in to look.
            raise OutcomeUnknown(f"an earlier attempt may be live: {error}", intent.key) from error

    async def find(self, intent: Intent) -> Receipt | None:
        """
        The receipt of what is live, read from the account's own server; None without a first post.

        Raises:
            Transient, Barred: it cannot be read.
        """
        planned = _planned(intent)
        async with self._account() as account:
            did = intent.noted or account.did
            posts = records.thread(planned, did)
            there = await self._live(account, posts)
            if not there.rkeys:
                return None
            handle = account.handle if did == account.did else ""
            found = records.receipt(did, handle, there.rkeys)
            return replace(found, whole=there.is_over or len(there.rkeys) == len(posts))

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
                raise Barred(
                    f"{receipt.remote_id} is not {account.handle}'s to delete: put the handle of"
                    f" {landed.did} into BLUESKY_HANDLE"
                )
            for rkey in landed.rkeys:
                body = dumped({"repo": landed.did, "collection": POSTS, "rkey": rkey})
                await self._settled(
                    account, "com.atproto.repo.deleteRecord", body, landed.rkeys[0],
                    what="the withdrawal",
                )  # fmt: skip

    # Publishing

    async def _publish(
        self, account: Account, intent: Intent, planned: records.Plan, live: list[str], note: Note
    ) -> Receipt:
        """Put what is missing after what is live."""
        posts = records.thread(planned, account.did)
        await self._say_bot(account)
        if not live and planned.thumb is not None:
            await self._upload(account, planned.thumb)
        if not intent.noted:
            await note(account.did)
        there = _There(live, is_over=False)
        try:
            while len(there.rkeys) < len(posts) and not there.is_over:
                there = await self._gone_on(account, posts, there.rkeys, intent.key)
        except (Transient, Rejected) as error:
            if not there.rkeys and not intent.noted:
                await note(_NOTHING)
            if not there.rkeys or isinstance(error, Transient):
                raise
            logger.warning("bluesky.publish: %s went out with %d of %d posts: %s",
                           intent.key, len(there.rkeys), len(posts), error)  # fmt: skip
        return records.receipt(account.did, account.handle, there.rkeys)

    async def _gone_on(
        self, account: Account, posts: Sequence[Planned], live: list[str], key: str
    ) -> _There:
        """What is live once the next post is put, or was found in its place."""
        post = posts[len(live)]
        try:
            await self._put(account, post, key)
        except _Taken as taken:
            try:
                there = await self._live(account, posts)
            except Transient as error:
                raise OutcomeUnknown(f"{taken}; then {error}", key) from error
            if len(there.rkeys) <= len(live):
                raise OutcomeUnknown(f"{taken}; it is not shown what", key) from taken
            return there
        return _There([*live, post.rkey], is_over=False)

    async def _live(self, account: Account, posts: Sequence[Planned]) -> _There:
        """What is there already, from the first post on, each by its planned key."""
        live: list[str] = []
        for post in posts:
            there = await self._reading(self._cid_at(account, post.uri))
            if there is None:
                break
            if there != post.cid:
                # Nothing but ours has this key: it was changed by hand, or made from another
                # intent of the run, and is wanted so.
                logger.warning("bluesky.publish: %s is there in other words", post.uri)
                if not live:
                    return _There(await self._followed(account, post), is_over=True)
            live.append(post.rkey)
        return _There(live, is_over=False)

    async def _followed(self, account: Account, first: Planned) -> list[str]:
        """The keys of a thread as it is there, which may be longer than the planned one."""
        root = first.uri.removesuffix(first.rkey)
        live = [first.rkey]
        while len(live) < THREAD_MAX:
            rkey = records.next_tid(live[-1])
            if await self._reading(self._cid_at(account, root + rkey)) is None:
                break
            live.append(rkey)
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
            await self._clock.sleep(pause_s)
            try:
                answer = await account.procedure(
                    "com.atproto.repo.uploadBlob", thumb, reference["mimeType"]
                )
            except Refused as error:
                verdict = _verdict(error, "the card's picture")
                if isinstance(verdict, Rejected):
                    raise Rejected(
                        f"{verdict}; a post is frozen with its picture, so this one is let go;"
                        f" before the next, have {self._service} take pictures of"
                        f" {records.THUMB_BYTES_MAX // 1_000} kB (PDS_BLOB_UPLOAD_LIMIT, and what a"
                        " proxy before it allows)"
                    ) from error
                raise verdict from error
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
        *,
        what: str = "the post",
    ) -> None:
        """
        Send what may be repeated verbatim until the answer is clear.

        Raises:
            Transient, Barred, Rejected: it has no effect.
            _Taken: something is there already.
            OutcomeUnknown: it may have one.
        """
        unclear: XrpcError | None = None
        for pause_s in PAUSES_S:
            await self._clock.sleep(pause_s)
            try:
                understood(await account.procedure(nsid, body))
            except Unclear as error:
                unclear = error
            except NotSent as error:
                if unclear is None:
                    raise Transient(f"Bluesky is not reached: {error}") from error
            except Refused as error:
                verdict = _verdict(error, what)
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
            self._service, clock=self._clock, secrets=secrets, timeout_s=self._timeout_s,
            transport=self._transport, tls=self._tls,
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


@dataclass(frozen=True, slots=True)
class _There:
    """
    What is live of a thread.

    Args:
        rkeys: from the first post on, without a gap.
        is_over: whether it is there in other words, so that ours do not go on with it.
    """

    rkeys: list[str]
    is_over: bool


class _Taken(Rejected):
    """Something else has the key of a post, which is then live in other words."""


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
    if is_about_token(error):
        # The session was renewed a moment ago, so it is not the password.
        return Transient(f"Bluesky does not know its own session: {error}")
    if error.status not in FINAL:
        return _not_us(error)
    if error.error == "InvalidSwap":
        return _Taken(f"Bluesky has something else in the place of {what}: {error}")
    return Rejected(f"Bluesky refuses {what}: {error}")


def _not_us(error: Refused) -> Barred:
    """What it means that it is us who are refused, by whoever is there."""
    if error.status in (401, 403):
        return Barred(
            f"Bluesky does not let us in: {error}; look at the account of BLUESKY_HANDLE, and make"
            f" a new app password for BLUESKY_APP_PASSWORD at {APP_PASSWORDS}"
        )
    return Barred(f"there is no service of Bluesky: {error}; look at BLUESKY_URL")


def _not_read(error: XrpcError | PublisherError) -> PublisherError:
    """Why something cannot be read, which says nothing of the post that it is about."""
    if isinstance(error, PublisherError):
        return error
    if isinstance(error, Refused):
        if error.is_not_now:
            return Transient(f"Bluesky answers nothing now: {error}", error.retry_after_s)
        if error.error == "RepoNotFound" or error.message.startswith("Could not find repo"):
            # So a PDS speaks of its own account, too, once that is closed: it passes the question
            # on to the AppView, which may have heard of that or not yet.
            return Barred(
                f"Bluesky shows no such account: {error}; if it is that of BLUESKY_HANDLE, log in"
                " at https://bsky.app: it was deactivated, and can be activated there, or it was"
                " taken down, and its moderators decide (support@bsky.app), or it was deleted or"
                " has moved"
            )
        if error.status not in FINAL and not is_about_token(error):
            return _not_us(error)
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
