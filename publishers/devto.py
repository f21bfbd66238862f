"""
Dev.to, and every other site that runs Forem, through its API v1.

The API has no idempotency key, so an article is made as a draft that carries its run's id in the
closing line, the draft's id is noted, and that one id is published by an update that can be
repeated. Whatever an answer leaves open is looked up in the author's own articles. A second draft
may come of a create that took effect unseen; it stays a draft, and the note names it.

What an intent can have noted:

    (nothing)                  no create was sent, or it was refused
    creating                   a create may have been sent: look before sending one
    draft 17                   this article is the one to publish, whatever else there is
    draft 17, strays 18 19     the same, and drafts of the run that were left over
"""

from __future__ import annotations

import asyncio
import html
import json
import math
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import pairwise
from typing import Any

import httpx

from publishers.clock import Clock
from publishers.errors import Barred, OutcomeUnknown, PublisherError, Rejected, Transient
from publishers.port import Engagement, Intent, Note, Post, Receipt

API_V1 = "application/vnd.forem.api-v1+json"
# Forem answers 403 to the names that HTTP libraries give themselves.
USER_AGENT = "Penstock (autonomous publication; api client)"
# Nobody looks at an article between the model and the reader, unless the operator wants to.
DISCLOSURE = "fully_autonomous"

# Forem, app/models/article.rb and its locale file.
TITLE_MAX = 128
BODY_BYTES_MAX = 800 * 1024
TAGS_MAX = 4
TAG_MAX = 30
TAGS_TOGETHER_MAX = 126
# The same author cannot use a title twice within this, drafts included.
TITLE_WINDOW_S = 300.0

# Forem, config/initializers/rack_attack.rb, per key and per address; requests a span of seconds.
READS = ((3, 1.0), (30, 60.0))
WRITES = ((1, 1.0),)
# Where a 429 does not say for how long: the application's own counters run for 30 s.
REST_S = 30.0
REST_MAX_S = 86_400.0

ANSWER_BYTES_MAX = 5_000_000
# Articles a page. A listing carries whole texts; where so many are too large, fewer are asked for.
PAGE_SIZES = (100, 20, 4)
PAGES_MAX = 1_000
# A create is sent once more, after looks at once, 30 s and 120 s later; so is an update.
CREATES_MAX = 2
LOOKS_AFTER_S = (0.0, 30.0, 90.0)
SAID_CHARS_MAX = 300

_CREATING = "creating"
_NOTHING = ""
_ONE_ARTICLE = re.compile(r"/articles/\d+")
_DRAFT = re.compile(r"draft (\d+)\b")

_FRONT_MATTER = re.compile(r"[\s\ufeff]*(?:-{3,}|\+{3,}|;{3,})")
_LIQUID = re.compile(r"\{\\?[%{]")
# What Forem shields from Liquid (markdown_processor/parser.rb), tried in this order at each mark.
_CODE = re.compile(r"~~~.*?~~~|```.*?```|``.+?``|`.+?`", re.DOTALL)
_LIQUID_ERROR = re.compile(r"Liquid (?:syntax )?error[^<\n]*", re.IGNORECASE)
_TAG = re.compile(rf"[a-zA-Z0-9]{{1,{TAG_MAX}}}")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|“[^”]*”")
_SUSPENDED = re.compile(r"\b(?:account|user|you)\b.*\b(?:suspended|banned)\b", re.IGNORECASE)
_KEY = re.compile(r"[!-~]+")
_WAIT_WORDS = re.compile(r"in (\d{1,9}) seconds?")
_TEMPORARY_SLUG = "-temp-slug-"

# What Forem says to a post it will not take, in pieces that survive its edits, and what helps.
_REMEDIES = (
    ("five minutes", "wait until five minutes have passed"),
    (
        "been taken",
        "its canonical URL is on the site already; look whether the article is there, or withdraw"
        " the other one",
    ),
    ("maximum of 4 tags", "give it four tags at most"),
    ("alphanumeric", "give it tags of letters and digits only"),
    ("tag", "give it up to four short tags of letters and digits"),
    ("too long", f"a title has at most {TITLE_MAX} characters, a text 800 kB"),
    ("canonical", "look at PENSTOCK_SITE_URL: a canonical URL is public, http or https"),
    ("main image", "the cover is no address that the site takes"),
    ("ai_disclosure_level", "the site has changed its words for disclosure; upgrade Penstock"),
    ("mention", "take the @mentions out"),
    ("front matter", "the text must not begin with front matter"),
)


