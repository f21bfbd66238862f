"""The roles' standing instructions, one Markdown file each: the stable head of every prompt."""

from functools import cache
from importlib.resources import files


@cache
def prompt(role: str) -> str:
    """The text of `role`.md."""
    return (files(__name__) / f"{role}.md").read_text(encoding="utf-8")
