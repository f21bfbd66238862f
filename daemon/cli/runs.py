"""`penstock runs …`: what happened, and what it cost."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Any

from daemon import journal
from daemon.cli.context import Context, UsageError, moment, publication_document, table
from daemon.cli.exits import Exit
from daemon.cli.ledger import attempt_document
from daemon.inference import attempts
from daemon.report import TOKENS
from daemon.sources import published
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
    context.show(found, table(headers, rows, context.none("no run yet; `penstock once` makes one")))
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
    """One run as a tree: its steps in the order they were begun, and under each its requests."""
    context = Context(args)
    with context.reading() as tx:
        document = trace_document(tx, found_run(tx, args.run))
    context.show(document, _tree(document))
    return Exit.DONE


def trace_document(tx: Connection, row: Any) -> dict[str, Any]:
    """
    The tree with ids and parents: run, `run/step`, attempt.

    Tokens are sums over the answers that said what they used; `parallel` is whether a step was
    under way at the same time as another.
    """
    made: dict[str, list[dict[str, Any]]] = {}
    # Later ones have longer numbers, so r.10 comes after r.9.
    for attempt in sorted(attempts.of_run(tx, row.id), key=lambda a: (len(a.id), a.id)):
        made.setdefault(attempt.step, []).append(attempt_document(attempt))
    costs = attempts.cost_by_step(tx, row.id)
    begun = sorted(journal.steps(tx, row.id), key=lambda step: (step.seq, step.name))
    alongside = _parallel(begun)
    steps = []
    for step in begun:
        under = made.get(step.name, [])
        steps.append(
            _step(step, costs)
            | {"tokens": _tokens(under), "parallel": step.name in alongside, "attempts": under}
        )
    everything = [attempt for step in steps for attempt in step["attempts"]]
    return run_document(tx, row) | {
        "id": row.id,
        "parent": None,
        "duration_ms": _duration_ms(row),
        "tokens": _tokens(everything),
        "requests": len(everything),
        "steps": steps,
    }


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
        "outcome": journal.outcome(row),
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
        "measures": _measures(published.article(tx, row.id)),
        "publications": [
            publication_document(found) for found in journal.publications(tx, run=row.id)
        ],
    }  # fmt: skip


def _measures(kept: Any | None) -> dict[str, Any] | None:
    """What was measured of a finished article; None where there is none."""
    if kept is None:
        return None
    share = kept.claims_verified / kept.claims if kept.claims else None
    return {
        "words": kept.words,
        "reading_minutes": kept.reading_minutes,
        "readability": kept.readability,
        "sources": kept.sources,
        "claims": kept.claims,
        "claims_verified": kept.claims_verified,
        "verified_share": None if share is None else round(share, 3),
        "warnings": kept.warnings,
    }


def measures_lines(measured: dict[str, Any]) -> list[str]:
    """The text, the claims under it, and each warning."""
    ease = measured["readability"]
    return [
        f"{measured['words']} words, {measured['reading_minutes']} min to read"
        + ("" if ease is None else f", Flesch Reading Ease {ease:g}"),
        f"{measured['claims_verified']} of {measured['claims']} claims verified,"
        f" {measured['sources']} sources",
        *measured["warnings"],
    ]


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
        "duration_ms": _duration_ms(step),
        "error": step.error,
    }


def _duration_ms(row: Any) -> int | None:
    """From its first beginning to its end, waits included; None while it goes on."""
    # What is begun again still has the end of the time before.
    if row.finished_at is None or row.state == journal.StepState.RUNNING:
        return None
    took: timedelta = row.finished_at - row.started_at
    return max(0, took // timedelta(milliseconds=1))


def _tokens(made: Sequence[dict[str, Any]]) -> dict[str, int]:
    used = [attempt["usage"] for attempt in made if attempt["usage"]]
    return {name: sum(usage.get(name) or 0 for usage in used) for name in TOKENS}


def _parallel(steps: Sequence[Any]) -> set[str]:
    """The steps that were under way for a while together with another."""
    found: set[str] = set()
    for first, second in combinations(steps, 2):
        if max(first.started_at, second.started_at) < min(_end(first), _end(second)):
            found |= {first.name, second.name}
    return found


def _end(step: Any) -> datetime:
    """When a step ended; never, while it goes on."""
    if step.finished_at is None or step.state == journal.StepState.RUNNING:
        return datetime.max.replace(tzinfo=UTC)
    ended: datetime = step.finished_at
    return ended


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
    if run["measures"] is not None:
        parts.append("measures\n" + _lines(measures_lines(run["measures"])))
    if run["article"] is not None:
        parts.append(f"# {run['article']['title']}\n\n{run['article']['markdown']}")
    return "\n\n".join(parts)


def _tree(run: dict[str, Any]) -> str:
    """
    The tree for a person.

    After each name: how long after the run it began, how long it took, what it cost. Steps that
    were under way side by side are marked.
    """
    start = datetime.fromisoformat(run["started_at"])
    took = "not finished" if run["duration_ms"] is None else _seconds(run["duration_ms"])
    lines = [
        _head(run),
        f"started {run['started_at']}, {took}, {run['requests']} requests,"
        f" {_token_line(run['tokens'])}",
    ]
    width = max((len(step["name"]) for step in run["steps"]), default=0)
    for step, branch, stem in _branches(run["steps"]):
        side = "∥" if step["parallel"] else " "
        when = f"{_when(step['started_at'], start)} {_took(step['duration_ms'])}"
        error = f"  {_line(step['error'])}" if step["error"] else ""
        lines.append(
            f"{branch} {step['name']:<{width}} {side} {step['state']:<7} {when}"
            f"  {step['cost']}{error}"
        )
        lines += [
            f"{stem} {fork} {_attempt_line(attempt, start)}"
            for attempt, fork, _ in _branches(step["attempts"])
        ]
    if any(step["parallel"] for step in run["steps"]):
        lines.append("∥ side by side with another step")
    return "\n".join(lines)


def _branches(nodes: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Each node with how its own line begins, and how those below it do."""
    for number, node in enumerate(nodes, start=1):
        yield (node, "└─", "  ") if number == len(nodes) else (node, "├─", "│ ")


