"""robots.txt is asked for first, kept for a while, and obeyed; a hostile one costs little."""

from __future__ import annotations

import asyncio
import gzip
import time
from datetime import timedelta

import pytest

from daemon.sources import robots
from daemon.sources.fetcher import USER_AGENT, Fetched, Fetcher, FetchError
from daemon.sources.parse import URL_MAX
from daemon.sources.policy import FetchPolicy
from daemon.sources.robots import Rules, parse
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import Answer, Fault, InProcess, Request, serve
from tests.virtual import VirtualTime

ADDRESS, OTHER_ADDRESS = "93.184.216.34", "1.1.1.1"


def allows(text: str | bytes, path: str) -> bool:
    body = text.encode() if isinstance(text, str) else text
    return parse(body).allow(f"https://site.example{path}")


# Reading the rules


def test_the_product_token_is_what_the_user_agent_begins_with() -> None:
    assert USER_AGENT.startswith(f"{robots.PRODUCT_TOKEN}/")


@pytest.mark.parametrize(
    ("text", "allowed", "forbidden"),
    [
        ("user-agent: *\ndisallow: /", [], ["/", "/a"]),
        ("user-agent: *\ndisallow:", ["/", "/a"], []),
        ("User-Agent: PENSTOCK\nDisallow: /a", ["/", "/b"], ["/a", "/ab", "/a/b?c"]),
        ("user-agent: Penstock/1.0\ndisallow: /", [], ["/"]),
        ("user-agent: Penstock # us\ndisallow: /", [], ["/"]),
        ("user-agent: *Penstock*\ndisallow: /", [], ["/"]),
        # A part of our name, or one that ours is a part of, is somebody else's.
        ("user-agent: Pen\ndisallow: /", ["/"], []),
        ("user-agent: P\ndisallow: /", ["/"], []),
        ("user-agent: Penstockbot\ndisallow: /", ["/"], []),
        ("user-agent: my-penstock\ndisallow: /", ["/"], []),
        # Our own group replaces the one for everybody, wherever it stands.
        ("user-agent: *\ndisallow: /\nuser-agent: penstock\ndisallow: /x", ["/"], ["/x"]),
        ("user-agent: penstock\ndisallow: /x\nuser-agent: *\ndisallow: /", ["/"], ["/x"]),
        # Groups for several robots, blank lines and comments in them, and two groups for one.
        ("user-agent: a\nuser-agent: penstock\n\n# c\ndisallow: /x", ["/"], ["/x"]),
        ("user-agent: penstock\ndisallow: /x\nuser-agent: a\ndisallow: /", ["/"], ["/x"]),
        (
            "user-agent: penstock\ndisallow: /x\nuser-agent: a\ndisallow: /y\n"
            "user-agent: penstock\ndisallow: /z",
            ["/y"],
            ["/x", "/z"],
        ),
        # The longest match counts, and between equals the one that allows.
        ("user-agent: *\ndisallow: /\nallow: /a", ["/a"], ["/"]),
        ("user-agent: *\nallow: /a\ndisallow: /a/b", ["/a", "/a/c"], ["/a/b"]),
        ("user-agent: *\ndisallow: /a\nallow: /a", ["/a"], []),
        ("user-agent: *\ndisallow: /*.gif$", ["/a.gif?x", "/a.gifs"], ["/a.gif", "/b/c.gif"]),
        ("user-agent: *\ndisallow: /a*b*c", ["/ab", "/acb"], ["/abc", "/a1b2c3"]),
        ("user-agent: *\ndisallow: /$", ["/a"], ["/"]),
        # Escapes mean what they stand for.
        ("user-agent: *\ndisallow: /%61b", [], ["/ab", "/%61%62"]),
        ("user-agent: *\ndisallow: /é", ["/e"], ["/%C3%A9", "/%c3%a9"]),
        ("user-agent: *\ndisallow: /a%2Fb", ["/a/b"], ["/a%2fb"]),
        ("user-agent: *\ndisallow: /?q=", ["/?p="], ["/?q=1"]),
        # Line ends and a byte order mark.
        ("user-agent: *\r\ndisallow: /x\r\n", ["/"], ["/x"]),
        ("user-agent: *\rdisallow: /x\r", ["/"], ["/x"]),
        ("\ufeffuser-agent: *\ndisallow: /x", ["/"], ["/x"]),
        # What is no rule is passed over.
        ("disallow: /", ["/"], []),
        ("", ["/"], []),
        ("<!DOCTYPE html><p>Disallow: /</p>", ["/"], []),
        ("\0\1\2user-agent: *\0\ndisallow: /", ["/"], []),
        ("user-agent: *\nnoindex: /\nsitemap: https://x/s.xml\ndisallow: /x", ["/"], ["/x"]),
        ("user-agent: *\nDissallow: /x", ["/"], ["/x"]),
        ("user-agent: *\n  disallow  :  /x  ", ["/"], ["/x"]),
    ],
)
def test_rules_are_read_as_the_rfc_has_them(
    text: str, allowed: list[str], forbidden: list[str]
) -> None:
    assert [path for path in allowed if not allows(text, path)] == []
    assert [path for path in forbidden if allows(text, path)] == []


