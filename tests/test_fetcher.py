"""The fetcher reads what strangers name, and they never choose where it connects."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import httpx
import pytest

from daemon import tls
from daemon.sources import fetcher
from daemon.sources.fetcher import BYTES_MAX, Fetched, Fetcher, FetchError, Resolve
from daemon.sources.policy import FetchPolicy
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import Fault, InProcess, serve
from tests.virtual import VirtualTime

PUBLIC, OTHER_PUBLIC = "93.184.216.34", "1.1.1.1"

# What would never end is told from a busy machine.


def get(
    *urls: str,
    allow: Iterable[str] = (),
    resolve: Resolve | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    timeout_s: float = 5.0,
    etag: str | None = None,
    last_modified: str | None = None,
) -> Fetched:
    """Fetch one after the other with one fetcher; what the last one gave."""

    async def fetch() -> Fetched:
        policy = FetchPolicy(frozenset(allow), timeout_s, gap_s=0.0)
        reader = Fetcher(policy, transport, resolve or fetcher.resolve)
        try:
            for url in urls:
                fetched = await reader.get(url, etag=etag, last_modified=last_modified)
            return fetched
        finally:
            await reader.close()

    return asyncio.run(fetch())


def served(site: SiteDouble, path: str = "/", timeout_s: float = 5.0) -> Fetched:
    """One page over a real socket that the operator allowed."""
    with serve(site) as at:
        return get(f"{at.url}{path}", allow=[f"127.0.0.1:{at.port}"], timeout_s=timeout_s)


def answering(*answers: list[str]) -> tuple[Resolve, list[tuple[str, int]]]:
    """A resolver that gives one answer after the other, and what it was asked."""
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


class Untouched(httpx.AsyncBaseTransport):
    """Counts what would have gone out."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        raise httpx.ConnectError("a request went out", request=request)


def refusal(url: str, resolve: Resolve | None = None, allow: Iterable[str] = ()) -> str:
    """Why a URL is refused, having made sure that nothing was sent."""
    transport = Untouched()
    with pytest.raises(FetchError) as refused:
        get(url, transport=transport, resolve=resolve, allow=allow)
    assert transport.requests == []
    return str(refused.value)


# Reading


def test_a_page_arrives_whole_with_its_validators() -> None:
    page = Page(b"<p>hello", headers={"etag": '"1"'})
    fetched = served(SiteDouble(pages={"/a.html": page}), "/a.html?x=1")
    assert fetched.url.endswith("/a.html?x=1")
    assert fetched.body == b"<p>hello"
    assert fetched.content_type == "text/html; charset=utf-8"
    assert (fetched.etag, fetched.last_modified) == ('"1"', "Thu, 01 Jan 2026 00:00:00 GMT")
    assert not fetched.not_modified


def test_requests_name_the_daemon_and_ask_for_no_compression() -> None:
    site = SiteDouble(pages={"/": "x"})
    served(site)
    headers = site.seen[0][1]
    assert headers["user-agent"].startswith("Penstock/")
    assert headers["accept-encoding"] == "identity"
    assert "if-none-match" not in headers
    assert "if-modified-since" not in headers


@pytest.mark.parametrize("by", ["etag", "last_modified"])
def test_a_page_that_has_not_changed_is_answered_in_one_request(by: str) -> None:
    site = SiteDouble(pages={"/": "x"})
    with serve(site) as at:
        allow = [f"127.0.0.1:{at.port}"]
        first = get(at.url, allow=allow)
        again = get(at.url, allow=allow, **{by: getattr(first, by)})
    assert again.not_modified
    assert again.body == b""
    assert site.hits["/"] == 2


def test_a_page_that_changed_is_read_again() -> None:
    site = SiteDouble(pages={"/": "new"})
    with serve(site) as at:
        fetched = get(at.url, allow=[f"127.0.0.1:{at.port}"], etag='"old"')
    assert fetched.body == b"new"
    assert site.seen[0][1]["if-none-match"] == '"old"'


def test_an_entity_tag_beyond_ascii_can_be_sent_back() -> None:
    site = SiteDouble(pages={"/": Page(b"x", headers={"etag": '"café"'})})
    with serve(site) as at:
        allow = [f"127.0.0.1:{at.port}"]
        first = get(at.url, allow=allow)
        again = get(at.url, allow=allow, etag=first.etag, last_modified=first.last_modified)
    assert again.not_modified or again.body == b"x"