def _attempt_line(attempt: dict[str, Any], start: datetime) -> str:
    tokens = _token_line(attempt["usage"]) if attempt["usage"] else "usage unknown"
    cost = attempt["cost"] if attempt["cost"] is not None else "cost unknown"
    said = f" ({_line(attempt['error'])})" if attempt["error"] else ""
    asked = f"{attempt['provider']}/{attempt['model']}"
    returned = attempt["model_returned"]
    by = f" by {returned}" if returned not in (None, attempt["model"]) else ""
    return (
        f"{attempt['id']} {asked}{by} {attempt['outcome'] or 'under way'}"
        f" {_when(attempt['at'], start)} {_took(attempt['duration_ms'])}"
        f"  {tokens}, {cost}{said}"
    )


def _token_line(usage: dict[str, Any]) -> str:
    cached, reasoning = usage.get("cached") or 0, usage.get("reasoning") or 0
    return (
        f"{usage['input']} in{f' ({cached} cached)' if cached else ''},"
        f" {usage['output']} out{f' ({reasoning} reasoning)' if reasoning else ''}"
    )


def _when(at: str, start: datetime) -> str:
    return f"+{max(0.0, (datetime.fromisoformat(at) - start).total_seconds()):.2f} s".rjust(10)


def _took(duration_ms: int | None) -> str:
    return ("–" if duration_ms is None else _seconds(duration_ms)).rjust(9)


def _seconds(duration_ms: int) -> str:
    return f"{duration_ms / 1000:.2f} s"


def _line(said: str) -> str:
    """What a provider says may have lines of its own, which would look like more of the tree."""
    return " ".join(said.split())


def _head(run: dict[str, Any]) -> str:
    title = run["title"] or run["reason"] or ""
    outcome = run["outcome"] or run["state"]
    return f"{run['run']}  {outcome}  {run['tier']}  {run['cost']}  {title}".rstrip()


def _lines(found: Any) -> str:
    listed: Sequence[str] = [f"  {line}" for line in found]
    return "\n".join(listed) or "  none"
