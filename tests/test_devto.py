"""Whatever Dev.to answers, or does not, exactly one article of a run is public in the end."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from publishers.devto import ANSWER_BYTES_MAX, API_V1, PAGE_SIZES, DevTo, unwrap, usable_key
from publishers.errors import Barred, OutcomeUnknown, PublisherError, Rejected, Transient
from publishers.port import Engaging, Intent, Post, Publisher, Receipt, Withdrawing
from publishers.testing import forgotten
from tests.doubles.devto import KEY, DevToDouble, Kind
from tests.doubles.wire import InProcess, Request, serve
from tests.peers.prism import NotRun, prism
from tests.stage import Killed
from tests.virtual import HastyClock, VirtualTime

T = TypeVar("T")

OTHER_KEY = "another-accounts-key"
RUN = "20261123T080000-7f3a"
BODY = (
    "A *sluice* holds\nwater `{{ like }}` this.\n\n## Sources\n\n"
    "1. [Water](https://one.example/a)\n\n---\n\n"
    f"*Written autonomously by software, Penstock, in run {RUN}. No person wrote this text.*\n"
)
POST = Post(
    run=RUN,
    title="On sluices & gates",
    description="About sluices.",
    tags=("sluices", "water"),
    markdown=BODY,
    at=datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
    language="en-GB",
    canonical_url="https://own.example/on-sluices",
)


@dataclass
class Fate:
    """Counts the places at which a process can die, and lets it die at one of them."""

    at: int | None = None
    passed: int = 0

    def boundary(self) -> None:
        self.passed += 1
        if self.passed - 1 == self.at:
            raise Killed


@dataclass
class Wire(httpx.AsyncBaseTransport):
    """The way to the double; a process can die before a request left, or once it was done."""

    inner: httpx.AsyncBaseTransport
    fate: Fate

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.fate.boundary()
        try:
            return await self.inner.handle_async_request(request)
        finally:
            self.fate.boundary()


@dataclass
class World:
    """A site, virtual time, and what the journal keeps of one intent."""

    time: VirtualTime
    site: DevToDouble
    noted: str | None = None
    notes: list[str] = field(default_factory=list)
    post: Post = POST
    fate: Fate = field(default_factory=Fate)
    alive: DevTo | None = None

    def devto(self, key: str = KEY, **options: Any) -> DevTo:
        """A process's destination."""
        wire = Wire(InProcess({"dev.to": self.site}), self.fate)
        return DevTo(key, clock=self.time.clock, transport=wire, **options)

    @property
    def process(self) -> DevTo:
        """That of the process which lives now."""
        if self.alive is None:
            self.alive = self.devto()
        return self.alive

    @property
    def intent(self) -> Intent:
        return replace(self.process.intend(self.post), noted=self.noted)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.time.run(coroutine)

    def publish(self) -> Receipt:
        """Publish by the process that lives, unless it dies meanwhile."""

        async def note(text: str) -> None:
            self.fate.boundary()
            self.noted = text
            self.notes.append(text)
            self.fate.boundary()

        try:
            return self.run(self.process.publish(self.intent, note))
        except Killed:
            self.alive = None
            raise

    def until_published(self, attempts_max: int = 20) -> Receipt:
        """Go on as the daemon does, which waits as it is told and asks again."""
        for _ in range(attempts_max):
            try:
                return self.publish()
            except Transient as error:
                self.sleep(error.retry_after_s or 60.0)
            except OutcomeUnknown:
                self.sleep(600.0)
        raise AssertionError("it was never published")

    def sleep(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))


@contextmanager
def world(**site: Any) -> Iterator[World]:
    virtual = VirtualTime()
    yield World(virtual, DevToDouble(virtual.loop.time, **site))


def once(there: World, receipt: Receipt | None = None) -> None:
    """Exactly one article is public, it is whole, and it never had company."""
    assert len(there.site.public) == 1
    assert there.site.public_most == 1
    article = there.site.public[0]
    assert RUN in article.fields["body_markdown"]
    assert article.fields["ai_disclosure_level"] == "fully_autonomous"
    if receipt is not None:
        assert receipt.remote_id == str(article.id)
        assert receipt.url == f"https://dev.to/penstock/{article.slug}"
        assert "-temp-slug-" not in receipt.url


# The plain way


def test_a_draft_is_made_noted_and_then_published() -> None:
    with world() as there:
        receipt = there.publish()
        once(there, receipt)
        assert [r.method for r in there.site.requests] == ["POST", "PUT"]
        assert there.notes == ["creating", f"draft {receipt.remote_id}"]
        assert there.site.throttles == 0


def test_it_is_a_destination_that_counts_and_takes_back() -> None:
    with world() as there:
        devto: Publisher = there.process
        assert (devto.name, devto.public) == ("devto", True)
        assert isinstance(devto, Engaging)
        assert isinstance(devto, Withdrawing)


def test_every_request_says_who_asks_and_which_version_it_speaks() -> None:
    with world() as there:
        there.publish()
        for request in there.site.requests:
            assert request.headers["accept"] == API_V1
            assert request.headers["api-key"] == KEY
            assert "Penstock" in request.headers["user-agent"]
            assert request.headers["content-type"] == "application/json"


def test_the_intent_is_the_exact_request_that_makes_the_draft() -> None:
    with world() as there:
        intent = there.devto(series="Gates", cover=lambda post: "https://own.example/c.png").intend(
            POST
        )
        assert intent.key == RUN
        assert intent.noted is None
        there.run(there.process.publish(intent, forgotten))
        assert there.site.sent("POST")[0].body == intent.payload
        assert json.loads(intent.payload) == {
            "article": {
                "title": POST.title,
                "description": "About sluices.",
                "tags": ["sluices", "water"],
                "body_markdown": BODY.replace("holds\nwater", "holds water"),
                "published": False,
                "ai_disclosure_level": "fully_autonomous",
                "canonical_url": "https://own.example/on-sluices",
                "language": "en",
                "series": "Gates",
                "main_image": "https://own.example/c.png",
            }
        }


