"""What docs/governor.md says is what the code does, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon import estimate
from daemon.governor import pace
from daemon.inference.ladder import Role, Rung, Tier
from daemon.inference.prices import PriceBook, parse_prices
from tests.test_governor import NOW, books, credits_of, history, policy

DOC = (Path(__file__).parents[1] / "docs" / "governor.md").read_text(encoding="utf-8")


def rows(first_heading: str) -> list[list[str]]:
    """The cells of the table whose header begins so."""
    lines = DOC.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_heading}"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


EXAMPLES = rows("available")


def test_the_table_is_there() -> None:
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("row", EXAMPLES, ids=[row[-1] for row in EXAMPLES])
def test_every_worked_example_holds(row: list[str]) -> None:
    available, day, month, income, last, tier, cadence, runway, _ = row
    found = pace(
        books(available, day=day, month=month, income=income),
        history(last=last or None),
        policy(),
    )
    assert str(found.tier) == tier
    assert found.cadence == pytest.approx(float(cadence), abs=0.005)
    if tier == "dormant" or runway == "no end":
        assert found.runway_days is None
    else:
        assert found.runway_days is not None
        assert found.runway_days == pytest.approx(float(runway), abs=0.3)


def test_the_shares_of_a_run_are_those_in_the_table() -> None:
    book = PriceBook(parse_prices("llm/good=3,0.3,15"), {})
    rung = Rung("llm", "good")
    shares = estimate.shares(dict.fromkeys(Role, (rung,)), book, credits_of("0.25"), NOW)
    table = rows("budget 0.25")
    for role, (_, hold, expected, share) in zip(Role, table, strict=True):
        stages = [s for s in estimate.STAGES if s.role is role]
        price = book.price(rung, NOW)
        assert str(estimate.peak(role, rung, book, NOW)) == hold
        assert str(max(price.cost(s.usage) for s in stages)) == expected
        assert str(shares[role]) == share


def test_what_a_tier_buys_is_in_the_table() -> None:
    bought = {row[0]: row for row in rows("tier | rung")}
    for tier in Tier:
        questions = str(estimate.QUESTIONS.get(tier, ""))
        assert bought[tier][2] == questions
