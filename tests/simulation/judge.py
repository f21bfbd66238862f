"""
The outside judge: the provider's bill, the platforms' lists, and an export of the books.

It sums for itself and asks nobody. What it is given is plain data, so that a test can hand it a
history that is wrong.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import zip_longest
from typing import Any
from zoneinfo import ZoneInfo

from tests.simulation.plan import CLOCK_WRONG_MAX_S
from tests.simulation.slots import is_slot
from tests.simulation.world import BAIT, INVENTED, LURE, SPELT, STRANGER

Document = Mapping[str, Any]
OPEN = ("intended", "unconfirmed")
# Who has logged in to Bluesky too often, or was refused, waits until a day has passed, by our own
# limits.
WAITS_A_DAY = re.compile("logged in to|by this password")
# What waits for a person stands until then; and where nothing came out for long, that is true.
STANDS = ("approval", "silent")
# What happened and is over is news for a week, and forgotten soon after.
EVENTS = ("refused", "lapsed", "gone", "expired", "overrun")
NEWS_FOR = timedelta(days=7, hours=2)
# What decides is a person, so that it shows no daemon that is awake.
BY_A_PERSON = ("approval", "edit", "retry")
# How a person begins what they have mended.
BY_HAND = "Looked at by hand:"
OWN = ("https://dev.to/penstock/", "https://notes.example")
# How many millionths an answer may be billed beside its price: New API rounds each to its unit.
ROUNDED_BY = {"openrouter": 0, "new-api": 1}
_LINK = re.compile(r"https?://[^\s()\"'<>\]]+")
# What stands before a citation, back to the one before it or the beginning of the line.
_CITED = re.compile(r"(.*?)\[\[\d+\]\]\(([^)]+)\)")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
AWAKE_WITHIN = timedelta(hours=2)
# One that went by longer ago is let go.
OLDEST_SLOT = timedelta(hours=24)
# What is not over is looked at hourly.
LOOKED_AT_WITHIN = timedelta(hours=1)
# From when an article is sent until it is shown: a draft is looked for, and made again.
SENDING = timedelta(minutes=10)
# Two readings of the daemon's clock may be off by so much in opposite ways.
CLOCKS_APART = timedelta(seconds=2 * CLOCK_WRONG_MAX_S)


@dataclass(frozen=True, slots=True)
class Lists:
    """
    What others have.

    Args:
        bill: provider, model and micro-credits of each line.
        articles: id, whether it is public, and its fields.
        posts: Bluesky's posts by record key.
        files: of the outbox, by name.
        removed: what people took down by hand, such as `devto 17`.
        shown: when each was first there, by the daemon's own clock.
        peaks: the most that readers ever did, by platform, article or post, and unit of engagement.
        pages: of the sites, by their addresses.
        overheard: who was sent a key that was none of theirs, and which.
        counters: which providers tell what a key has used, and how.
        billed: what each provider billed in all.
        deposits: micro-credits of each, where the command did not fail.
        edited: runs whose description a person began anew with BY_HAND.
        expected: slots of the schedule at which nothing kept the daemon from doing something.
    """

    bill: Sequence[tuple[str, str, int]]
    articles: Sequence[tuple[int, bool, Document]]
    posts: Mapping[str, Document]
    files: Mapping[str, str]
    removed: frozenset[str]
    shown: Mapping[str, datetime]
    peaks: Mapping[tuple[str, str, str], int]
    pages: Mapping[str, str]
    overheard: Sequence[tuple[str, str]]
    counters: Mapping[str, str]
    billed: Mapping[str, int]
    deposits: Sequence[int]
    edited: frozenset[str]
    expected: Sequence[datetime]


@dataclass(frozen=True, slots=True)
class Books:
    """
    What `ledger export`, `ledger attempts`, `runs list|show`, `posts list` and `alerts` say.

    Args:
        uncompared: of providers, which of the entries no reading of their counters covers.
        compared: of providers, with how many of the first entries their counters were compared.
    """

    at: datetime
    problems: Sequence[str]
    entries: Sequence[Document]
    attempts: Sequence[Document]
    runs: Sequence[Document]
    decisions: Sequence[Document]
    publications: Sequence[Document]
    alerts: Sequence[Document] = ()
    uncompared: Mapping[str, Sequence[slice]] = field(default_factory=dict)
    compared: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong, in sentences; nothing when all promises were kept."""

    violations: list[str]


