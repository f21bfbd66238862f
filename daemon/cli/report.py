"""`penstock report`: what came of it, over some days."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from daemon.cli.context import Context, table
from daemon.cli.exits import Exit
from daemon.report import report

# More than a screen holds; `--json` has them all.
POSTS_SHOWN = 20


def run(args: Namespace) -> int:
    """Show it; the settings are not asked, so nothing in them can be in the way."""
    context = Context(args)
    with context.reading() as tx:
        found = report(tx, days=args.days, now=context.clock.now())
    context.show(found, human(found))
    return Exit.DONE


def human(page: dict[str, Any]) -> str:
    """The page for a person."""
    return "\n\n".join(
        [_runs(page), _spend(page["spend"]), _income(page["income"]), _errors(page["errors"])]
    )


def _runs(page: dict[str, Any]) -> str:
    runs = page["runs"]
    cost, took, rate = runs["cost"], runs["seconds"], runs["success_rate"]
    outcomes = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in runs["by_outcome"].items() if count
    )
    rows = [
        ("runs", f"{runs['total']} in {page['days']} days{f': {outcomes}' if outcomes else ''}"),
        ("success", "nothing to judge yet" if rate is None else f"{rate:.1%}"),
        (
            "cost",
            f"median {cost['median']}, mean {cost['mean']}, 9 in 10 up to {cost['p90']},"
            f" highest {cost['max']}",
        ),
        (
            "time",
            f"median {took['median']:.1f} s, mean {took['mean']:.1f} s,"
            f" 9 in 10 up to {took['p90']:.1f} s, longest {took['max']:.1f} s",
        ),
    ]
    return "\n".join(f"{name:<9} {said}" for name, said in rows)


def _spend(spend: dict[str, Any]) -> str:
    parts = ", ".join(
        f"{amount} {code}" for code, amount in spend["by_code"].items() if amount.micro
    )
    headers = ("requests", "input", "cached", "output", "cost")
    return "\n\n".join(
        [
            f"spent     {spend['total']}{f': {parts}' if parts else ''}",
            _tallies(("model", *headers), spend["by_model"], _model, "nothing was asked"),
            _tallies(("stage", *headers), spend["by_stage"], _stage, "no stage was worked on"),
        ]
    )


def _tallies(headers: Sequence[str], tallies: Any, name: Any, empty: str) -> str:
    rows = [
        (name(t), t["requests"], t["input"], t["cached"], t["output"], t["cost"]) for t in tallies
    ]
    return table(headers, rows, empty)


def _model(tally: dict[str, Any]) -> str:
    return f"{tally['provider']}/{tally['model']}" if tally["model"] else _rest(tally["provider"])


def _stage(tally: dict[str, Any]) -> str:
    return tally["stage"] or _rest("any")


def _rest(provider: str) -> str:
    """What the window's requests do not explain."""
    return f"{provider}, earlier requests and corrections"


def _income(income: dict[str, Any]) -> str:
    posts = income["by_post"]
    shown = sorted(
        posts, key=lambda post: (post["earned"].micro, post["published_at"]), reverse=True
    )[:POSTS_SHOWN]
    rows = [
        (p["published_at"], p["platform"], p["earned"], p["cost"], p["title"], p["url"])
        for p in shown
    ]
    headers = ("published", "platform", "earned", "run cost", "title", "where")
    lines = [
        f"earned    {income['notional']} notional from readers, {income['money']} in money",
        "",
        table(headers, rows, "nothing was published"),
    ]
    if len(posts) > len(shown):
        lines.append(f"… and {len(posts) - len(shown)} more; --json has them all")
    return "\n".join(lines)


def _errors(errors: Sequence[dict[str, Any]]) -> str:
    rows = [(e["count"], e["of"], e["kind"], e["where"], e["last"]) for e in errors]
    return table(("errors", "of", "kind", "where", "last"), rows, "no errors")
