"""What the operator set: whether it makes sense, what it lets happen, and who else can read it."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from daemon import look
from daemon.app import session_file
from daemon.doctor.findings import Finding, Findings, fail, ok, skipped, told, warn
from daemon.doctor.patient import UNREADABLE, Patient, has_secret, own_values, secret_files
from daemon.inference.ladder import Rung
from daemon.inference.prices import UnknownPrice
from daemon.options import did_you_mean
from daemon.settings import is_file

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*")


def settings(patient: Patient) -> Findings:
    """Each problem, as every command would report it."""
    where = f"in {patient.env_file}" if patient.env_file else "in the environment"
    change = f"change it {where}; .env.example explains each setting"
    if patient.env_file is None:
        change = "`penstock init` writes a commented .env; set it there or in the environment"
    found = [
        # Of a file that cannot be read at all, the problem itself says what helps.
        told("settings", str(problem), change)
        if problem.name == str(patient.env_file)
        else fail("settings", str(problem), change)
        for problem in patient.problems
    ]
    source = patient.env_file or "the environment alone"
    found = found or [ok("settings", f"read from {source}: all of them make sense")]
    return [*found, *_idle_options(patient), *_odd_language(patient)]


def _idle_options(patient: Patient) -> Iterator[Finding]:
    """Options of a model that nothing asks: a name misspelt, most likely, and a limit with it."""
    chosen = patient.settings
    if chosen is None:
        return
    asked = {str(rung) for ladder in chosen.ladders.values() for rung in ladder.paid}
    known = tuple(asked | set(chosen.prices.own))
    for name in map(str, chosen.model_options):
        if name not in known:
            said = f"PENSTOCK_MODEL_OPTIONS: {name} is on no ladder{did_you_mean(name, known)}"
            yield warn("settings", said, "correct its name, or take it out: it changes nothing")


def _odd_language(patient: Patient) -> Iterator[Finding]:
    """The writer understands a name, too; browsers, Bluesky and search engines do not."""
    chosen = patient.settings
    if chosen is not None and not _LANGUAGE.fullmatch(chosen.brief.language):
        said = f"PENSTOCK_LANGUAGE: {chosen.brief.language!r} is no BCP 47 tag"
        remedy = "put one there, such as en, de or pt-BR: readers and platforms go by it"
        yield warn("settings", said, remedy)


def limits(patient: Patient) -> Findings:
    """What the limits do not let the ladders do."""
    chosen = patient.settings
    if chosen is None:
        return [skipped("limits", UNREADABLE)]
    if not chosen.paid:
        return [ok("limits", "the ladders name no model, so every run is a digest and is free")]
    try:
        said = look.shortfalls(chosen, patient.at)
    except UnknownPrice:
        return [skipped("limits", "a model has no price (see settings)")]
    found = []
    for line in said:
        message, _, remedy = line.rpartition("; ")
        found.append(warn("limits", message or line, remedy if message else ""))
    return found or [ok("limits", "the ladders fit the budget of a run and the caps")]


def prices(patient: Patient) -> Findings:
    """What each model costs, and who says so."""
    chosen = patient.settings
    if chosen is None:
        return [skipped("prices", UNREADABLE)]
    rungs = dict.fromkeys(rung for ladder in chosen.ladders.values() for rung in ladder.paid)
    if not rungs:
        return [skipped("prices", "the ladders name no model")]
    return [_price(patient, rung) for rung in rungs]


def _price(patient: Patient, rung: Rung) -> Finding:
    assert patient.settings is not None
    try:
        price = patient.settings.prices.price(rung, patient.at)
    except UnknownPrice as error:
        message, _, remedy = str(error).partition("; ")
        return fail("prices", message, remedy)
    figures = ", ".join(
        f"{micro / 1_000_000:g} {what}"
        for what, micro in (
            ("input", price.input), ("cached", price.cached), ("output", price.output),
        )
    )  # fmt: skip
    return ok("prices", f"{rung}: {figures} a million tokens ({price.source})")


def secrets(patient: Patient) -> Findings:
    """Who else can read the keys."""
    found = [finding for path in _kept_secrets(patient) for finding in _mode(path)]
    return found or [skipped("secrets", "no file here has a secret in it yet")]


def _kept_secrets(patient: Patient) -> Iterator[Path]:
    if patient.env_file and has_secret(own_values(patient.env_file)):
        yield patient.env_file
    yield from (path for path in secret_files(patient.env) if is_file(path))
    if patient.location and is_file(kept := session_file(patient.location)):
        yield kept


def _mode(path: Path) -> Iterator[Finding]:
    mode = path.stat().st_mode
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        verb = "read" if mode & stat.S_IROTH else "change"
        said = f"{path} has secrets, and everybody on this machine can {verb} it"
        yield fail("secrets", f"{said} (mode {stat.S_IMODE(mode):04o})", f"chmod o-rwx '{path}'")
    elif mode & stat.S_IWGRP:
        yield warn("secrets", f"its group can change {path}", f"chmod g-w '{path}'")
    else:
        yield ok("secrets", f"{path} has mode {stat.S_IMODE(mode):04o}")