@dataclass(frozen=True, slots=True)
class Lull:
    """What `posts list` said as the faults stopped for a while, and when posts had their hour."""

    before: Sequence[Document]
    after: Sequence[Document]
    at: datetime


@dataclass(frozen=True, slots=True)
class Moments:
    """
    The books when the faults stopped, the posts had their hour, the holds their expiry.

    Args:
        lulls: such hours before, in the midst of it.
    """

    calm: Books
    posts: Books
    holds: Books
    lulls: Sequence[Lull] = ()


@dataclass(frozen=True, slots=True)
class InForce:
    """
    Settings of which the daemon knows.

    Args:
        entries: how many the books had; the limits hold for what is booked from there.
        at: what the daemon's clock said.
    """

    entries: int
    at: datetime
    settings: Mapping[str, str]


def judge(
    lists: Lists,
    moments: Moments,
    books: Books,
    settings: Sequence[InForce],
    secrets: Sequence[str],
) -> Verdict:
    """
    Compare them.

    Args:
        books: at the end, after a week of calm.
        settings: which were in force, in their order.
        secrets: what nobody must ever see.
    """
    return Verdict(
        [
            *(f"the books do not balance: {problem}" for problem in books.problems),
            *_double_posts(lists),
            *_lost_posts(lists, books),
            *_shown_again(lists, books),
            *_money(lists, books),
            *_counted(lists, books),
            *_limits(books, settings),
            *_income(lists, books, settings),
            *_uncounted(moments, books),
            *_slots(books, settings),
            *_forbidden(lists, secrets),
            *_without_evidence(lists),
            *(f"{who} was sent the key {key!r}" for who, key in lists.overheard),
            *_unapproved(books, settings),
            *_unedited(lists, books),
            *_too_many(lists, books, settings),
            *_unresolved(moments, settings),
            *_asleep(lists, moments, books),
            *_alarms(books),
        ]
    )


# Posts


def _double_posts(lists: Lists) -> Iterator[str]:
    titles = Counter(fields["title"] for _, _, fields in lists.articles)
    yield from (f"Dev.to has {n} articles “{title}”" for title, n in titles.items() if n > 1)
    roots = Counter(
        (post["text"], str(post.get("embed", {}).get("external", {}).get("uri")))
        for post in lists.posts.values()
        if "reply" not in post
    )
    yield from (f"Bluesky has {n} threads “{text}”" for (text, _), n in roots.items() if n > 1)
    parts = Counter(
        (post["reply"]["parent"]["uri"], post["text"])
        for post in lists.posts.values()
        if "reply" in post
    )
    yield from (f"Bluesky has {n} replies “{text}”" for (_, text), n in parts.items() if n > 1)
    heads = Counter(_title_of(text) for text in lists.files.values())
    yield from (f"the outbox has {n} files “{title}”" for title, n in heads.items() if n > 1)


def _title_of(text: str) -> str:
    found = re.match(r"# (.+)", text)
    assert found is not None, text[:200]
    return found[1]


