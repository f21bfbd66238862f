"""Research may ask a search endpoint, which may answer anything."""

from __future__ import annotations

import asyncio
import time
import tracemalloc

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.search import (
    QUERY_CHARS_MAX,
    RESULTS_MAX,
    Search,
    SearchError,
    plain_query,
)
from tests.doubles.search import Mischief, SearchDouble, result, results
from tests.doubles.wire import InProcess, serve


def ask(
    url: str,
    query: str = "sluice gates",
    limit: int = 10,
    *,
    language: str = "en",
    timeout_s: float = 5.0,
    transport: httpx.AsyncBaseTransport | None = None,
) -> list[str]:
    async def find() -> list[str]:
        search = Search(url, language=language, timeout_s=timeout_s, transport=transport)
        try:
            return await search.find(query, limit)
        finally:
            await search.close()

    return asyncio.run(find())


def found(double: SearchDouble, query: str = "sluice gates", limit: int = 10) -> list[str]:
    """What a double over a real socket gave."""
    with serve(double) as at:
        return ask(at.url, query, limit)


def refusal(double: SearchDouble, timeout_s: float = 5.0) -> str:
    """Why nothing was found."""
    with serve(double) as at, pytest.raises(SearchError) as caught:
        ask(at.url, timeout_s=timeout_s)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert message.startswith(f"search at {at.url} ")
    return message


# What is asked


def test_the_question_reaches_the_endpoint_as_searxng_documents_it() -> None:
    double = SearchDouble(results=results(["https://one.example/a"]))
    assert found(double) == ["https://one.example/a"]
    assert double.asked == [
        {"q": "sluice gates", "format": "json", "language": "en", "safesearch": "1"}
    ]
    (headers,) = double.headers
    assert headers["user-agent"].startswith("Penstock/")
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("ending", "path"),
    {
        "": "/search",
        "/": "/search",
        "/search": "/search",
        "/search/": "/search",
        "/searxng": "/searxng/search",
        "/searxng/search": "/searxng/search",
        "/research": "/research/search",
    }.items(),
)
def test_the_url_may_be_the_root_or_its_search(ending: str, path: str) -> None:
    double = SearchDouble(results=results(["https://one.example/a"]), path=path)
    with serve(double) as at:
        assert len(ask(f"{at.url}{ending}")) == 1


def test_what_the_url_already_asks_for_is_kept() -> None:
    double = SearchDouble()
    with serve(double) as at:
        ask(f"{at.url}/search?categories=it&q=mine")
    assert double.asked[0]["categories"] == "it"
    assert double.asked[0]["q"] == "sluice gates"


@pytest.mark.parametrize(
    ("tag", "language"),
    {
        "en": "en", "de-AT": "de-AT", "DE-at": "de-AT", "zh-Hans": "zh", "zh-Hant-TW": "zh-TW",
        "sr-Latn-RS": "sr-RS", "ast": "ast", "de-1996": "de", "nonsense tag": "all", "": "all",
    }.items(),
)  # fmt: skip
def test_the_language_is_one_that_searxng_takes(tag: str, language: str) -> None:
    double = SearchDouble()
    with serve(double) as at:
        ask(at.url, language=tag)
    assert double.asked[0]["language"] == language


@pytest.mark.parametrize(
    ("query", "plain"),
    {
        "How do sluices work?": "How do sluices work?",
        "!!g sluices": "g sluices",
        "!images :de <900 sluices": "images de 900 sluices",
        "a ! b": "a b",
        "two\nlines\tand\u00a0more": "two lines and more",
        "zero\u200bwidth\u202e": "zerowidth",
        "C++ & Rust": "C++ & Rust",
        "word " * 100: ("word " * 40).strip(),
        "x" * 500: "x" * QUERY_CHARS_MAX,
        "日本語" * 100: ("日本語" * 100)[:QUERY_CHARS_MAX],
    }.items(),
)
def test_a_question_is_words_and_not_commands(query: str, plain: str) -> None:
    assert plain_query(query) == plain


@given(st.text())
def test_every_question_is_short_and_on_one_line(query: str) -> None:
    plain = plain_query(query)
    assert len(plain) <= QUERY_CHARS_MAX
    assert plain == " ".join(plain.split())
    assert plain_query(plain) == plain
    plain.encode()


@pytest.mark.parametrize(("query", "limit"), [("", 5), (" \u200b ", 5), ("!!", 5), ("words", 0)])
def test_no_question_is_not_asked(query: str, limit: int) -> None:
    double = SearchDouble(results=results(["https://one.example/a"]))
    assert found(double, query, limit) == []
    assert double.asked == []


# What is found


def test_no_more_than_was_asked_for_in_the_endpoints_order() -> None:
    double = SearchDouble(results=results(f"https://one.example/{n}" for n in range(50)))
    assert [url[-1] for url in found(double, limit=3)] == ["0", "1", "2"]
    assert len(found(double, limit=1000)) == RESULTS_MAX


def test_an_address_counts_once_whatever_its_fragment() -> None:
    double = SearchDouble(
        results=[
            result("https://one.example/a#top"),
            result("https://one.example/a"),
            result("https://one.example/b"),
            result("https://one.example/a#end"),
        ]
    )
    assert [url[-1] for url in found(double)] == ["a", "b"]


