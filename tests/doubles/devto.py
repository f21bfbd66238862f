"""
A Forem site with one author: drafts, titles that rest for five minutes, throttles, late listings.

It behaves as Forem's source and reports of its users say, and misbehaves as told.
"""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from tests.doubles.wire import Answer, Fault, Request

KEY = "devto-test-key"
EPOCH = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
V1 = "application/vnd.forem.api-v1+json"
PERMITTED = (
    "title", "body_markdown", "published", "series", "main_image", "canonical_url", "description",
    "tags", "published_at", "subforem_id", "language", "ai_disclosure_level",
)  # fmt: skip
PAGE = b"<!DOCTYPE html>\n<html><head><title>We are offline</title></head><body>Soon</body></html>"
READS = ((3, 1.0), (30, 60.0))
WRITES = ((1, 1.0),)
_LIBRARIES = re.compile(r"python|httpx|requests|curl|wget|go-http|java|okhttp", re.IGNORECASE)
_CODE = re.compile(r"```.*?```|``.+?``|`.+?`", re.DOTALL)
_LIQUID_TAG = re.compile(r"\{%-?\s*(\w*)")
_FRONT_MATTER = re.compile(r"\A\s*---\n(.*?)\n---\n", re.DOTALL)

Kind = Literal[
    "status",  # code=…, retry_after=None, body=None (a JSON value, or text); nothing is done
    "status_after",  # the same once it is done
    "edge_429",  # plain text, retry_after=None
    "app_429",  # JSON that says how long, retry_after=None
    "reset_before",
    "reset_after",
    "drop_before",
    "drop_after",
    "cut_after",  # half a body
    "stall_after",  # half a body, then silence
    "stall_before",  # silence, and nothing is done
    "html_after",  # 200 and a web page
    "text_after",
    "empty_after",
    "wrong_after",  # JSON of another shape
    "huge_after",  # a body without an end
    "deep_after",
    "redirect",
    "ignored",  # it answers as if it had done it
]
BEFORE = (
    "status",
    "edge_429",
    "app_429",
    "reset_before",
    "drop_before",
    "stall_before",
    "redirect",
)
_CARRIED = {
    "reset_before": Fault.RESET,
    "drop_before": Fault.DROP,
    "stall_before": Fault.STALL,
    "reset_after": Fault.RESET,
    "drop_after": Fault.DROP,
    "cut_after": Fault.CUT,
    "stall_after": Fault.STALL,
}
_BODIES = {
    "html_after": Answer(200, {"content-type": "text/html"}, PAGE),
    "text_after": Answer(200, {"content-type": "text/plain"}, b"OK"),
    "empty_after": Answer(200, {"content-type": "application/json"}, b""),
    "wrong_after": Answer.of({"articles": {"17": None}}),
    "huge_after": Answer(200, {"content-type": "application/json"}, b" ", endless=True),
    "deep_after": Answer(200, {"content-type": "application/json"}, b"[" * 200_000),
}


@dataclass(slots=True)
class Article:
    """One article; times are the double's seconds."""

    id: int
    fields: dict[str, Any]
    created_at: float
    slug: str
    published_at: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    states: list[tuple[float, bool, str]] = field(default_factory=list)
    by: str = ""  # the author, or the key of another account

    @property
    def published(self) -> bool:
        return bool(self.fields["published"])

    def seen_at(self, at: float) -> tuple[bool, str] | None:
        """Its state and slug as they were; None before it was made."""
        then = [(state, slug) for since, state, slug in self.states if since <= at]
        return then[-1] if then else None


@dataclass(slots=True)
class Trouble:
    """One arranged misbehaviour; `after` matching requests pass first, None times is for ever."""

    kind: Kind
    method: str | None
    times: int | None
    after: int
    details: dict[str, Any]


class Invalid(Exception):
    """A validation failed; the message is Forem's."""