def _lost_posts(lists: Lists, books: Books) -> Iterator[str]:
    public = {str(number) for number, published, _ in lists.articles if published}
    known = defaultdict(set)
    for publication in books.publications:
        platform, remote_id = publication["platform"], str(publication["remote_id"])
        keys = _keys(remote_id)
        known[platform].update(keys)
        told = f"{publication['run']} at {platform} ({remote_id})"
        planned = len(json.loads(publication["payload"]).get("posts", ()))
        if publication["state"] == "failed":
            whole = planned <= len(keys) and set(keys) <= set(lists.posts)
            if remote_id in public | set(lists.files) or (platform == "bluesky" and whole):
                yield f"the books say failed, and it is there: {told}"
        if publication["state"] != "published":
            continue
        if platform == "devto" and remote_id not in public and _stays(lists, platform, remote_id):
            yield f"the books say published, and Dev.to does not have it: {told}"
        if platform == "bluesky":
            lost = [key for key in keys if key not in lists.posts and _stays(lists, platform, key)]
            if lost:
                yield f"the books say published, and Bluesky does not have it: {told}"
            if len(keys) < planned:
                yield f"the books say published, and {len(keys)} of {planned} posts are: {told}"
        if platform == "outbox" and remote_id not in lists.files:
            yield f"the books say published, and the outbox does not have it: {told}"
    yield from (f"Dev.to shows {n}, of which no book knows" for n in public - known["devto"])
    posts, files = set(lists.posts), set(lists.files)
    yield from (f"Bluesky shows {key}, of which no book knows" for key in posts - known["bluesky"])
    yield from (f"the outbox has {n}, of which no book knows" for n in files - known["outbox"])


def _keys(remote_id: Any) -> list[str]:
    """Of a thread it is the first post's address, and the keys of the others after it."""
    return str(remote_id).rpartition("/")[2].split(" ")


def _shown_again(lists: Lists, books: Books) -> Iterator[str]:
    """What a person took back, or the books say was taken down, and is there all the same."""
    shown = {f"devto {number}" for number, published, _ in lists.articles if published}
    shown |= {f"bluesky {key}" for key in lists.posts} | {f"outbox {name}" for name in lists.files}
    wanted_back = [each for each in books.publications if each["withdrawal"] is not None]
    # What is taken down while it goes out may come once more: nobody can tell that from a loss.
    noticed = [each["inputs"] for each in books.decisions if each["kind"] == "gone"]
    for away in (*wanted_back, *noticed):
        for key in _keys(away["remote_id"]):
            name = f"{away['platform']} {key}"
            if name in shown and (away in wanted_back or name in lists.removed):
                yield f"{name} was taken back, and is there"


def _stays(lists: Lists, platform: str, name: str) -> bool:
    return f"{platform} {name}" not in lists.removed


# Money


def _money(lists: Lists, books: Books) -> Iterator[str]:
    billed = sum(micro for provider, _, micro in lists.bill if provider not in lists.counters)
    of_attempt: Counter[str] = Counter()
    doubtful: defaultdict[str, list[int]] = defaultdict(list)
    spent = [e for e in books.entries if str(e["debit"]).startswith("inference:")]
    spent = [e for e in spent if e["state"] == "posted"]
    for entry in spent:
        of_attempt[entry["attempt"]] += _micro(entry["amount"])
        if entry["code"] == "uncertain":
            doubtful[entry["debit"]].append(_micro(entry["amount"]))
    counted = {f"inference:{provider}" for provider in lists.counters}
    booked = sum(_micro(e["amount"]) for e in spent if e["debit"] not in counted)
    uncertain = sum(sum(each) for account, each in doubtful.items() if account not in counted)
    if booked < billed:
        yield f"the bill says {billed} micro-credits, the books only {booked}"
    if booked - uncertain > billed:
        yield f"{booked - uncertain} micro-credits are booked for certain, {billed} were billed"
    lines = Counter(lists.bill)
    for attempt in books.attempts:
        if attempt["outcome"] != "ok":
            continue
        # What is in doubt is booked too high, so that the sums alone would hide what is too low.
        line = (attempt["provider"], attempt["model_returned"], of_attempt[attempt["id"]])
        if not lines[line]:
            yield f"attempt {attempt['id']} is booked with {line}, which is on no bill"
        lines[line] -= 1
    # The line of one that was voided could hide behind what was charged for another.
    unknown = (
        each["id"]
        for each in books.attempts
        if each["outcome"] == "unknown" and each["provider"] not in lists.counters
    )
    yield from (f"the unknown {n} is booked with nothing" for n in unknown if not of_attempt[n])
    for account in {f"inference:{provider}" for provider, _, _ in lines} - counted:
        left = (micro for name, _, micro in lines.elements() if account == f"inference:{name}")
        yield from _unexplained(account, sorted(left), sorted(doubtful[account]))