class _Lost(Exception):
    """A request may have taken effect, and nobody said so; the message says what came instead."""


class _TooLarge(_Lost):
    """More came than is read."""


class _TitleUsed(Rejected):
    """The author has an article of this title that is younger than five minutes."""


class _Missing(Rejected):
    """The author has no article of this id."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A whole answer; `document` is None where its body is no JSON."""

    status: int
    document: Any
    text: str
    retry_after: str | None
    redirects: bool

    @property
    def fields(self) -> Mapping[str, Any]:
        return self.document if isinstance(self.document, dict) else {}


@dataclass(frozen=True, slots=True)
class _Own:
    """One of the author's articles, as a listing shows it."""

    id: int
    published: bool
    url: str | None
    closing: str = field(repr=False)
    counts: Mapping[str, int]

    @property
    def receipt(self) -> Receipt:
        return Receipt(url=self.url, remote_id=str(self.id))


class DevTo:
    """
    A Forem site, as one author.

    One instance keeps the site's limits for all that is asked through it; one request is under way
    at a time.

    Args:
        key: an API key, as `usable_key` has it, else every request is Barred; it has no scope and
            no expiry.
        url: the site's root; `/api` is added.
        clock: for pacing, and for the waits between looks: 120 s at most, twice.
        timeout_s: for one whole answer, from the first connection to the last byte.
        series: the series every article is put into; "" for none.
        cover: the public address of an article's picture, http or https; None for none.
        tls: which certificates are trusted; None for httpx's own choice.
        transport: how bytes travel; None for real sockets.
    """

    name = "devto"
    public = True

    def __init__(
        self,
        key: str,
        *,
        clock: Clock,
        url: str = "https://dev.to",
        timeout_s: float = 20.0,
        series: str = "",
        cover: Callable[[Post], str | None] = lambda post: None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._root = url.rstrip("/")
        self._key = key
        self._clock = clock
        self._timeout_s = timeout_s
        self._series = series
        self._cover = cover
        self._turns = _Turns(clock)
        self._client = httpx.AsyncClient(
            transport=transport,
            verify=True if tls is None else tls,
            headers={
                "accept": API_V1,
                "accept-encoding": "identity",
                "api-key": key if usable_key(key) else "",
                "content-type": "application/json",
                "user-agent": USER_AGENT,
            },
            # No proxies or netrc from the environment: the operator named this URL and no other.
            trust_env=False,
            # The key goes where the operator said, and nowhere that an answer points to.
            follow_redirects=False,
            timeout=timeout_s,
            # A connection that was kept may be closed by the other side just as we send on it, and
            # then nobody can say whether the request was read.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Close the client; nothing is kept open between requests."""
        await self._client.aclose()

    def intend(self, post: Post) -> Intent:
        """Fix the request that makes the draft; the key is the run, whose id the text carries."""
        language = post.language.partition("-")[0].lower()
        optional = {
            "canonical_url": post.canonical_url,
            "series": self._series,
            "main_image": self._cover(post),
            "language": language if len(language) == 2 else None,
        }
        article = {
            "title": " ".join(post.title.split()),
            "description": " ".join(post.description.split()),
            "tags": list(post.tags),
            "body_markdown": unwrap(post.markdown),
            "published": False,
            "ai_disclosure_level": DISCLOSURE,
            **{name: value for name, value in optional.items() if value},
        }
        text = json.dumps({"article": article}, ensure_ascii=False, sort_keys=True)
        # Half a surrogate pair has no bytes in UTF-8; text from elsewhere may have one.
        return Intent(key=post.run, payload=text.encode("utf-8", "replace"))

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        """
        Make the draft, note it, look at how it was rendered, publish it.

        Raises:
            Transient, Barred: nothing is lost: asked again, it goes on where it was.
            Rejected: the site will not take it, or it renders wrongly; a draft stays a draft.
            OutcomeUnknown: it may be public, or a draft may exist that cannot be seen. Asked
                again, it looks first, so that it can be repeated then, too.
        """
        article = _fit(intent)
        noted = _noted(intent)
        draft, rendered = await self._draft(intent, note) if noted is None else (noted, None)
        try:
            return await self._release(draft, rendered, str(article["body_markdown"]), intent.key)
        except _Missing:
            # It may be public all the same, and the key another account's by now.
            if (receipt := await self._beyond(draft, intent.key)) is None:
                raise
            return receipt

    async def find(self, intent: Intent) -> Receipt | None:
        """
        The receipt, when the noted draft, or else another of the run, is public. Reads only.

        Raises:
            Transient: it cannot be read.
            Barred: nor that; or the noted article is public, and cannot be told for the run's.
        """
        own, noted = await self._own(), _noted(intent)
        candidates = [own[noted]] if noted in own else []
        candidates += _of_run(own, intent.key)
        receipt = next((seen.receipt for seen in candidates if seen.published), None)
        if receipt is None and noted is not None and noted not in own:
            return await self._beyond(noted, intent.key)
        return receipt

    async def withdraw(self, receipt: Receipt, reason: str) -> None:
        """Make an article a draft again, which its author still sees; the reason stays with us."""
        number = _number(receipt)
        if number is None:
            raise Rejected(f"{receipt.remote_id} is no article of Dev.to")
        if not self._is_hosted(receipt) and not _is_at((await self._own()).get(number), receipt):
            raise Barred(
                f"{receipt.url} is none of this key's articles at {self._root}: put back the"
                " DEVTO_URL and DEVTO_API_KEY with which it was published"
            )
        try:
            await self._switch(number, published=False, key=receipt.remote_id)
        except _Missing:
            # Another account's article is missing to this key as well.
            if await self._public(number) is not None:
                raise Barred(f"{number} is public, and not this key's to withdraw") from None

    async def engagement(self, receipts: Sequence[Receipt]) -> Sequence[Engagement]:
        """
        View, reaction and comment counts, of those that could be read and are Dev.to's.

        An article is gone where a listing shows it as a draft, or where a whole listing does not
        have it and the site does not show it either; what a broken listing lacks is left out, and
        what was published at another site.
        """
        numbers = {
            number: receipt for receipt in receipts if (number := _number(receipt)) is not None
        }
        if not numbers:
            return []
        own: dict[int, _Own] = {}
        whole = True
        try:
            async for page in self._pages():
                own.update(page)
        except Transient:
            if not own:
                raise
            whole = False
        found = []
        for number, receipt in numbers.items():
            seen = own.get(number)
            if not self._is_hosted(receipt) and not _is_at(seen, receipt):
                continue
            if seen is not None:
                counts = seen.counts if seen.published else {}
                found.append(Engagement(receipt.remote_id, counts, gone=not seen.published))
            elif whole:
                with suppress(PublisherError):
                    shown = await self._public(number)
                    counts = {} if shown is None else _counts(shown)
                    found.append(Engagement(receipt.remote_id, counts, gone=shown is None))
        return found

    # The draft

    async def _draft(self, intent: Intent, note: Note) -> tuple[int, str | None]:
        """The run's draft, noted, and its HTML where an answer showed it."""
        tried = intent.noted == _CREATING
        if tried and (found := await self._look(intent, note)):
            return found, None
        for _ in range(CREATES_MAX):
            await note(_CREATING)
            title_used: _TitleUsed | None = None
            try:
                made = _shown(await self._write("POST", "/articles", intent.payload))
            except _Lost:
                pass
            except _TitleUsed as error:
                # Most likely by the create before, or by that of a process that was killed.
                title_used = error
            except PublisherError:
                if not tried:
                    await note(_NOTHING)
                raise
            else:
                await note(f"draft {made['id']}")
                return made["id"], _text(made.get("body_html"))
            tried = True
            # The second create falls within the five minutes in which the first, should it still
            # be under way, makes the site refuse it. After that only a stray draft can come of it.
            if found := await self._look(intent, note):
                return found, None
            if title_used is not None:
                raise Transient(str(title_used), TITLE_WINDOW_S) from title_used
        raise OutcomeUnknown(
            f"Dev.to did not confirm the draft of run {intent.key}, and does not list it;"
            " nothing of it can be public",
            intent.key,
        )

    async def _look(self, intent: Intent, note: Note) -> int | None:
        """The run's article among the author's own, noted; None after three looks without it."""
        for pause_s in LOOKS_AFTER_S:
            await self._clock.sleep(pause_s)
            if found := _of_run(await self._own(), intent.key):
                kept, *strays = [seen.id for seen in found]
                named = f", strays {' '.join(map(str, strays))}" if strays else ""
                await note(f"draft {kept}{named}")
                return kept
        return None

    async def _rendered(self, draft: int) -> str | None:
        """A draft's HTML, which only the answer to a change shows: here to one of nothing."""
        try:
            shown = await self._update(draft, {"ai_disclosure_level": DISCLOSURE})
            return _text(shown.get("body_html"))
        except _Lost as error:
            raise Transient(f"Dev.to did not show the draft {draft}: {error}") from error

    async def _release(self, draft: int, rendered: str | None, markdown: str, run: str) -> Receipt:
        """
        Publish a draft that is rendered well.

        Args:
            rendered: its HTML; None where no answer has shown it yet.
        Raises:
            _Missing: the author has no such article.
        """
        if rendered is None:
            seen = (await self._own()).get(draft)
            if seen is not None and seen.published:
                return seen.receipt
            rendered = await self._rendered(draft)
        if broken := _liquid_error(rendered, markdown):
            raise Rejected(f"Dev.to renders it as “{broken}”; it is left as the draft {draft}")
        try:
            url = await self._switch(draft, published=True, key=run)
        except _Missing:
            raise
        except Rejected as error:
            raise Rejected(f"{error}; it is left as the draft {draft}") from error
        return Receipt(url=url, remote_id=str(draft))

    async def _switch(self, article: int, *, published: bool, key: str) -> str | None:
        """
        Make an article public, or a draft again, until it is seen to be; its address.

        Raises:
            _Missing: the author has no such article.
        """
        doubt: Exception | None = None
        for pause_s in LOOKS_AFTER_S:
            await self._clock.sleep(pause_s)
            try:
                shown = await self._update(article, {"published": published})
                state = _is_public(shown)
                if state is published or (state is None and not published):
                    return _address(shown.get("url"))
            except _Lost as error:
                doubt = error
            except _Missing:
                raise
            except PublisherError as error:
                if doubt is None:
                    raise
                doubt = error
            try:
                seen = (await self._own()).get(article)
            except Transient as error:
                doubt = doubt or error
                continue
            if seen is not None and seen.published is published:
                return seen.url
        if doubt is not None:
            raise OutcomeUnknown(f"Dev.to did not say whether it did it: {doubt}", key) from doubt
        still = "a draft" if published else "public"
        raise Barred(
            f"Dev.to took the update and left the article {article} {still}; does its text begin"
            f" with front matter? Look at it at {self._root}/dashboard"
        )

    # What the author has

    async def _own(self) -> dict[int, _Own]:
        """Every article of the author, drafts too; raises Transient where one may be missing."""
        own: dict[int, _Own] = {}
        async for page in self._pages():
            own.update(page)
        return own

    async def _pages(self) -> AsyncIterator[dict[int, _Own]]:
        for size in PAGE_SIZES:
            try:
                async for page in self._pages_of(size):
                    yield page
            except _TooLarge:
                # From the beginning: a page of another size begins elsewhere.
                continue
            return
        raise Transient("Dev.to lists articles that are too large to be read")

    async def _pages_of(self, size: int) -> AsyncIterator[dict[int, _Own]]:
        known: set[int] = set()
        for number in range(1, PAGES_MAX + 1):
            path = f"/articles/me/all?page={number}&per_page={size}"
            page = _listed(await self._read(path))
            # A site may give fewer a page than it is asked for, so only an empty one is the last.
            if page.keys() <= known:
                return
            known |= page.keys()
            yield page
        raise Transient(f"Dev.to lists more than {PAGES_MAX} pages, so that one may be missing")

    def _is_hosted(self, receipt: Receipt) -> bool:
        """
        Whether an article's address is on the API's own host, or unknown.

        Ids count from one at every site, so that after a change of DEVTO_URL they name strangers'
        articles. A site may have its articles on another host than its API, such as one for each
        subforem; those are known by `_is_at`.
        """
        return receipt.url is None or _origin(receipt.url) == _origin(self._root)

    # What readers are shown

    async def _beyond(self, article: int, run: str) -> Receipt | None:
        """
        The receipt of a noted article that is not the author's; None where it is not public.

        Raises:
            Transient: the site does not say whether it is.
            Barred: it is, and cannot be told for the run's.
        """
        shown = await self._public(article)
        if shown is None:
            return None
        if _carries(_closing(_text(shown.get("body_markdown")) or ""), run):
            return Receipt(url=_address(shown.get("url")), remote_id=str(article))
        raise Barred(
            f"the article {article} is public at {self._root}, and not this key's: put back the"
            f" DEVTO_API_KEY and DEVTO_URL with which run {run} made it"
        )

    async def _public(self, article: int) -> Mapping[str, Any] | None:
        """
        An article as readers have it; None where they have none of this id.

        Raises:
            Transient: the site does not say.
        """
        try:
            shown = (await self._read(f"/articles/{article}")).fields
        except _Missing:
            return None
        except (PublisherError, _Lost) as error:
            said = f"Dev.to does not say whether {article} is public: {error}"
            raise Transient(said, getattr(error, "retry_after_s", None)) from error
        if shown.get("id") != article:
            raise Transient(f"Dev.to shows something else than the article {article}")
        return shown

    # Requests

    async def _update(self, article: int, change: Mapping[str, Any]) -> Mapping[str, Any]:
        payload = json.dumps({"article": change}).encode()
        return _shown(await self._write("PUT", f"/articles/{article}", payload))

    async def _write(self, method: str, path: str, payload: bytes) -> _Answer:
        """
        Send a change.

        Raises:
            Transient, Barred, Rejected: it did not take effect.
            _Lost: it may have.
        """
        async with self._turns.write():
            answer = await self._send(method, path, payload)
        if answer.status >= 500 or answer.status == httpx.codes.REQUEST_TIMEOUT:
            raise _Lost(self._problem(answer))
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, path)
        return answer

    async def _read(self, path: str) -> _Answer:
        """
        Read something that is JSON.

        Raises:
            Transient, Barred: it cannot be read, whatever that says of the article in question.
            _Missing
            _TooLarge
        """
        try:
            async with self._turns.read():
                answer = await self._send("GET", path)
        except _TooLarge:
            raise
        except _Lost as error:
            raise Transient(f"Dev.to could not be read: {error}") from error
        if answer.status >= 500:
            raise Transient(self._problem(answer), self._rest_s(answer, None))
        if answer.status != httpx.codes.OK:
            refusal = self._refusal(answer, path)
            if isinstance(refusal, Rejected) and not isinstance(refusal, _Missing):
                # A look that is refused says nothing against the post that it is about.
                raise Transient(f"Dev.to could not be read: {refusal}")
            raise refusal
        if answer.document is None:
            raise Transient(f"Dev.to answers with something that is not JSON: {answer.text}")
        return answer

    async def _send(self, method: str, path: str, payload: bytes | None = None) -> _Answer:
        if not usable_key(self._key):
            raise Barred(
                "not sent to Dev.to: DEVTO_API_KEY is empty, or has spaces or characters that no"
                f" key has; copy it anew from {self._settings}"
            )
        url = f"{self._root}/api{path}"
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, url, content=payload) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise _TooLarge(f"more than {ANSWER_BYTES_MAX // 1_000_000} MB came")
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise _Lost(f"no whole answer in {self._timeout_s:g} s") from error
        except _NOTHING_SENT as error:
            raise Transient(f"Dev.to cannot be reached: {self._line(_named(error))}") from error
        except (httpx.HTTPError, OSError) as error:
            raise _Lost(self._line(_named(error))) from error
        document = _json(body)
        return _Answer(
            status=response.status_code,
            document=document,
            text=self._line(_words(document, body)),
            retry_after=response.headers.get("retry-after"),
            redirects=response.has_redirect_location,
        )

    def _refusal(self, answer: _Answer, path: str) -> PublisherError:
        """What an answer means that says that nothing was done."""
        problem, status = self._problem(answer), answer.status
        match status:
            case 429:
                return Transient(problem, self._rest_s(answer, REST_S))
            case 404 if answer.fields.get("error") and _ONE_ARTICLE.fullmatch(path):
                return _Missing(
                    f"{problem}; the author has no such article: it may be deleted, or"
                    " another account's than that of DEVTO_API_KEY"
                )
            case 400 | 413 | 422 if not _is_suspended(answer.text):
                said = answer.text.lower()
                remedy = next((help_ for piece, help_ in _REMEDIES if piece in said), "")
                told = f"{problem}; {remedy}" if remedy else problem
                return _TitleUsed(told) if "five minutes" in said else Rejected(told)
            case _:
                # It is us that the site refuses, not the post: a person acts, and it is sent then.
                return Barred(f"{problem}; {self._remedy(answer)}")

    def _remedy(self, answer: _Answer) -> str:
        if answer.redirects:
            return "it answers with a redirect: put the site's final URL in DEVTO_URL"
        if _is_suspended(answer.text):
            return "the account of DEVTO_API_KEY is suspended: write to the people who run the site"
        if answer.status == httpx.codes.UNAUTHORIZED:
            return (
                f"the key is refused: make a new one at {self._settings} for DEVTO_API_KEY, and"
                " look whether the account is suspended"
            )
        if answer.status == httpx.codes.FORBIDDEN:
            return (
                "it keeps this program, this address or the account of DEVTO_API_KEY out: ask the"
                f" people who run {self._root}"
            )
        if answer.status == httpx.codes.NOT_FOUND:
            return "there is no API of Forem there: look at DEVTO_URL"
        return "look at DEVTO_URL"

    @property
    def _settings(self) -> str:
        """Where the author makes keys."""
        return f"{self._root}/settings/extensions"

    def _problem(self, answer: _Answer) -> str:
        return f"Dev.to answers HTTP {answer.status}" + (f": {answer.text}" if answer.text else "")

    def _rest_s(self, answer: _Answer, otherwise: float | None) -> float | None:
        """The seconds an answer asks for, in its header or in its words."""
        text = (answer.retry_after or "").strip()
        if text.isascii() and text.isdecimal():
            return min(REST_MAX_S, float(text))
        try:
            until = parsedate_to_datetime(text)
            aware = until if until.tzinfo else until.replace(tzinfo=UTC)
            return min(REST_MAX_S, max(0.0, (aware - self._clock.now()).total_seconds()))
        except (ValueError, TypeError, OverflowError, IndexError):
            words = _WAIT_WORDS.search(answer.text)
            return min(REST_MAX_S, float(words[1])) if words else otherwise

    def _line(self, text: str) -> str:
        """Somebody else's words on one line, without our key."""
        shown = "".join(c if c.isprintable() else " " for c in text)
        if self._key:
            shown = shown.replace(self._key, "***")
        return " ".join(shown.split())[:SAID_CHARS_MAX]