def test_what_is_not_configured_is_not_sent() -> None:
    with world() as there:
        plain = replace(POST, canonical_url=None, language="gsw")
        article = json.loads(there.process.intend(plain).payload)["article"]
        assert not article.keys() & {"canonical_url", "language", "series", "main_image"}


def test_repeating_a_published_intent_only_reads() -> None:
    with world() as there:
        first = there.publish()
        before = len(there.site.requests)
        assert there.publish() == first
        assert {r.method for r in there.site.requests[before:]} == {"GET"}


def test_an_address_is_only_taken_from_an_article_that_is_public() -> None:
    with world() as there:
        there.site.misbehave("ignored", method="PUT")
        # It says that it is out, and has the address of a draft.
        there.site.misbehave(
            "status", method="PUT", code=200,
            body={"id": 1_000_001, "published_timestamp": "2026-11-23T08:00:00Z",
                  "url": "https://dev.to/penstock/on-sluices-temp-slug-1"},
        )  # fmt: skip
        receipt = there.publish()
        once(there, receipt)


# What is not sent at all


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"markdown": f"Text {{% embed x %}}\n\nrun {RUN}"}, "outside code"),
        ({"markdown": f"Text {{{{ secret }}}}\n\nrun {RUN}"}, "outside code"),
        ({"markdown": f"Text {{\\% x\n\nrun {RUN}"}, "outside code"),
        ({"markdown": f"Text &#123;% x\n\nrun {RUN}"}, "outside code"),
        ({"markdown": f"    {{% x %}}\n\nrun {RUN}"}, "outside code"),
        ({"markdown": f"~~~\n{{% x %}}\n~~~\n\nrun {RUN}"}, "outside code"),
        ({"markdown": f"`{{% endraw %}}`\n\nrun {RUN}"}, "outside code"),
        ({"markdown": f"---\npublished: true\n---\nText\n\nrun {RUN}"}, "front matter"),
        ({"markdown": f"\ufeff\n+++\nx = 1\n+++\n\nrun {RUN}"}, "front matter"),
        ({"markdown": "Text without its closing line."}, RUN),
        ({"markdown": f"In run {RUN}.\n\nOnly above."}, RUN),
        ({"markdown": f"Text\n\nrun {RUN}b"}, RUN),
        ({"markdown": "x" * 800 * 1024 + f"\n\nrun {RUN}"}, "800 kB"),
        ({"title": "x" * 129}, "128"),
        ({"title": " "}, "128"),
        ({"tags": ("a", "b", "c", "d", "e")}, "4 tags"),
        ({"tags": ("machine-learning",)}, "tags"),
        ({"tags": ("x" * 31,)}, "tags"),
        ({"canonical_url": "ftp://own.example/"}, "canonical"),
        ({"canonical_url": "https://own.example/a b"}, "canonical"),
    ],
)
def test_what_the_site_would_refuse_or_run_is_not_sent(change: dict[str, Any], why: str) -> None:
    with world() as there:
        there.post = replace(POST, **change)
        with pytest.raises(Rejected, match=why):
            there.publish()
        assert there.site.requests == []
        assert there.noted is None


@pytest.mark.parametrize(
    "code", ["`{{ x }}`", "```\n{% x %}\n```", "``{% ` %}``", "```liquid\n{{ `x` }}\n```"]
)
def test_template_tags_in_code_are_sent(code: str) -> None:
    with world() as there:
        there.post = replace(POST, markdown=f"See {code if code[2] != '`' else ''}\n\nrun {RUN}")
        there.publish()
        assert len(there.site.public) == 1


# Paragraphs


@pytest.mark.parametrize(
    ("wrapped", "unwrapped"),
    [
        ("one\ntwo", "one two"),
        ("one \n  two\nthree", "one two three"),
        ("one  \ntwo\nthree", "one  \ntwo three"),
        ("one\\\ntwo", "one\\\ntwo"),
        ("- one\n  two\n- three", "- one two\n- three"),
        ("> one\n> two\n>\n> three\nfour", "> one two\n>\n> three four"),
        ("1. one\n   two\n\n   three\n   four", "1. one two\n\n   three four"),
        ("```\none\ntwo\n```", "```\none\ntwo\n```"),
        ("    one\n    two", "    one\n    two"),
        ("| a | b |\n|---|---|\n| c | d |", "| a | b |\n|---|---|\n| c | d |"),
        ("# one\ntwo\n## three", "# one\ntwo\n## three"),
        ("one `two\nthree` four", "one `two three` four"),
        ("one\r\ntwo", "one two"),
        ("one\n\ntwo", "one\n\ntwo"),
    ],
)
def test_paragraphs_go_out_on_one_line(wrapped: str, unwrapped: str) -> None:
    assert unwrap(wrapped) == unwrapped


