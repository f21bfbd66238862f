"""
What a history is made of, drawn from one seed: settings, and faults at integer seconds.

A plan is data. Leaving faults out, or days, leaves every other fault as it was, so that a failing
plan can be made smaller.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tests.virtual import START

DAY_S = 86_400
# From one fault to the next, evenly between nothing and twice this: more than one an hour.
GAP_S = 3_300
# A hold that was made while the clock was ahead is due for expiry so much later.
CLOCKS_WRONG_S = (2, 400, 3_700, 90_000)
CLOCK_WRONG_MAX_S = max(CLOCKS_WRONG_S)
# Histories begin in the four years from START on, so that clocks change and a leap day comes.
BEGIN_WITHIN_DAYS = 4 * 365 + 1

COUNTERS = ("openrouter", "new-api")
FREE = "digest"
CHEAP = "llm/good > llm/cheap > digest"
TWO = "llm/good > other/spare > digest"


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Something that goes wrong at a second of the history.

    Args:
        kind: what; `history` says what each does.
        for_s: how long it lasts, where it lasts.
        number: what else it needs: how many requests, commits, seconds.
        detail: which of several.
    """

    id: int
    at_s: int
    kind: str
    for_s: int = 0
    number: int = 0
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.id}: {self.kind} {self.detail} {self.number} for {self.for_s} s"


@dataclass(frozen=True, slots=True)
class Plan:
    """
    One history to be.

    Args:
        counters: how a provider tells what a key has used, by its name; the others do not.
    """

    seed: int
    days: int
    settings: Mapping[str, str]
    deposit: str
    faults: tuple[Fault, ...]
    begins: datetime = START
    counters: Mapping[str, str] = field(default_factory=dict)

    def only(self, ids: Sequence[int]) -> Plan:
        """The same with these faults alone."""
        wanted = set(ids)
        return replace(self, faults=tuple(f for f in self.faults if f.id in wanted))

    def until(self, days: int) -> Plan:
        """Its first days."""
        kept = tuple(fault for fault in self.faults if fault.at_s < days * DAY_S)
        return replace(self, days=days, faults=kept)

    @property
    def command(self) -> str:
        """What replays it."""
        whole = drawn(self.seed, self.days)
        asked = f"python -m tests.simulation --seed {self.seed} --days {self.days}"
        if self.faults == whole.faults:
            return asked
        return f"{asked} --faults {','.join(str(fault.id) for fault in self.faults) or 'none'}"


MODEL_TROUBLES = (
    "status 429", "status 429 30", "status 500", "status 503", "status 529", "status 402",
    "status_after 500", "reset_before", "reset_after", "drop_after", "cut_after", "stall",
    "truncated_json", "length", "no_usage", "zero_usage", "error_in_200", "other_model",
    "not_json", "slow", "invented_quote",
)  # fmt: skip
DEVTO_TROUBLES = (
    "status 422", "status 500", "status 503", "status_after 500", "edge_429", "app_429",
    "reset_before", "reset_after", "drop_before", "drop_after", "cut_after", "stall_after",
    "stall_before", "html_after", "text_after", "empty_after", "wrong_after", "huge_after",
    "deep_after", "redirect",
)  # fmt: skip
BLUESKY_TROUBLES = (
    "status 400", "status 500", "status 502", "status_after 500", "rate_limited",
    "reset_before", "reset_after", "drop_before", "drop_after", "cut_after", "stall_after",
    "html", "html_after", "empty_after",
)  # fmt: skip
SITE_TROUBLES = (
    "status 500", "status 404", "status 429", "reset", "drop", "stall", "slow", "cut", "garbage",
    "endless", "redirect", "no_name",
)  # fmt: skip

# How often what happens, out of their sum.
_KINDS: Mapping[str, float] = {
    "model": 13,
    "unfaithful": 1,
    "devto": 14,
    "bluesky": 12,
    "site": 10,
    "hostile_page": 3,
    "webhook": 3,
    "crash_at_effect": 14,
    "crash_at_step": 7,
    "stop": 3,
    # Days without a machine, and what is taken down: more of it, and there is nothing to try.
    "outage": 0.2,
    "reload": 2,
    "destination": 1,
    "upgrade": 1,
    "clock": 3,
    "suspend": 2,
    "disk_full": 4,
    "database_taken": 3,
    "pause": 2,
    "deposit": 2,
    "key_revoked": 2,
    "sessions_forgotten": 2,
    "taken_down": 0.2,
    "late_listings": 2,
}


def drawn(seed: int, days: int) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"settings {seed}")
    settings = _settings(chance)
    deposit = chance.choice(("0.3", "1", "5", "20"))
    faults: list[Fault] = []
    chance = random.Random(f"faults {seed}")
    at_s = 600
    while (at_s := at_s + chance.randint(1, 2 * GAP_S)) < days * DAY_S:
        faults.append(_fault(chance, len(faults) + 1, at_s))
    begins = START + timedelta(days=random.Random(f"begins {seed}").randrange(BEGIN_WITHIN_DAYS))
    chance = random.Random(f"counters {seed}")
    told = {name: chance.choice(("", *COUNTERS)) for name in ("llm", "other")}
    counters = {name: api for name, api in told.items() if api}
    return Plan(seed, days, settings, deposit, tuple(faults), begins, counters)


