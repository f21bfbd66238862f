"""
The settings reference, written from the settings themselves.

`python -m daemon.reference > docs/settings.md` writes it anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from daemon.options import OPTIONS, Option

# A section begins at the setting named and goes on to the next one that begins another.
_SECTIONS = {
    "PENSTOCK_STATE_DIR": "State and time",
    "PENSTOCK_NICHE": "The publication",
    "PENSTOCK_FEEDS": "What it reads",
    "PENSTOCK_PUBLISH_CRON": "When",
    "PENSTOCK_PROVIDERS": "Models",
    "PENSTOCK_CALL_TIMEOUT": "Time limits",
    "PENSTOCK_RUN_BUDGET": "Money",
    "PENSTOCK_PUBLISHERS": "Where articles go",
    "STRIPE_API_KEY": "Revenue",
    "PENSTOCK_ALERT_URL": "Watching it",
}

_HEAD = """\
# Settings

This page is written from the settings themselves (`python -m daemon.reference`), and a test holds
it to them. `.env.example` has the same as a file to edit. [operating.md](operating.md) says what to
do with them.

## How they are read

- At the start, and anew at SIGHUP, so that a file must be one and no pipe. The environment comes
  first. A file fills what the environment lacks: the one given with `--env-file`, else `.env` in
  the working directory, else `/etc/penstock/penstock.env`.
- Comments stand on their own lines, and values with spaces are in quotes, because systemd reads the
  same file. A line that cannot be parsed is an error.
- An empty value is the default.
- Every problem is reported at once, with exit code 2. A `PENSTOCK_` name that is not known is a
  problem, too, so that a typo cannot switch a limit off.
- Credits are decimals; one credit is one US dollar of inference. Cron expressions have five fields
  and follow `PENSTOCK_TIMEZONE`.

## Secrets

A setting marked *secret* never prints. A secret `X` is taken from the first of these that is there:

1. `X` itself, in the environment or the file.
2. The file that `X_FILE` names. It must be readable by the user that runs Penstock.
3. The credential called `x`, in lower case, in `$CREDENTIALS_DIRECTORY`, as systemd's
   `LoadCredential=` provides it. A command typed in a shell does not see those.
"""

# A row of a table is one line, however long.
_PROVIDERS = """\
Each name in `PENSTOCK_PROVIDERS` has settings of its own. For a provider called `llm`, NAME is
`LLM`.

| setting | default | secret | meaning |
|---|---|---|---|
| `PENSTOCK_PROVIDER_NAME_URL` | | | base URL, OpenAI-compatible, with its `/v1`; https, or plain http on loopback |
| `PENSTOCK_PROVIDER_NAME_KEY` | | secret | its key; a server on loopback needs none |
| `PENSTOCK_PROVIDER_NAME_USAGE` | `auto` | | how `penstock reconcile` asks what the key has used: `auto`, `openrouter`, `new-api` or `none`; `none` where others use the key, too |
"""  # noqa: E501

_PLUGINS = """\
A destination that is a plug-in ([publishers.md](publishers.md)) has settings of its own under
`PENSTOCK_PUBLISHER_NAME_`, NAME being its name in capitals: `PENSTOCK_PUBLISHER_MASTODON_TOKEN`.
Only the plug-in knows which there are and which are secret, so each may be given as a secret is.
"""

_OTHERS = """\
## Names of others

| name | meaning |
|---|---|
| `STATE_DIRECTORY`, `CREDENTIALS_DIRECTORY` | set by systemd: the state folder, the folder of credentials |
| `NOTIFY_SOCKET`, `WATCHDOG_USEC` | set by systemd: how `penstock run` says that it is ready and alive |
| `XDG_STATE_HOME`, `HOME` | where the state is when nothing else says it: `penstock` in the first, or in `.local/state` of the second |
| `VISUAL`, `EDITOR` | what `penstock drafts edit` opens |
| `OTEL_EXPORTER_OTLP_ENDPOINT` and other `OTEL_*` | where runs are sent as traces; needs the extra `penstock[otel]` |
"""  # noqa: E501

_AFTER = {"Models": _PROVIDERS, "Where articles go": _PLUGINS}


def text() -> str:
    """The whole of `docs/settings.md`."""
    parts = [_HEAD]
    for title, options in _sections():
        parts.append(f"## {title}\n\n{_table(options)}")
        if title in _AFTER:
            parts.append(_AFTER[title])
    return "\n".join([*parts, _OTHERS])


def _sections() -> Iterator[tuple[str, list[Option]]]:
    options: list[Option] = []
    title = _SECTIONS[OPTIONS[0].name]
    for option in OPTIONS:
        if option.name in _SECTIONS and options:
            yield title, options
            options = []
        title = _SECTIONS.get(option.name, title)
        options.append(option)
    yield title, options


def _table(options: Sequence[Option]) -> str:
    lines = ["| setting | default | secret | meaning |", "|---|---|---|---|"]
    for option in options:
        default = f"`{option.default}`" if option.default else ""
        cells = (
            f"`{option.name}`", default, "secret" if option.secret else "", option.meaning,
        )  # fmt: skip
        lines.append("|" + "|".join(f" {_cell(cell)} " if cell else " " for cell in cells) + "|")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    sys.stdout.write(text())