def test_bytes_that_are_no_text_are_read_as_far_as_they_go() -> None:
    assert allows(b"\xff\xfe\x00\x80" * 1000, "/")
    assert not allows(b"user-agent: *\n\xff\xfe\ndisallow: /x", "/x")


def test_what_lies_beyond_500_kib_is_as_if_it_were_not_there() -> None:
    head = b"user-agent: *\ndisallow: /first\n"
    filler = b"#" + b"x" * 98 + b"\n"
    # The bound falls into `disallow: /cut/here`, which must not become `disallow: /cut`.
    body = head + filler * ((robots.BYTES_MAX - len(head) - 14) // 100)
    body += b"#" * (robots.BYTES_MAX - len(body) - 15) + b"\ndisallow: /cut/here\ndisallow: /last"
    assert body[: robots.BYTES_MAX].endswith(b"\ndisallow: /cut")
    assert [allows(body, path) for path in ("/first", "/cut", "/last")] == [False, True, True]


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("2", 2.0), ("0.25", 0.25), ("10", 10.0), ("11", 10.0), ("1e9", 10.0), ("0", 0.0),
     ("-1", 0.0), ("nan", 0.0), ("inf", 0.0), ("-inf", 0.0), ("soon", 0.0), ("", 0.0),
     ("9" * 5_000, 0.0)],
)  # fmt: skip
def test_a_crawl_delay_is_bounded(delay: str, seconds: float) -> None:
    rules = parse(f"user-agent: *\ncrawl-delay: {delay}\ndisallow: /x".encode())
    assert rules.crawl_delay_s == seconds
    assert not rules.allow("http://site.example/x")