def _settings(chance: random.Random) -> dict[str, str]:
    places = chance.choice(
        ("outbox,devto,bluesky", "outbox,devto,bluesky", "devto,bluesky", "outbox,devto", "outbox",
         "outbox,bluesky")
    )  # fmt: skip
    return {"PENSTOCK_PUBLISHERS": places, **_changeable(chance, places)}


def reloaded(seed: int, number: int, places: str) -> dict[str, str]:
    """
    What the operator changed before a reload: when things happen, or anything else, too.

    Args:
        places: where it publishes at the moment.
    """
    chance = random.Random(f"reload {seed} {number}")
    return chance.choice((_schedule(chance), _changeable(chance, places)))


def _changeable(chance: random.Random, places: str) -> dict[str, str]:
    # A digest goes to the outbox alone.
    free = FREE if "outbox" in places else CHEAP
    ladder = chance.choice((CHEAP, CHEAP, TWO, TWO, free))
    return {
        "PENSTOCK_MODELS_RESEARCH": ladder,
        "PENSTOCK_MODELS_WRITE": ladder,
        "PENSTOCK_MODELS_EDIT": ladder,
        "PENSTOCK_SITE_URL": chance.choice(("", "https://notes.example")),
        "PENSTOCK_APPROVAL": chance.choice(("auto", "auto", "auto", "first:2", "manual")),
        "PENSTOCK_TIMEZONE": chance.choice(
            ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
        ),
        "PENSTOCK_MAX_POSTS_PER_DAY": chance.choice(("1", "1", "2")),
        "PENSTOCK_RUN_BUDGET": chance.choice(("0.1", "0.3", "1")),
        "PENSTOCK_DAILY_CAP": chance.choice(("0.06", "0.5", "5")),
        "PENSTOCK_MONTHLY_CAP": chance.choice(("1", "3", "20")),
        "PENSTOCK_RESERVE": chance.choice(("0", "0.05", "0.25")),
        "PENSTOCK_EARN_DAILY_CAP": chance.choice(("0.02", "0.1", "0.5")),
        "PENSTOCK_HOLD_EXPIRY": chance.choice(("1", "6", "24")),
        **_schedule(chance),
    }


def _schedule(chance: random.Random) -> dict[str, str]:
    # From a daily paper that is looked after by the hour to a weekly one that is left alone.
    return {
        "PENSTOCK_PUBLISH_CRON": chance.choice(
            ("0 9 * * *", "0 9 * * mon,wed,fri", "30 2 * * tue,sun", "0 6,18 * * sat",
             "0 9 * * mon")
        ),
        "PENSTOCK_COLLECT_CRON": chance.choice(
            ("15 * * * *", "20 */6 * * *", "20 */6 * * *", "20 */12 * * *", "20 5 * * *")
        ),
        "PENSTOCK_FEED_CRON": chance.choice(("7 */4 * * *", "7 */12 * * *", "7 3 * * *")),
    }  # fmt: skip


def _fault(chance: random.Random, number: int, at_s: int) -> Fault:
    (kind,) = chance.choices(list(_KINDS), weights=list(_KINDS.values()))
    # One stream of chance for each fault: what one needs moves no other.
    own = random.Random(chance.getrandbits(64))
    span_s = own.choice((60, 600, 3_600, 3_600, 6 * 3_600))
    few = own.choice((1, 1, 1, 2, 3, 8))
    down_s = own.choice((0, 0, 60, 3_600))
    for_s, count, detail = {
        "model": (span_s, few, own.choice(MODEL_TROUBLES)),
        "unfaithful": (DAY_S, own.choice((25, 75)), ""),
        "devto": (span_s, few, own.choice(DEVTO_TROUBLES)),
        "bluesky": (span_s, few, own.choice(BLUESKY_TROUBLES)),
        "site": (span_s, 0, own.choice(SITE_TROUBLES)),
        "crash_at_effect": (down_s, own.randint(1, 60), own.choice(("before", "after"))),
        "crash_at_step": (down_s, own.randint(1, 400), ""),
        "stop": (own.choice((1, 60, 3_600)), 0, ""),
        "upgrade": (own.choice((1, 60, 3_600)), 0, ""),
        "outage": (own.randint(1, 4 * DAY_S), 0, ""),
        "reload": (0, own.getrandbits(32), ""),
        "destination": (
            own.choice((600, 6 * 3_600, 3 * DAY_S)),
            0,
            own.choice(("outbox", "devto", "bluesky")),
        ),
        "clock": (span_s, own.choice((-1, 1)) * own.choice(CLOCKS_WRONG_S), ""),
        "suspend": (0, own.choice((30, 3_600, 8 * 3_600, 3 * DAY_S)), ""),
        "disk_full": (span_s, own.choice((0, 4_096, 60_000, 500_000)), ""),
        "deposit": (0, own.choice((50_000, 300_000, 2_000_000)), ""),
        "key_revoked": (span_s, 0, own.choice(("llm", "other", "devto", "bluesky"))),
        "taken_down": (0, own.getrandbits(16), own.choice(("devto", "bluesky"))),
    }.get(kind, (span_s, 0, ""))
    return Fault(number, at_s, kind, for_s, count, detail)
