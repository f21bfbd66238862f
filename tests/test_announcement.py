"""How an article is announced: asked for twice at most, held to the desk, never without words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from daemon import control, estimate, journal, packaging, proof
from daemon.announcing import REQUESTS_MAX, STEPS, Announcer
from daemon.books import Books
from daemon.control import Gate, Paused
from daemon.crew import publicist
from daemon.crew.prompts import prompt
from daemon.desk import house
from daemon.desk.announcement import trimmed
from daemon.desk.evidence import Claim
from daemon.inference import attempts
from daemon.inference.asking import Asker
from daemon.inference.chat import ChatModel
from daemon.inference.ladder import Role, Rung, Tier
from daemon.inference.meter import Meter
from daemon.inference.prices import Price, PriceBook
from daemon.journal import RunOutcome
from daemon.steps import Steps
from ledger.money import MicroCredits
from tests.doubles.model import Asked
from tests.doubles.worst import hostile_posts
from tests.stage import Kill, Killed, MortalDatabase, Silent, Stage
from tests.virtual import START

CANARY = "sk-CANARY7q2Zt9LmW4xHvB8sKd3R"
HONEST = "What an operator should measure before changing the write-ahead log."
LYING = "It served 98765 herons in its first pass."
TWO_RUNGS = {"PENSTOCK_MODELS_EDIT": "llm/good > llm/cheap"}
GRAPHEME = regex.compile(r"\X")


class Post(Stage):
    """A stage with an article that has passed the desk, and no word about it yet."""

    def __init__(self, folder: Path, /, **changes: str) -> None:
        super().__init__(folder, **changes)
        self.deposit("2")
        report = self.once()
        assert report.outcome is RunOutcome.PUBLISHED, report.reason
        self.run = str(report.run)
        self.written = len(self.model.requests)

    def says(self, *answers: Sequence[str]) -> None:
        """What the model posts, answer by answer; the last again when there are more."""
        left = list(answers)

        def answer(asked: Asked) -> dict[str, Any]:
            return {"posts": list(left.pop(0) if len(left) > 1 else left[0])}

        self.model.answers["announcement"] = answer

    def announce(
        self, *, kill: Kill | None = None, budget: MicroCredits | None = None
    ) -> tuple[str, ...]:
        """The announcement, in a life of its own."""
        world, settings = self.world(), self.settings
        database = MortalDatabase(settings.location.database_url, kill)

        async def live() -> tuple[str, ...]:
            books = Books(database, world.clock)
            model = ChatModel(settings.endpoints["llm"], world.models)
            rungs = {role: ladder.paid for role, ladder in settings.ladders.items()}
            meter = Meter(
                books=books, models={"llm": model}, prices=settings.prices,
                policy=settings.policy, clock=world.clock, gate=Gate(),
            )  # fmt: skip
            asker = Asker(
                books=books, meter=meter, options={}, call_timeout_s=120, clock=world.clock
            )
            steps = Steps(
                self.run, books=books, clock=world.clock, asker=asker, tier=Tier.STANDARD,
                rungs=rungs, shares={} if budget is None else {Role.EDIT: budget},
                progress=Silent(), gate=Gate(),
            )  # fmt: skip
            with books.read() as tx:
                manuscript = packaging.manuscript(tx, self.run)
            try:
                return await Announcer(books, settings.brief, [CANARY]).words(steps, manuscript)
            finally:
                await model.close()

        try:
            return self.time.run(live())
        finally:
            database.close()

    @property
    def asked(self) -> list[Asked]:
        return [one for one in self.model.requests if one.schema == "announcement"]

    def remarks(self) -> str:
        with self.reading() as tx:
            rows = journal.decisions(tx, self.run)
        return " ".join(row.sentence for row in rows if row.kind == "announce")

    def article(self) -> house.Manuscript:
        with self.reading() as tx:
            return packaging.manuscript(tx, self.run)


MakePost = Callable[..., Post]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[MakePost]:
    made: list[Post] = []

    def make(**changes: str) -> Post:
        made.append(Post(tmp_path / str(len(made)), **changes))
        return made[-1]

    yield make
    for each in made:
        each.judge()


# Honest


def test_an_honest_announcement_takes_one_request_and_is_kept(post: MakePost) -> None:
    one = post()
    posts = one.announce()
    assert len(posts) == len(one.asked) == 1
    assert one.remarks() == ""
    with one.reading() as tx:
        assert packaging.announced(tx, one.run) == posts
        assert journal.step(tx, one.run, "publicist") is not None
    assert one.announce() == posts
    assert len(one.asked) == 1


def test_nothing_is_announced_before_there_are_words(post: MakePost) -> None:
    one = post()
    with one.reading() as tx:
        assert packaging.announced(tx, one.run) == ()


def test_the_publicist_sees_the_claims_that_are_cited_and_not_the_article(post: MakePost) -> None:
    one = post()
    one.announce()
    (asked,) = one.asked
    article = one.article()
    assert f"Title: {article.title}" in asked.text
    assert article.description in asked.text
    opening = article.markdown.partition("\n")[0]
    assert opening not in asked.text
    cited = set(re.findall(r"\[(S\d+)\]", article.markdown))
    assert set(re.findall(r"^\[(S\d+)\] ", asked.text, re.M)) <= cited
    assert re.search(r'^\[S\d+\] .+ \| ".+"$', asked.text, re.M)
    # This article cites all it read, so one that it does not cite is brought along.
    with one.reading() as tx:
        claims = proof.claims(tx, one.run)
    stray = Claim("Nobody cites this.", "nobody cites this", "S99")
    shown = publicist.announcement(one.settings.brief, article, [stray, *claims]).prompt
    assert claims[0].statement in shown
    assert stray.statement not in shown


def test_a_request_stays_within_what_is_planned_for_it(post: MakePost) -> None:
    one = post()
    # As much as the desk can say of as much as a model can post.
    one.says([f"{LYING} {'x' * 4_000}", f"b {'y ' * 2_000}{LYING}", f"{'z' * 4_000}"])
    one.announce()
    assert len(one.asked) == 2
    for asked in one.asked:
        assert len(asked.raw) <= estimate.ANNOUNCEMENT.input_bytes_max
        assert asked.tokens_max == estimate.ANNOUNCEMENT.output_tokens_max


def test_a_digest_is_not_announced(post: MakePost) -> None:
    one = post()
    database = MortalDatabase(one.settings.location.database_url, None)
    with database.write() as tx:
        journal.change_run(tx, one.run, kind=journal.DIGEST)
    database.close()
    assert one.announce() == ()
    assert one.asked == []


def test_a_thread_has_three_posts_at_most(post: MakePost) -> None:
    one = post()
    one.says([f"{HONEST} Part {letter}." for letter in "abcde"])
    assert len(one.announce()) == 3
    assert len(one.asked) == 1


# Mended, refused, made by code


def test_what_has_one_right_fix_costs_no_further_request(post: MakePost) -> None:
    one = post()
    one.says([f"  {HONEST}\n\nThanks, @ada! #one #two #three [S1] https://evil.example/x  "])
    (said,) = one.announce()
    assert said == f"{HONEST} Thanks, ada! #one #two"
    assert len(one.asked) == 1


def test_a_refused_announcement_is_asked_for_once_more_with_what_was_found(post: MakePost) -> None:
    one = post()
    one.says([LYING], [HONEST])
    assert one.announce() == (HONEST,)
    first, second = one.asked
    assert LYING in second.text
    assert "98765" in second.text.partition("It cannot appear:")[2]
    assert second.text.startswith(first.text[:200])
    assert one.remarks() == ""


def test_an_announcement_refused_twice_is_made_of_the_article_itself(post: MakePost) -> None:
    one = post()
    one.says([LYING])
    (said,) = one.announce()
    assert len(one.asked) == REQUESTS_MAX
    assert said.startswith(one.article().title)
    assert "98765" not in said
    assert "refused" in one.remarks()
    assert "98765" in one.remarks()


@pytest.mark.parametrize("kind", sorted(hostile_posts(CANARY, prompt("publicist"))))
def test_no_hostile_announcement_gets_through(post: MakePost, kind: str) -> None:
    one = post()
    told = hostile_posts(CANARY, prompt("publicist"))[kind]
    one.says(told)
    posts = one.announce()
    assert posts
    said = " ".join(posts)
    for forbidden in (
        "heron@", "evil", "98765", "９８", "ninety-eight", "38", "0800", "1Boat", "{%", "{{", "@",
        "&#64;", CANARY, CANARY[::-1], "never seen", "Ignore",
    ):  # fmt: skip
        assert forbidden not in said, said
    words = prompt("publicist").split()
    assert not any(" ".join(words[n : n + 8]) in said for n in range(len(words) - 7))
    assert len(one.asked) <= REQUESTS_MAX


ODD: Mapping[str, Any] = {
    "an empty list": {"posts": []},
    "null": {"posts": None},
    "no field": {},
    "empty posts": {"posts": ["", " \n", "\u200b", "@", "[S1]", "https://evil.example"]},
    "a string": {"posts": HONEST},
    "5000 characters": {"posts": ["heron " * 900]},
    "5000 marks on one letter": {"posts": ["a" + "\u0301" * 4_999]},
    "5000 without a space": {"posts": ["水" * 5_000]},
    "hidden characters": {"posts": [f"{HONEST}\u202e\u200b\U000e0041\x1b"]},
    "numbers for posts": {"posts": [1, 2]},
    "not an object": "[1]",
    "not JSON": "I would rather not.",
}


@pytest.mark.parametrize("kind", ODD)
def test_whatever_a_model_answers_there_are_words_that_fit(post: MakePost, kind: str) -> None:
    one = post()
    one.model.answers["announcement"] = lambda asked: ODD[kind]
    posts = one.announce()
    assert posts
    for said in posts:
        assert 0 < len(GRAPHEME.findall(said)) <= 300
        assert len(said.encode()) <= 3_000
        assert said == said.strip()
        assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in said)
    assert len(one.asked) <= REQUESTS_MAX
    # Booked as it was billed.
    assert one.announce() == posts


@pytest.mark.parametrize("kind", ["reset_after", "status", "drop_after", "error_in_200"])
def test_without_a_model_the_article_announces_itself(post: MakePost, kind: str) -> None:
    one = post()
    details = {"code": 401} if kind == "status" else {}
    one.model.misbehave(kind, schema="announcement", times=None, **details)  # type: ignore[arg-type]
    (said,) = one.announce()
    assert said.startswith(one.article().title)
    assert "announces itself" in one.remarks()


def test_the_second_model_of_the_ladder_is_asked_where_the_first_gives_nothing(
    post: MakePost,
) -> None:
    one = post(**TWO_RUNGS)
    one.model.misbehave("reset_after", schema="announcement", model="good")
    one.says([HONEST])
    assert one.announce() == (HONEST,)
    assert [asked.model for asked in one.asked] == ["good", "cheap"]


def test_however_many_models_there_are_two_paid_requests_are_enough(post: MakePost) -> None:
    one = post(**TWO_RUNGS)
    one.model.misbehave("not_json", schema="announcement", times=None)
    (said,) = one.announce()
    assert said.startswith(one.article().title)
    assert [asked.model for asked in one.asked] == ["good", "good"]


def test_where_the_books_do_not_allow_a_request_none_is_made(post: MakePost) -> None:
    one = post()
    (said,) = one.announce(budget=MicroCredits(1))
    assert one.asked == []
    assert said.startswith(one.article().title)
    assert "share" in one.remarks()


def test_a_pause_parks_it_and_costs_nothing(post: MakePost) -> None:
    one = post()
    database = MortalDatabase(one.settings.location.database_url, None)
    with database.write() as tx:
        control.pause(tx, reason="testing", at=START)
    with pytest.raises(Paused):
        one.announce()
    assert one.asked == []
    with database.write() as tx:
        control.resume(tx)
    database.close()
    assert one.announce()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("commit", range(1, 10))
def test_killed_anywhere_it_goes_on_and_buys_no_answer_twice(
    post: MakePost, commit: int, after: bool
) -> None:
    one = post()
    one.says([LYING], [HONEST], ["This is never asked for."])
    kill = Kill.at(commit, after=after)
    with suppress(Killed):
        one.announce(kill=kill)
    posts = one.announce()
    assert posts
    assert LYING not in posts
    with one.reading() as tx:
        made = [row for row in attempts.of_run(tx, one.run) if row.step in STEPS]
    # One that was under way is unknown to this life, and may be bought again.
    assert len(made) <= REQUESTS_MAX + 1
    assert len([row for row in made if row.outcome == "ok"]) <= REQUESTS_MAX


# Trimming and mending, by property

_LETTERS = st.one_of(
    st.characters(),
    st.sampled_from(
        ["👩\u200d👩\u200d👧\u200d👦", "é", "e\u0301", "नि", "한", "🇩🇪", "👍🏽", "\r\n", " ",
         "  ", "…", "@", "#a", "#", "1/2", "[S1]", "www.x", "https://x.test/y",
         "\u200b", "\u0600", "＠", "水"]
    ),
)  # fmt: skip
TEXTS = st.lists(_LETTERS, max_size=700).map("".join)


@given(TEXTS)
@example("a" + "\u0301" * 4_000)
@example("👩\u200d👩\u200d👧\u200d👦" * 301)
@example("a" + " " * 400)
@example("," * 400)
@example("x " + "y" * 400)
@example("\u0600" * 400)
def test_what_is_trimmed_fits_and_is_trimmed_once(text: str) -> None:
    cut = trimmed(text)
    assert len(GRAPHEME.findall(cut)) <= 300
    assert len(cut.encode("utf-8", "surrogatepass")) <= 3_000
    assert trimmed(cut) == cut
    assert bool(cut) == bool(text)
    if cut != text:
        kept = cut.removesuffix("…")
        assert text.startswith(kept)
        assert kept


@given(st.text("ab ,.", min_size=301, max_size=900))
def test_where_there_are_words_it_is_cut_between_them(text: str) -> None:
    cut = trimmed(text)
    kept = cut.removesuffix("…")
    rest = text[len(kept) :]
    in_a_word = bool(rest) and rest[0].isalpha() and kept[-1:].isalpha()
    if in_a_word:
        assert " " not in kept[len(kept) // 2 + 1 :]


@given(st.lists(TEXTS, max_size=5))
@example(["a 1/2", "a 2/2"])
@example(["# # ##a ##b ##c ##d"])
@example(["x https://a.test https://b.test"])
@example(["@@a", "＠＠b"])
def test_what_is_mended_fits_and_is_mended_once(posts: list[str]) -> None:
    mended = house.mended_posts(posts)
    assert len(mended) <= len(posts)
    for said in mended:
        assert said.strip() == said != ""
        assert len(GRAPHEME.findall(said)) <= 300
        assert len(said.encode()) <= 3_000
    if len(mended) == len(posts):
        assert house.mended_posts(mended) == mended


@pytest.mark.parametrize(
    ("typed", "mended"),
    [
        ("Read it: https://x.test/a", "Read it"),
        ("Read it → www.x.test (https://x.test)", "Read it"),
        ("It is so [S1], they say [S2].", "It is so, they say."),
        ("#a b #c d #e f", "#a b #c d e f"),
        ("b #a #c #d #e", "b #a #c"),
        ("C# and #42 stay", "C# and #42 stay"),
        ("two\n\nlines", "two lines"),
        ("https://x.test/a", None),
    ],
)
def test_a_post_is_mended_so(typed: str, mended: str | None) -> None:
    assert house.mended_posts([typed]) == (() if mended is None else (mended,))


# What it costs

_PRICE = st.integers(0, 100_000_000)


@given(_PRICE, _PRICE, _PRICE)
def test_an_announcement_never_takes_more_than_a_review(one: int, two: int, three: int) -> None:
    rung = Rung("llm", "any")
    prices = PriceBook({str(rung): Price(one, two, three, "t")}, {})
    stage, price = estimate.ANNOUNCEMENT, prices.price(rung, START)
    hold = price.worst_case(input_max=stage.input_bytes_max, output_max=stage.output_tokens_max)
    assert price.cost(stage.usage) <= hold <= estimate.peak(Role.EDIT, rung, prices, START)


def test_it_is_planned_where_a_destination_announces(post: MakePost) -> None:
    settings = post().settings
    without = estimate.planned(settings.ladders, settings.prices, START)
    planned = estimate.planned(settings.ladders, settings.prices, START, announces=True)
    price = settings.prices.price(Rung("llm", "good"), START)
    for tier, cost in planned.items():
        assert cost == without[tier] + price.cost(estimate.ANNOUNCEMENT.usage)


def test_what_an_announcement_is_held_against_comes_from_the_journal_alone(post: MakePost) -> None:
    one = post()
    with one.reading() as tx:
        context = proof.of_run(tx, one.run, one.settings.brief, [CANARY])
        article = packaging.manuscript(tx, one.run)
        assert proof.findings(tx, one.run, article, context) == []
        stored, read = journal.claims(tx, one.run), journal.sources(tx, one.run)
    assert {claim.quote for claim in context.claims} == {c.quote for c in stored if c.verified}
    assert [(e.id, e.text) for e in context.evidence.values()] == [(s.id, s.text) for s in read]
    assert read