@given(
    st.lists(
        st.sampled_from(
            ["a", "b c", " d", "e  ", "f\\", "- g", "> h", "1. i", "`j", "k`", "*l", "m*", "```",
             "    n", "# o", "---", "|p|", "[q]: /r", "", "", "~~~", "+ s", "=", "&", "<t>"]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_unwrapping_changes_nothing_that_is_read(lines: list[str]) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("softbreak", lambda *_: " ")
    text = "\n".join(lines)
    assert parser.render(unwrap(text)) == parser.render(text)
    assert unwrap(unwrap(text)) == unwrap(text)


# Faults: whatever happens to whichever request, one article is public in the end

KINDS: list[tuple[Kind, dict[str, Any]]] = [
    ("status", {"code": 500}),
    ("status", {"code": 502, "body": "<html>Bad gateway</html>"}),
    ("status", {"code": 503, "retry_after": "7"}),
    ("status", {"code": 408}),
    ("status", {"code": 401, "body": {"error": "unauthorized", "status": 401}}),
    ("status", {"code": 403, "body": "Forbidden Bots"}),
    ("status", {"code": 418}),
    ("status_after", {"code": 500, "body": {"error": "boom", "status": 500}}),
    ("status_after", {"code": 504, "body": "upstream timed out"}),
    ("edge_429", {}),
    ("edge_429", {"retry_after": "1"}),
    ("app_429", {"seconds": 30}),
    ("app_429", {"retry_after": "30"}),
    ("reset_before", {}),
    ("reset_after", {}),
    ("drop_before", {}),
    ("drop_after", {}),
    ("cut_after", {}),
    ("stall_before", {}),
    ("stall_after", {}),
    ("html_after", {}),
    ("text_after", {}),
    ("empty_after", {}),
    ("wrong_after", {}),
    ("huge_after", {}),
    ("deep_after", {}),
    ("redirect", {}),
]
KIND_IDS = [f"{kind}-{'-'.join(map(str, details.values()))[:20]}" for kind, details in KINDS]


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", None])
@pytest.mark.parametrize(("kind", "details"), KINDS, ids=KIND_IDS)
def test_one_article_whatever_goes_wrong(
    kind: Kind, details: dict[str, Any], method: str | None
) -> None:
    for times, delay_s in itertools.product((1, 2, 4), (0.0, 45.0)):
        with world(list_delay_s=delay_s) as there:
            # Reading comes into it only where something was lost.
            if method == "GET":
                there.site.misbehave("drop_after", method="POST")
            there.site.misbehave(kind, method=method, times=times, **details)
            receipt = there.until_published()
            once(there, receipt)
            assert there.site.throttles == 0
            assert f"draft {receipt.remote_id}" in str(there.noted)
            assert there.site.drafts == [], "a stray draft came of it"


def test_a_lost_create_is_found_by_the_runs_id_at_once() -> None:
    with world() as there:
        there.site.misbehave("drop_after", method="POST")
        once(there, there.publish())
        assert len(there.site.sent("POST")) == 1


@pytest.mark.parametrize(("delay_s", "creates"), [(1.0, 1), (25.0, 1), (100.0, 1), (200.0, 2)])
def test_it_is_looked_for_after_30_and_120_seconds_before_it_is_made_again(
    delay_s: float, creates: int
) -> None:
    with world(list_delay_s=delay_s) as there:
        there.site.misbehave("drop_after", method="POST")
        there.until_published()
        once(there)
        assert len(there.site.sent("POST")) == creates
        # Looked for no later than it could be seen: a moment after, 30 s or 120 s later.
        if creates == 1:
            assert there.time.loop.time() < (30 if delay_s < 30 else 120) + 10
        # The second create is refused: the title was used within five minutes, so it landed.
        assert there.site.drafts == []


def test_a_create_that_never_arrived_is_sent_again_within_the_titles_five_minutes() -> None:
    with world() as there:
        there.site.misbehave("drop_before", method="POST")
        once(there, there.publish())
        assert len(there.site.sent("POST")) == 2
        assert 120 <= there.time.loop.time() < 300


def test_an_outcome_that_cannot_be_seen_is_unknown_and_its_key_finds_it() -> None:
    with world() as there:
        there.site.misbehave("drop_before", method="POST", times=2)
        with pytest.raises(OutcomeUnknown) as caught:
            there.publish()
        assert caught.value.key == RUN
        assert there.site.articles == {}
        assert there.run(there.process.find(there.intent)) is None
        once(there, there.publish())


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("effect", ["drop_after", "drop_before"])
@pytest.mark.parametrize("lost", [1, 2, 5, 30])
@pytest.mark.parametrize("pause_s", [1, 100, 700])
@pytest.mark.parametrize("delay_s", [0, 45, 200, 1_000, 10_000])
def test_an_unknown_outcome_can_be_asked_for_again_any_number_of_times(
    method: str, effect: Kind, lost: int, pause_s: int, delay_s: int
) -> None:
    with world(list_delay_s=delay_s) as there:
        there.site.misbehave(effect, method=method, times=lost)
        unknown = 0
        for _ in range(8):
            try:
                there.publish()
            except OutcomeUnknown:
                unknown += 1
            except Transient:
                pass
            assert there.site.public_most <= 1
            there.sleep(pause_s)
        assert unknown or lost < 5 or effect == "drop_after"
        there.site.troubles.clear()
        there.sleep(delay_s)
        receipt = there.until_published()
        once(there, receipt)
        there.sleep(delay_s)
        assert there.run(there.process.find(there.intent)) == receipt
        assert there.publish() == receipt
        # However many drafts came of it, the one that is noted is the one that is public.
        assert str(there.noted).startswith(f"draft {receipt.remote_id}")


def test_what_an_intent_that_was_forgotten_made_is_found_by_its_run() -> None:
    with world() as there:
        receipt = there.publish()
        # The journal is restored from a backup, and the intent is made anew on another day.
        there.noted, there.alive = None, None
        there.post = replace(POST, at=POST.at + timedelta(days=2), title="Another title")
        assert there.intent.noted is None
        assert there.run(there.process.find(there.intent)) == receipt
        there.site.turn(int(receipt.remote_id), published=False)
        assert there.run(there.process.find(there.intent)) is None


def test_a_stray_draft_stays_a_draft_and_the_note_names_it() -> None:
    with world() as there:
        there.site.misbehave("drop_after", method="POST")
        there.site.list_delay_s = 1_000.0
        with pytest.raises(Transient):
            there.publish()
        # Two creates that both took effect, as if the site had forgotten its rule.
        stray = there.site.write("Another", BODY)
        there.sleep(1_000)
        receipt = there.publish()
        once(there, receipt)
        assert there.noted == f"draft {receipt.remote_id}, strays {stray.id}"
        assert there.site.drafts == [stray]


def test_a_title_somebody_else_used_is_waited_for() -> None:
    with world() as there:
        there.site.write(POST.title, "by hand")
        with pytest.raises(Transient) as caught:
            there.publish()
        assert caught.value.retry_after_s == 300.0
        there.sleep(300)
        once(there, there.publish())
        assert len(there.site.drafts) == 1


def test_an_article_that_only_quotes_the_runs_id_is_not_taken_for_it() -> None:
    with world() as there:
        there.site.write("Other", f"{BODY}\n\n*in run 20261130T080000-aaaa.*", published=True)
        there.site.misbehave("drop_before", method="POST")
        receipt = there.publish()
        assert len(there.site.public) == 2
        assert receipt.remote_id == str(max(there.site.articles))


def test_an_update_whose_outcome_cannot_be_read_is_unknown() -> None:
    with world() as there:
        there.site.misbehave("drop_after", method="PUT", times=3)
        there.site.misbehave("status", method="GET", times=3, code=500)
        with pytest.raises(OutcomeUnknown) as caught:
            there.publish()
        assert caught.value.key == RUN
        found = there.run(there.process.find(there.intent))
        once(there, found)
        assert there.publish() == found


def test_a_draft_somebody_deleted_is_not_made_again() -> None:
    with world() as there:
        there.site.misbehave("edge_429", method="PUT")
        with pytest.raises(Transient):
            there.publish()
        there.site.delete(1_000_001)
        with pytest.raises(Rejected, match="deleted"):
            there.publish()
        assert there.site.articles == {}


def published_unseen(there: World) -> None:
    """The article went live, nobody said so, and DEVTO_API_KEY is another account's since."""
    there.site.misbehave("drop_after", method="PUT", times=3)
    there.site.misbehave("status", method="GET", times=3, code=500)
    with pytest.raises(OutcomeUnknown):
        there.publish()
    assert len(there.site.public) == 1
    there.site.troubles.clear()
    there.site.others.add(OTHER_KEY)
    there.alive = there.devto(OTHER_KEY)
    there.sleep(60)


def test_what_went_live_under_another_key_is_found_by_its_run() -> None:
    with world() as there:
        published_unseen(there)
        once(there, there.run(there.process.find(there.intent)))
        once(there, there.publish())


def test_what_may_have_gone_live_under_another_key_is_not_let_go() -> None:
    with world() as there:
        published_unseen(there)
        there.site.articles[1_000_001].fields["body_markdown"] = "Edited by hand."
        with pytest.raises(Barred, match="DEVTO_API_KEY"):
            there.publish()
        with pytest.raises(Barred, match="DEVTO_API_KEY"):
            there.run(there.process.find(there.intent))
        there.site.misbehave("status", method="GET", after=1, times=None, code=502)
        with pytest.raises(Transient, match="does not say"):
            there.publish()
        there.site.troubles.clear()
        there.alive = None
        there.sleep(60)
        assert there.publish().remote_id == "1000001"


def test_a_draft_somebody_published_by_hand_is_the_article() -> None:
    with world() as there:
        there.site.misbehave("edge_429", method="PUT")
        with pytest.raises(Transient):
            there.publish()
        there.site.turn(1_000_001, published=True)
        receipt = there.publish()
        once(there, receipt)
        assert len(there.site.sent("PUT")) == 1


def test_front_matter_added_by_hand_keeps_the_draft_and_a_person_is_told() -> None:
    with world() as there:
        there.site.misbehave("edge_429", method="PUT")
        with pytest.raises(Transient):
            there.publish()
        article = there.site.articles[1_000_001]
        article.fields["body_markdown"] = f"---\npublished: false\n---\n{BODY}"
        with pytest.raises(Barred, match="front matter"):
            there.publish()


# What the site renders


def test_a_liquid_error_in_the_answer_leaves_the_draft_a_draft() -> None:
    with world() as there:
        there.site.misbehave(
            "status_after", method="POST", code=201,
            body={"id": 1_000_001, "body_html": "Liquid syntax error: Unknown tag 'like'\n"},
        )  # fmt: skip
        with pytest.raises(Rejected, match=r"Unknown tag 'like'.*draft 1000001"):
            there.publish()
        assert there.site.public == []
        assert len(there.site.drafts) == 1


def test_a_draft_found_again_is_looked_at_before_it_is_published() -> None:
    with world() as there:
        there.site.misbehave("drop_after", method="POST")
        there.site.misbehave(
            "status_after", method="PUT", code=200,
            body={"id": 1_000_001, "body_html": "<p>Liquid error: internal</p>"},
        )  # fmt: skip
        with pytest.raises(Rejected, match="Liquid error"):
            there.publish()
        assert there.site.public == []


def test_an_article_about_liquid_errors_is_published() -> None:
    with world() as there:
        text = f"Jekyll says `Liquid syntax error: x` where it fails.\n\n{BODY}"
        there.post = replace(POST, markdown=text)
        once(there, there.publish())


# Refusals


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Canonical url has already been taken. Email support@dev.to for…", "withdraw the other"),
        ("Tag list exceed the maximum of 4 tags", "four tags"),
        ('Tag "c++" contains non-alphanumeric or prohibited unicode characters', "letters"),
        ("Title is too long (maximum is 128 characters for full_post)", "at most 128"),
        ("ai_disclosure_level is required when creating an article.", "upgrade"),
        ("You cannot mention more than 7 users in a post!", "mentions"),
        ("Something new", "Something new"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_the_site_will_never_take_is_let_go_with_a_remedy(
    said: str, remedy: str, method: str
) -> None:
    with world() as there:
        there.site.misbehave(
            "status", method=method, times=None, code=422, body={"error": said, "status": 422}
        )
        with pytest.raises(Rejected, match=remedy):
            there.publish()
        assert there.site.public == []
        assert len(there.site.requests) == (1 if method == "POST" else 2)


def test_a_canonical_url_that_is_taken_leaves_a_draft_and_says_so() -> None:
    with world() as there:
        assert POST.canonical_url is not None
        there.site.taken_canonicals.add(POST.canonical_url)
        with pytest.raises(Rejected, match=r"canonical URL.*left as the draft 1000001"):
            there.publish()
        assert there.site.public == []


@pytest.mark.parametrize(
    ("code", "body", "remedy"),
    [
        (401, {"error": "unauthorized", "status": 401}, "https://dev.to/settings/extensions"),
        (403, "Forbidden Bots", "keeps this program"),
        (401, {"error": "unauthorized", "status": 401}, "DEVTO_API_KEY"),
        (403, {"error": "Your account is suspended", "status": 403}, "is suspended"),
        (422, {"error": "Your account has been suspended", "status": 422}, "DEVTO_API_KEY"),
        (404, "<html>nothing here</html>", "DEVTO_URL"),
        (404, {"error": "not found", "status": 404}, "DEVTO_URL"),
        (302, "", "DEVTO_URL"),
    ],
)
def test_when_it_is_us_who_are_refused_a_person_is_told_and_nothing_is_lost(
    code: int, body: Any, remedy: str
) -> None:
    with world() as there:
        there.site.misbehave("status", method="POST", code=code, body=body)
        with pytest.raises(Barred, match=remedy) as caught:
            there.publish()
        said = body["error"] if isinstance(body, dict) else str(code)
        assert said in str(caught.value), "in the site's own words"
        assert not there.noted, "a refused create needs no looking"
        once(there, there.publish())
        assert len(there.site.sent("POST")) == 2
        assert there.site.sent("GET") == []


@pytest.mark.parametrize("method", ["PUT", "GET"])
@pytest.mark.parametrize("code", [401, 403])
def test_a_key_refused_on_the_way_leaves_the_draft_for_later(method: str, code: int) -> None:
    with world() as there:
        if method == "GET":
            there.site.misbehave("drop_after", method="POST")
        there.site.misbehave("status", method=method, times=None, code=code)
        with pytest.raises(Barred):
            there.publish()
        assert there.site.public == []
        there.site.troubles.clear()
        there.sleep(1)
        once(there, there.publish())
        assert there.site.drafts == []


def test_an_article_that_may_be_public_stays_so_though_the_key_is_refused_then() -> None:
    with world() as there:
        there.site.misbehave("drop_after", method="PUT")
        there.site.misbehave("status", method="PUT", times=None, code=401)
        there.site.misbehave("status", method="GET", times=None, code=401)
        with pytest.raises(OutcomeUnknown):
            there.publish()
        with pytest.raises(Barred):
            there.publish()
        there.site.troubles.clear()
        there.sleep(1)
        once(there, there.run(there.process.find(there.intent)))


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_look_that_is_refused_says_nothing_against_the_post(code: int) -> None:
    with world() as there:
        there.site.misbehave("drop_after", method="POST")
        there.site.misbehave("status", method="GET", times=None, code=code)
        with pytest.raises(Transient):
            there.publish()
        with pytest.raises(Transient):
            there.run(there.process.find(there.intent))
        there.site.troubles.clear()
        there.sleep(1)
        receipt = there.publish()
        there.site.misbehave("status", method="GET", code=code)
        with pytest.raises(Transient):
            there.run(there.process.engagement([receipt]))


def test_a_tag_that_speaks_of_suspension_is_not_taken_for_an_account() -> None:
    with world() as there:
        said = 'Tag "user-suspended" contains non-alphanumeric or prohibited unicode characters'
        there.site.misbehave("status", method="POST", code=422, body={"error": said, "status": 422})
        with pytest.raises(Rejected):
            there.publish()


@pytest.mark.parametrize(
    "key", ["", " ", "clé", "a b", "a\nb", "a\r\nx-other: b", "\x00", "k\x7f", "☃", "\ud800", " k"]
)
def test_a_key_that_is_none_is_told_and_never_sent(key: str) -> None:
    assert not usable_key(key)
    with world() as there:
        there.alive = there.devto(key=key)
        with pytest.raises(Barred, match="DEVTO_API_KEY"):
            there.publish()
        with pytest.raises(Barred, match="DEVTO_API_KEY"):
            there.run(there.process.find(there.intent))
        assert there.site.requests == []
        assert not there.noted
        there.alive = there.devto()
        once(there, there.publish())


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_key_of_printable_characters_can_be_sent(key: str) -> None:
    assert usable_key(key)
    httpx.Headers({"api-key": key})


def test_a_wrong_key_is_told_and_never_shown() -> None:
    with world() as there:
        there.site.misbehave("status", method="POST", code=400, body=f"no key {KEY}x here")
        with pytest.raises(Rejected) as caught:
            there.publish()
        assert KEY not in str(caught.value)
        there.alive = there.devto(key="wrong")
        there.sleep(1)
        with pytest.raises(Barred, match="new one"):
            there.publish()


@pytest.mark.parametrize(
    ("kind", "details", "seconds"),
    [
        ("edge_429", {}, 30.0),
        ("edge_429", {"retry_after": "7"}, 7.0),
        ("edge_429", {"retry_after": "Mon, 23 Nov 2026 08:01:00 GMT"}, 60.0),
        ("edge_429", {"retry_after": "Mon, 23 Nov 2020 08:01:00 GMT"}, 0.0),
        ("edge_429", {"retry_after": "soon"}, 30.0),
        ("edge_429", {"retry_after": "9" * 400}, 86_400.0),
        ("app_429", {"seconds": 12}, 12.0),
        ("app_429", {"seconds": 12, "retry_after": "300"}, 300.0),
    ],
)
def test_a_throttle_says_when_to_come_back(
    kind: Kind, details: dict[str, Any], seconds: float
) -> None:
    with world() as there:
        there.site.misbehave(kind, method="POST", **details)
        with pytest.raises(Transient) as caught:
            there.publish()
        assert caught.value.retry_after_s == pytest.approx(seconds, abs=0.01)


# Pace


def test_the_sites_limits_are_kept_without_being_told() -> None:
    with world(page_max=2) as there:
        for number in range(90):
            there.site.write(f"Earlier {number}", "by hand", published=number % 2 == 0)
        there.site.misbehave("drop_after", method="POST")
        receipt = there.publish()
        there.run(there.process.withdraw(receipt, "wrong"))
        assert there.site.throttles == 0
        assert len(there.site.sent("GET")) > 45
        assert there.time.loop.time() > 60


def test_calls_of_one_instance_share_its_pace() -> None:
    with world() as there:
        devto = there.process
        for number in range(5):
            there.site.write(f"Earlier {number}", "by hand", published=True)
        receipts = [Receipt(None, str(number)) for number in there.site.articles]

        async def at_once() -> None:
            await asyncio.gather(
                *(devto.engagement(receipts) for _ in range(20)),
                *(devto.withdraw(receipt, "all") for receipt in receipts),
            )

        there.run(at_once())
        assert there.site.throttles == 0
        assert there.site.public == []


# Killed at every boundary


def plain(there: World) -> None:
    """Nothing goes wrong besides."""


def lost_create(there: World) -> None:
    there.site.misbehave("drop_after", method="POST")


def create_not_arrived(there: World) -> None:
    there.site.misbehave("drop_before", method="POST")


def lost_update(there: World) -> None:
    there.site.misbehave("drop_after", method="PUT")


def late_list(there: World) -> None:
    there.site.list_delay_s = 45.0
    there.site.misbehave("stall_after", method="POST")
    there.site.misbehave("reset_before", method="PUT")


def broken_list(there: World) -> None:
    there.site.misbehave("status_after", method="POST", code=502)
    there.site.misbehave("status", method="GET", code=503, times=2)


SCENES = [plain, lost_create, create_not_arrived, lost_update, late_list, broken_list]


def lived(there: World, dies_at: int | None) -> bool:
    """One process, which asks as often as it must; whether it lived to see the article out."""
    there.fate.at, there.fate.passed = dies_at, 0
    try:
        there.until_published()
    except Killed:
        there.sleep(60)
        return False
    finally:
        there.fate.at = None
    return True


def boundaries(scene: Callable[[World], None]) -> int:
    """How many places there are to die at in a process to which this happens."""
    with world() as there:
        scene(there)
        assert lived(there, None)
        return there.fate.passed


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_any_boundary_it_is_published_once(scene: Callable[[World], None]) -> None:
    count = boundaries(scene)
    assert count >= 8
    for at in range(count):
        with world() as there:
            scene(there)
            assert not lived(there, at)
            once(there, there.until_published())
            assert there.site.drafts == []
            assert there.site.throttles == 0


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_any_two_boundaries_it_is_published_once(scene: Callable[[World], None]) -> None:
    for first in range(boundaries(scene)):
        for second in itertools.count():
            with world() as there:
                scene(there)
                assert not lived(there, first)
                died = not lived(there, second)
                once(there, there.until_published())
                assert there.site.drafts == []
            if not died:
                break


# Anything, in any order

WILD = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(KINDS), st.sampled_from(["POST", "PUT", "GET", None]), st.integers(0, 3)
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    troubles=st.lists(WILD, max_size=8),
    deaths=st.lists(st.integers(0, 20), max_size=4),
    delay_s=st.sampled_from([0.0, 5.0, 45.0, 200.0]),
    page_max=st.sampled_from([1, 1000]),
)
def test_one_article_after_any_sequence_of_faults_and_deaths(
    troubles: list[Any], deaths: list[int], delay_s: float, page_max: int
) -> None:
    with world(list_delay_s=delay_s, page_max=page_max) as there:
        for trouble in filter(None, troubles):
            (kind, details), method, after = trouble
            there.site.misbehave(kind, method=method, after=after, **details)
        for death in deaths:
            lived(there, death)
            assert there.site.public_most <= 1
        once(there, there.until_published())


@pytest.mark.parametrize("seed", range(20))
def test_one_article_on_a_random_walk(seed: int) -> None:
    chance = random.Random(seed)
    with world(list_delay_s=chance.choice([0, 10, 100, 250])) as there:
        for _ in range(30):
            kind, details = chance.choice(KINDS)
            there.site.misbehave(
                kind, method=chance.choice(["POST", "PUT", "GET"]), after=chance.randrange(3),
                **details,
            )  # fmt: skip
        for _ in range(12):
            lived(there, chance.randrange(12))
            assert there.site.public_most <= 1
        there.site.troubles.clear()
        once(there, there.until_published())


# Finding, taking back, counting


def test_finding_reads_only() -> None:
    with world() as there:
        assert there.run(there.process.find(there.intent)) is None
        there.site.misbehave("edge_429", method="PUT")
        with pytest.raises(Transient):
            there.publish()
        assert there.run(there.process.find(there.intent)) is None, "a draft is not out"
        receipt = there.publish()
        writes = len(there.site.sent("PUT")) + len(there.site.sent("POST"))
        assert there.run(there.process.find(there.intent)) == receipt
        there.noted = None
        assert there.run(there.process.find(there.intent)) == receipt
        assert len(there.site.sent("PUT")) + len(there.site.sent("POST")) == writes


def test_taking_back_can_be_repeated() -> None:
    with world() as there:
        receipt = there.publish()
        for _ in range(2):
            there.run(there.process.withdraw(receipt, "wrong figures"))
            assert there.site.public == []
        there.site.delete(int(receipt.remote_id))
        there.run(there.process.withdraw(receipt, "wrong figures"))


@pytest.mark.parametrize(("kind", "details"), KINDS, ids=KIND_IDS)
def test_taking_back_is_done_or_said_not_to_be(kind: Kind, details: dict[str, Any]) -> None:
    with world() as there:
        receipt = there.publish()
        there.site.misbehave(kind, method="PUT", **details)
        try:
            there.run(there.process.withdraw(receipt, "wrong"))
        except Transient:
            assert len(there.site.public) == 1
            there.run(there.process.withdraw(receipt, "wrong"))
        assert there.site.public == []


def test_an_article_held_public_by_its_front_matter_is_not_called_withdrawn() -> None:
    with world() as there:
        receipt = there.publish()
        fields = there.site.articles[int(receipt.remote_id)].fields
        fields["body_markdown"] = f"---\npublished: true\n---\n{BODY}"
        with pytest.raises(Barred, match="front matter"):
            there.run(there.process.withdraw(receipt, "wrong"))


@pytest.mark.parametrize("remote_id", ["at://did:plc:x", "", "-1", "١٢", "9" * 5_000, "../1"])
def test_only_dev_tos_own_ids_are_taken_back_or_counted(remote_id: str) -> None:
    with world() as there:
        strange = Receipt(None, remote_id)
        with pytest.raises(Rejected):
            there.run(there.process.withdraw(strange, "wrong"))
        assert there.run(there.process.engagement([strange])) == []
        assert there.site.requests == []
        receipt = there.publish()
        [found] = there.run(there.process.engagement([strange, receipt]))
        assert (found.remote_id, found.gone) == (receipt.remote_id, False)


def moved(there: World) -> DevToDouble:
    """DEVTO_URL is another site's since; its articles have the same ids."""
    site = DevToDouble(there.time.loop.time, domain="forem.example")
    wire = InProcess({"forem.example": site})
    there.alive = DevTo(
        KEY, clock=there.time.clock, url="https://forem.example", transport=wire
    )  # fmt: skip
    return site


@pytest.mark.parametrize("owner", ["nobody", "a stranger", "the author"])
def test_after_a_change_of_site_nobody_elses_article_is_taken_back_or_counted(owner: str) -> None:
    with world() as there:
        receipt = there.publish()
        site = moved(there)
        if owner != "nobody":
            article = site.write("Another's", "text", published=True)
            article.by = "strangers-key" if owner == "a stranger" else ""
            assert str(article.id) == receipt.remote_id
            site.read_by_people(article.id, page_views_count=9_000, public_reactions_count=900)
        assert there.run(there.process.engagement([receipt])) == []
        with pytest.raises(Barred, match="DEVTO_URL"):
            there.run(there.process.withdraw(receipt, "wrong"))
        assert len(site.public) == (owner != "nobody")
        assert len(there.site.public) == 1


def test_articles_may_be_on_another_host_than_the_api() -> None:
    with world(domain="stories.dev.to") as there:
        receipt = there.publish()
        assert receipt.url is not None
        assert receipt.url.startswith("https://stories.dev.to/")
        there.site.read_by_people(int(receipt.remote_id), page_views_count=41)
        [found] = there.run(there.process.engagement([receipt]))
        assert found.counts["view"] == 41
        for _ in range(2):
            there.run(there.process.withdraw(receipt, "wrong"))
            assert there.site.public == []
        [found] = there.run(there.process.engagement([receipt]))
        assert found.gone


def test_what_readers_did_is_counted() -> None:
    with world() as there:
        receipt = there.publish()
        there.site.read_by_people(
            int(receipt.remote_id),
            page_views_count=41, public_reactions_count=3, comments_count=1,
        )  # fmt: skip
        [found] = there.run(there.process.engagement([receipt]))
        assert found.remote_id == receipt.remote_id
        assert found.counts == {"view": 41, "reaction": 3, "comment": 1}
        assert not found.gone
        assert {r.method for r in there.site.requests[2:]} == {"GET"}


def test_what_was_taken_down_or_deleted_is_gone() -> None:
    with world() as there:
        kept, taken, deleted = (
            there.site.write(f"Article {number}", "text", published=True) for number in range(3)
        )
        there.site.turn(taken.id, published=False)
        there.site.delete(deleted.id)
        receipts = [Receipt(None, str(article.id)) for article in (kept, taken, deleted)]
        found = there.run(there.process.engagement(receipts))
        assert [engagement.gone for engagement in found] == [False, True, True]


@pytest.mark.parametrize("missing", ["a failing page", "a late listing", "a failing look"])
def test_what_a_broken_listing_lacks_is_not_called_gone(missing: str) -> None:
    with world(page_max=2) as there:
        articles = [there.site.write(f"A {n}", "text", published=True) for n in range(6)]
        receipts = [Receipt(None, str(article.id)) for article in articles]
        if missing == "a failing page":
            there.site.shows_single = False
            there.site.misbehave("status", method="GET", after=1, code=500)
        elif missing == "a late listing":
            there.site.list_delay_s = 30.0
        else:
            there.site.delete(articles[0].id)
            there.site.misbehave("status", method="GET", after=4, times=None, code=502)
        found = there.run(there.process.engagement(receipts))
        assert not any(engagement.gone for engagement in found)
        assert len(found) == {"a failing page": 2, "a late listing": 6}.get(missing, 5)


@pytest.mark.parametrize(("kind", "details"), KINDS, ids=KIND_IDS)
def test_no_fault_makes_an_article_gone(kind: Kind, details: dict[str, Any]) -> None:
    for after in range(3):
        with world(page_max=2) as there:
            articles = [there.site.write(f"A {n}", "text", published=True) for n in range(3)]
            receipts = [Receipt(None, str(article.id)) for article in articles]
            there.site.misbehave(kind, method="GET", after=after, times=None, **details)
            try:
                found = there.run(there.process.engagement(receipts))
            except Transient:
                assert after == 0, "some could be read"
            else:
                assert not any(engagement.gone for engagement in found)


def test_nothing_read_at_all_is_said() -> None:
    with world() as there:
        there.site.misbehave("edge_429", method="GET", retry_after="9")
        with pytest.raises(Transient) as caught:
            there.run(there.process.engagement([Receipt(None, "1")]))
        assert caught.value.retry_after_s == 9.0


def test_a_listing_of_long_articles_is_asked_for_in_smaller_pages() -> None:
    with world() as there:
        for number in range(30):
            there.site.write(f"Long {number}", "x" * 300_000, published=True)
        there.site.misbehave("drop_after", method="POST")
        once_more = there.publish()
        assert len([a for a in there.site.public if str(a.id) == once_more.remote_id]) == 1
        sizes = {int(request.query["per_page"]) for request in there.site.sent("GET")}
        assert sizes == set(PAGE_SIZES)
        assert ANSWER_BYTES_MAX < 30 * 300_000


def test_a_listing_without_end_is_not_taken_for_a_whole_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("publishers.devto.PAGES_MAX", 3)
    with world() as there:
        there.site.page_max = 1
        for number in range(3):
            there.site.write(f"Old {number}", "x", published=True)
        there.site.misbehave("drop_after", method="POST")
        with pytest.raises(Transient, match="more than 3 pages"):
            there.publish()
        there.site.page_max = 100
        there.publish()
        assert len(there.site.public) == 4


# Over a socket


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    "kind", ["reset_before", "reset_after", "drop_after", "cut_after", "stall_after", "huge_after"]
)
def test_a_real_connection_that_breaks_leaves_one_article(kind: Kind, method: str) -> None:
    clock = HastyClock()
    site = DevToDouble(clock.monotonic)
    site.misbehave(kind, method=method)

    async def publish(url: str) -> Receipt:
        devto = DevTo(KEY, url=url, clock=clock, timeout_s=1.0)
        try:
            return await devto.publish(devto.intend(POST), forgotten)
        finally:
            await devto.close()

    with serve(site) as at:
        receipt = asyncio.run(publish(at.url))
    assert [str(article.id) for article in site.public] == [receipt.remote_id]
    assert site.drafts == []
    assert site.throttles == 0


def test_a_site_that_cannot_be_reached_leaves_no_doubt() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    notes: list[str] = []

    async def note(text: str) -> None:
        notes.append(text)

    devto = DevTo(KEY, url=f"http://127.0.0.1:{port}", clock=HastyClock())
    with pytest.raises(Transient, match="cannot be reached"):
        asyncio.run(devto.publish(devto.intend(POST), note))
    assert notes == ["creating", ""]


# Forem's own word for it


def every_request() -> list[Request]:
    """One of each kind of request that the adapter can send, as it was sent."""
    with world(list_delay_s=10.0) as there:
        options: dict[str, Any] = {"series": "Gates", "cover": lambda post: "https://own.example/c"}
        intent = there.devto(**options).intend(POST)
        there.site.misbehave("drop_after", method="POST")
        devto = there.alive = there.devto(**options)
        receipt = there.run(devto.publish(intent, forgotten))
        there.run(devto.find(intent))
        there.run(devto.engagement([receipt, Receipt(None, "17")]))
        there.run(devto.withdraw(receipt, "wrong"))
        there.post = replace(POST, run="run-2", title="Plain", canonical_url=None, tags=())
        there.post = replace(there.post, markdown="Text\n\nrun-2", description="", language="gsw")
        there.publish()
        return there.site.requests


def test_forem_s_own_document_takes_every_request_we_send() -> None:
    requests = every_request()
    sent = {(r.method, r.path.rstrip("0123456789"), *sorted(shape(r))) for r in requests}
    assert len(sent) == 6
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        with prism(port) as root, httpx.Client(trust_env=False, timeout=20) as client:
            for request in requests:
                headers = {k: v for k, v in request.headers.items() if k not in HOP_BY_HOP}
                answer = client.request(
                    request.method, root + request.target, headers=headers, content=request.body
                )
                assert answer.status_code in (200, 201), f"{request}: {answer.text}"
            assert refused(client, root), "it takes anything"
            asyncio.run(spoken_to(root))
    except NotRun as missing:
        pytest.skip(f"NOT RUN: {missing}")


HOP_BY_HOP = ("host", "connection", "content-length")


def shape(request: Request) -> list[str]:
    """Which fields a request carries."""
    return list(request.json["article"]) if request.body else []


def refused(client: httpx.Client, root: str) -> bool:
    """Whether a request that does not fit is refused, so that a pass means something."""
    wrong = {"article": {"title": "x", "body_markdown": "y", "unheard_of": 1}}
    answer = client.post(f"{root}/api/articles", json=wrong, headers={"api-key": KEY})
    return answer.status_code == 422


async def spoken_to(root: str) -> None:
    """What Prism answers with, Forem's own examples, is understood."""
    devto = DevTo(KEY, url=root, clock=HastyClock())
    try:
        try:
            receipt = await devto.publish(devto.intend(POST), forgotten)
            assert receipt.remote_id.isdecimal()
        except PublisherError as error:
            raise AssertionError(f"an example of Forem's was not understood: {error}") from error
        assert isinstance(await devto.engagement([receipt]), list)
    finally:
        await devto.close()
