"""
The laws of a destination as a test suite, for ours and for everybody else's.

    class TestMine(PublisherContract):
        def destination(self, folder: Path) -> Destination:
            return MyDouble(folder)

Needs pytest and no plug-in of it. What a test could not arrange, because a hook of `Destination` is
left as it is, is skipped and says so. `docs/publishers.md` tells how to begin.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from publishers.errors import OutcomeUnknown, PublisherError, Rejected, Transient
from publishers.port import (
    METRICS,
    Announcing,
    Engagement,
    Engaging,
    Hosting,
    Intent,
    Post,
    Publisher,
    Receipt,
    Withdrawing,
)

T = TypeVar("T")
P = ParamSpec("P")

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
# Real seconds for one test: whoever waits this long waits for ever.
STORY_S_MAX = 120.0
# As the daemon, which does not ask for ever either.
ATTEMPTS_MAX = 40
UNSAID_WAIT_S = 60.0
DOUBT_WAIT_S = 600.0
# A kill is tried after each turn of the loop up to here, and after fewer and fewer beyond.
DENSE_TURNS = 60
NOTE_CHARS_MAX = 2_000


# What a suite is given


@dataclass(frozen=True, slots=True)
class Visible:
    """
    One post as strangers see it; a thread is one post.

    Args:
        remote_id: as in its receipt.
        text: every word of it, with the addresses it links to, on cards too.
    """

    remote_id: str
    text: str


class JumpingClock:
    """A clock on which a sleep is over after one turn of the loop, and has passed all the same."""

    def __init__(self, at: datetime = START) -> None:
        self._began = self._at = at

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return (self._at - self._began).total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)
        await turn()

    def pass_by(self, seconds: float) -> None:
        """Let time go by at once."""
        self._at += timedelta(seconds=max(0.0, seconds))


class Destination(ABC):
    """
    One place to publish to, most likely a double of it within the process.

    A double should do what it is asked, wait for a turn of the loop (`turn`), and then answer: so
    the suite can kill who asks between the effect and the answer.

    Only the first two are required. The others arrange trouble or tell more; left as they are,
    what needs them is skipped.
    """

    @abstractmethod
    def publisher(self, clock: JumpingClock) -> Publisher:
        """A new publisher for the same place, as the next process has one; required."""

    @abstractmethod
    def posts(self) -> Sequence[Visible]:
        """What strangers can see there now; required."""

    def state(self) -> object:
        """Something that compares unequal once anything was changed there, seen or unseen."""
        return list(self.posts())

    def secrets(self) -> Sequence[str]:
        """What no error may show, such as the key in use."""
        return ()

    def react(self, remote_id: str) -> Mapping[str, int]:
        """Let readers do something with a post, and say what it must be counted as."""
        raise NotImplementedError

    def lose_answer(self) -> None:
        """What makes the next post takes effect, and its answer is lost."""
        raise NotImplementedError

    def refuse(self) -> None:
        """The next post is refused, for what it is."""
        raise NotImplementedError

    def down(self) -> None:
        """Nothing connects, until `recover`."""
        raise NotImplementedError

    def bar(self) -> None:
        """The key, or the account, is refused until `recover`: a person must act."""
        raise NotImplementedError

    def recover(self) -> None:
        """All is well again; required where there is `down` or `bar`."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - most have nothing to stop
        """Stop what was started for it."""


# One turn


class _Turn:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def turn() -> None:
    """Let everybody else have a turn of the loop."""
    await _Turn()