# No connection was made, or the request was none, so nothing can have taken effect.
_NOTHING_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
)


class _Turns:
    """One request at a time, as far from those before as the site asks for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._one = asyncio.Lock()
        self._reads: deque[float] = deque(maxlen=max(count for count, _ in READS))
        self._writes: deque[float] = deque(maxlen=max(count for count, _ in WRITES))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        async with self._one, self._turn(self._reads, READS):
            yield

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        async with self._one, self._turn(self._writes, WRITES):
            yield

    @asynccontextmanager
    async def _turn(
        self, ended: deque[float], limits: Sequence[tuple[int, float]]
    ) -> AsyncIterator[None]:
        free_at = max(
            (ended[-count] + span_s for count, span_s in limits if len(ended) >= count),
            default=-math.inf,
        )
        wait_s = free_at - self._clock.monotonic()
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        try:
            yield
        finally:
            # From its end: one that was slow on the way arrived late, and the site counts arrivals.
            ended.append(self._clock.monotonic())


# Pure


def usable_key(key: str) -> bool:
    """Whether a key can be sent as a header: printable ASCII without spaces, and not empty."""
    return _KEY.fullmatch(key) is not None


def unwrap(markdown: str) -> str:
    """
    Markdown with every paragraph on one line, since Forem makes a break of every line's end.

    Hard breaks stay, and so does everything that is no paragraph. Where a text would read
    differently afterwards it is left as it is.
    """
    text = markdown.replace("\r\n", "\n").replace("\r", "\n")
    tokens = _parser().parse(text)
    lines = text.split("\n")
    for opening, inline in reversed(list(pairwise(tokens))):
        if opening.type == "paragraph_open" and inline.map:
            first, end = inline.map
            lines[first:end] = _on_one_line(lines[first:end], inline.content.split("\n"))
    unwrapped = "\n".join(lines)
    same = _parser().render(unwrapped) == _parser().render(text)
    return unwrapped if same else markdown


def _on_one_line(lines: Sequence[str], contents: Sequence[str]) -> list[str]:
    """A paragraph's lines joined; `contents` are the same without quote marks and indents."""
    if len(lines) != len(contents):
        return list(lines)
    joined = [lines[0]]
    for line, content in zip(lines[1:], contents[1:], strict=True):
        if joined[-1].endswith(("  ", "\\")):
            joined.append(line)
        else:
            joined[-1] = f"{joined[-1].rstrip()} {content.strip(' ')}"
    return joined


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("softbreak", lambda *_: " ")
    return parser


