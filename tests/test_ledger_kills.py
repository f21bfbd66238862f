"""
However often and whenever a writer is killed: nothing committed is lost, nothing is half done.

The seeds fix what is written and how long each writer is let live; where exactly the kill falls is
the machine's affair, so it is counted, and the counts are asserted loosely.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.killing import Nursery, Record, Writer, new_nursery

SEED = 20260301
# Opening a book, a handful of transactions, a commit with its checkpoint: at most so long.
OPENING_S, LIFE_S, COMMIT_S = 0.01, 0.03, 0.001
# The checks read the whole book, so it is begun anew before it grows long.
BOOKS, KILLS_PER_BOOK = 4, 55
ROUNDS = 40


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with new_nursery() as nursery:
        yield nursery


def kill_one_after_the_other(
    nursery: Nursery, record: Record, seed: str, kills: int, manner: str = "careful"
) -> Counter[str]:
    """What the writers had last said when they were killed."""
    rng, fell, before = random.Random(seed), Counter[str](), None
    for number in range(kills):
        writer = nursery.start(record.task(f"a{number}", seed, before, manner))
        if number % 11 == 0:
            time.sleep(rng.uniform(0, OPENING_S))
        else:
            nursery.wait_for(writer.has_opened)
            time.sleep(rng.uniform(0, LIFE_S))
        if number % 3 == 1:
            # Most of the time goes into Python; without aiming few kills would hit a commit.
            nursery.wait_for(partial(writer.has_come_to_commit, writer.commits + 1))
            time.sleep(rng.uniform(0, COMMIT_S))
        nursery.kill(writer)
        fell[writer.word] += 1
        check(record, f"seed {seed!r}, kill {number}", number, writer)
        before = writer
    return fell


def check(record: Record, when: str, number: int, *killed: Writer) -> None:
    try:
        record.compare(*killed, copied=number % 2 == 0)
    except AssertionError as error:
        error.add_note(f"{when}: {killed}")
        raise


def test_two_hundred_kills_lose_nothing_and_leave_nothing_half_done(
    tmp_path: Path, nursery: Nursery
) -> None:
    fell, in_the_nick_of_time = Counter[str](), 0
    for number in range(BOOKS):
        record = Record(tmp_path / f"{number}.db")
        fell += kill_one_after_the_other(nursery, record, f"{SEED}/{number}", KILLS_PER_BOOK)
        in_the_nick_of_time += record.in_the_nick_of_time
    # Every one of these was a death by SIGKILL; in the loop are those that had opened the book.
    assert fell.total() - fell["born"] >= 200, fell
    assert fell["begins"] + fell["inserts"] + fell["commits"] >= 100, fell
    assert min(fell["inserts"], fell["commits"]) >= 20, fell
    assert in_the_nick_of_time > 0


def test_a_writer_killed_beside_another_takes_nothing_with_it_and_holds_nothing_up(
    tmp_path: Path, nursery: Nursery
) -> None:
    seed = f"{SEED}/two"
    rng, fell, record = random.Random(seed), Counter[str](), Record(tmp_path / "books.db")
    before: dict[str, Writer] = {}
    for number in range(ROUNDS):
        pair = [
            nursery.start(record.task(f"{who}{number}", seed, before.get(who), "careful"))
            for who in "ab"
        ]
        for writer in pair:
            nursery.wait_for(writer.has_opened)
        first, second = rng.sample(pair, 2)
        time.sleep(rng.uniform(0, LIFE_S))
        nursery.kill(first)
        # The lock died with its owner: the other one ends what it was at, and does one more.
        nursery.wait_for(partial(second.has_done, len(second.done) + 2))
        time.sleep(rng.uniform(0, LIFE_S))
        nursery.kill(second)
        fell.update((first.word, second.word))
        check(record, f"seed {seed!r}, round {number}", number, first, second)
        before = {writer.name[0]: writer for writer in pair}
    assert fell["begins"] + fell["inserts"] + fell["commits"] >= 40, fell


@pytest.mark.parametrize(
    ("manner", "verdict"), [("boasts", "lost, though said"), ("halves", "half done")]
)
def test_a_writer_that_commits_too_late_or_in_halves_is_found_out(
    tmp_path: Path, nursery: Nursery, manner: str, verdict: str
) -> None:
    record = Record(tmp_path / "books.db")
    with pytest.raises(AssertionError, match=verdict):
        kill_one_after_the_other(nursery, record, f"{SEED}/{manner}", 200, manner)