def story(told: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that is a coroutine, without a plug-in of pytest."""

    async def timed(*args: P.args, **kwargs: P.kwargs) -> None:
        async with asyncio.timeout(STORY_S_MAX):
            await told(*args, **kwargs)

    @functools.wraps(told)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(timed(*args, **kwargs))

    return test


class Killed(BaseException):
    """The process dies here."""


def arranged(hook: Callable[..., T], *args: Any) -> T:
    """What a hook of the destination answers; skips the test where it has none."""
    try:
        return hook(*args)
    except NotImplementedError:
        pytest.skip(f"{getattr(hook, '__qualname__', hook)} arranges nothing")


# What the daemon does around a publisher


async def forgotten(text: str) -> None:
    """A note for who publishes without a journal."""


class Stage:
    """
    A destination, who publishes there, and what was stored about it.

    Intents and notes are kept as the daemon keeps them: as text, before anything goes on.
    """

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.clock = JumpingClock()
        self.publisher = destination.publisher(self.clock)
        self._intents: dict[str, tuple[str, str]] = {}
        self._noted: dict[str, str] = {}

    def forget(self) -> None:
        """The journal is restored from a backup that knows nothing of it."""
        self._intents.clear()
        self._noted.clear()
        self.restart()

    def restart(self) -> None:
        """Another process takes over; the one before was given no time to tidy up."""
        self.publisher = self.destination.publisher(self.clock)

    def intent(self, post: Post) -> Intent:
        """The stored intent of a post, or a new one, stored."""
        if post.run not in self._intents:
            made = self.publisher.intend(post)
            self._intents[post.run] = made.key, made.payload.decode("utf-8")
        key, payload = self._intents[post.run]
        return Intent(key, payload.encode(), self._noted.get(post.run))

    def of_run(self, run: str) -> Sequence[Visible]:
        """The posts that name a run."""
        named = re.compile(rf"(?<![\w-]){re.escape(run)}(?![\w-])")
        return [post for post in self.destination.posts() if named.search(post.text)]

    async def publish(self, post: Post, dies: Callable[[], None] = lambda: None) -> Receipt:
        """Publish as the daemon does; `dies` is called before and after each note is stored."""

        async def note(text: str) -> None:
            assert isinstance(text, str), f"a note is a text, not {text!r}"
            assert len(text) <= NOTE_CHARS_MAX, "a note is short"
            assert "\x00" not in text, "a column of text holds no NUL"
            text.encode("utf-8")
            dies()
            await turn()
            self._noted[post.run] = text
            await turn()
            dies()

        intent = self.intent(post)
        receipt = await self.ours(self.publisher.publish(intent, note), key=intent.key)
        assert isinstance(receipt, Receipt), f"publish returned {receipt!r}"
        assert receipt.remote_id, "a receipt without a remote id"
        return receipt

    async def find(self, post: Post) -> Receipt | None:
        return await self.ours(self.publisher.find(self.intent(post)))

    async def until_published(self, post: Post) -> Receipt:
        """Go on as the daemon does: wait as told, and look where the outcome is unknown."""
        for _ in range(ATTEMPTS_MAX):
            try:
                return await self.publish(post)
            except Transient as error:
                self.clock.pass_by(error.retry_after_s or UNSAID_WAIT_S)
            except OutcomeUnknown:
                self.clock.pass_by(DOUBT_WAIT_S)
                with suppress(Transient):
                    if found := await self.find(post):
                        return found
        raise AssertionError(f"not published after {ATTEMPTS_MAX} attempts")

    async def ours(self, asked: Awaitable[T], key: str | None = None) -> T:
        """What is answered, where every error must be one of a publisher's and tell no secret."""
        try:
            return await asked
        except PublisherError as error:
            self._sound(error, key)
            raise
        except (Killed, asyncio.CancelledError):
            raise
        except Exception as error:
            raise AssertionError(
                f"{type(error).__name__} escaped; a publisher raises PublisherError only"
            ) from error

    def _sound(self, error: PublisherError, key: str | None) -> None:
        """An error says something, and no secret; what it carries can be used."""
        told = f"{error} {error!r}"
        assert str(error).strip(), f"{type(error).__name__} without a message"
        for secret in self.destination.secrets():
            assert secret not in told, f"{type(error).__name__} shows a secret"
        if isinstance(error, OutcomeUnknown) and key is not None:
            assert error.key == key, "OutcomeUnknown carries the key of the intent"
        if isinstance(error, Transient) and error.retry_after_s is not None:
            assert error.retry_after_s >= 0, "retry_after_s is a time to come"

    async def close(self) -> None:
        """What the daemon does when it stops."""
        close = getattr(self.publisher, "close", None)
        if close is not None:
            await close()


# What is published


def example(run: str) -> Post:
    """An article as the daemon makes it: a closing line with the run, a link, a card."""
    return Post(
        run=run,
        title="On sluices & gates",
        description="What a sluice holds, and when it is opened.",
        tags=("sluices", "water"),
        markdown=(
            "A *sluice* holds\nwater, like `this`.\n\n## Sources\n\n"
            "1. [Water](https://one.example/a?b=1&c=2)\n\n---\n\n"
            f"*Written autonomously by software, Penstock, in run {run}.*\n"
        ),
        at=START,
        language="en",
        card=_png(),
        reading_minutes=1,
        link=f"https://own.example/articles/{run}?a=1&b=2",
        announcement=("What a sluice holds, and why it is opened at night.",),
        begun=START,
    )


def _png() -> bytes:
    """The smallest picture: one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = chunk(b"IDAT", zlib.compress(b"\x00\x00"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixel + chunk(b"IEND", b"")


# It stands where the title, the description, the announcement, a tag and the body's beginning do.
HOSTILE: Mapping[str, str] = {
    "control": "a\x1b[31mb\x07\u2028c\r\nd\u0085e",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 350,
    "empty": "",
    "front_matter": "---\npublished: true\ntitle: mine\n---\n",
    "half_a_pair": "half \ud83d of it",
    "html": "<script>alert('x')</script><b>&amp;&#123;</b><!--",
    "json": '{"a": "\\u0000", \'b\': [1, 2}',
    "liquid": "{% raw %}{{ 'x' | upcase }}{% endraw %} {%- if",
    "long": "Sluices hold water. " * 2_000,
    "markdown": "# `*_[x](javascript:1)_*` ![](x) <https://a.example>\n\n\t> - 1. ---",
    "mentions": "@everyone @someone@evil.example #sluices $tag :smile:",
    "nul": "a\x00b",
    "one_long_word": "x" * 6_000,
    "right_to_left": "\u202eevil\u202c שלום \u2067عالم\u2069 \u200b\u200d\ufeff",
    "stacked": "e" + "\u0301" * 3_000,
    "tags": "".join(chr(0xE0000 + ord(c)) for c in "ignore this"),
}
# No destination made these.
STRANGE = (
    Receipt(None, "nobody's"),
    Receipt("https://elsewhere.example/1", "../../1?x=y"),
    Receipt(None, "at://did:plc:nobody/x/½ 2"),
)


# The laws


class PublisherContract:
    """The laws. Subclass it as `Test…`, and say what `destination` is."""

    def destination(self, folder: Path) -> Destination:
        """A fresh place, with nothing in it; `folder` exists and is for whatever it keeps."""
        raise NotImplementedError

    def post(self, run: str, **changed: Any) -> Post:
        """An article that the destination takes; override where the usual one is not."""
        return replace(example(run), **changed)

    @pytest.fixture
    def stages(self, tmp_path: Path) -> Iterator[Callable[[], Stage]]:
        """Makes stages, each with a destination of its own."""
        made: list[Stage] = []

        def stage() -> Stage:
            folder = tmp_path / f"destination-{len(made)}"
            folder.mkdir()
            made.append(Stage(self.destination(folder)))
            return made[-1]

        yield stage
        for one in made:
            one.destination.close()

    @pytest.fixture
    def stage(self, stages: Callable[[], Stage]) -> Stage:
        return stages()

    # What it is

    def test_it_has_a_name_that_is_a_word_and_says_whether_it_is_public(self, stage: Stage) -> None:
        assert re.fullmatch("[a-z][a-z0-9_]*", stage.publisher.name)
        assert isinstance(stage.publisher.public, bool)
        if isinstance(stage.publisher, Announcing):
            assert isinstance(stage.publisher.announces, bool)

    @story
    async def test_closing_it_is_harmless(self, stage: Stage) -> None:
        await stage.until_published(self.post("run-1"))
        await stage.close()
        assert len(stage.of_run("run-1")) == 1

    # Intents

    def test_an_intent_is_the_same_for_the_same_post(self, stage: Stage) -> None:
        first = stage.publisher.intend(self.post("run-1"))
        assert first == stage.publisher.intend(self.post("run-1"))
        stage.restart()
        assert first == stage.publisher.intend(self.post("run-1"))
        assert first.key
        assert first.noted is None

    def test_intents_of_two_posts_differ(self, stage: Stage) -> None:
        one, other = (stage.publisher.intend(self.post(run)) for run in ("run-1", "run-2"))
        assert one.key != other.key or one.payload != other.payload

    def test_intending_sends_nothing(self, stage: Stage) -> None:
        before = stage.destination.state()
        stage.publisher.intend(self.post("run-1"))
        assert stage.destination.state() == before

    def test_intending_needs_nobody_to_answer(self, stage: Stage) -> None:
        arranged(stage.destination.down)
        assert stage.publisher.intend(self.post("run-1")).key

    def test_an_intent_can_be_stored_as_text(self, stage: Stage) -> None:
        intent = stage.publisher.intend(self.post("run-1"))
        storable(intent)

    # Publishing

    @story
    async def test_publishing_makes_one_post_that_is_found(self, stage: Stage) -> None:
        post = self.post("run-1")
        assert await stage.find(post) is None
        receipt = await stage.until_published(post)
        await self._once(stage, post, receipt)
        assert len(stage.destination.posts()) == 1

    @story
    async def test_publishing_says_where_the_article_is_or_what_wrote_it(
        self, stage: Stage
    ) -> None:
        post = self.post("run-1")
        await stage.until_published(post)
        text = stage.destination.posts()[0].text
        announced = getattr(stage.publisher, "announces", False)
        wanted = post.link if announced else post.run
        assert wanted is not None
        assert wanted in text

    @story
    async def test_publishing_again_makes_no_second_post(self, stage: Stage) -> None:
        post = self.post("run-1")
        first = await stage.until_published(post)
        again = await stage.until_published(post)
        assert again.remote_id == first.remote_id
        stage.restart()
        again = await stage.until_published(post)
        assert again.remote_id == first.remote_id
        await self._once(stage, post, first)

    @story
    async def test_publishing_again_a_day_later_makes_no_second_post(self, stage: Stage) -> None:
        post = self.post("run-1")
        first = await stage.until_published(post)
        stage.clock.pass_by(26 * 3600)
        stage.restart()
        assert (await stage.until_published(post)).remote_id == first.remote_id
        await self._once(stage, post, first)

    @story
    async def test_two_runs_are_two_posts_though_they_share_a_title(self, stage: Stage) -> None:
        one, other = self.post("run-1"), self.post("run-2")
        receipts = [await stage.until_published(post) for post in (one, other)]
        assert receipts[0].remote_id != receipts[1].remote_id
        for post, receipt in zip((one, other), receipts, strict=True):
            await self._once(stage, post, receipt)

    @story
    async def test_a_post_is_not_found_for_another_run(self, stage: Stage) -> None:
        await stage.until_published(self.post("run-1"))
        for run in ("run-2", "run-11", "un-1", "run-1-1"):
            assert await stage.find(self.post(run)) is None

    @story
    async def test_what_the_journal_forgot_is_found_all_the_same(self, stage: Stage) -> None:
        post = self.post("run-1")
        receipt = await stage.until_published(post)
        stage.clock.pass_by(26 * 3600)
        stage.forget()
        await self._once(stage, replace(post, at=stage.clock.now()), receipt)

    @story
    async def test_where_a_post_will_be_is_where_it_is(self, stage: Stage) -> None:
        post = self.post("run-1")
        if not isinstance(stage.publisher, Hosting):
            pytest.skip(f"{stage.publisher.name} does not know where a post will be")
        before = stage.destination.state()
        address = stage.publisher.address(post)
        assert stage.destination.state() == before
        receipt = await stage.until_published(post)
        assert address in (None, receipt.url)

    @story
    async def test_finding_reads_only(self, stage: Stage) -> None:
        post = self.post("run-1")
        before = stage.destination.state()
        await stage.find(post)
        assert stage.destination.state() == before
        await stage.until_published(post)
        before = stage.destination.state()
        stage.restart()
        assert await stage.find(post) is not None
        assert stage.destination.state() == before

    # Answers that do not come

    @story
    async def test_a_lost_answer_is_no_second_post(self, stage: Stage) -> None:
        post = self.post("run-1")
        arranged(stage.destination.lose_answer)
        with suppress(Transient, OutcomeUnknown):
            await stage.publish(post)
        stage.restart()
        await self._once(stage, post, await stage.until_published(post))

    @story
    async def test_a_lost_answer_is_found_by_looking(self, stage: Stage) -> None:
        post = self.post("run-1")
        arranged(stage.destination.lose_answer)
        with suppress(Transient, OutcomeUnknown):
            await stage.publish(post)
        stage.clock.pass_by(DOUBT_WAIT_S)
        stage.restart()
        visible = stage.of_run("run-1")
        found = await stage.find(post)
        assert len(visible) <= 1
        assert (found.remote_id if found else None) == (visible[0].remote_id if visible else None)

    @story
    async def test_a_lost_answer_that_is_asked_for_a_day_later_is_no_second_post(
        self, stage: Stage
    ) -> None:
        post = self.post("run-1")
        arranged(stage.destination.lose_answer)
        with suppress(Transient, OutcomeUnknown):
            await stage.publish(post)
        stage.clock.pass_by(26 * 3600)
        stage.restart()
        await self._once(stage, post, await stage.until_published(post))

    @pytest.mark.parametrize("stored", [False, True], ids=["before", "after"])
    @story
    async def test_killed_while_it_notes_it_goes_on_afterwards(
        self, stages: Callable[[], Stage], stored: bool
    ) -> None:
        for number in itertools.count():
            stage, post = stages(), self.post("run-1")
            boundary = itertools.count()

            def dies(boundary: Iterator[int] = boundary, at: int = 2 * number + stored) -> None:
                if next(boundary) == at:
                    raise Killed

            try:
                await stage.publish(post, dies)
            except Killed:
                stage.restart()
                await self._once(stage, post, await stage.until_published(post))
            else:
                return

    @story
    async def test_killed_anywhere_it_goes_on_afterwards(self, stages: Callable[[], Stage]) -> None:
        turns = 0
        while True:
            stage, post = stages(), self.post("run-1")
            survived = await killed_after(stage.publish(post), turns)
            stage.restart()
            receipt = await stage.until_published(post)
            await self._once(stage, post, receipt)
            if survived:
                return
            turns += stride(turns)

    # Refusals

    @story
    async def test_what_is_rejected_is_not_to_be_seen(self, stage: Stage) -> None:
        post = self.post("run-1")
        arranged(stage.destination.refuse)
        with pytest.raises(Rejected):
            await self._settled(stage, post)
        assert not stage.destination.posts()
        assert await stage.find(post) is None

    @story
    async def test_nobody_there_is_transient_and_nothing_is_to_be_seen(self, stage: Stage) -> None:
        post = self.post("run-1")
        arranged(stage.destination.down)
        with pytest.raises(Transient):
            await stage.publish(post)
        assert not stage.destination.posts()
        stage.destination.recover()
        await self._once(stage, post, await stage.until_published(post))

    @story
    async def test_nobody_there_is_not_mistaken_for_nothing_there(self, stage: Stage) -> None:
        post = self.post("run-1")
        receipt = await stage.until_published(post)
        arranged(stage.destination.down)
        stage.restart()
        with suppress(PublisherError):
            found = await stage.find(post)
            assert found is not None, "`find` must not say None of what it could not read"
        with suppress(Transient, OutcomeUnknown):
            await stage.publish(post)
        stage.destination.recover()
        await self._once(stage, post, receipt)

    @story
    async def test_who_is_barred_keeps_the_post_for_later(self, stage: Stage) -> None:
        post = self.post("run-1")
        arranged(stage.destination.bar)
        # `Barred` where it is sure that only a person helps, which is Transient too.
        with pytest.raises(Transient):
            await stage.publish(post)
        assert not stage.destination.posts()
        stage.destination.recover()
        stage.restart()
        await self._once(stage, post, await stage.until_published(post))

    # Hostile texts

    @pytest.mark.parametrize("kind", sorted(HOSTILE))
    @story
    async def test_hostile_text_neither_breaks_it_nor_makes_two(
        self, stage: Stage, kind: str
    ) -> None:
        post = self._hostile(kind)
        storable(stage.publisher.intend(post))
        try:
            receipt = await stage.until_published(post)
        except Rejected:
            assert not stage.destination.posts(), "what is rejected is not to be seen"
            return
        stage.restart()
        assert (await stage.until_published(post)).remote_id == receipt.remote_id
        assert [seen.remote_id for seen in stage.destination.posts()] == [receipt.remote_id]
        found = await stage.find(post)
        assert found is not None
        assert found.remote_id == receipt.remote_id

    @pytest.mark.parametrize("kind", sorted(HOSTILE))
    @story
    async def test_hostile_text_and_a_lost_answer_make_no_two(
        self, stage: Stage, kind: str
    ) -> None:
        post = self._hostile(kind)
        arranged(stage.destination.lose_answer)
        with suppress(PublisherError):
            await stage.publish(post)
        stage.restart()
        with suppress(Rejected):
            await stage.until_published(post)
        assert len(stage.destination.posts()) <= 1

    def _hostile(self, kind: str) -> Post:
        post, text = self.post("run-1"), HOSTILE[kind]
        return replace(
            post,
            title=text,
            description=text,
            announcement=(text,) * min(4, len(post.announcement) + 1) if text else (),
            tags=(text[:40], *post.tags)[:4] if text else (),
            markdown=f"{text}\n\n{post.markdown}",
        )

    # Readers

    @story
    async def test_what_readers_did_is_counted(self, stage: Stage) -> None:
        engaging, receipt = await self._engaging(stage)
        expected: Mapping[str, int] = {}
        with suppress(NotImplementedError):
            expected = stage.destination.react(receipt.remote_id)
        before = stage.destination.state()
        (counted,) = await stage.ours(engaging.engagement([receipt]))
        assert stage.destination.state() == before, "counting reads only"
        sound(counted)
        assert counted.remote_id == receipt.remote_id
        assert not counted.gone
        for metric, count in expected.items():
            assert counted.counts.get(metric) == count, metric

    @story
    async def test_what_is_not_its_own_is_left_out_of_the_counts(self, stage: Stage) -> None:
        engaging, receipt = await self._engaging(stage)
        for strange in STRANGE:
            counted = await stage.ours(engaging.engagement([strange, receipt]))
            assert [one.remote_id for one in counted] == [receipt.remote_id]
        assert list(await stage.ours(engaging.engagement([]))) == []

    @story
    async def test_many_posts_are_counted_together(self, stage: Stage) -> None:
        engaging, first = await self._engaging(stage)
        runs = [f"run-{number}" for number in range(2, 31)]
        receipts = [first, *[await stage.until_published(self.post(run)) for run in runs]]
        counted = await stage.ours(engaging.engagement(receipts))
        for one in counted:
            sound(one)
        assert {one.remote_id for one in counted} == {one.remote_id for one in receipts}

    @story
    async def test_counts_that_cannot_be_read_are_no_counts(self, stage: Stage) -> None:
        engaging, receipt = await self._engaging(stage)
        arranged(stage.destination.down)
        with pytest.raises(Transient):
            await stage.ours(engaging.engagement([receipt]))

    @story
    async def test_a_post_that_was_withdrawn_is_gone(self, stage: Stage) -> None:
        engaging, receipt = await self._engaging(stage)
        withdrawing = self._withdrawing(stage)
        await self._withdrawn(stage, withdrawing, receipt)
        (counted,) = await stage.ours(engaging.engagement([receipt]))
        assert counted.gone
        assert counted.remote_id == receipt.remote_id

    # Taking back

    @story
    async def test_a_post_can_be_taken_back_more_than_once(self, stage: Stage) -> None:
        withdrawing = self._withdrawing(stage)
        kept, post = self.post("run-1"), self.post("run-2")
        receipt = await stage.until_published(kept)
        unwanted = await stage.until_published(post)
        await self._withdrawn(stage, withdrawing, unwanted)
        assert [one.remote_id for one in stage.destination.posts()] == [receipt.remote_id]
        assert await stage.find(post) is None
        await self._withdrawn(stage, withdrawing, unwanted)
        stage.restart()
        await self._withdrawn(stage, self._withdrawing(stage), unwanted)
        await self._once(stage, kept, receipt)

    @story
    async def test_killed_while_it_takes_back_it_goes_on_afterwards(
        self, stages: Callable[[], Stage]
    ) -> None:
        turns = 0
        while True:
            stage, post = stages(), self.post("run-1")
            withdrawing = self._withdrawing(stage)
            receipt = await stage.until_published(post)
            survived = await killed_after(self._withdrawn(stage, withdrawing, receipt), turns)
            stage.restart()
            await self._withdrawn(stage, self._withdrawing(stage), receipt)
            assert not stage.destination.posts()
            if survived:
                return
            turns += stride(turns)

    @story
    async def test_nobody_there_takes_nothing_back(self, stage: Stage) -> None:
        withdrawing = self._withdrawing(stage)
        receipt = await stage.until_published(self.post("run-1"))
        arranged(stage.destination.down)
        with pytest.raises((Transient, OutcomeUnknown)):
            await stage.ours(withdrawing.withdraw(receipt, "It is wrong."))
        stage.destination.recover()
        assert len(stage.destination.posts()) == 1
        await self._withdrawn(stage, withdrawing, receipt)
        assert not stage.destination.posts()

    @story
    async def test_what_is_not_its_own_is_not_taken_back(self, stage: Stage) -> None:
        withdrawing = self._withdrawing(stage)
        await stage.until_published(self.post("run-1"))
        before = stage.destination.state()
        for strange in STRANGE:
            with suppress(PublisherError):
                await stage.ours(withdrawing.withdraw(strange, "It is wrong."))
        assert stage.destination.state() == before

    # Beneath

    async def _once(self, stage: Stage, post: Post, receipt: Receipt) -> None:
        """Exactly one post of the run is to be seen, and it is the one that is found."""
        visible = [seen.remote_id for seen in stage.of_run(post.run)]
        assert visible == [receipt.remote_id], f"{len(visible)} posts of {post.run}: {visible}"
        found = await stage.find(post)
        assert found is not None, f"{receipt.remote_id} is not found again"
        assert found.remote_id == receipt.remote_id

    async def _settled(self, stage: Stage, post: Post) -> None:
        """Publish until it is refused for good; a fault may be arranged for one request only."""
        for _ in range(ATTEMPTS_MAX):
            try:
                await stage.publish(post)
            except Transient as error:
                stage.clock.pass_by(error.retry_after_s or UNSAID_WAIT_S)
            else:
                return

    async def _engaging(self, stage: Stage) -> tuple[Engaging, Receipt]:
        if not isinstance(stage.publisher, Engaging):
            pytest.skip(f"{stage.publisher.name} counts nothing")
        return stage.publisher, await stage.until_published(self.post("run-1"))

    def _withdrawing(self, stage: Stage) -> Withdrawing:
        if not isinstance(stage.publisher, Withdrawing):
            pytest.skip(f"{stage.publisher.name} takes nothing back")
        return stage.publisher

    async def _withdrawn(self, stage: Stage, withdrawing: Withdrawing, receipt: Receipt) -> None:
        """Take a post back as the daemon does, which waits as it is told and asks again."""
        for _ in range(ATTEMPTS_MAX):
            try:
                await stage.ours(withdrawing.withdraw(receipt, "It is wrong.\nSorry 🙈"))
            except Transient as error:
                stage.clock.pass_by(error.retry_after_s or UNSAID_WAIT_S)
            except OutcomeUnknown:
                stage.clock.pass_by(DOUBT_WAIT_S)
            else:
                return
        raise AssertionError(f"not taken back after {ATTEMPTS_MAX} attempts")


async def killed_after(work: Coroutine[Any, Any, Any], turns: int) -> bool:
    """Cancel a piece of work after some turns of the loop; whether it was done by then."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        if task.done():
            break
        await turn()
    survived = task.done()
    task.cancel()
    with suppress(asyncio.CancelledError, PublisherError):
        await task
    return survived


def stride(turns: int) -> int:
    """How many turns later the next kill is tried."""
    return 1 + max(0, turns - DENSE_TURNS) // 4


def storable(intent: Intent) -> None:
    """An intent goes through a column of text and comes back as it was."""
    text = intent.payload.decode("utf-8")
    assert text.encode() == intent.payload
    assert "\x00" not in text + intent.key, "PostgreSQL keeps no NUL in a text"
    intent.key.encode("utf-8")
    assert isinstance(hash(intent), int), "an intent is a value"


def sound(counted: Engagement) -> None:
    """Counts are whole numbers from zero, under the words that rates are set for."""
    for metric, count in counted.counts.items():
        assert metric in METRICS, f"{metric} is none of {', '.join(sorted(METRICS))}"
        assert type(count) is int, f"{metric} is {count!r}"
        assert count >= 0, f"{metric} is {count}"