def filled(head: str, *lines: str) -> bytes:
    """A file of just under 500 KiB."""
    block = "\n".join(lines) + "\n"
    return (head + block * ((robots.BYTES_MAX - len(head)) // len(block))).encode()


HOSTILE = {
    "short rules": filled("user-agent: *\n", "allow:*a"),
    "agents by rules": (
        "".join(f"user-agent: a{n}\n" for n in range(15_000))
        + "".join(f"allow: /{n}\n" for n in range(15_000))
    ).encode(),
    "agents again and again": filled("", *(f"user-agent: a{n}" for n in range(3_000))),
    "us again and again": filled("", "user-agent: penstock", "user-agent: *"),
    "needles in hay": filled("user-agent: *\n", "allow: *aaaaaaaab*" + "a" * 30 + "c"),
    "wildcards": filled("user-agent: *\n", "disallow: /" + "*a" * 7_000 + "$"),
    "one line": b"user-agent: *\ndisallow: /" + b"*a" * 240_000 + b"b",
    "stars": b"user-agent: *\ndisallow: /" + b"*" * 500_000 + b"b",
    "dollars": b"user-agent: *\ndisallow: " + b"$" * 500_000,
    "escapes": filled("user-agent: *\n", "disallow: /" + "%41" * 5_000),
    "blanks": b"user" + b" " * 500_000 + b"agent" + b" " * 7_000 + b"x",
    "no line end": b"d" * 600_000,
    "line ends": b"\n" * 600_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_weighed_in_an_instant(name: str) -> None:
    url = "http://site.example/" + "a" * (URL_MAX - 20)
    started = time.process_time()
    rules = parse(HOSTILE[name])
    rules.allow(url)
    # Measured 0.15 s at most; the bound leaves room for a busy machine.
    assert time.process_time() - started < 1.0


def test_more_rules_than_we_weigh_allow_nothing() -> None:
    rules = parse(HOSTILE["short rules"])
    assert "more than 10000 rules" in rules.problem
    assert not rules.allow("http://site.example/")


# Keeping them


@pytest.fixture
def when() -> VirtualTime:
    return VirtualTime()


class Web:
    """A fetcher on virtual time, and the sites it finds."""

    def __init__(self, when: VirtualTime, site: SiteDouble, other: SiteDouble | None = None):
        self.when = when
        routes = {ADDRESS: site, OTHER_ADDRESS: other or SiteDouble()}
        policy = FetchPolicy(frozenset(), 20.0)
        self.fetcher = Fetcher(policy, InProcess(routes), self.resolve, when.clock)

    async def resolve(self, host: str, port: int) -> list[str]:
        return [OTHER_ADDRESS if host == "other.example" else ADDRESS]

    def get(self, url: str = "http://site.example/page") -> Fetched:
        return self.when.run(self.fetcher.get(url))


def site_with(rules: Page | str, **more: Page | str) -> SiteDouble:
    return SiteDouble(
        pages={"/robots.txt": rules, "/page": "x", **{f"/{n}": p for n, p in more.items()}}
    )


def asked(site: SiteDouble) -> list[float]:
    return [visit.at_s for visit in site.visits if visit.path == "/robots.txt"]


def test_what_is_not_allowed_is_not_asked_for(when: VirtualTime) -> None:
    site = site_with("user-agent: *\ndisallow: /page")
    with pytest.raises(FetchError) as refused:
        Web(when, site).get()
    assert str(refused.value) == "robots.txt of site.example does not allow it"
    assert not site.hits
    assert site.visits[0].headers["user-agent"] == USER_AGENT


def test_hosts_that_the_operator_allowed_are_asked_too() -> None:
    site = site_with("user-agent: *\ndisallow: /page")

    async def fetch(port: int) -> None:
        web = Fetcher(FetchPolicy(frozenset({f"127.0.0.1:{port}"}), 5.0, gap_s=0.0))
        try:
            with pytest.raises(FetchError, match=r"robots.txt of 127\.0\.0\.1 does not allow it"):
                await web.get(f"http://127.0.0.1:{port}/page")
        finally:
            await web.close()

    with serve(site) as at:
        asyncio.run(fetch(at.port))
    assert not site.hits


@pytest.mark.parametrize(
    "path",
    ["/private", "/a/../private", "/./private", "/%70rivate", "//private"],
)
def test_a_path_is_judged_as_it_is_sent(when: VirtualTime, path: str) -> None:
    web = Web(when, site := site_with("user-agent: *\ndisallow: /private\ndisallow: //private"))
    with pytest.raises(FetchError):
        web.get(f"http://site.example{path}")
    assert not site.hits


def test_rules_are_asked_for_once_however_many_come_at_once(when: VirtualTime) -> None:
    site = site_with("user-agent: *\nallow: /")
    web = Web(when, site)

    async def together() -> None:
        urls = [
            "http://site.example/page",
            "http://site.example:80/page",
            "HTTP://SITE.example/page",
        ]
        await asyncio.gather(*(web.fetcher.get(url) for url in urls * 2))

    when.run(together())
    assert len(asked(site)) == 1
    web.get("https://site.example/page")
    assert len(asked(site)) == 2, "another scheme is another origin"


def test_rules_are_kept_for_a_day(when: VirtualTime) -> None:
    web = Web(when, site := site_with("user-agent: *\nallow: /"))
    web.get()
    when.pass_by(timedelta(hours=23, minutes=59))
    web.get()
    assert len(asked(site)) == 1
    site.pages["/robots.txt"] = "user-agent: *\ndisallow: /"
    when.pass_by(timedelta(minutes=2))
    with pytest.raises(FetchError, match="does not allow"):
        web.get()
    assert len(asked(site)) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 300, 304])
def test_where_there_is_no_file_everything_is_allowed(when: VirtualTime, status: int) -> None:
    web = Web(when, site := site_with(Page(b"user-agent: *\ndisallow: /", status=status)))
    assert web.get().body == b"x"
    assert web.get().body == b"x"
    assert len(asked(site)) == 1


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (Page(status=500), "HTTP 500"),
        (Page(status=599), "HTTP 599"),
        (Page(b"x", fault=Fault.RESET), "connection reset"),
        (Page(b"x", fault=Fault.DROP), "disconnected"),
        (Page(b"x", fault=Fault.CUT), "closed before"),
        (Page(b"x", delay_s=25.0), "too slow"),
        (Page(b"x" * 1_000, fault=Fault.TRICKLE), "too slow"),
        (Page(b"x", fault=Fault.STALL), "too slow"),
        (Page(b"x", headers={"content-encoding": "br"}), "is not read"),
        (Page(status=302, headers={"location": "http://10.0.0.1/robots.txt"}), "is not public"),
        (Page(status=302, headers={"location": "file:///etc/passwd"}), "not an http"),
        (Page(status=302, headers={"location": "http://site.example:22/"}), "port 22"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_it_cannot_be_had_nothing_is_allowed_for_ten_minutes(
    when: VirtualTime, page: Page, why: str
) -> None:
    site = site_with(page)
    web = Web(when, site)

    async def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.1"] if host == "10.0.0.1" else [ADDRESS]

    web.fetcher._resolve = resolve
    with pytest.raises(FetchError, match=rf"robots.txt of site.example cannot be had \(.*{why}"):
        web.get()
    # Mended, but not asked again before it is time.
    site.pages["/robots.txt"] = ""
    when.pass_by(timedelta(minutes=9))
    with pytest.raises(FetchError, match="cannot be had"):
        web.get()
    assert not site.hits
    when.pass_by(timedelta(minutes=2))
    assert web.get().body == b"x"
    assert len(asked(site)) == 2


def test_a_redirect_is_followed_and_its_rules_are_the_first_origins(when: VirtualTime) -> None:
    site = site_with(Page(status=301, headers={"location": "http://other.example/r"}))
    other = SiteDouble(pages={"/r": "user-agent: *\ndisallow: /page"})
    with pytest.raises(FetchError, match=r"robots.txt of site\.example does not allow it"):
        Web(when, site, other).get()
    assert [visit.path for visit in other.visits] == ["/r"]


def test_a_redirect_without_end_is_as_if_there_were_no_file(when: VirtualTime) -> None:
    site = site_with(Page(status=302, headers={"location": "/robots.txt"}))
    assert Web(when, site).get().body == b"x"
    assert len(asked(site)) == 6


def test_the_target_of_a_redirect_is_asked_for_its_own_rules(when: VirtualTime) -> None:
    away = Page(status=302, headers={"location": "http://other.example/page"})
    site = SiteDouble(pages={"/page": away})
    other = site_with("user-agent: *\ndisallow: /page")
    with pytest.raises(FetchError, match=r"robots.txt of other\.example does not allow it"):
        Web(when, site, other).get()
    assert not other.hits


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_without_end_is_read_to_its_bound(when: VirtualTime, pack: type[bytes]) -> None:
    headers = {} if pack is bytes else {"content-encoding": "gzip"}
    body = pack(b"user-agent: *\ndisallow: /x\n" + b"#" * 20_000_000)
    site = site_with(Page(body, headers=headers), x="x")
    web = Web(when, site)
    assert web.get().body == b"x"
    with pytest.raises(FetchError, match="does not allow"):
        web.get("http://site.example/x")


def test_memory_for_rules_is_bounded(when: VirtualTime) -> None:
    async def ask(origin: str) -> Rules:
        return Rules(count=900)

    kept = robots.Robots(ask, when.clock)

    async def story() -> None:
        for n in range(1_000):
            await kept.of(f"http://h{n}.example")

    when.run(story())
    assert len(kept._kept) == robots.KEPT_RULES_MAX // 1_000
    assert list(kept._kept)[-1] == "http://h999.example"


# Pacing, through the fetcher


def test_pages_of_a_host_begin_half_a_second_apart(when: VirtualTime) -> None:
    web = Web(when, site := site_with(""))

    async def together() -> None:
        await asyncio.gather(*(web.fetcher.get("http://site.example/page") for _ in range(3)))

    when.run(together())
    # What is asked for the sake of the first page keeps none of them waiting.
    assert [visit.at_s for visit in site.visits] == pytest.approx([0.0, 0.0, 0.5, 1.0], abs=1e-4)


@pytest.mark.parametrize(("delay", "gap_s"), [("3", 3.0), ("1e9", 10.0), ("0.1", 0.5), ("-3", 0.5)])
def test_a_crawl_delay_raises_the_gap(when: VirtualTime, delay: str, gap_s: float) -> None:
    web = Web(when, site := site_with(f"user-agent: *\ncrawl-delay: {delay}"))

    async def together() -> None:
        await asyncio.gather(*(web.fetcher.get("http://site.example/page") for _ in range(3)))

    when.run(together())
    expected = [0.0, 0.0, gap_s, 2 * gap_s]
    assert [visit.at_s for visit in site.visits] == pytest.approx(expected, abs=1e-4)


def test_waiting_for_a_turn_is_not_held_against_a_request(when: VirtualTime) -> None:
    site = site_with("user-agent: *\ncrawl-delay: 10", page=Page(b"x", delay_s=19.0))
    web = Web(when, site)

    async def together() -> list[Fetched]:
        urls = ["http://site.example/page"] * 8
        return await asyncio.gather(*(web.fetcher.get(url) for url in urls))

    # 8 times 19 seconds are more than any time-out there is.
    assert len(when.run(together())) == 8


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "rest_s"), [(None, 30), ("20", 20), ("-1", 30), ("1000000000", 60)]
)
def test_a_host_that_has_too_much_is_left_alone_for_a_while(
    when: VirtualTime, status: int, retry_after: str | None, rest_s: int
) -> None:
    headers = {"retry-after": retry_after} if retry_after else {}
    site = site_with("", page=Page(status=status, headers=headers), more="y")
    web = Web(when, site)
    with pytest.raises(FetchError, match=f"HTTP {status}"):
        web.get()
    before = when.loop.time()
    with pytest.raises(FetchError, match=rf"site\.example asked for a pause, {rest_s} s are left"):
        web.get("http://site.example/more")
    assert when.loop.time() - before < 0.01, "refused at once"
    when.pass_by(timedelta(seconds=rest_s + 0.1))
    assert web.get("http://site.example/more").body == b"y"


