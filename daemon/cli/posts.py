"""`penstock posts …`: what went out, where, what readers did with it and what that earned."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from daemon import journal
from daemon.cli.context import Context, UsageError, moment, publication_document, table
from daemon.cli.exits import Exit
from daemon.cli.runs import found_run
from daemon.journal import PublicationState
from ledger.money import ZERO, MicroCredits
from ledger.types import from_text, to_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

# How many characters of a title a line has room for.
TITLE_CHARS = 40


def list_posts(args: Namespace) -> int:
    """Every publication, oldest first."""
    context = Context(args)
    with context.reading() as tx:
        document = listed(tx, since=context.since(), limit=args.limit)
    context.show(document, human(document, context.none("nothing was published yet")))
    return Exit.DONE


def retry(args: Namespace) -> int:
    """Let what was given up be tried again, once a person has seen to the reason."""
    # It brings along all that publishing needs.
    from daemon import press

    context = Context(args)
    with context.database() as database, database.write() as tx:
        found_run(tx, args.run)
        rows = journal.publications(tx, run=args.run)
        if any(row.withdrawal is not None for row in rows):
            raise UsageError(f"{args.run} was taken back; nothing of it is tried again")
        again = [row for row in rows if row.state == PublicationState.FAILED]
        if not again:
            states = ", ".join(f"{row.platform} {row.state}" for row in rows)
            raise UsageError(f"nothing of {args.run} was given up: {states or 'nothing is due'}")
        press.try_again(tx, again, context.clock.now())
    names = ", ".join(row.platform for row in again)
    context.show(
        [publication_document(row) | {"state": PublicationState.INTENDED} for row in again],
        f"{names}: tried again within the hour by `penstock run`, else by the next `penstock once`",
    )
    return Exit.DONE


# The bytes that were sent are many and are not shown.
_LISTED = """
FROM publication
WHERE CAST(:since AS TEXT) IS NULL OR intended_at >= :since
ORDER BY intended_at DESC, run DESC, platform DESC LIMIT :limit
"""
_POSTS = text(
    f"""
SELECT run, platform, state, url, remote_id, title, published_at, counted_at, error {_LISTED}
"""
)
_METRICS = text(
    f"""
SELECT run, platform, metric, count, forfeited_micro FROM metric
WHERE run IN (SELECT run {_LISTED}) ORDER BY metric
"""  # noqa: S608 - of our own words
)
# Every transfer has the treasury on one side. Positive is what it gained.
_MOVED = text(
    f"""
SELECT run, CASE WHEN credit = 'treasury' THEN debit ELSE credit END AS account,
       SUM(CASE WHEN credit = 'treasury' THEN -amount_micro ELSE amount_micro END) AS micro
FROM transfer
WHERE run IN (SELECT run {_LISTED}) AND action IN ('post', 'settle')
GROUP BY 1, 2
"""  # noqa: S608
)


def listed(
    tx: Connection, *, since: datetime | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """
    The newest `limit` publications, oldest first.

    `earned` is of the publication, corrections included; `cost` is of its run, so every publication
    of the run has the same one.
    """
    bound = {
        "since": None if since is None else to_text(since),
        # SQLite and PostgreSQL write "all" in different ways; this number both take.
        "limit": limit if limit is not None else 2**31 - 1,
    }
    metrics: dict[tuple[str, str], dict[str, int]] = {}
    forfeited: dict[tuple[str, str], int] = {}
    for run, platform, metric, count, micro in tx.execute(_METRICS, bound):
        metrics.setdefault((run, platform), {})[metric] = count
        forfeited[run, platform] = forfeited.get((run, platform), 0) + micro
    earned: dict[tuple[str, str], int] = {}
    costs: dict[str, int] = {}
    for run, account, micro in tx.execute(_MOVED, bound):
        family, _, member = account.partition(":")
        if family == "engagement":
            earned[run, member] = int(micro)
        elif family == "inference":
            costs[run] = costs.get(run, 0) - int(micro)
    return [
        {
            "run": post.run, "platform": post.platform, "state": post.state, "url": post.url,
            "remote_id": post.remote_id, "title": post.title,
            "published_at": _moment(post.published_at),
            "metrics": metrics.get((post.run, post.platform), {}),
            "counted_at": _moment(post.counted_at),
            "earned": MicroCredits(earned.get((post.run, post.platform), 0)),
            "forfeited": MicroCredits(forfeited.get((post.run, post.platform), 0)),
            "cost": MicroCredits(costs.get(post.run, 0)),
            "error": post.error,
        }
        for post in reversed(tx.execute(_POSTS, bound).all())
    ]  # fmt: skip


def human(posts: Sequence[Mapping[str, Any]], empty: str) -> str:
    """A line for each, or what is said of none; a run's cost stands beside its first one."""
    rows = []
    told: set[str] = set()
    for post in posts:
        title = str(post["title"])
        rows.append(
            (
                _day(post["published_at"]),
                post["run"],
                post["platform"],
                post["state"],
                title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1] + "…",
                readers(post["metrics"]),
                post["earned"],
                "" if post["run"] in told else post["cost"],
                _where(post),
            )
        )
        told.add(post["run"])
    headers = (
        "published", "run", "platform", "state", "title", "readers", "earned", "run cost", "where",
    )  # fmt: skip
    lines = [table(headers, rows, empty)]
    lost = sum((post["forfeited"] for post in posts), start=ZERO)
    if lost:
        lines.append(f"{lost} above PENSTOCK_EARN_DAILY_CAP was forfeited")
    return "\n".join(lines)


def _where(post: Mapping[str, Any]) -> Any:
    """Its address; of what is not out, why."""
    if post["state"] == PublicationState.PUBLISHED:
        return post["url"] or post["error"]
    return post["error"] or post["url"]


def readers(metrics: Mapping[str, int]) -> str | None:
    """What readers did, such as `120 views, 3 reactions`; nothing said of what nobody did."""
    if not metrics:
        return None
    order = sorted(metrics, key=lambda metric: (-metrics[metric], metric))
    told = [f"{metrics[name]} {_plural(name, metrics[name])}" for name in order if metrics[name]]
    return ", ".join(told) or "0"


def _plural(metric: str, count: int) -> str:
    if count == 1:
        return metric
    return f"{metric[:-1]}ies" if metric.endswith("y") else f"{metric}s"


def _moment(at: str | None) -> str | None:
    return None if at is None else moment(from_text(at))


def _day(at: str | None) -> datetime | None:
    return None if at is None else datetime.fromisoformat(at)