def _fit(intent: Intent) -> Mapping[str, Any]:
    """
    The article of an intent, for a last look before it leaves.

    Raises:
        Rejected: the site would refuse it, or do something else with it than is meant.
    """
    article: Mapping[str, Any] = json.loads(intent.payload)["article"]
    problem = next((say for fits, say in _rules(article, intent.key) if not fits), None)
    if problem is not None:
        raise Rejected(f"not sent to Dev.to: {problem}")
    assert article["published"] is False, "an article begins as a draft"
    return article


def _rules(article: Mapping[str, Any], run: str) -> list[tuple[bool, str]]:
    title, body, tags = article["title"], article["body_markdown"], article["tags"]
    canonical = article.get("canonical_url", "https://")
    return [
        (0 < len(title) <= TITLE_MAX, f"a title has 1 to {TITLE_MAX} characters"),
        (len(body.encode()) <= BODY_BYTES_MAX, "a text has at most 800 kB"),
        (
            len(tags) <= TAGS_MAX
            and len(", ".join(tags)) <= TAGS_TOGETHER_MAX
            and all(_TAG.fullmatch(tag) for tag in tags),
            f"it has up to {TAGS_MAX} tags of letters and digits, {TAG_MAX} characters each",
        ),
        (
            canonical.startswith(("http://", "https://")) and len(canonical.split()) == 1,
            "a canonical URL is http or https and has no space in it",
        ),
        (not _FRONT_MATTER.match(body), "it begins with front matter, which overrides the rest"),
        (not _opens_liquid(body), "it has {% or {{ outside code, which would be run"),
        (_carries(_closing(body), run), f"its closing line does not carry the run {run}"),
    ]