@pytest.mark.parametrize("status", [201, 204, 206, 300, 305, 400, 403, 404, 410, 429, 500, 503])
def test_only_a_200_is_a_page_and_nothing_is_asked_twice(status: int) -> None:
    site = SiteDouble(pages={"/": Page(b"x", status=status)})
    with pytest.raises(FetchError, match=f"HTTP {status}"):
        served(site)
    assert site.hits["/"] == 1


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.DROP, Fault.CUT])
def test_a_connection_that_breaks_is_an_error_and_never_half_a_page(fault: Fault) -> None:
    with pytest.raises(FetchError):
        served(SiteDouble(pages={"/": Page(b"half of this", fault=fault)}))


def test_cookies_of_one_host_are_not_shown_to_another_on_the_same_address() -> None:
    site = SiteDouble(pages={"/": Page(b"x", headers={"set-cookie": "who=you; Path=/"})})
    resolve, _ = answering([PUBLIC])
    get(
        "http://a.example/",
        "http://b.example/",
        resolve=resolve,
        transport=InProcess({PUBLIC: site}),
    )
    assert [headers["host"] for _, headers in site.seen] == ["a.example", "b.example"]
    assert all("cookie" not in headers for _, headers in site.seen)


# Redirects


def test_redirects_are_followed_to_the_page_and_its_address_is_told() -> None:
    pages: dict[str, Page | bytes | str] = {
        "/1": Page(status=301, headers={"location": "/a/2"}),
        "/a/2": Page(status=302, headers={"location": "3?q=1"}),
        "/a/3": Page(status=303, headers={"location": "//127.0.0.1:{port}/4"}),
        "/4": Page(status=307, headers={"location": "/5"}),
        "/5": Page(status=308, headers={"location": "/6"}),
        "/6": "there",
    }
    site = SiteDouble(pages=pages)
    with serve(site) as at:
        pages["/a/3"] = Page(status=303, headers={"location": f"//127.0.0.1:{at.port}/4"})
        fetched = get(f"{at.url}/1", allow=[f"127.0.0.1:{at.port}"])
        assert (fetched.url, fetched.body) == (f"{at.url}/6", b"there")


def test_a_sixth_redirect_ends_it() -> None:
    pages: dict[str, Page | bytes | str] = {
        f"/{n}": Page(status=302, headers={"location": f"/{n + 1}"}) for n in range(6)
    }
    site = SiteDouble(pages={**pages, "/6": "too far"})
    with pytest.raises(FetchError, match="more than 5 redirects"):
        served(site, "/0")
    assert site.hits["/6"] == 0


def test_a_redirect_to_itself_ends() -> None:
    site = SiteDouble(pages={"/": Page(status=302, headers={"location": "/"})})
    with pytest.raises(FetchError, match="redirect"):
        served(site)
    assert site.hits["/"] <= 6


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://10.0.0.1/", "10.0.0.1 is not public"),
        ("http://[::1]/", "::1 is not public"),
        ("//169.254.169.254/latest/meta-data/", "169.254.169.254 is not public"),
        ("http://2130706433/", "127.0.0.1 is not public"),
        ("http://127.0.0.1:22/", "port 22 is not read"),
        ("file:///etc/passwd", "not an http or https address"),
        ("ftp://example.org/", "not an http or https address"),
        ("gopher://127.0.0.1/", "not an http or https address"),
        ("http://127.0.0.1:0/", "port 0 is not read"),
        ("http://[64:ff9b::7f00:1]/", "64:ff9b::7f00:1 is not public"),
        ("http://[::ffff:0:127.0.0.1]/", "is not public"),
        ("HTTP://0x7f.1/", "127.0.0.1 is not public"),
        ("http://[fe80::1%25eth0]/", "not an address we read"),
        ("http://a.example/" + "x" * 2_000, "longer than 2000 characters"),
        ("javascript:alert(1)", ""),
        ("", ""),
        ("http://user:pass@example.org/", "not an address we read"),
    ],
)
def test_a_redirect_is_checked_as_if_it_had_been_asked_for(location: str, why: str) -> None:
    site = SiteDouble(pages={"/": Page(status=302, headers={"location": location})})
    with pytest.raises(FetchError) as refused:
        served(site)
    assert why in str(refused.value)


