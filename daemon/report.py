"""
What came of a span of days: how runs ended, what they cost, what posts earned, what went wrong.

Amounts are read from the books, so what a report says was spent is what left the treasury for
inference. Everything is added up in SQL over the indexes by time: a report reads its window, and
nothing of the years before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Connection, text

from daemon.inference.port import Outcome
from daemon.journal import PublicationState, RunOutcome, RunState
from ledger.money import MicroCredits
from ledger.rules import Code
from ledger.types import from_text, to_text

Document: TypeAlias = dict[str, Any]

UNFINISHED = "unfinished"
SUCCEEDED = (RunOutcome.PUBLISHED, RunOutcome.AWAITING_APPROVAL)
# A run that was skipped did nothing, a rehearsal was not to publish, and what is under way may
# still become either.
NOT_JUDGED = (RunOutcome.SKIPPED, RunOutcome.DRY_RUN, UNFINISHED)
TOKENS = ("input", "cached", "cache_write", "output", "reasoning")

_BY_STATUS = {
    400: "request_refused",
    401: "key_refused",
    402: "out_of_credit",
    403: "key_refused",
    404: "not_found",
    408: "timeout",
    422: "request_refused",
    429: "rate_limited",
    504: "timeout",
}
# How the parts that store them begin these sentences.
_BY_WORDS = (
    ("no answer in ", "timeout"),
    ("the process ended", "interrupted"),
    ("the answer does not say", "no_usage"),
    ("the answer has no end", "bad_answer"),
)
_OF_PUBLICATION = {
    PublicationState.FAILED: "rejected",
    PublicationState.UNCONFIRMED: "unconfirmed",
    PublicationState.INTENDED: "waiting",
}
_PARTS = re.compile(r"[-:]")
# What `NotAllowed` says of itself.
_NOT_ALLOWED = re.compile(r"-?\d+\.\d{6} needed, -?\d+\.\d{6} available$")


def window(now: datetime, days: int) -> datetime:
    """When a report of so many days begins."""
    try:
        return now - timedelta(days=days)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


# Deciding what things are called


def stage(step: str) -> str:
    """A step's family: `notes` of `notes-2-again`, `publish` of `publish:outbox`."""
    return _PARTS.split(step, maxsplit=1)[0]


def request_kind(outcome: str, http_status: int | None, error: str | None) -> str:
    """Why a request came to nothing, in one word that can be counted."""
    if outcome == Outcome.UNSENT:
        return "unsent"
    said = error or ""
    for words, kind in _BY_WORDS:
        if said.startswith(words):
            return kind
    if http_status is None:
        return "connection_lost"
    if http_status in _BY_STATUS:
        return _BY_STATUS[http_status]
    if http_status >= 500:
        return "server_error"
    # A 200 that is no answer: its connection broke, or it carries an error and no usage.
    if http_status == 200:
        return "no_usage" if said.startswith("HTTP 200") else "connection_lost"
    return "other"


def step_kind(error: str | None) -> str:
    """Why a step of the crew failed: the books said no, or no model gave an answer."""
    return "not_allowed" if _NOT_ALLOWED.search(error or "") else "no_answer"


def run_state(state: str, outcome: str | None) -> str:
    """How a run is counted: by its outcome, or as waiting, or as unfinished."""
    # A dry run has its outcome from the first.
    if outcome is not None and state in (RunState.FINISHED, RunState.FAILED):
        return outcome
    if state == RunState.AWAITING_APPROVAL:
        return RunOutcome.AWAITING_APPROVAL
    return RunOutcome.FAILED if state == RunState.FAILED else UNFINISHED


def success_rate(by_outcome: Mapping[str, int]) -> float | None:
    """The part that was published or waits for approval, of the runs that are judged; 0 to 1."""
    judged = sum(count for name, count in by_outcome.items() if name not in NOT_JUDGED)
    if not judged:
        return None
    return round(sum(by_outcome[name] for name in SUCCEEDED) / judged, 4)


