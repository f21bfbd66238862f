"""A web site: files below a folder, pages by path, validators, and bodies without an end."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path, PurePosixPath

from tests.doubles.wire import Answer, Fault, Request

CONTENT_TYPES = {
    ".xml": "application/xml",
    ".html": "text/html; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page; without a content type the ending of its path decides."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    modified: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    fault: Fault = Fault.NONE
    delay_s: float = 0.0
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, and when it came by the clock of the loop that served it."""

    path: str
    at_s: float
    headers: Mapping[str, str]


class SiteDouble:
    """
    A site that counts its visitors.

    Robots ask for /robots.txt before anything else. `visits` has every request; `hits` and `seen`
    leave that one out, so that a test which is not about robots counts pages.

    Args:
        root: A folder whose files are served; nothing outside it ever is.
        pages: Pages by decoded path, with or without a query; they win over files and may be
            changed while the site is up.
        rewrite: (text, base): text is replaced in XML and HTML; a base of "{self}" stands
            for the address the client used.
    """

    def __init__(
        self,
        root: Path | None = None,
        pages: dict[str, Page | bytes | str] | None = None,
        rewrite: tuple[str, str] | None = None,
    ) -> None:
        self.root = root.resolve() if root else None
        self.pages = pages if pages is not None else {}
        self.rewrite = rewrite
        self.hits: Counter[str] = Counter()
        self.seen: list[tuple[str, Mapping[str, str]]] = []
        self.visits: list[Visit] = []

    async def handle(self, request: Request) -> Answer:
        """Serve a page, or 304 where the client's copy is current, or 404."""
        now_s = asyncio.get_running_loop().time()
        self.visits.append(Visit(request.path, now_s, request.headers))
        if request.path != "/robots.txt":
            self.hits[request.path] += 1
            self.seen.append((request.path, request.headers))
        if request.method not in ("GET", "HEAD"):
            return Answer(405, {"allow": "GET, HEAD"})
        page = self._find(request)
        if page is None:
            return Answer(404, {"content-type": "text/plain"}, b"not found\n")
        return _answer(request, self._rewritten(page, request))

    def _find(self, request: Request) -> Page | None:
        _, _, query = request.target.partition("?")
        found = self.pages.get(f"{request.path}?{query}", self.pages.get(request.path))
        if found is None:
            found = self._read(request.path)
        if found is None:
            return None
        if isinstance(found, str):
            found = found.encode()
        page = found if isinstance(found, Page) else Page(found)
        return replace(page, content_type=page.content_type or _content_type(request.path))

    def _read(self, path: str) -> Page | None:
        if self.root is None or "\0" in path:
            return None
        file = (self.root / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.root) or not file.is_file():
            return None
        modified = datetime.fromtimestamp(int(file.stat().st_mtime), UTC)
        return Page(file.read_bytes(), modified=modified)

    def _rewritten(self, page: Page, request: Request) -> Page:
        kind = page.content_type or ""
        if self.rewrite is None or not ("xml" in kind or "html" in kind):
            return page
        old, base = self.rewrite
        new = base.replace("{self}", f"http://{request.headers.get('host', '')}")
        return replace(page, body=page.body.replace(old.encode(), new.encode()))


def _content_type(path: str) -> str:
    suffix = PurePosixPath(path).suffix.lower()
    unknown = "application/octet-stream" if suffix else CONTENT_TYPES[".html"]
    return CONTENT_TYPES.get(suffix, unknown)


def _answer(request: Request, page: Page) -> Answer:
    headers = {"content-type": page.content_type or ""}
    validated = page.status == 200 and not page.endless
    if validated:
        headers["etag"] = f'"{hashlib.sha256(page.body).hexdigest()[:16]}"'
        headers["last-modified"] = format_datetime(page.modified, usegmt=True)
    # What a test says about a page wins over what we make up.
    headers |= {name.lower(): value for name, value in page.headers.items()}
    if validated and _is_current(request, headers):
        return Answer(304, {name: headers[name] for name in ("etag", "last-modified")})
    return Answer(page.status, headers, page.body, page.fault, page.delay_s, page.endless)


def _is_current(request: Request, headers: Mapping[str, str]) -> bool:
    """Whether the client's copy still stands; an entity tag outranks a date (RFC 9110, 13.1.3)."""
    known = request.headers.get("if-none-match")
    if known is not None:
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        return "*" in tags or headers["etag"].removeprefix("W/") in tags
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        then = parsedate_to_datetime(since)
        return parsedate_to_datetime(headers["last-modified"]) <= then
    except (TypeError, ValueError):  # an unreadable date is ignored, as the RFC asks
        return False