def test_a_redirect_to_another_port_of_an_allowed_host_reaches_nobody() -> None:
    other = SiteDouble(pages={"/": "secret"})
    with serve(other) as elsewhere:
        site = SiteDouble(pages={"/": Page(status=302, headers={"location": elsewhere.url})})
        with pytest.raises(FetchError, match="is not read"):
            served(site)
    assert not other.hits


def test_a_name_that_turns_private_between_two_redirects_is_refused() -> None:
    site = SiteDouble(pages={"/": Page(status=302, headers={"location": "/next"}), "/next": "x"})
    # The page's, its robots.txt's, and the next page's.
    resolve, asked = answering([PUBLIC], [PUBLIC], ["127.0.0.1"])
    with pytest.raises(FetchError, match=r"127\.0\.0\.1 is not public"):
        get("http://rebind.example/", resolve=resolve, transport=InProcess({PUBLIC: site}))
    assert len(asked) == 3
    assert site.hits == {"/": 1}


@pytest.mark.parametrize(
    "location",
    ["http://]", "//][x]", "http://a[b/", "http://[::1", "http://[v1.x]/", "http://host:99999/",
     "http://host:x/", "http://\xe9\xff/", "http://a b/", "http://%00/", "http:///", "//", "http://@/"],
)  # fmt: skip
def test_a_redirect_to_nonsense_is_an_error_like_any_other(location: str) -> None:
    resolve, _ = answering([PUBLIC])
    pages = {"/start": Page(status=302, headers={"location": location})}
    site = SiteDouble(pages={**pages, "/": Page(status=404)})
    with pytest.raises(FetchError):
        get("http://a.example/start", resolve=resolve, transport=InProcess({PUBLIC: site}))


@pytest.mark.parametrize(
    "url",
    ["", "x", "/etc/passwd", "file:///etc/passwd", "ftp://example.org/", "ftp://example.org:80/",
     "//example.org:80/", "http:///x", "http://:80/", "http://[::1/", "http://]/", "http://a:99999/",
     "http://a:x/", "http://\x00/", "http://*\r\nhost: b/", "javascript:alert(1)", "data:,x"],
)  # fmt: skip
def test_what_is_no_web_address_is_refused_without_asking_for_a_name(url: str) -> None:
    resolve, asked = answering([PUBLIC])
    refusal(url, resolve)
    assert asked == []


@pytest.mark.parametrize(
    "url",
    ["http://user@example.org/", "http://user:pass@example.org/", "http://:pass@example.org/",
     "http://@example.org/", "http://127.0.0.1:80\\@example.org/",
     "http://example.org@127.0.0.1/", "HTTP://USER@EXAMPLE.ORG/", "http://127.0.0.1%23@example.org/"],
)  # fmt: skip
def test_a_url_with_userinfo_is_refused(url: str) -> None:
    resolve, asked = answering([PUBLIC])
    assert refusal(url, resolve) == "not an address we read"
    assert asked == []


# Addresses

FORBIDDEN = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255",
    "127.0.0.1", "127.255.255.254", "169.254.0.1", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::127.0.0.1",
    "::a9fe:a9fe", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe",
    "::ffff:93.184.216.34", "::ffff:0:127.0.0.1", "::ffff:0:5db8:d822", "100:0:0:1::1",
    "1fff:ffff::1", "4000::1", "8000::1", "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1", "64:ff9b::5db8:d822",
    "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1",
    "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "2002:5db8:d822::1", "3fff::1",
    "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "feff::1",
    "ff02::1", "ff0e::1",
]  # fmt: skip

READ = [
    "1.1.1.1", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255",
    "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::1", "2001:4860:4860::8888",
    "2003::1", "2400:cb00::1", "2606:4700:4700::1111", "2a00:1450::1",
]  # fmt: skip


def as_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_public_is_never_connected_to(address: str) -> None:
    resolve, _ = answering([address])
    assert "is not public" in refusal("http://name.example/", resolve)
    # One bad answer among good ones is enough.
    resolve, _ = answering([PUBLIC, address, OTHER_PUBLIC])
    assert "is not public" in refusal("https://name.example/", resolve)
    # And as the URL's own host, through the system's resolver.
    assert "is not public" in refusal(f"http://{as_host(address)}/")


@pytest.mark.parametrize("address", READ)
def test_a_public_address_is_read(address: str) -> None:
    resolve, _ = answering([address])
    site = SiteDouble(pages={"/": "x"})
    fetched = get("http://name.example/", resolve=resolve, transport=InProcess({address: site}))
    assert fetched.body == b"x"