def _counted(lists: Lists, books: Books) -> Iterator[str]:
    """
    Who tells what a key has used is booked to the millionth, but for what was charged in doubt
    before a reading covered it, and for the rounding of answers that none covers.
    """
    for provider, api in lists.counters.items():
        account = f"inference:{provider}"
        billed = lists.billed[provider]
        booked = sum(_moved(entry, account) for entry in books.entries)
        apart = [e for span in books.uncompared.get(provider, ()) for e in books.entries[span]]
        since = books.entries[books.compared.get(provider, 0) :]
        doubtful = sum(_moved(entry, account) for entry in apart if entry["code"] == "uncertain")
        answers = sum(bool(_moved(entry, account)) for entry in (*apart, *since))
        rounded = ROUNDED_BY[api] * answers
        if not -rounded <= booked - billed <= doubtful + rounded:
            yield (
                f"{provider} tells of {billed}, the books have {booked}, {doubtful} of it in doubt"
                " before its counter was read"
            )


def _moved(entry: Document, account: str) -> int:
    """What an entry moved to an account."""
    if entry["state"] != "posted":
        return 0
    amount = _micro(entry["amount"])
    return amount * int(entry["debit"] == account) - amount * int(entry["credit"] == account)


def _unexplained(account: str, left: list[int], charges: list[int]) -> Iterator[str]:
    """Each line that no answer explains needs a charge of its own that is in doubt."""
    for micro, charge in zip_longest(reversed(left), reversed(charges), fillvalue=0):
        if micro > charge:
            yield f"{micro} on the bill of {account} are booked for no request"


@dataclass(slots=True)
class _Replay:
    """The entries read again in the order they were booked, looking at each new hold."""

    settings: Mapping[str, str] = field(default_factory=dict)
    treasury: int = 0
    of_run: Counter[str] = field(default_factory=Counter)
    spent: list[tuple[datetime, int]] = field(default_factory=list)
    earned: list[tuple[datetime, int]] = field(default_factory=list)
    held: dict[str, tuple[datetime, int, str]] = field(default_factory=dict)

    def book(self, entry: Document) -> None:
        """What it moved, or holds, or ended."""
        amount, at = _micro(entry["amount"]), datetime.fromisoformat(entry["at"])
        if entry["state"] in ("pending", "settled"):
            self.held[entry["id"]] = (at, amount, entry["run"])
            return
        self.held.pop(str(entry["ref"]), None)
        self.treasury += amount * ((entry["debit"] == "treasury") - (entry["credit"] == "treasury"))
        if str(entry["debit"]).startswith("inference:"):
            self.of_run[entry["run"]] += amount
            self.spent.append((at, amount))
        if str(entry["credit"]).startswith("inference:"):
            self.of_run[entry["run"]] -= amount
        if str(entry["credit"]).startswith("engagement:"):
            self.earned.append((at, amount))

    def passed(self, hold: Document) -> Iterator[str]:
        """The limits that a hold that was just made passes."""
        at = datetime.fromisoformat(hold["at"])
        left = self.treasury - sum(amount for _, amount, _ in self.held.values())
        reserve = _micro(self.settings["PENSTOCK_RESERVE"])
        if left < reserve:
            yield f"{hold['id']} leaves {left}, less than the reserve of {reserve}"
        of_run = self.of_run[hold["run"]]
        of_run += sum(amount for _, amount, run in self.held.values() if run == hold["run"])
        yield from self._above(hold, "RUN_BUDGET", of_run)
        yield from self._above(hold, "DAILY_CAP", self._since(at - timedelta(days=1)))
        yield from self._above(hold, "MONTHLY_CAP", self._since(at - timedelta(days=30)))

    def earned_too_much(self, income: Document) -> Iterator[str]:
        """The cap that income which was just booked passes."""
        since = datetime.fromisoformat(income["at"]) - timedelta(days=1)
        total = sum(amount for at, amount in self.earned if at > since)
        yield from self._above(income, "EARN_DAILY_CAP", total)

    def _since(self, moment: datetime) -> int:
        done = sum(amount for at, amount in self.spent if at > moment)
        return done + sum(amount for at, amount, _ in self.held.values() if at > moment)

    def _above(self, hold: Document, name: str, total: int) -> Iterator[str]:
        limit = _micro(self.settings[f"PENSTOCK_{name}"])
        if total > limit:
            yield f"{hold['id']} makes {total}, more than PENSTOCK_{name} of {limit}"