def spread(values: Iterable[int]) -> dict[str, int]:
    """Total, mean, median, 90th percentile (the nearest rank) and largest; zeros of nothing."""
    ordered = sorted(values)
    if not ordered:
        return dict.fromkeys(("total", "mean", "median", "p90", "max"), 0)
    count, total = len(ordered), sum(ordered)
    middle = ordered[(count - 1) // 2] + ordered[count // 2]
    return {
        "total": total,
        "mean": (total + count // 2) // count,
        "median": middle // 2,
        "p90": ordered[-(-count * 9 // 10) - 1],
        "max": ordered[-1],
    }


# Adding up


def report(tx: Connection, *, days: int, now: datetime) -> Document:
    """
    What `penstock report --json` prints; amounts are MicroCredits and times are datetimes.

    Runs, with their failed steps and their posts, are those begun in the window; requests those
    made in it; spend and income what the books moved in it.
    """
    since = window(now, days)
    asked, moved = _asked(tx, since), _moved(tx, since)
    costs = _cost_by_run(tx, since)
    return {
        "days": days,
        "since": since,
        "until": now,
        "runs": _runs(tx, since, costs),
        "spend": _spend(asked, moved),
        "income": _income(tx, since, moved, costs),
        "errors": _errors(tx, since, asked),
    }


_IS_COST = """action IN ('post', 'settle')
  AND (debit >= 'inference:' AND debit < 'inference;'
       OR credit >= 'inference:' AND credit < 'inference;')"""
# `IN`, since SQLite may walk the runs of a join from the oldest, and all their rows with them.
_BEGUN = "(SELECT id FROM run WHERE started_at >= :since)"
# Every transfer has the treasury on one side. Positive is what left it.
_MOVED = text(
    """
SELECT CASE WHEN credit = 'treasury' THEN debit ELSE credit END AS account, code,
       CASE WHEN credit >= 'engagement:' AND credit < 'engagement;'
              OR debit >= 'engagement:' AND debit < 'engagement;' THEN run END AS run,
       SUM(CASE WHEN credit = 'treasury' THEN amount_micro ELSE -amount_micro END) AS micro
FROM transfer WHERE at >= :since AND action IN ('post', 'settle') GROUP BY 1, 2, 3
"""
)
# What was said is read for few rows only: it lies behind the answers, which are long.
_ASKED = text(
    """
SELECT provider, model, step, outcome, http_status,
       CASE WHEN outcome = 'unknown' THEN error END AS error,
       COUNT(*) AS requests, MAX(at) AS last, SUM(COALESCE(cost_micro, 0)) AS micro,
       SUM(json_extract(usage, '$.input')) AS input,
       SUM(json_extract(usage, '$.cached')) AS cached,
       SUM(json_extract(usage, '$.cache_write')) AS cache_write,
       SUM(json_extract(usage, '$.output')) AS output,
       SUM(json_extract(usage, '$.reasoning')) AS reasoning
FROM attempt WHERE at >= :since GROUP BY 1, 2, 3, 4, 5, 6
"""
)
_COST_BY_RUN = text(
    f"""
SELECT run, SUM(CASE WHEN credit = 'treasury' THEN amount_micro ELSE -amount_micro END) AS micro
FROM transfer WHERE run IN {_BEGUN} AND {_IS_COST} GROUP BY run
"""  # noqa: S608 - of our own words
)
_RUNS = text("SELECT id, state, outcome FROM run WHERE started_at >= :since")
# The union of a run's steps in time. From start to finish would count the days in which an article
# waited for a person, or a parked run for the next `once`.
_WORKED = text(
    f"""
SELECT run, SUM(MAX(0.0, finish - MAX(start, COALESCE(covered, start)))) AS days FROM (
    SELECT run, julianday(started_at) AS start, julianday(finished_at) AS finish,
           MAX(julianday(finished_at)) OVER (
               PARTITION BY run ORDER BY started_at, seq
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS covered
    FROM step WHERE run IN {_BEGUN} AND finished_at IS NOT NULL
) GROUP BY run
"""  # noqa: S608
)
_FAILED_STEPS = text(
    f"""
SELECT name, error, COUNT(*) AS times, MAX(COALESCE(finished_at, started_at)) AS last
FROM step WHERE run IN {_BEGUN} AND state = 'failed' AND name NOT LIKE 'publish:%' GROUP BY 1, 2
"""  # noqa: S608
)
_FAILED_PUBLICATIONS = text(
    """
SELECT platform, state, COUNT(*) AS times, MAX(intended_at) AS last
FROM publication
WHERE (state IN ('failed', 'unconfirmed') OR (state = 'intended' AND error IS NOT NULL))
  AND intended_at >= :since
GROUP BY 1, 2
"""
)
_PUBLICATIONS = """
SELECT run, platform, state, title, url, COALESCE(published_at, intended_at) AS at
FROM publication WHERE """
_POSTS = text(
    f"{_PUBLICATIONS} run IN {_BEGUN} AND state IN ('published', 'unconfirmed', 'withdrawn')"
)
_POST = text(f"{_PUBLICATIONS} run = :run AND platform = :platform")
_COST_OF = text(
    f"""
SELECT COALESCE(SUM(CASE WHEN credit = 'treasury' THEN amount_micro ELSE -amount_micro END), 0)
FROM transfer WHERE run = :run AND {_IS_COST}
"""  # noqa: S608
)


def _asked(tx: Connection, since: datetime) -> Sequence[Any]:
    return tx.execute(_ASKED, {"since": to_text(since)}).all()


def _moved(tx: Connection, since: datetime) -> Sequence[Any]:
    return tx.execute(_MOVED, {"since": to_text(since)}).all()


def _cost_by_run(tx: Connection, since: datetime) -> dict[str, int]:
    return {row.run: row.micro for row in tx.execute(_COST_BY_RUN, {"since": to_text(since)})}


def _runs(tx: Connection, since: datetime, costs: Mapping[str, int]) -> Document:
    bound = {"since": to_text(since)}
    worked = {row.run: round(row.days * 86_400_000) for row in tx.execute(_WORKED, bound)}
    by_outcome = dict.fromkeys([*map(str, RunOutcome), UNFINISHED], 0)
    ended = []
    for row in tx.execute(_RUNS, bound):
        counted = run_state(row.state, row.outcome)
        by_outcome[counted] += 1
        if counted not in (RunOutcome.SKIPPED, UNFINISHED):
            ended.append(row.id)
    cost = spread(costs.get(run, 0) for run in ended)
    took = spread(worked.get(run, 0) for run in ended)
    return {
        "total": sum(by_outcome.values()),
        "by_outcome": by_outcome,
        "success_rate": success_rate(by_outcome),
        "cost": {name: MicroCredits(micro) for name, micro in cost.items()},
        "seconds": {name: ms / 1000 for name, ms in took.items()},
    }


def _spend(asked: Sequence[Any], moved: Sequence[Any]) -> Document:
    booked = [row for row in moved if row.account.startswith("inference:")]
    by_code = {
        str(code): MicroCredits(sum(row.micro for row in booked if row.code == code))
        for code in (
            Code.INFERENCE, Code.UNCERTAIN, Code.OVERRUN, Code.CORRECTION, Code.ADJUSTMENT,
        )
    }  # fmt: skip
    by_model = _tally(asked, lambda row: (row.provider, row.model))
    by_stage = _tally(asked, lambda row: (stage(row.step),))
    # What was moved in the window for requests made before it, or for none that we know.
    rest: dict[str, int] = {}
    for row in booked:
        provider = row.account.partition(":")[2]
        rest[provider] = rest.get(provider, 0) + row.micro
    for row in asked:
        rest[row.provider] = rest.get(row.provider, 0) - row.micro
    nothing = dict.fromkeys(("requests", *TOKENS), 0)
    by_model |= {(name, None): nothing | {"micro": micro} for name, micro in rest.items() if micro}
    if other := sum(rest.values()):
        by_stage[(None,)] = nothing | {"micro": other}
    return {
        "total": MicroCredits(sum(row.micro for row in booked)),
        "by_code": by_code,
        "by_model": _listed(("provider", "model"), by_model),
        "by_stage": _listed(("stage",), by_stage),
    }


def _tally(
    asked: Sequence[Any], key: Callable[[Any], tuple[str | None, ...]]
) -> dict[tuple[str | None, ...], dict[str, int]]:
    """Requests, tokens and micro-credits by a key of each row."""
    names = ("requests", *TOKENS, "micro")
    found: dict[tuple[str | None, ...], dict[str, int]] = {}
    for row in asked:
        tally = found.setdefault(key(row), dict.fromkeys(names, 0))
        for name in names:
            tally[name] += getattr(row, name) or 0
    return found


def _listed(
    names: Sequence[str], tallies: Mapping[tuple[str | None, ...], Mapping[str, int]]
) -> list[Document]:
    """The dearest first."""
    ordered = sorted(
        tallies.items(), key=lambda item: (-item[1]["micro"], [part or "" for part in item[0]])
    )
    return [
        dict(zip(names, key, strict=True))
        | {name: count for name, count in tally.items() if name != "micro"}
        | {"cost": MicroCredits(tally["micro"])}
        for key, tally in ordered
    ]


def _income(
    tx: Connection, since: datetime, moved: Sequence[Any], costs: Mapping[str, int]
) -> Document:
    sums = {"engagement": 0, "revenue": 0}
    earned: dict[tuple[str, str], int] = {}
    for row in moved:
        family, _, member = row.account.partition(":")
        if family in sums:
            sums[family] -= row.micro
        if family == "engagement" and row.run is not None:
            earned[row.run, member] = earned.get((row.run, member), 0) - row.micro
    posts = {(row.run, row.platform): row for row in tx.execute(_POSTS, {"since": to_text(since)})}
    # A post of an earlier run may still have earned something now.
    for run, platform in earned.keys() - posts.keys():
        found = tx.execute(_POST, {"run": run, "platform": platform}).one_or_none()
        if found is not None:
            posts[run, platform] = found
    return {
        "notional": MicroCredits(sums["engagement"]),
        "money": MicroCredits(sums["revenue"]),
        "by_post": [
            {
                "run": post.run,
                "platform": post.platform,
                "state": post.state,
                "title": post.title,
                "url": post.url,
                "published_at": from_text(post.at),
                "earned": MicroCredits(earned.get((post.run, post.platform), 0)),
                "cost": _cost(tx, post.run, costs),
            }
            for post in sorted(posts.values(), key=lambda p: (p.at, p.run, p.platform))
        ],
    }


def _cost(tx: Connection, run: str, known: Mapping[str, int]) -> MicroCredits:
    if run in known:
        return MicroCredits(known[run])
    return MicroCredits(tx.execute(_COST_OF, {"run": run}).scalar_one())


def _errors(tx: Connection, since: datetime, asked: Sequence[Any]) -> list[Document]:
    """The most frequent first."""
    found: dict[tuple[str, str, str], tuple[int, str]] = {}

    def note(of: str, kind: str, where: str, count: int, last: str) -> None:
        known, latest = found.get((of, kind, where), (0, ""))
        found[of, kind, where] = (known + count, max(latest, last))

    for row in asked:
        if row.outcome not in (None, Outcome.OK):
            kind = request_kind(row.outcome, row.http_status, row.error)
            note("request", kind, row.provider, row.requests, row.last)
    bound = {"since": to_text(since)}
    for row in tx.execute(_FAILED_STEPS, bound):
        note("step", step_kind(row.error), stage(row.name), row.times, row.last)
    for row in tx.execute(_FAILED_PUBLICATIONS, bound):
        kind = _OF_PUBLICATION[PublicationState(row.state)]
        note("publication", kind, row.platform, row.times, row.last)
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        {"of": of, "kind": kind, "where": where, "count": count, "last": from_text(last)}
        for (of, kind, where), (count, last) in ordered
    ]