def _opens_liquid(markdown: str) -> bool:
    """Whether a template tag stands outside what Forem shields from Liquid."""
    # Tildes are shielded, too, but break when there are backticks within. Inside the raw block a
    # shield is made of, one word can end it.
    shown = _CODE.sub(lambda m: m[0] if m[0][0] == "~" or "endraw" in m[0] else " ", markdown)
    # Markdown comes first, and what it makes of an escape or an entity is what Liquid sees.
    return any(_LIQUID.search(text) for text in (shown, html.unescape(shown)))


def _liquid_error(rendered: str | None, markdown: str) -> str:
    """What stands where the text should, or within it; "" where it is well."""
    # An article may be about such errors, but does not begin with one.
    plain = re.sub(r"<[^>]*>", "", rendered or "").strip()
    error = _LIQUID_ERROR.search(rendered or "")
    if error is None:
        return ""
    told = error[0].lower()[:20] in markdown.lower() and not _LIQUID_ERROR.match(plain)
    return "" if told else html.unescape(error[0])[:SAID_CHARS_MAX].strip()


def _closing(markdown: str) -> str:
    """The last line that is not blank."""
    return markdown.rstrip().rpartition("\n")[2]


def _carries(line: str, run: str) -> bool:
    """Whether a closing line has the run's id, and no longer id that contains it."""
    return re.search(rf"(?<![\w-]){re.escape(run)}(?![\w-])", line) is not None


