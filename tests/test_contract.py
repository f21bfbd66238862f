"""The JSON of every command has what programs read: after digests, a paid run, and nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli_helpers import (
    AMOUNT,
    EXAMPLE_FEEDS,
    MOMENT,
    Desk,
    World,
    assert_billed_exactly,
    checked_books,
    digest_desk,
    micro,
    small_world,
)

# Shapes: what a field may hold. A dict names the fields that must be there; more are free.

Shape = Callable[[Any], bool] | dict[str, Any] | list[Any]


def amount(value: Any) -> bool:
    return isinstance(value, str) and AMOUNT.fullmatch(value) is not None


def positive(value: Any) -> bool:
    return amount(value) and not value.startswith("-")


def moment(value: Any) -> bool:
    if not (isinstance(value, str) and MOMENT.fullmatch(value)):
        return False
    return datetime.fromisoformat(value).utcoffset() == timedelta(0)


def text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def decimal(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value) is not None


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def anything(_value: Any) -> bool:
    return True


def maybe(shape: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or shape(value)


def one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


def misfits(value: Any, shape: Shape, at: str = "$") -> list[str]:
    """Where a document is not of its shape."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{at} is no object: {value!r}"]
        lacking = [f"{at}.{name} is missing" for name in shape if name not in value]
        return lacking + [
            problem
            for name, part in shape.items()
            if name in value
            for problem in misfits(value[name], part, f"{at}.{name}")
        ]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{at} is no bare array: {value!r}"]
        return [
            problem
            for index, item in enumerate(value)
            for problem in misfits(item, shape[0], f"{at}[{index}]")
        ]
    return [] if shape(value) else [f"{at} cannot be {value!r}"]


TIER = one_of("surplus", "standard", "economy", "throttled", "dormant")
OUTCOME = one_of(
    "published", "awaiting_approval", "dry_run", "skipped", "abstained", "unconfirmed", "failed"
)
PUBLICATION = {
    "platform": text,
    "state": one_of("intended", "published", "unconfirmed", "failed", "withdrawn"),
    "url": maybe(text),
    "remote_id": maybe(text),
}
ONCE = {
    "run": maybe(text),
    "outcome": OUTCOME,
    "reason": text,
    "tier": TIER,
    "title": maybe(text),
    "cost": positive,
    "publications": [PUBLICATION],
}
STATUS = {
    "version": text,
    "paused": yes_or_no,
    "balance": {"posted": amount, "held": positive, "available": amount},
    "pace": {"tier": TIER, "reason": text, "runway_days": maybe(number), "cadence": decimal},
    "spent": {"day": positive, "month": positive},
    "earned": {"day": positive, "month": positive, "notional": positive, "money": positive},
    "next": {"publish": moment, "collect": moment},
    "last_run": anything,
    "unconfirmed": whole,
    "drafts_waiting": whole,
    "alerts": [text],
}
BALANCE = {
    "posted": amount,
    "held": positive,
    "available": amount,
    "accounts": [
        {
            "name": text,
            "kind": one_of("asset", "equity", "income", "expense"),
            "balance": amount,
        }
    ],
}
ENTRIES = [
    {
        "id": text,
        "at": moment,
        "state": one_of("posted", "pending", "settled", "voided"),
        "debit": text,
        "credit": text,
        "amount": positive,
        "code": one_of(
            "deposit", "engagement", "revenue", "inference", "uncertain", "overrun",
            "correction", "adjustment",
        ),
        "run": maybe(text),
        "attempt": maybe(text),
        "ref": maybe(text),
        "memo": maybe(text),
    }
]  # fmt: skip
ATTEMPT = {
    "id": text,
    "at": moment,
    "run": text,
    "step": text,
    "parent": text,
    "role": one_of("research", "write", "edit"),
    "provider": text,
    "model": text,
    "model_returned": maybe(text),
    "outcome": one_of("ok", "refused", "unsent", "unknown"),
    "http_status": maybe(whole),
    "usage": {
        "input": whole, "cached": whole, "cache_write": whole, "output": whole, "reasoning": whole,
    },
    "price": {"input": positive, "cached": positive, "output": positive, "source": text},
    "hold": text,
    "cost": positive,
    "duration_ms": whole,
}  # fmt: skip
CHECK = {"ok": yes_or_no, "transfers": whole, "accounts": whole, "problems": [text]}
RUN = {
    "run": text,
    "slot": maybe(moment),
    "state": one_of("running", "parked", "awaiting_approval", "finished", "failed"),
    "outcome": maybe(OUTCOME),
    "tier": TIER,
    "title": maybe(text),
    "cost": positive,
    "started_at": moment,
    "finished_at": maybe(moment),
}
STEP = {
    "name": text,
    "state": one_of("running", "done", "failed"),
    "attempt": whole,
    "cost": positive,
    "started_at": moment,
    "finished_at": maybe(moment),
    "error": maybe(text),
}
SHOW = RUN | {
    "steps": [STEP],
    "decisions": [anything],
    "sources": [{"id": text, "url": text, "title": text, "fetched_at": moment}],
    "claims": [{"statement": text, "quote": text, "source": text, "verified": yes_or_no}],
    "article": maybe(lambda article: isinstance(article, dict)),
    "publications": [PUBLICATION],
}
TRACE = {"steps": [STEP | {"attempts": [ATTEMPT]}]}
POSTS = [
    PUBLICATION
    | {
        "run": text,
        "title": text,
        "published_at": maybe(moment),
        "metrics": lambda metrics: isinstance(metrics, dict),
        "earned": positive,
    }
]