def _limits(books: Books, settings: Sequence[InForce]) -> Iterator[str]:
    replay, coming = _Replay(), deque(settings)
    for number, entry in enumerate(books.entries):
        while coming and coming[0].entries <= number:
            replay.settings = coming.popleft().settings
        if entry["state"] == "voided":
            # No entry says when, so that it may have counted for a moment or for hours.
            continue
        replay.book(entry)
        if entry["state"] in ("pending", "settled"):
            yield from replay.passed(entry)
        elif str(entry["credit"]).startswith("engagement:"):
            yield from replay.earned_too_much(entry)


def _income(lists: Lists, books: Books, settings: Sequence[InForce]) -> Iterator[str]:
    """Deposits, and what readers did: each unit by its rate, once, and no more than there was."""
    booked = (each for each in books.entries if each["code"] == "deposit")
    deposits = Counter(_micro(each["amount"]) for each in booked)
    if deposits != Counter(lists.deposits):
        yield f"deposits of {sorted(lists.deposits)} are booked as {sorted(deposits.elements())}"
    remote_ids = {_key(each): each["remote_id"] for each in books.publications}
    rates = dict(each.split("=") for each in settings[0].settings["PENSTOCK_RATES"].split(","))
    credited: Counter[tuple[str, str, str]] = Counter()
    for entry in books.entries:
        if not str(entry["credit"]).startswith("engagement:"):
            continue
        platform, run, metric, span = entry["ref"].split(":")
        low, high = map(int, span.split("-"))
        counter = platform, run, metric
        if low < credited[counter]:
            yield f"{entry['id']} is credited from {low}, and was up to {credited[counter]}"
        credited[counter] = high
        worth = _micro(rates[f"{platform}.{metric}"]) * (high - low)
        if _micro(entry["amount"]) > worth:
            yield f"{entry['id']} brings {entry['amount']}, and is worth {worth} millionths"
        keys = _keys(remote_ids[run, platform])
        if high > (most := sum(lists.peaks.get((platform, key, metric), 0) for key in keys)):
            yield f"{entry['id']} is credited up to {high}, and there were {most} at most"


def _uncounted(moments: Moments, books: Books) -> Iterator[str]:
    """Posts whose readers nobody counted in a week of calm."""
    before = {_key(each): each for each in moments.holds.publications}
    for post in books.publications:
        known = before.get(_key(post))
        if known is None or post["platform"] == "outbox":
            continue
        still = post["state"] == known["state"] == "published"
        if still and post["counted_at"] == known["counted_at"]:
            yield f"{post['run']} at {post['platform']} was not counted for a week"


def _micro(amount: Any) -> int:
    return int(Decimal(str(amount)) * 1_000_000)


# Slots, words, what is open


def _slots(books: Books, settings: Sequence[InForce]) -> Iterator[str]:
    slots = Counter(run["slot"] for run in books.runs if run["slot"] is not None)
    yield from (f"the slot {slot} was used {n} times" for slot, n in slots.items() if n > 1)
    for run in books.runs:
        if run["slot"] is None:
            continue
        if abs(run["started_at"] - run["slot"]) > OLDEST_SLOT:
            yield f"the slot {run['slot']} was used at {run['started_at']}"
        known = _known_within(run["started_at"], run["started_at"], settings)
        if not any(is_slot(each, run["slot"]) for each in known):
            yield f"{run['slot']}, which {run['id']} used, was on no schedule"