@pytest.mark.parametrize(
    "host",
    ["2130706433", "127.1", "127.0.1", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "0",
     "127.0.0.1.", "localhost", "LOCALHOST", "localhost.", "127.0.0.1..", "0x7F.0.0.1", "0000177.1",
     "127\u30020\uff0e0\uff611", "\uff11\uff12\uff17.0.0.1", "[::1%25lo]", "[::1%lo]",
     "[2606:4700:4700::1111%25lo]", "%31%32%37.0.0.1", "127.0.0.1%00.example.org", "[::]",
     "[::ffff:127.0.0.1]", "[0:0:0:0:0:0:0:1]",
     "[::ffff:7f00:1]"],
)  # fmt: skip
def test_other_spellings_of_this_machine_are_seen_through(host: str) -> None:
    assert refusal(f"http://{host}/")


@pytest.mark.parametrize(
    "text", ["fe80::1%eth0", "::1%1", "", "nonsense", "127.0.0.1 ", "1.2.3", "0x7f.0.0.1"]
)
def test_what_cannot_be_told_to_be_public_is_not(text: str) -> None:
    assert fetcher.is_forbidden(text)


def test_a_name_without_an_address_is_refused() -> None:
    resolve, _ = answering([])
    assert refusal("http://name.example/", resolve) == "the name has no address"


