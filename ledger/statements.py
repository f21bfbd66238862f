"""
Statements for the hot path: built with SQLAlchemy Core, compiled once, run on the driver's cursor.

SQLAlchemy's own execution costs 20 to 45 µs a statement, SQLite's work on it 5 µs; a hold and its
settlement are seventeen statements. Values and rows are plain here: text, integers and None, a
time as the text that `types.to_text` makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql import ClauseElement

Row = TypeVar("Row")
Value = str | int | None


class _Compiled(NamedTuple):
    sql: str
    names: list[str] | None
    constants: dict[str, Value]


class Statement(Generic[Row]):
    """
    One statement.

    Args:
        row: makes a row of what the driver returns, such as a NamedTuple's `_make`.
    """

    def __init__(self, statement: ClauseElement, row: Callable[[Iterable[Any]], Row]) -> None:
        self._statement = statement
        self._row = row
        self._compiled: dict[str, _Compiled] = {}

    def run(self, tx: Connection, **values: Value) -> int:
        """Run it; returns how many rows it changed."""
        return int(self._execute(tx, values).rowcount)

    def one(self, tx: Connection, **values: Value) -> Row | None:
        """Its first row, or None."""
        found = self._execute(tx, values).fetchone()
        return None if found is None else self._row(found)

    def all(self, tx: Connection, **values: Value) -> list[Row]:
        """Its rows."""
        return [self._row(found) for found in self._execute(tx, values)]

    def _execute(self, tx: Connection, values: dict[str, Value]) -> Any:
        compiled = self._compiled.get(tx.dialect.name)
        if compiled is None:
            compiled = self._compiled[tx.dialect.name] = _compile(self._statement, tx.dialect)
        sql, names, constants = compiled
        values |= constants
        cursor = tx.connection.cursor()
        cursor.execute(sql, values if names is None else [values[name] for name in names])
        return cursor


def _compile(statement: ClauseElement, dialect: Dialect) -> _Compiled:
    made = statement.compile(dialect=dialect)
    # What was written into the statement itself, such as the number of a LIMIT.
    constants = {name: value for name, value in made.params.items() if value is not None}
    return _Compiled(str(made), getattr(made, "positiontup", None), constants)


def change(statement: ClauseElement) -> Statement[tuple[()]]:
    """A statement that returns no rows."""
    return Statement(statement, lambda row: ())


def number(statement: ClauseElement) -> Statement[int]:
    """A statement that returns one whole number; PostgreSQL sums to a decimal."""
    return Statement(statement, lambda row: int(next(iter(row))))