class DevToDouble:
    """
    Args:
        now: seconds that never run backwards, the client's own where that lives in virtual time.
        throttled: keep Forem's limits, over any span of time and not only whole seconds.
        list_delay_s: how far its listings lag behind what was made and published.
        page_max: API_PER_PAGE_MAX.
        shows_single: whether `/articles/{id}` finds what is public; reports say not always.
        domain: where its articles are, which need not be where it was asked.

    `key` is the author's now; `others` are keys of other accounts, and name those who hold them.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        *,
        epoch: datetime = EPOCH,
        key: str = KEY,
        throttled: bool = True,
        list_delay_s: float = 0.0,
        page_max: int = 1000,
        shows_single: bool = True,
        domain: str = "dev.to",
    ) -> None:
        self.now = now
        self.epoch = epoch
        self.key = key
        self.throttled = throttled
        self.list_delay_s = list_delay_s
        self.page_max = page_max
        self.shows_single = shows_single
        self.domain = domain
        self.others: set[str] = set()
        self.articles: dict[int, Article] = {}
        self.taken_canonicals: set[str] = set()  # by other authors
        self.requests: list[Request] = []
        self.troubles: list[Trouble] = []
        self.throttles = 0
        self.public_most = 0  # articles that were public at one time
        self._reads: list[float] = []
        self._writes: list[float] = []

    @property
    def public(self) -> list[Article]:
        """What readers can see."""
        return [article for article in self.articles.values() if article.published]

    @property
    def drafts(self) -> list[Article]:
        return [article for article in self.articles.values() if not article.published]

    def sent(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]

    def misbehave(
        self,
        kind: Kind,
        *,
        method: str | None = None,
        times: int | None = 1,
        after: int = 0,
        **details: Any,
    ) -> None:
        """Arrange trouble for the requests of a method, or of any; the first that is due wins."""
        if kind not in get_args(Kind):
            raise ValueError(f"unknown misbehaviour {kind!r}")
        self.troubles.append(Trouble(kind, method, times, after, details))

    def write(self, title: str, body: str, *, published: bool = False) -> Article:
        """An article by the author's own hand."""
        return self._create({"title": title, "body_markdown": body, "published": published})

    def turn(self, number: int, published: bool) -> None:
        """Publish or unpublish by the author's or a moderator's hand."""
        self._save(self.articles[number], {"published": published})

    def delete(self, number: int) -> None:
        del self.articles[number]

    def read_by_people(self, number: int, **counts: int) -> None:
        """Set page_views_count, public_reactions_count or comments_count."""
        self.articles[number].counts.update(counts)

    async def handle(self, request: Request) -> Answer:
        """Answer as Forem does, or go wrong as arranged."""
        self.requests.append(request)
        if (refusal := self._at_the_edge(request)) is not None:
            return refusal
        trouble = self._due(request)
        if trouble is not None and trouble.kind in BEFORE:
            return _instead(trouble, Answer.of({}))
        if trouble is not None and trouble.kind == "ignored":
            number = int(request.path.rpartition("/")[2])
            return Answer.of(self._show(self.articles[number]))
        answer = self._answer(request)
        return answer if trouble is None else _instead(trouble, answer)

    def _due(self, request: Request) -> Trouble | None:
        for trouble in self.troubles:
            if trouble.method not in (None, request.method) or trouble.times == 0:
                continue
            if trouble.after > 0:
                trouble.after -= 1
                continue
            if trouble.times is not None:
                trouble.times -= 1
            return trouble
        return None

    def _at_the_edge(self, request: Request) -> Answer | None:
        agent = request.headers.get("user-agent", "")
        if not agent or _LIBRARIES.search(agent):
            return Answer(403, {"content-type": "text/plain"}, b"Forbidden Bots\n")
        if not self.throttled:
            return None
        writes = request.method != "GET"
        past, limits = (self._writes, WRITES) if writes else (self._reads, READS)
        now = self.now()
        for count, span_s in limits:
            if len(past) >= count and now - past[-count] < span_s:
                self.throttles += 1
                wait = {"retry-after": str(int(span_s)), "content-type": "text/plain"}
                return Answer(429, wait, b"Retry later\n")
        past.append(now)
        return None

    def _answer(self, request: Request) -> Answer:
        key = request.headers.get("api-key", "")
        if key != self.key and key not in self.others:
            return _error(401, "unauthorized")
        asks = "" if key == self.key else key
        if request.headers.get("accept") != V1:
            return Answer.of({"error": "this double speaks API v1 only", "status": 406}, 406)
        match request.method, request.path.removeprefix("/api").split("/")[1:]:
            case "POST", ["articles"]:
                return self._saved(request, None, asks)
            case "PUT", ["articles", number] if number.isdecimal():
                article = self.articles.get(int(number))
                if article is None or article.by != asks:
                    return _error(404, "not found")
                return self._saved(request, article, asks)
            case "GET", ["articles", "me", "all"]:
                return self._list(request.query, asks)
            case "GET", ["articles", number] if number.isdecimal():
                article = self.articles.get(int(number))
                if article is None or not article.published or not self.shows_single:
                    return _error(404, "not found")
                return Answer.of(self._show(article))
            case _:
                return Answer(404, {"content-type": "text/html"}, PAGE)

    def _saved(self, request: Request, article: Article | None, asks: str) -> Answer:
        try:
            given = request.json["article"]
            assert isinstance(given, dict)
        except (ValueError, KeyError, TypeError, AssertionError):
            return _error(
                422, "article param must be a JSON object. You provided article as a String"
            )
        permitted = {name: value for name, value in given.items() if name in PERMITTED}
        if not isinstance(permitted.get("tags", []), list):
            del permitted["tags"]
        if article is None and not permitted.get("ai_disclosure_level"):
            return _error(422, "ai_disclosure_level is required when creating an article.")
        try:
            if article is None:
                made = self._create(permitted, asks)
                return Answer.of(self._show(made), 201)
            self._save(article, permitted)
            return Answer.of(self._show(article))
        except Invalid as invalid:
            return _error(422, str(invalid))

    def _create(self, given: Mapping[str, Any], by: str = "") -> Article:
        number = 1_000_001 + max((n - 1_000_000 for n in self.articles), default=0)
        article = Article(number, {"published": False, "tags": []}, self.now(), "", by=by)
        self._save(article, given)
        self.articles[number] = article
        self.public_most = max(self.public_most, len(self.public))
        return article

    def _save(self, article: Article, given: Mapping[str, Any]) -> None:
        fields = {**article.fields, **given}
        matter = _FRONT_MATTER.match(fields.get("body_markdown", ""))
        # It is applied at each validation, so it beats what is sent beside it.
        if state := re.search(r"(?m)^published:\s*(true|false)$", matter[1] if matter else ""):
            fields["published"] = state[1] == "true"
        fields["title"] = " ".join(str(fields.get("title", "")).split())
        self._validate(article, fields)
        article.fields = fields
        stem = re.sub(r"[^a-z0-9]+", "-", fields["title"].lower()).strip("-")[:100]
        if article.published and (not article.slug or "-temp-slug-" in article.slug):
            article.slug = f"{stem}-{article.id % 1000:x}"
        elif not article.slug:
            article.slug = f"{stem}-temp-slug-{article.id * 7919 % 10_000_000}"
        if article.published and article.published_at is None:
            article.published_at = self.now()
        article.states.append((self.now(), article.published, article.slug))
        self.public_most = max(self.public_most, len(self.public))

    def _validate(self, article: Article, fields: Mapping[str, Any]) -> None:
        title, tags = fields["title"], fields["tags"]
        if not title:
            raise Invalid("Title can't be blank")
        if len(title) > 128:
            raise Invalid("Title is too long (maximum is 128 characters for full_post)")
        if article.id not in self.articles and any(
            other.by == article.by
            and other.fields["title"] == title
            and self.now() - other.created_at < 300
            for other in self.articles.values()
        ):
            raise Invalid("Title has already been used in the last five minutes")
        if len(fields.get("body_markdown", "").encode()) > 800 * 1024:
            raise Invalid("Body markdown is too long.")
        if len(tags) > 4:
            raise Invalid("Tag list exceed the maximum of 4 tags")
        for tag in tags:
            if not re.fullmatch(r"[a-zA-Z0-9]{1,30}", tag):
                raise Invalid(
                    f'Tag "{tag}" contains non-alphanumeric or prohibited unicode characters'
                )
        canonical = fields.get("canonical_url")
        if canonical and fields["published"]:
            own = {
                other.fields.get("canonical_url") for other in self.public if other is not article
            }
            if canonical in self.taken_canonicals | own:
                raise Invalid(
                    "Canonical url has already been taken."
                    " Email support@dev.to for further details."
                )

    def _list(self, query: Mapping[str, str], asks: str) -> Answer:
        seen_at = self.now() - self.list_delay_s
        listed = [
            (article, *state)
            for article in self.articles.values()
            if article.by == asks and (state := article.seen_at(seen_at)) is not None
        ]
        # PostgreSQL sorts nulls first when descending, so that drafts come before what is public.
        listed.sort(
            key=lambda entry: (
                entry[0].published_at is None,
                entry[0].published_at or 0.0,
                entry[0].created_at,
            ),
            reverse=True,
        )
        size = min(int(query.get("per_page", "30")), self.page_max)
        first = (int(query.get("page", "1")) - 1) * size
        page = listed[first : first + size]
        return Answer.of([self._mine(article, state, slug) for article, state, slug in page])

    def _mine(self, article: Article, published: bool, slug: str) -> dict[str, Any]:
        counts = {"page_views_count": 0, "public_reactions_count": 0, "comments_count": 0}
        return {
            **counts, **article.counts, **self._always(article, published, slug),
            "published": published,
            "tag_list": article.fields["tags"],
        }  # fmt: skip

    def _show(self, article: Article) -> dict[str, Any]:
        return {
            "public_reactions_count": 0, "comments_count": 0, **article.counts,
            **self._always(article, article.published, article.slug),
            "tag_list": ", ".join(article.fields["tags"]), "tags": article.fields["tags"],
            "body_html": render(article.fields.get("body_markdown", "")),
        }  # fmt: skip

    def _always(self, article: Article, published: bool, slug: str) -> dict[str, Any]:
        at = article.published_at
        stamp = None if at is None else f"{self.epoch + timedelta(seconds=at):%Y-%m-%dT%H:%M:%SZ}"
        url = f"https://{self.domain}/penstock/{slug}"
        return {
            "type_of": "article", "id": article.id, "title": article.fields["title"],
            "description": article.fields.get("description") or "", "slug": slug,
            "path": f"/penstock/{slug}", "url": url,
            "canonical_url": article.fields.get("canonical_url") or url,
            "published_at": stamp, "published_timestamp": stamp if published else "",
            "body_markdown": article.fields.get("body_markdown", ""),
            "ai_disclosure_level": article.fields.get("ai_disclosure_level", "not_disclosed"),
        }  # fmt: skip