def test_a_name_that_does_not_resolve_is_an_error_like_any_other() -> None:
    async def fail(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    assert "Name or service not known" in refusal("http://name.example/", fail)


@pytest.mark.parametrize("port", [1, 21, 22, 25, 81, 3306, 5432, 6379, 8000, 8080, 8443, 11434])
def test_other_ports_are_refused_before_a_name_is_resolved(port: int) -> None:
    resolve, asked = answering([PUBLIC])
    assert f"port {port} is not read" in refusal(f"http://name.example:{port}/", resolve)
    assert asked == []


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    # For the page, for its robots.txt, and nothing that a third look-up would give.
    resolve, asked = answering(["127.0.0.1"], ["127.0.0.1"], ["127.9.9.9"])
    site = SiteDouble(pages={"/": "x"})
    with serve(site) as at:
        # The name exists for our resolver only, so a second look-up could not succeed.
        name = f"rebind.example:{at.port}"
        assert get(f"http://{name}/", allow=[name], resolve=resolve).body == b"x"
    assert asked == [("rebind.example", at.port)] * 2
    assert site.seen[0][1]["host"] == name


def test_host_header_and_certificate_name_stay_those_of_the_url() -> None:
    seen: list[httpx.Request] = []

    class Spy(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, stream=httpx.ByteStream(b"x"))

    resolve, _ = answering([PUBLIC, OTHER_PUBLIC])
    get("https://Name.Example/a", resolve=resolve, transport=Spy())
    assert [str(request.url) for request in seen] == [
        f"https://{PUBLIC}/robots.txt",
        f"https://{PUBLIC}/a",
    ]
    assert {request.headers["host"] for request in seen} == {"name.example"}
    assert {request.extensions["sni_hostname"] for request in seen} == {"name.example"}


# The operator's exceptions


def test_an_allowed_pair_is_read_and_only_as_it_was_written() -> None:
    site = SiteDouble(pages={"/": "x"})
    with serve(site) as at:
        allow = [f"127.0.0.1:{at.port}"]
        assert get(at.url, allow=allow).body == b"x"
        for host in ("localhost", "2130706433", "127.1", "127.0.0.2", "0", "[::ffff:127.0.0.1]"):
            with pytest.raises(FetchError, match=f"port {at.port} is not read"):
                get(f"http://{host}:{at.port}/", allow=allow)
        with pytest.raises(FetchError):
            get(at.url, allow=[f"127.0.0.1:{at.port + 1}", "127.0.0.1:80", "127.0.0.1"])
    assert site.hits["/"] == 1


@pytest.mark.parametrize(
    ("pair", "url"),
    [
        ("intern.example:80", "http://intern.example/"),
        ("intern.example:443", "https://intern.example/"),
        ("intern.example:8080", "http://intern.example:8080/"),
        ("intern.example:8080", "http://INTERN.example.:8080/"),
        ("[fd00::1]:8080", "http://[fd00::1]:8080/"),
        ("[fd00::1]:80", "http://[fd00::1]/"),
    ],
)
def test_an_allowed_pair_may_be_private(pair: str, url: str) -> None:
    site = SiteDouble(pages={"/": "x"})
    resolve, _ = answering(["10.0.0.1"])
    fetched = get(url, allow=[pair], resolve=resolve, transport=InProcess({"10.0.0.1": site}))
    assert fetched.body == b"x"


def test_an_allowed_port_does_not_open_another_on_the_same_host() -> None:
    resolve, _ = answering(["10.0.0.1"])
    allow = ["intern.example:8080"]
    assert "10.0.0.1 is not public" in refusal("http://intern.example/", resolve, allow)
    assert "port 8081" in refusal("http://intern.example:8081/", resolve, allow)


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    site, proxy = SiteDouble(pages={"/": "direct"}), SiteDouble(pages={"/": "proxied"})
    with serve(site) as at, serve(proxy) as by:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, by.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        httpx.get(f"{at.url}/")
        assert sum(proxy.hits.values()) == 1, "the trap itself works"
        assert get(at.url, allow=[f"127.0.0.1:{at.port}"]).body == b"direct"
        assert sum(proxy.hits.values()) == 1


def test_a_page_proven_by_a_certificate_does_not_hand_on_to_one_that_is_not() -> None:
    site = SiteDouble(
        pages={
            "/down": Page(status=302, headers={"location": "http://name.example/plain"}),
            "/up": Page(status=302, headers={"location": "https://name.example/safe"}),
            "/safe": "safe",
        }
    )
    resolve, _ = answering([PUBLIC])
    transport = InProcess({PUBLIC: site})
    with pytest.raises(FetchError, match="from https to http is not followed"):
        get("https://name.example/down", resolve=resolve, transport=transport)
    assert site.hits["/plain"] == 0
    assert get("http://name.example/up", resolve=resolve, transport=transport).body == b"safe"


def test_the_address_a_redirect_led_to_is_told_as_it_was_sent() -> None:
    pages = {"/": Page(status=302, headers={"location": "/a bé"}), "/a bé": Page(b"x")}
    assert served(SiteDouble(pages={**pages})).url.endswith("/a%20b%C3%A9")


def test_a_304_that_nobody_asked_for_is_no_page() -> None:
    with pytest.raises(FetchError, match="HTTP 304"):
        served(SiteDouble(pages={"/": Page(status=304)}))


def test_headers_that_could_not_be_shown_or_sent_back_are_left_out() -> None:
    headers = {"etag": '"' + "x" * 2_000 + '"', "content-type": "text/html\x1b[2J"}
    fetched = served(SiteDouble(pages={"/": Page(b"x", headers=headers)}))
    assert (fetched.etag, fetched.content_type) == (None, "")


def test_a_name_that_takes_too_long_to_resolve_is_given_up() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.get_running_loop().create_future()
        return []

    with pytest.raises(FetchError, match="too slow"):
        get("http://name.example/", resolve=never, timeout_s=0.1)


# What only raw bytes can do


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def raw(script: Script, timeout_s: float = 5.0) -> Fetched:
    """One page from a server that writes its own bytes; its robots.txt is not there."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A cancelled talk ends here: asyncio.streams would report it as a crash.
        gone = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"GET /robots.txt "):
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            else:
                await script(reader, writer)
            await writer.drain()
        writer.close()

    async def fetch() -> Fetched:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        policy = FetchPolicy(frozenset({f"127.0.0.1:{port}"}), timeout_s, gap_s=0.0)
        async with server, contextlib.AsyncExitStack() as stack:
            web = Fetcher(policy)
            stack.push_async_callback(web.close)
            return await web.get(f"http://127.0.0.1:{port}/")

    return asyncio.run(fetch())


def once(*parts: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(parts))

    return script


def for_ever(start: bytes, again: bytes, every_s: float = 0.0) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(every_s)

    return script


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (for_ever(OK, b"x-more: " + b"y" * 1_000 + b"\r\n"), None),
        (for_ever(OK + b"x-one: ", b"y" * 1_000), None),
        (for_ever(OK, b"x-slow: 1\r\n", 0.05), "too slow"),
        (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "too slow"),
        (for_ever(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", 0.05), "too slow"),
        (for_ever(OK + b"transfer-encoding: chunked\r\n\r\n", b"1;" + b"e" * 1_000), None),
        (for_ever(OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"t: 1\r\n"), None),
        (once(OK, b"content-length: 5\r\n\r\nxx"), None),
        (once(OK, b"content-length: -1\r\n\r\nxx"), None),
        (once(OK, b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx"), None),
        (once(OK, b"transfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\nxx"), None),
        (once(OK, b"content-encoding: gzip\r\ncontent-encoding: gzip\r\n\r\nxx"), "is not read"),
        (once(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), None),
        (once(b"\0" * 10_000), None),
        (once(b"SSH-2.0-OpenSSH_9.6\r\n"), None),
    ],
    ids=["many headers", "one long header", "slow headers", "1xx flood", "slow 1xx",
         "chunk extension", "trailers", "short body", "negative length", "two lengths",
         "huge chunk", "two encodings", "101", "zeros", "another protocol"],
)  # fmt: skip
def test_a_server_that_keeps_to_no_protocol_costs_little(script: Script, why: str | None) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FetchError, match=why):
            raw(script, timeout_s=0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_a_body_longer_than_its_length_says_is_read_to_that_length() -> None:
    assert raw(once(OK, b"content-length: 2\r\n\r\nhello")).body == b"he"


def test_trailers_and_a_hint_before_the_answer_do_no_harm() -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    chunks = b"transfer-encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n0\r\nx-t: 1\r\n\r\n"
    assert raw(once(hint, OK, chunks)).body == b"he"


def test_a_byte_a_second_is_cut_after_thirty() -> None:
    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(1)
                yield b"x"

    class Dripping(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/robots.txt":
                return httpx.Response(404)
            return httpx.Response(200, stream=Drip())

    resolve, _ = answering([PUBLIC])
    when = VirtualTime()
    web = Fetcher(FetchPolicy(frozenset(), 20.0), Dripping(), resolve, when.clock)
    with pytest.raises(FetchError, match="too slow"):
        when.run(web.get("http://name.example/"))
    assert when.loop.time() == pytest.approx(30.0, abs=0.001)
    when.close()


# Size and time


def packed_600_mb() -> bytes:
    """A gzip file of about 600 kB that inflates to 600 MB."""
    block = bytes(1_000_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush equal blocks pack to equal bytes.
    return first + (packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)) * 599


def test_a_gzip_bomb_is_cut_before_it_fills_memory() -> None:
    bomb = packed_600_mb()
    assert len(bomb) < 700_000
    assert len(zlib.decompressobj(47).decompress(bomb, 20_000_000)) == 20_000_000
    site = SiteDouble(pages={"/": Page(bomb, headers={"content-encoding": "gzip"})})
    with serve(site) as at:
        tracemalloc.start()
        try:
            with pytest.raises(FetchError, match="larger than 5 MB"):
                get(at.url, allow=[f"127.0.0.1:{at.port}"])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 60_000_000


def test_an_endless_body_is_cut_at_five_megabytes() -> None:
    site = SiteDouble(pages={"/": Page(b"for ever and ", endless=True)})
    with pytest.raises(FetchError, match="larger than 5 MB"):
        served(site)


def test_an_endless_body_of_zeros_that_claims_to_be_gzip_is_cut_too() -> None:
    site = SiteDouble(pages={"/": Page(b"\0", headers={"content-encoding": "gzip"}, endless=True)})
    with pytest.raises(FetchError):
        served(site)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_five_megabytes_are_read_and_a_byte_more_is_not(pack: Callable[[bytes], bytes]) -> None:
    headers = {} if pack is bytes else {"content-encoding": "gzip"}
    whole = Page(pack(b"x" * BYTES_MAX), headers=headers)
    assert len(served(SiteDouble(pages={"/": whole})).body) == BYTES_MAX
    larger = Page(pack(b"x" * (BYTES_MAX + 1)), headers=headers)
    with pytest.raises(FetchError, match="larger than 5 MB"):
        served(SiteDouble(pages={"/": larger}))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", b"hello"),
        ("", b"hello"),
        ("gzip", gzip.compress(b"hello", mtime=0)),
        ("X-GZIP", gzip.compress(b"hello", mtime=0)),
        ("deflate", zlib.compress(b"hello")),
    ],
)
def test_a_server_that_compresses_unasked_is_understood(encoding: str, body: bytes) -> None:
    page = Page(body, headers={"content-encoding": encoding})
    assert served(SiteDouble(pages={"/": page})).body == b"hello"


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip,deflate", "x"])
def test_other_encodings_and_more_than_one_layer_are_refused(encoding: str) -> None:
    page = Page(gzip.compress(gzip.compress(b"x")), headers={"content-encoding": encoding})
    with pytest.raises(FetchError, match="is not read"):
        served(SiteDouble(pages={"/": page}))


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip at all",
        gzip.compress(b"hello" * 1000, mtime=0)[:-20],
        gzip.compress(b"hello", mtime=0)[:5],
    ],
    ids=["not gzip", "cut", "cut in the header"],
)
def test_compression_that_is_broken_or_cut_never_passes_for_a_whole_page(body: bytes) -> None:
    page = Page(body, headers={"content-encoding": "gzip"})
    with pytest.raises(FetchError):
        served(SiteDouble(pages={"/": page}))


def test_a_gzip_body_in_two_members_is_read_whole_or_refused() -> None:
    body = gzip.compress(b"first ") + gzip.compress(b"second")
    page = Page(body, headers={"content-encoding": "gzip"})
    with contextlib.suppress(FetchError):
        assert served(SiteDouble(pages={"/": page})).body == b"first second"


@pytest.mark.parametrize(
    "page",
    [Page(b"drop by drop" * 20, fault=Fault.TRICKLE), Page(b"half", fault=Fault.STALL)],
    ids=["trickle", "stall"],
)
def test_a_body_that_takes_too_long_is_cut(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "BODY_TIMEOUT_S", 0.3)
    with pytest.raises(FetchError, match="too slow"):
        served(SiteDouble(pages={"/": page}))


def test_headers_that_take_too_long_end_the_request() -> None:
    with pytest.raises(FetchError, match="too slow"):
        served(SiteDouble(pages={"/": Page(b"x", delay_s=3)}), timeout_s=0.3)


# TLS. A key for this test only; the certificate is its own authority and names a.example.

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBYjCCAQegAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlhLmV4YW1w
bGUwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWEuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABN7TXg9kBege0Xxc
8fA6SxmqDmE6Ez7tcC3z3RMvateMZPkLtb3OU+A0k+yKJzM4bWh0zJZ3A7jLUW0c
yrGD5AqjSDBGMA8GA1UdEwEB/wQFMAMBAf8wFAYDVR0RBA0wC4IJYS5leGFtcGxl
MB0GA1UdDgQWBBRWR/wWwl5VnL6iU3m+9q1tHUTmoTAKBggqhkjOPQQDAgNJADBG
AiEAgknzZVo3aOtk6OB4E2trZ9gqc+jnJVIoe3OdzYoPfSACIQCT0F8HpVV3tEM/
6v3y/NhMUb8V8sWZE4ryQt0jYfN1Lw==
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgK/JxH8CCzw6+t6K9
un52OKeM9ft9mKGDa94R2IVfZ6ahRANCAATe014PZAXoHtF8XPHwOksZqg5hOhM+
7XAt890TL2rXjGT5C7W9zlPgNJPsiiczOG1odMyWdwO4y1FtHMqxg+QK
-----END PRIVATE KEY-----
"""


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """The certificate and its key as files; it is the only authority anyone trusts."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    # Where httpx finds its authorities.
    monkeypatch.setattr("certifi.where", lambda: str(certificate))
    # One context serves every client of a process, so it is made anew here and for the next test.
    tls.context.cache_clear()
    yield certificate, key
    tls.context.cache_clear()


async def https_twice(trusted: tuple[Path, Path], second: str) -> None:
    """Read https://a.example and then another URL, both on one address, from one server."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(*trusted)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    resolve, _ = answering(["127.0.0.1"])
    reader = Fetcher(
        FetchPolicy(frozenset({f"a.example:{port}", f"b.example:{port}"}), 5.0, gap_s=0.0),
        resolve=resolve,
    )
    try:
        assert (await reader.get(f"https://a.example:{port}/")).body == b"x"
        await reader.get(f"https://{second}:{port}/")
    finally:
        await reader.close()
        server.close()
        await server.wait_closed()


def test_a_certificate_is_checked_against_the_name_in_the_url(trusted: tuple[Path, Path]) -> None:
    asyncio.run(https_twice(trusted, "a.example"))


def test_a_connection_made_for_one_name_does_not_serve_another(trusted: tuple[Path, Path]) -> None:
    # Both names are on one address; the certificate is good for the first alone.
    with pytest.raises(FetchError):
        asyncio.run(https_twice(trusted, "b.example"))
