"""`penstock install-service`: what systemd needs to run this very program, put in place."""

from __future__ import annotations

import grp
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon import options
from daemon.cli import completion
from daemon.cli.context import Context, UsageError
from daemon.cli.exits import Exit

USER = "penstock"
# What the unit carries until it is installed.
_PROGRAM = "/opt/penstock/bin/penstock"
# What is of a publication's own where there are several: settings, state, keys, its name.
_OF_SEVERAL = (
    ("/etc/penstock/penstock.env", "/etc/penstock/%i.env"),
    ("StateDirectory=penstock\n", "StateDirectory=penstock-%i\n"),
    ("RuntimeDirectory=penstock\n", "RuntimeDirectory=penstock-%i\n"),
    (":penstock.", ":penstock.%i."),
    ("content daemon\n", "content daemon: %i\n"),
)
# ProtectHome= and PrivateTmp= put something empty there.
_UNSEEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - nothing is written there
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
# Everything else has a meaning in a unit.
_PLAIN_PATH = re.compile(r"/[\w/.@+-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class _File:
    """
    A file to be there.

    Attributes:
        ours: also written where it is there already; the operator's own are never.
    """

    path: Path
    text: str
    mode: int
    ours: bool = True


def run(args: Namespace) -> int:
    """Write the units, the user's entry and, unless it is there, the env file; say what is next."""
    name: str | None = args.name
    root = Path(args.root or "/")
    if name is not None and (not _NAME.fullmatch(name) or name == USER):
        raise UsageError(
            f"--name {name}: small letters, digits, - and _, and not {USER}, are needed"
        )
    if args.root is None and not args.dry_run and os.geteuid() != 0:
        raise UsageError(
            "this writes below /etc: run it with sudo, or with --dry-run or --root DIR"
        )
    program = _program()
    env_file = Path("/etc/penstock") / f"{name or USER}.env"
    done = [
        {"path": str(file.path), "state": _put(root, file, dry_run=args.dry_run)}
        for file in _files(program, env_file, name)
    ]
    following = list(_next(root, env_file, name))
    unseen = _unseen(program)
    document = {"files": done, "unseen": unseen, "next": following}
    Context(args).show(document, _told(done, unseen, following, dry_run=args.dry_run))
    return Exit.DONE


def _files(program: Path, env_file: Path, name: str | None) -> Iterator[_File]:
    shipped = _shipped()
    unit = "penstock.service" if name is None else "penstock@.service"
    text = (shipped / "penstock.service").read_text(encoding="utf-8")
    for of_one, of_several in _OF_SEVERAL if name else ():
        text = text.replace(of_one, of_several)
    yield _File(Path("/etc/systemd/system") / unit, text.replace(_PROGRAM, str(program)), 0o644)
    user = (shipped / "penstock.sysusers").read_text(encoding="utf-8")
    yield _File(Path("/etc/sysusers.d/penstock.conf"), user, 0o644)
    yield _File(Path("/etc/bash_completion.d/penstock"), completion.text(), 0o644)
    # The service has $STATE_DIRECTORY, and a command beside it has this.
    state = f"PENSTOCK_STATE_DIR=/var/lib/penstock{f'-{name}' if name else ''}"
    settings = re.sub(r"^#PENSTOCK_STATE_DIR=.*$", state, options.example(), flags=re.MULTILINE)
    # Keys may stand in it.
    yield _File(env_file, settings, 0o640, ours=False)


def _shipped() -> Path:
    """The units: in the package once it is installed, beside it in a checkout."""
    for folder in (Path(__file__).parents[1] / "systemd", Path(__file__).parents[2] / "systemd"):
        if (folder / "penstock.service").is_file():
            return folder
    raise UsageError(
        "this installation has no unit files; they are in the folder systemd/ of a clone"
    )


def _program() -> Path:
    """The `penstock` that runs this, as systemd is to call it: a virtual environment's own."""
    beside = Path(sys.executable).parent / "penstock"
    program = beside if beside.is_file() else Path(sys.argv[0]).absolute()
    if not _PLAIN_PATH.fullmatch(str(program)):
        raise UsageError(f"{program}: systemd needs a plainer path, such as /opt/penstock")
    return program


def _unseen(program: Path) -> list[str]:
    """Where this program lies that the service will not see."""
    places = {program, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    places.add(Path(__file__).resolve().parents[2])
    return sorted(str(place) for place in places if _is_unseen(place))


def _is_unseen(place: Path) -> bool:
    return any(place.is_relative_to(folder) for folder in _UNSEEN)


def _put(root: Path, file: _File, *, dry_run: bool) -> str:
    """Have the file there; returns what came of it."""
    path = root / file.path.relative_to("/")
    there = os.path.lexists(path)
    same = path.is_file() and path.read_bytes() == file.text.encode()
    if there and (not file.ours or same):
        return "kept"
    if not dry_run:
        _have_folder(path.parent)
        _write(path, file)
    return "replaced" if there else "written"


def _have_folder(folder: Path) -> None:
    """The service must be able to enter it, whatever the umask of whoever installs."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o755)


def _write(path: Path, file: _File) -> None:
    """All of it or nothing, never wider open than it is to be."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(file.text)
        if not file.ours and os.geteuid() == 0 and (group := _group()) is not None:
            os.fchown(descriptor, 0, group)
        os.fchmod(descriptor, file.mode)
    draft.replace(path)


def _group() -> int | None:
    try:
        return grp.getgrnam(USER).gr_gid
    except KeyError:
        return None


def _next(root: Path, env_file: Path, name: str | None) -> Iterator[str]:
    """What is left to type, in its order."""
    group = _group()
    if group is None:
        yield "systemd-sysusers"
    written = root / env_file.relative_to("/")
    if group is None or not written.is_file() or written.stat().st_gid != group:
        # It could not be given to a group that was not there.
        yield f"chgrp {USER} {env_file}"
    instance = f"{USER}@{name}" if name else USER
    yield f"${{EDITOR:-vi}} {env_file}"
    key = f"{USER}.{name}.devto_api_key" if name else f"{USER}.devto_api_key"
    yield f"install -D -m 600 KEYFILE /etc/credstore/{key}   # or in the file; see the unit"
    yield "systemctl daemon-reload"
    yield f"systemctl enable --now {instance}"
    yield f"systemctl status {instance}"


def _told(
    done: Sequence[dict[str, str]],
    unseen: Sequence[str],
    following: Sequence[str],
    *,
    dry_run: bool,
) -> str:
    would = "would be " if dry_run else ""
    lines = [f"{would}{file['state']:<9}{file['path']}" for file in done]
    lines += [
        f"\nNot seen by the service: {place}. Install Penstock, and its Python, elsewhere, such as"
        " /opt/penstock (`make install`); or see ProtectHome= and BindReadOnlyPaths= in"
        " systemd.exec(5)."
        for place in unseen
    ]
    return "\n".join([*lines, "\nNext:", *(f"  {line}" for line in following)])