def _unapproved(books: Books, settings: Sequence[InForce]) -> Iterator[str]:
    """What went out though a person was to see it first, all the time."""
    runs = {run["id"]: run for run in books.runs}
    for out in books.publications:
        run = runs[out["run"]]
        if "outbox" in out["platform"] or out["published_at"] is None or run["approved_at"]:
            continue
        known = _known_within(run["started_at"], out["published_at"], settings)
        if all(each["PENSTOCK_APPROVAL"] == "manual" for each in known):
            yield f"{out['run']} is at {out['platform']}, and nobody approved it"


def _unedited(lists: Lists, books: Books) -> Iterator[str]:
    """What went out as it was before a person changed it."""
    said = {f"devto {number}": fields.get("description") for number, _, fields in lists.articles}
    for key, post in lists.posts.items():
        said[f"bluesky {key}"] = post.get("embed", {}).get("external", {}).get("description")
    for out in books.publications:
        shown = said.get(f"{out['platform']} {_keys(out['remote_id'])[0]}")
        if out["run"] in lists.edited and shown is not None and BY_HAND not in shown:
            yield f"{out['run']} is at {out['platform']} as it was before it was edited"


def _too_many(lists: Lists, books: Books, settings: Sequence[InForce]) -> Iterator[str]:
    """Days with more articles than PENSTOCK_MAX_POSTS_PER_DAY, by the daemon's own clock."""
    first = _first_shown(lists, books)
    for at in first.values():
        known = list(_known_within(at, at, settings))
        zones = {each["PENSTOCK_TIMEZONE"] for each in known}
        if len(zones) > 1:
            continue
        (zone,) = map(ZoneInfo, zones)
        day = at.astimezone(zone).date()
        same = sum(_sent_on(shown, zone) == {day} for shown in first.values())
        if same > max(int(each["PENSTOCK_MAX_POSTS_PER_DAY"]) for each in known):
            yield f"{same} articles came out on {day}"


def _sent_on(shown: datetime, zone: ZoneInfo) -> set[date]:
    """The days on which it may have been sent; what counts is when that began."""
    return {at.astimezone(zone).date() for at in (shown - SENDING, shown)}


def _first_shown(lists: Lists, books: Books) -> dict[str, datetime]:
    """When each article was first anywhere, by run: by the lists, and by the books beside them."""
    dated, unsure = [], set()
    for out in books.publications:
        name = f"{out['platform']} {_keys(out['remote_id'])[0]}"
        at = lists.shown.get(name, out["published_at"])
        dated.append({**out, "published_at": at})
        # Published before it was intended: a clock was set back, and of what day nobody knows.
        if at is not None and at < out["intended_at"]:
            unsure.add(out["run"])
    return _came_out([out for out in dated if out["run"] not in unsure])


def _came_out(publications: Sequence[Document]) -> dict[str, datetime]:
    """When each article was first published anywhere, by run."""
    first: dict[str, datetime] = {}
    for out in publications:
        if (at := out["published_at"]) is not None:
            first[out["run"]] = min(at, first.get(out["run"], at))
    return first


def _full(at: datetime, out: Mapping[str, datetime], settings: Sequence[InForce]) -> bool:
    """Whether another article may have been one too many for its day."""
    return any(
        _of_its_day(at, out, ZoneInfo(each["PENSTOCK_TIMEZONE"]))
        >= int(each["PENSTOCK_MAX_POSTS_PER_DAY"])
        for each in _known_within(at, at, settings)
    )


def _of_its_day(at: datetime, out: Mapping[str, datetime], zone: ZoneInfo) -> int:
    """How many came out on the calendar day of `at`."""
    days = [first.astimezone(zone).date() for first in out.values()]
    return days.count(at.astimezone(zone).date())


def _known_within(
    first: datetime, last: datetime, settings: Sequence[InForce]
) -> Iterator[Mapping[str, str]]:
    """What may have been in force, as far as clocks tell."""
    for each, later in zip_longest(settings, settings[1:]):
        begun = each.at <= last + CLOCKS_APART
        if begun and (later is None or later.at >= first - CLOCKS_APART):
            yield each.settings


