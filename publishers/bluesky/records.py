"""
What goes into the account's repository, byte for byte, and nothing that asks the time or the net.

A record's content id (CID) is the hash of its DAG-CBOR, and a blob's that of its bytes, so both are
known before anything is sent: the replies of a thread and the picture of a card are written with
references to what is not there yet, and the service's answers are checked against them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import regex

from publishers.port import Intent, Post, Receipt

POSTS = "app.bsky.feed.post"
PROFILES = "app.bsky.actor.profile"
# app.bsky.feed.post: both bounds hold.
GRAPHEMES_MAX = 300
BYTES_MAX = 3_000
# app.bsky.embed.external
THUMB_BYTES_MAX = 1_000_000

Record: TypeAlias = dict[str, Any]

_BASE32_SORTABLE = "234567abcdefghijklmnopqrstuvwxyz"
_TID_CHARS = 13
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RAW, _DAG_CBOR = 0x55, 0x71
_SHA2_256 = b"\x12\x20"
_PNG = b"\x89PNG\r\n\x1a\n"
_GRAPHEME = regex.compile(r"\X")
_ADDRESS = re.compile(r"https?://[^\s<>\"]+")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_REMOTE_ID = re.compile(
    rf"at://(?P<did>did:[a-z]+:[\w.:%-]+)/{re.escape(POSTS)}/"
    r"(?P<rkeys>[2-7a-z]{13}( [2-7a-z]{13})*)"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """
    An intent, read back: what will be posted, as far as it does not depend on who posts it.

    Args:
        posts: keys and records in order; `reply` is added by `thread`, since it names the account.
        thumb: the picture of the first post's card, PNG.
    """

    posts: tuple[tuple[str, Record], ...]
    thumb: bytes | None


@dataclass(frozen=True, slots=True)
class Planned:
    """One post of a thread as it will stand in the account's repository."""

    rkey: str
    uri: str
    cid: str
    record: Record


@dataclass(frozen=True, slots=True)
class Landed:
    """The posts that a receipt stands for."""

    did: str
    rkeys: tuple[str, ...]

    @property
    def uris(self) -> tuple[str, ...]:
        """Their addresses in the network, in order."""
        return tuple(uri(self.did, rkey) for rkey in self.rkeys)


def intend(post: Post) -> Intent:
    """
    The intent of a post: the same for the same post, whenever it is asked for.

    Its key is the first record's. Keys follow from the run alone, when it began and what it is
    called, so that an intent made twice, on two days and with other words, has the same ones. A
    picture that no card can hold (no PNG, or too large) is left out here, because a record is
    frozen with its picture and would be refused for it later.
    """
    texts = [fitting for text in post.announcement if (fitting := fit(text))]
    thumb = post.card if _is_thumb(post.card) and _is_web(post.link) else None
    posts = []
    keys: list[str] = []
    for number, text in enumerate(texts or [fit(post.title)]):
        record: Record = {"$type": POSTS, "text": text}
        if facets := list(_facets(text)):
            record["facets"] = facets
        if number == 0 and _is_web(post.link):
            record["embed"] = _card(post, thumb)
        if _LANGUAGE.fullmatch(post.language):
            record["langs"] = [post.language]
        # A millisecond apart, since that is as fine as createdAt is read.
        record["createdAt"] = _iso(post.at + timedelta(milliseconds=number))
        begun = (post.begun or post.at) + timedelta(microseconds=number)
        keys.append(tid(begun, _clock_id(post.run)))
        posts.append({"rkey": keys[-1], "record": record})
    payload: dict[str, Any] = {"run": post.run, "posts": posts}
    if thumb is not None:
        payload["thumb"] = base64.b64encode(thumb).decode()
    written = json.dumps(payload, ensure_ascii=False, sort_keys=True, indent=1)
    return Intent(key=keys[0], payload=written.encode("utf-8", "replace"))


def plan(intent: Intent) -> Plan:
    """Read an intent back. Raises ValueError where it is none of ours."""
    try:
        stored = json.loads(intent.payload)
        posts = tuple((str(post["rkey"]), dict(post["record"])) for post in stored["posts"])
        thumb = base64.b64decode(stored["thumb"]) if "thumb" in stored else None
    except (KeyError, TypeError) as error:
        raise ValueError(f"the intent has no {error}") from error
    if not posts:
        raise ValueError("the intent has no posts")
    return Plan(posts, thumb)


def thread(planned: Plan, did: str) -> list[Planned]:
    """The posts of a plan in one account's repository, each but the first a reply to the last."""
    posts: list[Planned] = []
    for rkey, record in planned.posts:
        whole = dict(record)
        if posts:
            whole["reply"] = {"root": _reference(posts[0]), "parent": _reference(posts[-1])}
        posts.append(Planned(rkey, uri(did, rkey), record_cid(whole), whole))
    return posts


def uri(did: str, rkey: str) -> str:
    """The address of a post in the network."""
    return f"at://{did}/{POSTS}/{rkey}"


def receipt(did: str, handle: str, rkeys: Sequence[str]) -> Receipt:
    """
    Where posts are.

    The remote id is the first one's address, with the keys of the others after it, if any. A
    handle can pass to somebody else or stop resolving, so where there is none the DID stands.
    """
    who = did if handle in ("", "handle.invalid") else handle
    return Receipt(
        url=f"https://bsky.app/profile/{who}/post/{rkeys[0]}",
        remote_id=" ".join([uri(did, rkeys[0]), *rkeys[1:]]),
    )


