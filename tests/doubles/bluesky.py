"""
A Bluesky service: a PDS with one account, and the AppView behind it.

Its answers are what `@atproto/pds` of dev-env 0.6.7 said when it was asked, save the troubles,
which are arranged. It hashes what it stores itself, with what the SDK decodes repositories with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import libipld
import regex

from tests.doubles.wire import Answer, Request

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
ACCESS_FOR = timedelta(minutes=120)
REFRESH_FOR = timedelta(days=90)
GRACE = timedelta(hours=2)
BLOB_BYTES_MAX = 5 * 1024 * 1024

_TID = re.compile(r"[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}")
_GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True, slots=True)
class Trouble:
    """
    One answer that goes wrong.

    Args:
        answer: sent instead of the right one.
        effect: whether the request takes effect all the same.
    """

    answer: Answer
    effect: bool = False


@dataclass(slots=True)
class BlueskyDouble:
    """
    Args:
        now: the service's clock.
        opaque: tokens that say nothing about themselves, as the specification allows.
        pds: where the account lives, as its DID document says; "" for no document.
        did: the account that logs in here.
        shared: another service of the network, whose records can be read here.
    """

    now: Callable[[], datetime] = lambda: datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
    name: str = "author.test"
    password: str = "abcd-efgh-ijkl-mnop"
    opaque: bool = False
    pds: str = ""
    did: str = DID
    shared: BlueskyDouble | None = None
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    unindexed: set[str] = field(default_factory=set)
    asked: list[tuple[str, Request]] = field(default_factory=list)
    writes: Counter[str] = field(default_factory=Counter)
    logins: list[datetime] = field(default_factory=list)
    login_answer: Answer | None = None
    active: dict[str, Any] = field(default_factory=dict)
    _trouble: dict[str, deque[Trouble | None]] = field(default_factory=dict)
    _access: dict[str, datetime] = field(default_factory=dict)
    _refresh: dict[str, tuple[datetime, str | None]] = field(default_factory=dict)
    _minted: int = 0

    # What a test arranges and asks

    def misbehave(self, method: str, *troubles: Trouble | Answer | None) -> None:
        """Spoil the next answers to a method, named by its last part; None is a good one."""
        queue = self._trouble.setdefault(method, deque())
        queue.extend(Trouble(t) if isinstance(t, Answer) else t for t in troubles)

    def recover(self) -> None:
        """Forget the troubles that are still to come."""
        self._trouble.clear()

    def forget_sessions(self) -> None:
        """Every token is void from now on."""
        self._access.clear()
        self._refresh.clear()

    def end_access(self) -> None:
        """Access tokens have ended, though they do not say so."""
        self._access = dict.fromkeys(self._access, self.now())

    def times(self, method: str) -> int:
        """How often a method was asked."""
        return sum(name == method for name, _ in self.asked)

    def posts(self) -> dict[str, Any]:
        """The posts there are, by record key."""
        kept = self.records.items()
        return {path.partition("/")[2]: v for path, v in kept if path.startswith("app.bsky.feed")}

    # The service

    async def _right(self, method: str, request: Request) -> Answer:
        answers: dict[str, Callable[[Request], Answer]] = {
            "createSession": self._create_session,
            "refreshSession": self._refresh_session,
            "getRecord": self._get_record,
            "putRecord": self._put_record,
            "deleteRecord": self._delete_record,
            "uploadBlob": self._upload_blob,
            "getPosts": self._get_posts,
        }
        if method not in answers:
            return _error(501, "MethodNotImplemented", "Method Not Implemented")
        return answers[method](request)

    async def handle(self, request: Request) -> Answer:
        """Answer one request, or go wrong as arranged."""
        method = request.path.rpartition(".")[2]
        self.asked.append((method, request))
        queue = self._trouble.get(method)
        trouble = queue.popleft() if queue else None
        if trouble is None:
            return await self._right(method, request)
        if not trouble.effect:
            return trouble.answer
        well = await self._right(method, request)
        spoiled = trouble.answer
        if spoiled.fault.name != "NONE" and not spoiled.body:
            return replace(well, fault=spoiled.fault, delay_s=spoiled.delay_s)
        return spoiled

    def _create_session(self, request: Request) -> Answer:
        self.logins.append(self.now())
        if self.login_answer is not None:
            return self.login_answer
        asked = request.json
        if (asked["identifier"], asked["password"]) != (self.name, self.password):
            return _error(401, "AuthenticationRequired", "Invalid identifier or password")
        return Answer.of(self._session() | self.active)

    def _refresh_session(self, request: Request) -> Answer:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self._refresh:
            return _error(400, "ExpiredToken", "Token has been revoked")
        until, successor = self._refresh[token]
        if self.now() >= until:
            return _error(400, "ExpiredToken", "Token has expired")
        session = self._session(successor)
        # The old one brings the same successor for two hours.
        self._refresh[token] = (min(until, self.now() + GRACE), session["refreshJwt"])
        return Answer.of(session)

    def _session(self, refresh: str | None = None) -> dict[str, Any]:
        access = self._token(ACCESS_FOR)
        self._access[access] = self.now() + ACCESS_FOR
        if refresh is None:
            refresh = self._token(REFRESH_FOR)
            self._refresh[refresh] = (self.now() + REFRESH_FOR, None)
        session: dict[str, Any] = {
            "handle": self.name, "did": self.did, "accessJwt": access, "refreshJwt": refresh,
            "active": True,
        }  # fmt: skip
        if self.pds:
            session["didDoc"] = {
                "@context": ["https://www.w3.org/ns/did/v1"],
                "id": self.did,
                "alsoKnownAs": [f"at://{self.name}"],
                "service": [
                    {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer",
                     "serviceEndpoint": self.pds},
                ],
            }  # fmt: skip
        return session

    def _token(self, life: timedelta) -> str:
        self._minted += 1
        if self.opaque:
            return f"opaque-token-{self._minted}"
        claims = {"exp": int((self.now() + life).timestamp()), "jti": self._minted, "sub": self.did}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"eyJhbGciOiJIUzI1NiJ9.{body}.c2lnbmVk"

    def _stranger(self, request: Request) -> Answer | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            return _error(401, "AuthMissing", "Authentication Required")
        if token not in self._access:
            return _error(400, "InvalidToken", "Token could not be verified")
        if self.now() >= self._access[token]:
            return _error(400, "ExpiredToken", "Token has expired")
        return None

    def _get_record(self, request: Request) -> Answer:
        path = f"{request.query['collection']}/{request.query['rkey']}"
        uri = f"at://{self.did}/{path}"
        if self.shared is not None and request.query["repo"] == self.shared.did:
            return self.shared._get_record(request)
        if request.query["repo"] != self.did or path not in self.records:
            return _error(400, "RecordNotFound", f"Could not locate record: {uri}")
        value = self.records[path]
        return Answer.of({"uri": uri, "cid": cid_of(value), "value": value})

    def _put_record(self, request: Request) -> Answer:
        if refused := self._stranger(request):
            return refused
        asked = request.json
        record, path = asked["record"], f"{asked['collection']}/{asked['rkey']}"
        if problem := self._invalid(asked["collection"], asked["rkey"], record):
            return _error(400, "InvalidRequest", problem)
        there = self.records.get(path)
        cid, uri = cid_of(record), f"at://{self.did}/{path}"
        if there == record:
            return Answer.of({"uri": uri, "cid": cid, "validationStatus": "valid"})
        old = cid_of(there) if there is not None else None
        if "swapRecord" in asked and asked["swapRecord"] != old:
            return _error(400, "InvalidSwap", f"Record was at {old}")
        self.records[path] = record
        self.writes[path] += 1
        commit = {"cid": cid, "rev": "3k"}
        return Answer.of({"uri": uri, "cid": cid, "commit": commit, "validationStatus": "valid"})

    def _invalid(self, collection: str, rkey: str, record: dict[str, Any]) -> str | None:
        if collection == "app.bsky.feed.post":
            if not _TID.fullmatch(rkey):
                return "Invalid record key for app.bsky.feed.post"
            text = record["text"]
            if len(_GRAPHEME.findall(text)) > 300:
                return "Invalid app.bsky.feed.post record: grapheme too big (maximum 300)"
            if len(text.encode()) > 3000:
                return "Invalid app.bsky.feed.post record: string too long (maximum 3000)"
        for blob in _blobs_in(record):
            if blob["ref"]["$link"] not in self.blobs:
                return f"Could not find blob: {blob['ref']['$link']}"
            if blob["size"] > 1_000_000:
                return "blob too big (maximum 1000000)"
        return None

    def _delete_record(self, request: Request) -> Answer:
        if refused := self._stranger(request):
            return refused
        self.records.pop(f"{request.json['collection']}/{request.json['rkey']}", None)
        return Answer.of({})

    def _upload_blob(self, request: Request) -> Answer:
        if refused := self._stranger(request):
            return refused
        if len(request.body) > BLOB_BYTES_MAX:
            return _error(413, "PayloadTooLarge", "request entity too large")
        link = _cid(0x55, request.body)
        self.blobs[link] = request.body
        size, kind = len(request.body), request.headers["content-type"]
        return Answer.of(
            {"blob": {"$type": "blob", "ref": {"$link": link}, "mimeType": kind, "size": size}}
        )

    def _get_posts(self, request: Request) -> Answer:
        uris = [v for name, v in parse_qsl(request.target.partition("?")[2]) if name == "uris"]
        if len(uris) > 25:
            return _error(400, "InvalidRequest", "Error: uris must not have more than 25 elements")
        return Answer.of({"posts": [view for uri in uris if (view := self._view(uri))]})

    def _view(self, uri: str) -> dict[str, Any] | None:
        rkey = uri.rpartition("/")[2]
        posts = self.posts()
        if rkey not in posts or rkey in self.unindexed:
            return None
        replies = sum(post.get("reply", {}).get("parent", {}).get("uri") == uri
                      for post in posts.values())  # fmt: skip
        told = {"likeCount": 0, "repostCount": 0, "replyCount": 0, "quoteCount": 0}
        told |= self.counts.get(rkey, {})
        told["replyCount"] += replies
        return {"uri": uri, "cid": cid_of(posts[rkey]), "record": posts[rkey], **told}


def _error(status: int, error: str, message: str, **headers: str) -> Answer:
    return Answer.of({"error": error, "message": message}, status, **headers)


def rate_limited(reset: datetime, **headers: str) -> Answer:
    """What the PDS's limiter answers; with `retry_after="7"` that header too."""
    told = {"ratelimit_limit": "30", "ratelimit_remaining": "0", "ratelimit_policy": "30;w=300"}
    told["ratelimit_reset"] = str(int(reset.timestamp()))
    return _error(429, "RateLimitExceeded", "Rate Limit Exceeded", **told, **headers)


def error(status: int, error: str, message: str = "") -> Answer:
    """An XRPC error."""
    return _error(status, error, message)


def cid_of(record: dict[str, Any]) -> str:
    """A record's content id."""
    return _cid(0x71, libipld.encode_dag_cbor(_ipld(record)))


def _cid(codec: int, content: bytes) -> str:
    return libipld.encode_cid(bytes([1, codec, 0x12, 32]) + hashlib.sha256(content).digest())


def _ipld(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$link"}:
            return libipld.decode_multibase(value["$link"])[1]
        return {name: _ipld(inner) for name, inner in value.items()}
    return [_ipld(inner) for inner in value] if isinstance(value, list) else value


def _blobs_in(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("$type") == "blob":
            return [value]
        return [blob for inner in value.values() for blob in _blobs_in(inner)]
    return []
