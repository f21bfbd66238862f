"""`penstock runs …`: what happened, and what it cost."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from daemon import journal
from daemon.cli.context import Context, UsageError, moment, table
from daemon.cli.exits import Exit
from daemon.cli.ledger import attempt_document
from daemon.inference import attempts
from ledger.money import MicroCredits

if TYPE_CHECKING:
    from sqlalchemy import Connection


def list_runs(args: Namespace) -> int:
    """Every run, oldest first."""
    context = Context(args)
    with context.reading() as tx:
        listed = journal.runs(tx, since=context.since(), limit=args.limit)
        found = [run_document(tx, row) for row in listed]
    rows = [
        (row.started_at, r["run"], r["state"], r["outcome"], r["tier"], r["cost"], r["title"])
        for row, r in zip(listed, found, strict=True)
    ]
    headers = ("started", "run", "state", "outcome", "tier", "cost", "title")
    context.show(found, table(headers, rows, "no run yet; `penstock once` makes one"))
    return Exit.DONE


def show(args: Namespace) -> int:
    """One run whole."""
    context = Context(args)
    with context.reading() as tx:
        row = found_run(tx, args.run)
        document = run_document(tx, row) | details(tx, row)
    context.show(document, _human(document))
    return Exit.DONE


def trace(args: Namespace) -> int:
    """One run as a tree: its steps, and under each the requests it made."""
    context = Context(args)
    with context.reading() as tx:
        row = found_run(tx, args.run)
        document = run_document(tx, row)
        steps = journal.steps(tx, row.id)
        made = attempts.of_run(tx, row.id)
        costs = attempts.cost_by_step(tx, row.id)
    document["steps"] = [
        _step(step, costs)
        | {"attempts": [attempt_document(attempt) for attempt in made if attempt.step == step.name]}
        for step in steps
    ]
    context.show(document, _tree(document))
    return Exit.DONE


def resume(args: Namespace) -> int:
    """Go on with one run; a finished one is shown."""
    from daemon.cli import once

    context = Context(args)
    with context.reading() as tx:
        row = found_run(tx, args.run)
    if row.state in (journal.RunState.FINISHED, journal.RunState.FAILED):
        return show(args)
    return once.resume(args)


def found_run(tx: Connection, id: str) -> Any:
    """A run's row, or a UsageError that says what to do."""
    row = journal.run(tx, id)
    if row is None:
        raise UsageError(f"there is no run {id}; `penstock runs list` has them")
    return row


def run_document(tx: Connection, row: Any) -> dict[str, Any]:
    """One run as a list has it."""
    return {
        "run": row.id,
        "slot": moment(row.slot),
        "state": row.state,
        "outcome": row.outcome,
        "reason": row.reason,
        "kind": row.kind,
        "tier": row.tier,
        "title": row.title,
        "cost": MicroCredits(attempts.spent_by_run(tx, row.id)),
        "started_at": moment(row.started_at),
        "finished_at": moment(row.finished_at),
    }


def details(tx: Connection, row: Any) -> dict[str, Any]:
    """What `runs show` adds."""
    costs = attempts.cost_by_step(tx, row.id)
    desk = journal.step(tx, row.id, "desk")
    return {
        "steps": [_step(step, costs) for step in journal.steps(tx, row.id)],
        "decisions": [
            {"at": moment(d.at), "kind": d.kind, "sentence": d.sentence, "inputs": d.inputs}
            for d in journal.decisions(tx, row.id)
        ],
        "sources": [
            {"id": s.id, "url": s.url, "title": s.title, "fetched_at": moment(s.fetched_at)}
            for s in journal.sources(tx, row.id)
        ],
        "claims": [
            {
                "statement": c.statement, "quote": c.quote, "source": c.source,
                "verified": bool(c.verified), "remark": c.remark,
            }
            for c in journal.claims(tx, row.id)
        ],
        "article": desk.output["manuscript"] if desk is not None and desk.output else None,
        "publications": [
            {"platform": p.platform, "state": p.state, "url": p.url, "remote_id": p.remote_id}
            for p in journal.publications(tx, run=row.id)
        ],
    }  # fmt: skip


def _step(step: Any, costs: dict[str, int]) -> dict[str, Any]:
    return {
        "id": f"{step.run}/{step.name}",
        "parent": step.run,
        "name": step.name,
        "state": step.state,
        "attempt": step.attempt,
        "cost": MicroCredits(costs.get(step.name, 0)),
        "started_at": moment(step.started_at),
        "finished_at": moment(step.finished_at),
        "error": step.error,
    }


def _human(run: dict[str, Any]) -> str:
    parts = [
        _head(run),
        table(
            ("step", "state", "cost", "error"),
            [(s["name"], s["state"], s["cost"], s["error"]) for s in run["steps"]],
            "no steps",
        ),
        "decisions\n" + _lines(f"{d['kind']}: {d['sentence']}" for d in run["decisions"]),
        "sources\n" + _lines(f"{s['id']}  {s['title']}  {s['url']}" for s in run["sources"]),
        "claims\n"
        + _lines(
            f"{'✓' if c['verified'] else '✗'} [{c['source']}] {c['statement']}"
            + (f" ({c['remark']})" if c["remark"] else "")
            for c in run["claims"]
        ),
        "publications\n"
        + _lines(f"{p['platform']}  {p['state']}  {p['url'] or ''}" for p in run["publications"]),
    ]
    if run["article"] is not None:
        parts.append(f"# {run['article']['title']}\n\n{run['article']['markdown']}")
    return "\n\n".join(parts)


def _tree(run: dict[str, Any]) -> str:
    lines = [_head(run)]
    for number, step in enumerate(run["steps"], start=1):
        last = number == len(run["steps"])
        lines.append(
            f"{'└─' if last else '├─'} {step['name']:<16} {step['state']:<8} {step['cost']}"
        )
        stem = "   " if last else "│  "
        for attempt in step["attempts"]:
            lines.append(f"{stem}└─ {_attempt_line(attempt)}")
    return "\n".join(lines)


def _attempt_line(attempt: dict[str, Any]) -> str:
    usage = attempt["usage"]
    tokens = f"{usage['input']} in, {usage['output']} out" if usage else "usage unknown"
    took = "" if attempt["duration_ms"] is None else f", {attempt['duration_ms'] / 1000:.2f} s"
    cost = attempt["cost"] if attempt["cost"] is not None else "cost unknown"
    said = f" ({attempt['error']})" if attempt["error"] else ""
    model = f"{attempt['provider']}/{attempt['model']}"
    return (
        f"{attempt['id']} {model} {attempt['outcome'] or 'under way'}: {tokens}, {cost}{took}{said}"
    )


def _head(run: dict[str, Any]) -> str:
    title = run["title"] or run["reason"] or ""
    outcome = run["outcome"] or run["state"]
    return f"{run['run']}  {outcome}  {run['tier']}  {run['cost']}  {title}".rstrip()


def _lines(found: Any) -> str:
    listed: Sequence[str] = [f"  {line}" for line in found]
    return "\n".join(listed) or "  none"


COMMANDS = {"list_runs": list_runs, "show": show, "trace": trace, "resume": resume}