def landed(receipt: Receipt) -> Landed:
    """The posts of a receipt. Raises ValueError where it is none of ours."""
    match = _REMOTE_ID.fullmatch(receipt.remote_id)
    if match is None:
        raise ValueError(f"{receipt.remote_id!r} is no post on Bluesky")
    return Landed(match["did"], tuple(match["rkeys"].split(" ")))


# Texts


def fit(text: str) -> str:
    """The text with at most 300 graphemes and 3,000 bytes, cut after a word if it must be cut."""
    # Half a surrogate pair has no bytes in UTF-8.
    text = text.encode("utf-8", "replace").decode().strip()
    if len(_GRAPHEME.findall(text)) <= GRAPHEMES_MAX and len(text.encode()) <= BYTES_MAX:
        return text
    kept, size = "", len("…".encode())
    for grapheme in _GRAPHEME.findall(text)[: GRAPHEMES_MAX - 1]:
        size += len(grapheme.encode())
        if size > BYTES_MAX:
            break
        kept += grapheme
    if not text[len(kept) : len(kept) + 1].isspace():
        words = kept.rstrip().rpartition(" ")[0]
        # A script without spaces, or one endless word, is cut where it is full.
        kept = words if len(words) > len(kept) // 2 else kept
    return kept.rstrip(" \t\r\n,;:–—-") + "…"


def _facets(text: str) -> Iterator[Record]:
    """
    Links for the addresses in a text, by their place in its UTF-8.

    A PDS takes a facet that begins within a character or ends past the text (measured), so each is
    checked here.
    """
    for found in _ADDRESS.finditer(text):
        address = found[0].rstrip(".,;:!?)]}'’”…")
        if text[found.start() :].startswith(f"{address}…"):
            continue  # it was cut and leads nowhere
        start = len(text[: found.start()].encode())
        end = start + len(address.encode())
        assert text.encode()[start:end] == address.encode()
        yield {
            "index": {"byteStart": start, "byteEnd": end},
            "features": [{"$type": "app.bsky.richtext.facet#link", "uri": address}],
        }


def _card(post: Post, thumb: bytes | None) -> Record:
    external: Record = {"uri": post.link, "title": post.title, "description": post.description}
    if thumb is not None:
        external["thumb"] = blob(thumb)
    return {"$type": "app.bsky.embed.external", "external": external}


def _is_thumb(picture: bytes | None) -> bool:
    # The service looks at the bytes and calls them what they are, whatever we call them.
    return bool(picture and picture.startswith(_PNG) and len(picture) <= THUMB_BYTES_MAX)


def _is_web(address: str | None) -> bool:
    return bool(address and address.startswith(("https://", "http://")))


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Identifiers


def tid(at: datetime, clock_id: int) -> str:
    """
    A record key that sorts by time.

    Args:
        clock_id: 0 to 1023; tells apart who mints in the same microsecond.
    Source: https://atproto.com/specs/tid, and syntax/src/tid.ts of bluesky-social/atproto.
    """
    return _tid(((at - _EPOCH) // timedelta(microseconds=1)) << 10 | clock_id)


def next_tid(key: str) -> str:
    """The key of the same clock a microsecond later."""
    number = 0
    for letter in key:
        number = number << 5 | _BASE32_SORTABLE.index(letter)
    return _tid(number + (1 << 10))


def _tid(number: int) -> str:
    letters = (_BASE32_SORTABLE[number >> 5 * place & 31] for place in range(_TID_CHARS))
    return "".join(letters)[::-1]


def _clock_id(run: str) -> int:
    return int.from_bytes(hashlib.sha256(run.encode("utf-8", "replace")).digest()[:2]) & 1023


def blob(content: bytes) -> Record:
    """The reference to a PNG that will have been uploaded."""
    link = _cid(_RAW, content)
    return {
        "$type": "blob", "ref": {"$link": link}, "mimeType": "image/png", "size": len(content),
    }  # fmt: skip


def record_cid(record: Record) -> str:
    """
    The content id of a record given as JSON.

    Source: https://atproto.com/specs/data-model; the tests compare it with a real PDS.
    """
    # In 0.0.73 the SDK can decode DAG-CBOR only; libipld, which it decodes with, encodes it too.
    import libipld

    return _cid(_DAG_CBOR, libipld.encode_dag_cbor(_ipld(record)))


def _ipld(value: Any) -> Any:
    """JSON as the data model has it: {"$link": …} is a CID, which libipld takes as its bytes."""
    if isinstance(value, dict):
        if value.keys() == {"$link"}:
            text = value["$link"][1:].upper()
            return base64.b32decode(text + "=" * (-len(text) % 8))
        return {name: _ipld(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_ipld(inner) for inner in value]
    return value


def _cid(codec: int, content: bytes) -> str:
    raw = bytes([1, codec]) + _SHA2_256 + hashlib.sha256(content).digest()
    return "b" + base64.b32encode(raw).decode().rstrip("=").lower()


def _reference(post: Planned) -> Record:
    return {"uri": post.uri, "cid": post.cid}
