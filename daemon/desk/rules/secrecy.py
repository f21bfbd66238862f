"""Nothing of ours gets out: no key or password, in whatever form, and no instructions."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import unquote_plus

from daemon.desk.manuscript import Context, Finding, Manuscript
from daemon.desk.markdown import read
from daemon.desk.rules.grounds import ordered_runs
from daemon.sources.text import words

SECRET_MIN = 8
_NEITHER = re.compile(r"[\W_]+")
PROMPT_RUN_WORDS = 8
# Reworded here and there, instructions still share many short runs with the original.
PROMPT_SHORT_RUN_WORDS = 5
PROMPT_SHORT_RUNS_MAX = 9
_SHAPES = re.compile(
    r"\b(?:"
    r"sk-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, OpenRouter, DeepSeek
    r"|[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}"  # Stripe
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[\w-]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}"  # AWS
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}"  # Google
    r"|xox[abeprs]-[\w-]{10,}|xapp-[\w-]{10,}"  # Slack
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|dop_v1_[0-9a-f]{64}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}"  # SendGrid
    r"|\d{8,10}:AA[\w-]{33}"  # Telegram
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}"  # JWT
    r"|(?=[a-z2-7-]{0,18}[2-7])[a-z2-7]{4}(?:-[a-z2-7]{4}){3}(?![\w-])"  # Bluesky app password
    r")|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b\w+://[^\s/:@]+:[^\s/@]{4,}@"  # a password in an address
    r"|\b(?i:api[_-]?key|secret|token|passw(?:or)?d)[\"'`]?\s*[:=]\s*[\"'`]?"
    r"(?=[\w+/.-]{0,99}\d)(?=[\w+/.-]{0,99}[A-Za-z])[\w+/.-]{16,}",
    re.ASCII,
)


def looks_secret(text: str) -> bool:
    """Whether a text has something shaped like a key or password."""
    return _SHAPES.search(text) is not None


def no_secret(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No secret of ours, written, split, spelt backwards or encoded, and nothing shaped as one."""
    everything = _everything(manuscript)
    if looks_secret(everything):
        # The finding is stored and sent to a model: it does not repeat what it found.
        yield Finding("secrets", "it has something shaped like a key or password; remove it")
    elif _has_any(everything, context.secrets):
        yield Finding("secrets", "it has one of this machine's own secrets; remove it")


def no_instructions(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No run of our own instructions, nor many short ones."""
    text = _everything(manuscript)
    told = words(text)
    for prompt in context.prompts:
        runs, short = _prompt_runs(prompt)
        long = next((run for run in ordered_runs(told, PROMPT_RUN_WORDS) if run in runs), None)
        many = short.intersection(ordered_runs(told, PROMPT_SHORT_RUN_WORDS))
        if long or len(many) > PROMPT_SHORT_RUNS_MAX:
            words_of = " ".join(long[:6] if long else min(many))
            yield Finding(
                "instructions",
                f"“{words_of} …” repeats the instructions it was written under; remove them",
            )
            return


def _everything(manuscript: Manuscript) -> str:
    # As it is written and as it is shown: a backslash would hide a key from the pattern.
    head = (manuscript.title, manuscript.description, *manuscript.tags)
    return "\n".join((*head, manuscript.markdown, read(manuscript.markdown).shown))


def _has_any(text: str, secrets: Iterable[str]) -> bool:
    squeezed = (_letters(text), _letters(unquote_plus(text)))
    return any(
        secret in text or any(form in each for each in squeezed for form in _forms(secret))
        for secret in secrets
        if len(secret) >= SECRET_MIN
    )


@lru_cache(maxsize=64)
def _forms(secret: str) -> frozenset[str]:
    """A secret's letters and digits: as it is, backwards, in hexadecimal and in base64."""
    raw = secret.encode()
    plain = [secret, secret[::-1], raw.hex(), base64.b32encode(raw).decode().rstrip("=")]
    for offset in range(3):
        # Where it stands in a longer text moves base64 by a third; the ends mix with others.
        coded = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        inner = coded[-(-8 * offset // 6) : len(coded) - (0 if (offset + len(raw)) % 3 == 0 else 1)]
        plain += [inner]
    return frozenset(form for each in plain if len(form := _letters(each)) >= SECRET_MIN)


def _letters(text: str) -> str:
    """Letters and digits alone: what splits a secret up is neither."""
    return _NEITHER.sub("", text.casefold())


@lru_cache(maxsize=8)
def _prompt_runs(prompt: str) -> tuple[frozenset[tuple[str, ...]], frozenset[tuple[str, ...]]]:
    told = words(prompt)
    return (
        frozenset(ordered_runs(told, PROMPT_RUN_WORDS)),
        frozenset(ordered_runs(told, PROMPT_SHORT_RUN_WORDS)),
    )