def test_a_robots_txt_that_has_too_much_is_asked_for_after_the_pause(when: VirtualTime) -> None:
    site = site_with(Page(status=429, headers={"retry-after": "5"}))
    web = Web(when, site)
    for _ in range(2):
        with pytest.raises(FetchError, match=r"site\.example asked for a pause, 5 s are left"):
            web.get()
    assert len(asked(site)) == 1
    site.pages["/robots.txt"] = ""
    when.pass_by(timedelta(seconds=5.1))
    assert web.get().body == b"x"


def test_a_slow_host_holds_up_no_other(when: VirtualTime) -> None:
    site = site_with(Page(b"", delay_s=15.0), page=Page(b"x", delay_s=15.0))
    other = SiteDouble(pages={"/page": "y"})
    web = Web(when, site, other)

    async def together() -> None:
        slow = [web.fetcher.get("http://site.example/page") for _ in range(3)]
        await asyncio.gather(*slow, web.fetcher.get("http://other.example/page"))

    when.run(together())
    assert [visit.at_s for visit in other.visits] == pytest.approx([0.0, 0.0], abs=1e-4)


def test_one_request_at_a_time_over_sockets() -> None:
    class Counting(SiteDouble):
        now = most = 0

        async def handle(self, request: Request) -> Answer:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.02)
            answer = await super().handle(request)
            self.now -= 1
            return answer

    async def fetch(port: int) -> None:
        web = Fetcher(FetchPolicy(frozenset({f"127.0.0.1:{port}"}), 5.0, gap_s=0.01))
        try:
            await asyncio.gather(*(web.get(f"http://127.0.0.1:{port}/page") for _ in range(5)))
        finally:
            await web.close()

    site = Counting(pages={"/page": "x"})
    with serve(site) as at:
        asyncio.run(fetch(at.port))
    assert (site.most, site.hits["/page"]) == (1, 5)
