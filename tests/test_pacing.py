"""One request at a time per host, a gap apart, and none while it rests. All on virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from daemon.sources.pacing import HOSTS_MAX, QUEUE_MAX, REST_S, NotNow, Pacing, retry_after_s
from tests.virtual import START, VirtualTime

# A timer may fire this much early or late.
TICK_S = 1e-5


@pytest.fixture
def when() -> VirtualTime:
    return VirtualTime()


class Log:
    """When each request began and ended."""

    def __init__(self, when: VirtualTime) -> None:
        self.pacing = Pacing(when.clock)
        self.spans: list[tuple[str, float, float]] = []

    async def ask(self, host: str, gap_s: float = 0.5, takes_s: float = 0.0) -> None:
        now = asyncio.get_running_loop().time
        async with self.pacing.turn(host, gap_s):
            began = now()
            await asyncio.sleep(takes_s)
            self.spans.append((host, began, now()))

    def began(self, host: str) -> list[float]:
        return [round(began, 4) for name, began, _ in self.spans if name == host]


def test_requests_to_a_host_begin_a_gap_apart_in_the_order_of_asking(when: VirtualTime) -> None:
    log = Log(when)

    async def story() -> None:
        await asyncio.gather(log.ask("a", 0.5), log.ask("a", 10.0), log.ask("a", 0.5))

    when.run(story())
    assert log.began("a") == [0.0, 10.0, 10.5]


def test_a_request_that_takes_long_is_over_before_the_next_begins(when: VirtualTime) -> None:
    log = Log(when)

    async def story() -> None:
        await asyncio.gather(*(log.ask("a", 0.5, takes_s=3.0) for _ in range(3)))

    when.run(story())
    assert log.began("a") == [0.0, 3.0, 6.0]


def test_a_host_that_waited_long_enough_is_asked_at_once(when: VirtualTime) -> None:
    log = Log(when)
    when.run(log.ask("a"))
    when.pass_by(timedelta(seconds=7))
    when.run(log.ask("a"))
    assert log.began("a") == [0.0, 7.0]


def test_a_slow_host_holds_up_no_other(when: VirtualTime) -> None:
    log = Log(when)

    async def story() -> None:
        await asyncio.gather(
            *(log.ask("slow", 10.0, takes_s=60.0) for _ in range(3)), *(log.ask("b"), log.ask("c"))
        )

    when.run(story())
    assert (log.began("b"), log.began("c")) == ([0.0], [0.0])
    assert log.began("slow") == [0.0, 60.0, 120.0]


def test_who_gives_up_waiting_leaves_the_turn_to_the_next(when: VirtualTime) -> None:
    log = Log(when)

    async def story() -> None:
        holder = asyncio.create_task(log.ask("a", takes_s=5.0))
        impatient = asyncio.create_task(log.ask("a"))
        last = asyncio.create_task(log.ask("a"))
        await asyncio.sleep(1)
        impatient.cancel()
        holder.cancel()
        await asyncio.gather(holder, impatient, return_exceptions=True)
        await last

    when.run(story())
    assert log.began("a") == [1.0]


def test_a_turn_that_ends_in_an_error_frees_the_host(when: VirtualTime) -> None:
    log = Log(when)

    async def story() -> None:
        with pytest.raises(OSError, match="broken"):
            async with log.pacing.turn("a", 0.5):
                raise OSError("broken")
        await log.ask("a")

    when.run(story())
    assert log.began("a") == [0.5]


def test_a_queue_has_an_end(when: VirtualTime) -> None:
    log = Log(when)

    async def story() -> list[BaseException | None]:
        asked = [log.ask("a", takes_s=1.0) for _ in range(QUEUE_MAX + 2)]
        return await asyncio.gather(*asked, log.ask("b"), return_exceptions=True)

    results = when.run(story())
    refused = [result for result in results if result is not None]
    assert [str(result) for result in refused] == [f"{QUEUE_MAX} requests wait for a already"] * 2
    assert len(log.began("a")) == QUEUE_MAX


def test_a_host_that_rests_is_not_asked_and_those_who_wait_hear_of_it(when: VirtualTime) -> None:
    log = Log(when)

    async def asked_to_rest() -> None:
        async with log.pacing.turn("a", 0.5):
            await asyncio.sleep(1)
            log.pacing.rest("a", 20.0)

    async def story() -> None:
        waiting = [log.ask("a") for _ in range(3)]
        results = await asyncio.gather(asked_to_rest(), *waiting, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), *[NotNow] * 3]
        assert str(results[1]) == "a asked for a pause, 20 s are left of it"
        # The gap after the request that was told to go is no reason to wait for a refusal.
        assert asyncio.get_running_loop().time() == pytest.approx(1.0, abs=TICK_S)
        await log.ask("b")
        await asyncio.sleep(19.5)
        with pytest.raises(NotNow, match="a asked for a pause, 1 s are left"):
            await log.ask("a")
        await asyncio.sleep(0.6)
        await log.ask("a")

    when.run(story())
    assert log.began("a") == [21.1]


@pytest.mark.parametrize(
    ("seconds", "rested_s"), [(1e9, 60.0), (60.0, 60.0), (5.0, 5.0), (0.0, 0.0), (-5.0, 0.0)]
)
def test_a_rest_is_bounded(when: VirtualTime, seconds: float, rested_s: float) -> None:
    pacing = Pacing(when.clock)

    async def story() -> None:
        pacing.rest("a", seconds)
        if rested_s:
            await asyncio.sleep(rested_s - 0.01)
            with pytest.raises(NotNow):
                pacing.check("a")
            await asyncio.sleep(0.02)
        pacing.check("a")

    when.run(story())


def test_a_short_rest_does_not_end_a_longer_one(when: VirtualTime) -> None:
    pacing = Pacing(when.clock)

    async def story() -> None:
        pacing.rest("a", 30.0)
        pacing.rest("a", 1.0)
        await asyncio.sleep(2)
        with pytest.raises(NotNow):
            pacing.check("a")

    when.run(story())


def test_hosts_that_are_idle_are_forgotten_in_the_end(when: VirtualTime) -> None:
    log = Log(when)

    async def story() -> None:
        for n in range(3 * HOSTS_MAX):
            await log.ask(f"h{n}")
            await asyncio.sleep(0.1)

    when.run(story())
    assert len(log.pacing._hosts) <= HOSTS_MAX


GMT = "%a, %d %b %Y %H:%M:%S GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 60 ", 60.0),
        ("61", 60.0),
        ("1000000000", 60.0),
        ("9" * 10_000, 60.0),
        ((START + timedelta(seconds=12)).strftime(GMT), 12.0),
        ((START + timedelta(days=400)).strftime(GMT), 60.0),
        ((START - timedelta(days=400)).strftime(GMT), 0.0),
        ((START + timedelta(seconds=12)).strftime("%a, %d %b %Y %H:%M:%S"), 12.0),
        (None, REST_S),
        ("", REST_S),
        ("-5", REST_S),
        ("1e9", REST_S),
        ("nan", REST_S),
        ("inf", REST_S),
        ("1.5", REST_S),
        ("٣", REST_S),
        ("soon", REST_S),
        ("Mon, 99 Foo 2026 99:99:99 GMT", REST_S),
        ("Mon, 23 Nov 99999999 08:00:00 GMT", REST_S),
        ("Mon, 23 Nov 2026 08:00:00 +9999999999", REST_S),
        ("\0", REST_S),
    ],
)
def test_what_a_host_asks_for_is_understood_and_bounded(value: str | None, seconds: float) -> None:
    assert retry_after_s(value, START) == seconds