def _shown(lists: Lists) -> Iterator[tuple[str, str]]:
    for _, _, fields in lists.articles:
        yield from (("Dev.to", str(text)) for text in fields.values())
    yield from (("Bluesky", str(post)) for post in lists.posts.values())
    yield from (("the outbox", text) for text in lists.files.values())


def _forbidden(lists: Lists, secrets: Sequence[str]) -> Iterator[str]:
    for where, text in _shown(lists):
        for word in (LURE, SPELT, BAIT, f"@{STRANGER}", INVENTED, "<script", *secrets):
            if word in text:
                yield f"{where} shows {word!r}"


def _without_evidence(lists: Lists) -> Iterator[str]:
    """Links to what is no page, and numbers that the page cited for them does not have."""
    for where, text in _shown(lists):
        for url in _LINK.findall(text):
            if url not in lists.pages and not url.startswith(OWN):
                yield f"{where} links to {url}, which is no page"
        for said, url in _CITED.findall(text):
            known = set(_NUMBER.findall(lists.pages.get(url, "")))
            for number in set(_NUMBER.findall(said)) - known:
                yield f"{where} says {number}, of which {url} says nothing: {said.strip()}"


def _unresolved(moments: Moments, settings: Sequence[InForce]) -> Iterator[str]:
    held = {entry["id"] for entry in moments.calm.entries if entry["state"] == "pending"}
    for entry in moments.holds.entries:
        if entry["state"] == "pending" and entry["id"] in held:
            yield f"{entry['id']} of {entry['at']} is still held"
    ends = [
        Lull(moments.calm.publications, books.publications, books.at)
        for books in (moments.posts, moments.holds)
    ]
    for lull in (*moments.lulls, *ends):
        unsure = {_key(each) for each in lull.before if each["state"] in OPEN}
        out = _came_out(lull.after)
        full = any(_full(lull.at - ago, out, settings) for ago in (timedelta(), LOOKED_AT_WITHIN))
        for publication in lull.after:
            if WAITS_A_DAY.search(str(publication["error"])) and lull is not ends[-1]:
                continue
            # Nothing of it can be live, settings have changed, and a person is asked first.
            if publication["waits_for_person"] and publication["state"] == "intended":
                continue
            # It was of a day to come, as a clock said that was ahead.
            if full and publication["run"] not in out and publication["state"] == "intended":
                continue
            if publication["state"] in OPEN and _key(publication) in unsure:
                yield (
                    f"{publication['run']} at {publication['platform']} is still"
                    f" {publication['state']}: {publication['error']}"
                )


def _key(publication: Document) -> tuple[str, str]:
    return publication["run"], publication["platform"]


def _asleep(lists: Lists, moments: Moments, books: Books) -> Iterator[str]:
    done = sorted(
        at
        for at in (
            *(each["at"] for each in books.decisions if each["kind"] not in BY_A_PERSON),
            *(run["started_at"] for run in books.runs),
            *(run["finished_at"] for run in books.runs),
        )
        if at is not None
    )
    for slot in lists.expected:
        next_done = bisect_left(done, slot)
        if next_done == len(done) or done[next_done] > slot + AWAKE_WITHIN:
            yield f"nothing was done at the slot {slot}"
    before = {run["id"] for run in moments.holds.runs}
    after = [run for run in books.runs if run["id"] not in before]
    known = {decision["id"] for decision in moments.holds.decisions}
    said = [each["sentence"] for each in books.decisions if each["id"] not in known]
    # The operator may not look in for so long; no other draft is written meanwhile.
    asked = any("a draft waits for approval" in sentence for sentence in said)
    if not asked and not any(run["slot"] is not None for run in after):
        yield "in a week of calm, and with money, no slot was used"


def _alarms(books: Books) -> Iterator[str]:
    """What is told to nobody in a week in which all went well, or is still said to be wrong."""
    for alert in books.alerts:
        if alert["told_at"] is None:
            yield f"nobody was told: {alert['message']}"
            continue
        news = alert["kind"] in EVENTS and books.at < alert["raised_at"] + NEWS_FOR
        if not news and alert["kind"] not in STANDS:
            yield f"after a week of calm it is still said that {alert['message']}"