def render(markdown: str) -> str:
    """HTML as Forem's, as far as it matters: a Liquid error stands in the place of everything."""
    if tag := _LIQUID_TAG.search(_CODE.sub(" ", markdown)):
        return f"Liquid syntax error: Unknown tag '{tag[1]}'\n"
    paragraphs = re.split(r"\n{2,}", _FRONT_MATTER.sub("", markdown).strip())
    return "\n".join(f"<p>{html.escape(p).replace(chr(10), '<br>')}</p>" for p in paragraphs)


def _error(status: int, said: str) -> Answer:
    return Answer.of({"error": said, "status": status}, status)


def _instead(trouble: Trouble, answer: Answer) -> Answer:
    """The answer as the trouble spoils it."""
    details = trouble.details
    wait = {"retry-after": details["retry_after"]} if details.get("retry_after") else {}
    match trouble.kind:
        case "status" | "status_after":
            said = details.get("body")
            if isinstance(said, str):
                kind = "text/html" if said.startswith("<") else "text/plain"
                return Answer(details["code"], {"content-type": kind, **wait}, said.encode())
            body = said if said is not None else {"error": "…", "status": details["code"]}
            raw = json.dumps(body).encode()
            return Answer(details["code"], {"content-type": "application/json", **wait}, raw)
        case "edge_429":
            return Answer(429, {"content-type": "text/plain", **wait}, b"Retry later\n")
        case "app_429":
            said = f"Rate limit reached, try again in {details.get('seconds', 30)} seconds"
            raw = json.dumps({"error": said, "status": 429}).encode()
            return Answer(429, {"content-type": "application/json", **wait}, raw)
        case "redirect":
            return Answer(301, {"location": "https://www.dev.to/"}, b"")
        case kind if kind in _CARRIED:
            return replace(answer, fault=_CARRIED[kind])
        case kind:
            return _BODIES[kind]