@pytest.mark.parametrize(
    "url",
    [
        None, 7, [], {}, "", " ", "one.example/a", "//one.example/a", "ftp://one.example/a",
        "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "magnet:?xt=urn:btih:x",
        "https://", "https:///a", "http://[::1", "https://one.example:port/", "https://x:0/",
        "https://one.example:99999/", "https://me:secret@one.example/", "https://one.example/a b",
        "https://one.example/a\nb", "https://one.example/" + "a" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_address_on_the_web_is_left_out(url: object) -> None:
    double = SearchDouble(results=[result(url), result("https://one.example/good")])
    assert found(double) == ["https://one.example/good"]


@pytest.mark.parametrize("odd", [None, 7, "https://one.example/", [], ["url"], {}])
def test_one_odd_result_does_not_spoil_the_others(odd: object) -> None:
    double = SearchDouble(results=[odd, result("https://one.example/good")])
    assert found(double) == ["https://one.example/good"]


def test_an_address_is_cleaned_of_what_does_not_show() -> None:
    double = SearchDouble(results=[result("https://one.example/\u200ba", "t\ud800", ["s"])])
    assert found(double) == ["https://one.example/a"]


def test_nothing_found_is_an_answer() -> None:
    assert found(SearchDouble()) == []


def test_engines_that_fail_are_named_when_nothing_was_found() -> None:
    double = SearchDouble(
        unresponsive=[["brave", "too many requests"], ["google", "CAPTCHA"], ["a", "b"], ["c", "d"]]
    )
    message = refusal(double)
    assert "brave (too many requests), google (CAPTCHA), a (b) and 1 more" in message
    double.results = results(["https://one.example/a"])
    assert len(found(double)) == 1


@pytest.mark.parametrize("silent", ["brave", [7], [["brave"]], [[1, 2]], {"brave": 1}])
def test_odd_news_of_engines_changes_nothing(silent: object) -> None:
    double = SearchDouble()
    double.unresponsive = silent  # type: ignore[assignment]
    assert found(double) == []


# What goes wrong


def test_a_format_that_is_switched_off_is_told_with_its_remedy() -> None:
    message = refusal(SearchDouble(formats=frozenset({"html"})))
    assert "HTTP 403; enable `json` in search.formats of its settings.yml" in message


def test_the_limiter_is_told_with_its_remedy_and_lets_us_in_again_when_it_likes() -> None:
    double = SearchDouble(results=results(["https://one.example/a"]), limit=1)
    with serve(double) as at:
        assert ask(at.url)
        with pytest.raises(SearchError, match=r"HTTP 429; ask less often, or .*pass_ip"):
            ask(at.url)
        double.limit = None
        assert ask(at.url)


SAYS = {
    Mischief.HTML: "web page instead of JSON; enable `json`",
    Mischief.HTML_AS_JSON: "web page instead of JSON; enable `json`",
    Mischief.NOT_JSON: "not JSON",
    Mischief.EMPTY: "not JSON",
    Mischief.CUT_JSON: "not JSON",
    Mischief.BINARY: "not JSON",
    Mischief.WRONG_TOP: "no list of results",
    Mischief.WRONG_RESULTS: "no list of results",
    Mischief.NULL_RESULTS: "no list of results",
    Mischief.WRONG_RESULT: "no list of results",
    Mischief.NAN: "not JSON",
    Mischief.DEEP: "not JSON",
    Mischief.HUGE: "more than 1 MB",
    Mischief.HUGE_NUMBER: "not JSON",
    Mischief.COMPRESSED: "compresses its answer",
    Mischief.REDIRECT: "put its final URL in PENSTOCK_SEARCH_URL",
    Mischief.SERVER_ERROR: "HTTP 500",
    Mischief.UNAUTHORIZED: "HTTP 401; it asks for a login",
    Mischief.BAD_LANGUAGE: "HTTP 400; look at PENSTOCK_LANGUAGE",
    Mischief.STALL: "no whole answer in 0.3 s",
    Mischief.TRICKLE: "no whole answer in 0.3 s",
    Mischief.CUT: "cannot be reached",
    Mischief.RESET: "cannot be reached",
    Mischief.DROP: "cannot be reached",
}


@pytest.mark.parametrize("mischief", Mischief)
def test_whatever_goes_wrong_is_one_line_and_the_next_question_is_answered(
    mischief: Mischief,
) -> None:
    double = SearchDouble(results=results(["https://one.example/a"]))
    double.misbehave(mischief)
    slow = mischief in (Mischief.STALL, Mischief.TRICKLE)
    assert SAYS[mischief] in refusal(double, timeout_s=0.3 if slow else 5.0)
    assert len(found(double)) == 1


def test_a_body_without_an_end_is_not_held() -> None:
    double = SearchDouble()
    double.misbehave(Mischief.HUGE)
    tracemalloc.start()
    try:
        refusal(double)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_a_stalled_endpoint_is_left_when_its_time_is_up() -> None:
    double = SearchDouble()
    double.misbehave(Mischief.STALL)
    began = time.monotonic()
    refusal(double, timeout_s=0.2)
    assert time.monotonic() - began < 30


def test_an_endpoint_that_is_not_there_is_told() -> None:
    with serve(SearchDouble()) as at:
        pass
    with pytest.raises(SearchError, match=r"cannot be reached .*; look at PENSTOCK_SEARCH_URL"):
        ask(at.url)


def test_a_login_in_the_url_is_used_and_never_told() -> None:
    double = SearchDouble()
    with serve(double) as at:
        url = at.url.replace("http://", "http://me:hush@")
        ask(url)
        double.misbehave(Mischief.NOT_JSON)
        with pytest.raises(SearchError) as caught:
            ask(url)
    assert double.headers[0]["authorization"].startswith("Basic ")
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(caught.value.__cause__)


def test_the_environments_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert found(SearchDouble()) == []


def test_it_can_be_driven_without_a_socket() -> None:
    double = SearchDouble(results=results(["https://one.example/a"]))
    transport = InProcess({"search.example": double})
    assert len(ask("https://search.example", transport=transport)) == 1