LISTS: dict[str, Shape] = {
    "ledger entries": ENTRIES,
    "ledger attempts": [ATTEMPT],
    "runs list": [RUN],
    "posts list": POSTS,
}
PAGES: dict[str, Shape] = {"status": STATUS, "ledger balance": BALANCE, "ledger check": CHECK}
WHEN = {
    "ledger entries": "at",
    "ledger attempts": "at",
    "runs list": "started_at",
    "posts list": "published_at",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine after its runs: what `once` said each time, and every reading command since."""

    desk: Desk
    once: list[Any]
    documents: dict[str, Any]
    world: World | None = None


def seen(desk: Desk, once: list[Any], world: World | None = None) -> Seen:
    runs = [f"runs {verb} {said['run']}" for said in once[:1] for verb in ("show", "trace")]
    commands = [*PAGES, *LISTS, *runs]
    found = dict(zip(commands, desk.read_all(*commands), strict=True))
    return Seen(desk, once, {" ".join(name.split()[:2]): found[name] for name in found}, world)


def nothing(home: Path) -> Seen:
    return seen(digest_desk(home).initialised(None), [])


def two_digests(home: Path) -> Seen:
    """Two digests from two feeds, then nothing that is new."""
    desk = digest_desk(home, PENSTOCK_MAX_POSTS_PER_DAY="5").initialised(None)
    once = []
    for name, code in (("sluice", 0), ("millrace", 0), ("sluice", 4)):
        feed = {"PENSTOCK_FEEDS": str(EXAMPLE_FEEDS / f"{name}.xml")}
        result = desk.once(settings=feed)
        assert result.code == code, result
        once.append(result.json)
    return seen(desk, once)


def one_article(home: Path, world: World) -> Seen:
    """Researched, written and edited by the model double."""
    desk = world.desk(home)
    result = desk.once()
    assert result.code == 0, result
    return seen(desk, [result.json], world)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seen]]:
    """One on which nothing happened yet, one that made digests, one that bought an article."""
    homes = {name: tmp_path_factory.mktemp(name) for name in ("empty", "digests", "paid")}
    Desk(homes["empty"]).initialised()  # The templates are made before several want them.
    Desk(homes["empty"]).initialised(None)
    with small_world() as world, ThreadPoolExecutor(3) as pool:
        going = {
            "paid": pool.submit(one_article, homes["paid"], world),
            "digests": pool.submit(two_digests, homes["digests"]),
            "empty": pool.submit(nothing, homes["empty"]),
        }
        yield {name: machine.result() for name, machine in going.items()}


@pytest.fixture(scope="module")
def empty(machines: dict[str, Seen]) -> Seen:
    return machines["empty"]


@pytest.fixture(scope="module")
def digests(machines: dict[str, Seen]) -> Seen:
    return machines["digests"]


@pytest.fixture(scope="module")
def paid(machines: dict[str, Seen]) -> Seen:
    return machines["paid"]


@pytest.mark.parametrize("which", ["empty", "digests", "paid"])
@pytest.mark.parametrize(("command", "shape"), (PAGES | LISTS).items())
def test_every_document_has_the_fields_of_the_contract(
    machines: dict[str, Seen], which: str, command: str, shape: Shape
) -> None:
    assert misfits(machines[which].documents[command], shape) == []


@pytest.mark.parametrize("which", ["digests", "paid"])
def test_a_run_is_shown_and_traced_with_the_fields_of_the_contract(
    machines: dict[str, Seen], which: str
) -> None:
    found = machines[which]
    for said in found.once:
        assert misfits(said, ONCE) == []
    assert misfits(found.documents["runs show"], SHOW) == []
    assert misfits(found.documents["runs trace"], TRACE) == []
    assert misfits(found.documents["status"]["last_run"], {"run": text, "cost": positive}) == []


def test_an_empty_database_reads_as_empty_lists_and_zeroes(empty: Seen) -> None:
    for command in LISTS:
        assert empty.documents[command] == []
    assert empty.documents["ledger balance"] == {
        "posted": "0.000000", "held": "0.000000", "available": "0.000000", "accounts": [],
    }  # fmt: skip
    assert empty.documents["status"]["last_run"] is None
    assert empty.documents["ledger check"]["ok"] is True


def test_lists_are_oldest_first(digests: Seen, paid: Seen) -> None:
    for found in (digests, paid):
        for command, when in WHEN.items():
            times = [datetime.fromisoformat(row[when]) for row in found.documents[command]]
            assert times == sorted(times), command
    assert [run["outcome"] for run in digests.documents["runs list"]] == [
        "published", "published", "abstained",
    ]  # fmt: skip


def test_a_limit_gives_the_newest_and_since_gives_what_came_later(
    digests: Seen, paid: Seen
) -> None:
    runs = digests.documents["runs list"]
    assert len(runs) == 3
    just_before = (
        datetime.fromisoformat(runs[1]["started_at"]) - timedelta(microseconds=1)
    ).isoformat()
    assert (
        digests.desk.read_all(
            "runs list --limit 2",
            f"runs list --since {just_before}",
            "runs list --since 24h",
            f"runs list --since {datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
            "posts list --limit 1 --since 24h",
            f"posts list --since {just_before}",
        )
        == [runs[1:], runs[1:], runs, []] + [digests.documents["posts list"][1:]] * 2
    )
    for command in ("ledger entries", "ledger attempts"):
        whole_list = paid.documents[command]
        assert len(whole_list) > 3
        exactly = whole_list[-3]["at"].replace("Z", "+00:00")
        assert (
            paid.desk.read_all(f"{command} --limit 3 --since 24h", f"{command} --since {exactly}")
            == [whole_list[-3:]] * 2
        ), command


def test_drafts_that_wait_are_a_bare_array_too(empty: Seen) -> None:
    assert empty.desk.read("drafts", "list") == []


def test_what_was_booked_is_what_the_provider_charged(paid: Seen) -> None:
    assert paid.world is not None
    found = checked_books(paid.desk)
    assert_billed_exactly(found, paid.world.model)
    assert paid.once[0]["cost"] == paid.documents["runs list"][0]["cost"]
    assert micro(paid.once[0]["cost"]) == paid.world.model.billed_micro
    assert micro(paid.documents["status"]["spent"]["day"]) == paid.world.model.billed_micro
    steps = paid.documents["runs show"]["steps"]
    assert sum(micro(step["cost"]) for step in steps) == paid.world.model.billed_micro
    charged = sorted(charge.micro for charge in paid.world.model.bill)
    assert sorted(micro(attempt["cost"]) for attempt in found.attempts) == charged


def test_every_hold_is_settled_by_an_entry_that_names_it(paid: Seen) -> None:
    entries = paid.documents["ledger entries"]
    holds = {entry["id"]: entry for entry in entries if entry["state"] == "settled"}
    settled = [entry for entry in entries if entry["ref"] in holds]
    assert len(holds) == len(settled) == len(paid.documents["ledger attempts"])
    for entry in settled:
        assert entry["state"] == "posted"
        assert micro(entry["amount"]) <= micro(holds[entry["ref"]]["amount"])
        assert (entry["debit"], entry["credit"]) == ("inference:llm", "treasury")
    assert {attempt["hold"] for attempt in paid.documents["ledger attempts"]} == set(holds)


def test_a_deposit_moves_value_from_grants_to_the_treasury(paid: Seen) -> None:
    first = paid.documents["ledger entries"][0]
    assert (first["code"], first["debit"], first["credit"]) == ("deposit", "treasury", "grants")
    assert (first["amount"], first["ref"]) == ("100.000000", "first")


def test_a_run_tells_its_sources_its_claims_and_its_article(paid: Seen) -> None:
    shown = paid.documents["runs show"]
    ids = [source["id"] for source in shown["sources"]]
    assert len(ids) >= 3
    assert ids == [f"S{number}" for number in range(1, len(ids) + 1)]
    assert shown["claims"]
    assert all(claim["verified"] for claim in shown["claims"])
    assert shown["article"]["title"] == shown["title"] == paid.once[0]["title"]
    assert [p["state"] for p in shown["publications"]] == ["published"]
    assert shown["outcome"] == "published"
    assert paid.documents["posts list"][0]["title"] == shown["title"]


def test_a_trace_has_every_request_under_its_step(paid: Seen) -> None:
    traced = [
        (step["name"], attempt["id"])
        for step in paid.documents["runs trace"]["steps"]
        for attempt in step["attempts"]
    ]
    listed = [(attempt["step"], attempt["id"]) for attempt in paid.documents["ledger attempts"]]
    assert sorted(traced) == sorted(listed)


def test_prices_of_an_attempt_are_credits_per_million_tokens(paid: Seen) -> None:
    for attempt in paid.documents["ledger attempts"]:
        price = attempt["price"]
        assert [price[name] for name in ("input", "cached", "output")] == [
            "3.000000", "0.300000", "15.000000",
        ]  # fmt: skip
        assert attempt["model_returned"] == "alpha"


FAILING = (
    ("once", "--json"),
    ("status", "--json"),
    ("ledger", "balance", "--json"),
    ("ledger", "deposit", "0", "--ref", "x", "--json"),
    ("runs", "show", "nobody", "--json"),
)


@pytest.mark.parametrize("command", FAILING, ids=lambda words: " ".join(words[:2]))
def test_a_failing_command_still_writes_one_document(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    # No feeds, no database: whatever is asked here fails, and the helper reads its document.
    result = Desk(tmp_path).run(*command)
    assert result.code == 2, result
    assert isinstance(result.json, dict)
    if command[0] == "once":
        assert result.json["outcome"] == "failed"
        assert misfits(result.json | {"tier": "dormant"}, ONCE) == []