def _noted(intent: Intent) -> int | None:
    """The id of the draft that was noted."""
    noted = _DRAFT.match(intent.noted or "")
    return int(noted[1]) if noted else None


def _is_at(seen: _Own | None, receipt: Receipt) -> bool:
    """Whether a listed article is that of a receipt: its slug is the same for good."""
    if seen is None or seen.url is None or receipt.url is None:
        return seen is not None
    return _slug(seen.url) == _slug(receipt.url)


def _of_run(own: Mapping[int, _Own], run: str) -> list[_Own]:
    """A run's articles, what is public before what is not, the older before the younger."""
    return sorted(
        (seen for seen in own.values() if _carries(seen.closing, run)),
        key=lambda seen: (not seen.published, seen.id),
    )


def _listed(answer: _Answer) -> dict[int, _Own]:
    """A page of the author's articles; raises Transient where it is not quite that."""
    page = answer.document
    # What cannot be read may be the very one looked for, so that none of the rest counts either.
    if not isinstance(page, list) or not all(isinstance(item, dict) for item in page):
        raise Transient("Dev.to does not list articles as Forem does; look at DEVTO_URL")
    return {seen.id: seen for seen in map(_own, page)}


def _own(item: Mapping[str, Any]) -> _Own:
    number, published = item.get("id"), item.get("published")
    if type(number) is not int or not isinstance(published, bool):
        raise Transient("Dev.to lists an article without its id or its state")
    return _Own(
        id=number,
        published=published,
        url=_address(item.get("url")),
        closing=_closing(_text(item.get("body_markdown")) or ""),
        counts=_counts(item),
    )


