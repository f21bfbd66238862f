"""Each model provider: whether it is there, takes the key, and has the models that ladders name."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from daemon.doctor.asking import Answer, Getter, Times, Unreached, Watched, getter
from daemon.doctor.findings import Finding, Findings, fail, ok, skipped, warn
from daemon.doctor.patient import Patient
from daemon.inference.billing import Billing, Counter, Unreadable
from daemon.inference.port import Endpoint, UsageApi
from daemon.options import did_you_mean

_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


async def look(
    patient: Patient, endpoint: Endpoint, times: Times, transport: httpx.AsyncBaseTransport | None
) -> Findings:
    """One provider. Lists and counters are all that is asked for, so none of it costs anything."""
    assert patient.settings is not None
    check = "provider"
    rungs = [rung for ladder in patient.settings.ladders.values() for rung in ladder.paid]
    models = list(dict.fromkeys(r.model for r in rungs if r.provider == endpoint.name))
    setting = f"PENSTOCK_PROVIDER_{endpoint.name.upper()}"
    if not endpoint.url:
        return [skipped(check, f"{endpoint.name} has no URL yet ({setting}_URL)")]
    timeout_s = patient.settings.fetch.timeout_s
    async with getter(times, transport, timeout_s) as ask:
        try:
            listed = await ask.get(f"{endpoint.url}/models", endpoint.authorization)
        except Unreached as error:
            remedy = f"look at {setting}_URL, and at the network"
            return [fail(check, f"{endpoint.name} {error}", remedy)]
        if trouble := _trouble(endpoint, setting, listed):
            return [trouble]
        counter = await _counter(endpoint, times, transport, timeout_s)
        found = [await _key(endpoint, setting, listed, counter, ask)]
    return [*found, *_models(endpoint, models, listed)]


def _trouble(endpoint: Endpoint, setting: str, listed: Answer) -> Finding | None:
    """What the answer to the request for the models says against going on."""
    said = f"{endpoint.name} answers HTTP {listed.status}{listed.said}"
    if listed.redirects:
        return fail("provider", f"{said}, a redirect", f"put its final URL in {setting}_URL")
    if listed.status in _REFUSED:
        which = "the key is refused" if endpoint.key else "it wants a key"
        remedy = f"make a key at the provider and put it into {setting}_KEY"
        return fail("provider", f"{said}: {which}", remedy)
    if listed.status == httpx.codes.PAYMENT_REQUIRED:
        return fail("provider", said, "top up at the provider")
    if listed.status == httpx.codes.TOO_MANY_REQUESTS:
        return warn("provider", said, "come again later")
    if listed.status >= 500:
        return fail("provider", said, "look whether the provider is well, and come again later")
    return None


async def _counter(
    endpoint: Endpoint,
    times: Times,
    transport: httpx.AsyncBaseTransport | None,
    timeout_s: float,
) -> Counter | str | None:
    """What the key has used; why that cannot be read; None where there is no counter."""
    billing = Billing(endpoint, timeout_s, Watched(times, transport))
    try:
        return await billing.counter()
    except Unreadable as error:
        return str(error)
    finally:
        await billing.close()


async def _key(
    endpoint: Endpoint, setting: str, listed: Answer, counter: Counter | str | None, ask: Getter
) -> Finding:
    """Whether the key is taken, as far as that shows without buying anything."""
    name = endpoint.name
    if isinstance(counter, Counter):
        return ok(
            "provider", f"{name} takes the key, which has used {counter.used} ({counter.api})"
        )
    if isinstance(counter, str):
        remedy = f"look at {setting}_USAGE, or come again later"
        return warn("provider", f"{name} is there; its bill cannot be read: {counter}", remedy)
    if not endpoint.key:
        return ok("provider", f"{name} is there, and wants no key")
    if listed.status != httpx.codes.OK:
        remedy = f"look whether {setting}_URL ends where /chat/completions begins, as in …/v1"
        return warn("provider", f"{name} answers HTTP {listed.status} to …/models", remedy)
    # A counter that says no, and a list that is open to anyone, are told apart by asking.
    try:
        if endpoint.usage_api in (UsageApi.AUTO, UsageApi.OPENROUTER):
            told = await ask.get(f"{endpoint.url}/key", endpoint.authorization)
            if told.status in _REFUSED:
                remedy = f"make a key at the provider and put it into {setting}_KEY"
                said = f"{name} does not know the key (HTTP {told.status}{told.said})"
                return fail("provider", said, remedy)
        stranger = await ask.get(f"{endpoint.url}/models")
    except Unreached as error:
        return warn("provider", f"{name} answered once, then {error}", "come again later")
    if stranger.status in _REFUSED:
        return ok("provider", f"{name} takes the key")
    return ok(
        "provider", f"{name} is there; it lists models to anyone, so the key shows at first use"
    )


def _models(endpoint: Endpoint, models: Sequence[str], listed: Answer) -> list[Finding]:
    """Whether each model of the ladders is on the provider's list."""
    if not models:
        return [skipped("models", f"no ladder names a model of {endpoint.name}")]
    data = listed.fields.get("data", listed.document)
    entries = data if isinstance(data, list) else []
    known = tuple(e["id"] for e in entries if isinstance(e, dict) and isinstance(e.get("id"), str))
    if not known:
        return [skipped("models", f"{endpoint.name} lists no models to compare with")]
    found = []
    for model in models:
        if model in known:
            found.append(ok("models", f"{endpoint.name} has {model}"))
        else:
            near = did_you_mean(model, known).removeprefix("; ") or "look at the provider's list"
            said = f"{endpoint.name} does not list {model} among its {len(known)} models"
            found.append(warn("models", said, near))
    return found