def _counts(item: Mapping[str, Any]) -> dict[str, int]:
    named = {
        "view": item.get("page_views_count"),
        "reaction": item.get("public_reactions_count"),
        "comment": item.get("comments_count"),
    }
    return {
        metric: count for metric, count in named.items() if type(count) is int and count >= 0
    }  # fmt: skip


def _shown(answer: _Answer) -> Mapping[str, Any]:
    """The article an update answers with; raises _Lost where that is something else."""
    if type(answer.fields.get("id")) is not int:
        raise _Lost(f"HTTP {answer.status} with something that is no article: {answer.text}")
    return answer.fields


def _is_public(shown: Mapping[str, Any]) -> bool | None:
    """Whether readers can see the article of an answer, with its final address; None: unsaid."""
    if _TEMPORARY_SLUG in str(shown.get("slug")) + str(shown.get("url")):
        return None
    if isinstance(said := shown.get("published", shown.get("published_timestamp")), bool | str):
        return bool(said)
    return None


def _number(receipt: Receipt) -> int | None:
    """The id of an article; None for a receipt that is none of Dev.to's."""
    remote_id = receipt.remote_id
    ours = remote_id.isascii() and remote_id.isdecimal() and len(remote_id) < 20
    return int(remote_id) if ours else None


def _address(value: object) -> str | None:
    usable = isinstance(value, str) and value.startswith(("http://", "https://"))
    return str(value) if usable else None


def _origin(url: str) -> tuple[str, int | None] | None:
    """Host and port of an address; None where it is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return None
    return parsed.host, parsed.port


def _slug(url: str) -> str:
    """The last part of an article's address, which has characters drawn for it alone."""
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_suspended(said: str) -> bool:
    """Whether an answer is about the account, and not about a word of the post that it quotes."""
    return _SUSPENDED.search(_QUOTED.sub("", said)) is not None


def _json(body: bytes | bytearray) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(document: Any, body: bytes | bytearray) -> str:
    """What an answer says about itself, for people; a web page says nothing."""
    if isinstance(document, dict):
        said = document.get("error") or document.get("message") or ""
        return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    text = body[: 4 * SAID_CHARS_MAX].decode("utf-8", "replace").strip()
    return "a web page" if text.startswith("<") else text


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
