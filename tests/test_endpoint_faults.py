"""
Every way an endpoint can go wrong, over real sockets, with its bill beside our books.

Whole runs of the real program. The clock is real but waits for nothing: a wait moves it forward
instead. The bill is the double's own, and each of its lines says how that answer was spoiled, so
what the books should have booked is known to the micro-credit.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest

from daemon import journal, reconcile, settings
from daemon import tls as trust
from daemon.app import World, opened_database, opened_for_work, opened_parts
from daemon.cycle import Report
from daemon.inference import attempts, breaker
from daemon.journal import RunOutcome
from ledger import audit, posting, store
from ledger.database import Database
from ledger.money import MicroCredits
from ledger.rules import Code
from tests.cli_helpers import ladder
from tests.doubles import author
from tests.doubles.model import Asked, Charge, Kind, ModelDouble, Prices
from tests.doubles.web import SiteDouble
from tests.doubles.wire import InProcess, serve
from tests.stage import BLOG_ADDRESS, CHEAP, GOOD, TOPICS, Silent, Stage, blog_pages
from tests.virtual import START, HastyClock

SCHEMAS = ("plan", "notes", "draft", "review")
BEFORE_DRAFTING = ("plan", "notes")
# What the books cannot know: these answers are billed, and nobody is told how much.
BLIND = frozenset(
    {"status_after", "reset_after", "drop_after", "cut_after", "stall", "no_usage", "zero_usage",
     "error_in_200"}
)  # fmt: skip
DEPOSIT = MicroCredits.parse("50")
EXPIRY = timedelta(hours=24)
# Several times what a healthy run takes, so that a busy machine does not become a fault.
STALLED_AFTER_S = "4"

TWO_RUNGS = "llm/good > llm/cheap > digest"
TWO_PROVIDERS = "llm/good > llm/cheap > other/spare > digest"


@dataclass
class House:
    """A publication with a blog to read and two providers behind sockets."""

    folder: Path
    template: Path
    llm_url: str
    other_url: str
    llm: ModelDouble
    other: ModelDouble
    changes: Mapping[str, str] = field(default_factory=dict)
    clock: HastyClock = field(default_factory=HastyClock)

    def __post_init__(self) -> None:
        loaded = settings.load(
            {
                "PENSTOCK_STATE_DIR": str(self.folder),
                "PENSTOCK_NICHE": "running databases, SQLite",
                "PENSTOCK_FEEDS": "http://blog.test/feed.xml",
                "PENSTOCK_PROVIDERS": "llm,other",
                "PENSTOCK_PROVIDER_LLM_URL": f"{self.llm_url}/v1",
                "PENSTOCK_PROVIDER_LLM_KEY": "test-key",
                "PENSTOCK_PROVIDER_OTHER_URL": f"{self.other_url}/v1",
                "PENSTOCK_PROVIDER_OTHER_KEY": "test-key",
                "PENSTOCK_PRICES": "llm/good=1,0.1,5;llm/cheap=0.2,0.02,0.8;other/spare=1,0.1,5",
                "PENSTOCK_RUN_BUDGET": "2",
                "PENSTOCK_DAILY_CAP": "10",
                "PENSTOCK_MONTHLY_CAP": "40",
                "PENSTOCK_CALL_TIMEOUT": "20",
                **ladder(TWO_RUNGS),
                **self.changes,
            },
            at=START,
        )
        # The clock tells what was waited for; here that shall be the providers alone.
        self.settings = replace(loaded, fetch=replace(loaded.fetch, gap_s=0.0))
        self.folder.mkdir(mode=0o700)
        shutil.copyfile(self.template, self.folder / "penstock.db")

    def once(self) -> Report:
        """One life of the process, on real sockets."""

        async def resolve(host: str, port: int) -> list[str]:
            return [BLOG_ADDRESS]

        async def live() -> Report:
            world = World(
                clock=self.clock,
                web=InProcess({BLOG_ADDRESS: SiteDouble(pages=blog_pages())}),
                resolve=resolve,
                chance=random.Random(7),
            )
            async with opened_parts(self.settings, database, Silent(), world) as parts:
                return await parts.cycle.once()

        url = self.settings.location.database_url
        with (
            opened_database(self.settings.location),
            closing(Database(url, busy_timeout_ms=0)) as database,
        ):
            return asyncio.run(live())

    def published(self) -> Report:
        report = self.once()
        assert report.outcome is RunOutcome.PUBLISHED, report.reason
        assert report.kind == journal.ARTICLE, report.reason
        return report

    @property
    def attempts(self) -> list[Any]:
        with self.reading() as tx:
            return list(attempts.recent(tx))

    @property
    def asked(self) -> list[tuple[str, str, str]]:
        """Provider, model and schema of every request that came in at a double."""
        return [
            (name, asked.model, asked.schema)
            for name, double in (("llm", self.llm), ("other", self.other))
            for asked in double.requests
        ]

    @property
    def bill(self) -> list[Charge]:
        return [*self.llm.bill, *self.other.bill]

    @contextmanager
    def reading(self) -> Iterator[Any]:
        with self._database() as database, database.read() as tx:
            yield tx

    def _database(self) -> closing[Database]:
        return closing(Database(self.settings.location.database_url))

    def _booked(self, *codes: Code) -> int:
        with self.reading() as tx:
            return sum(
                entry.amount.micro
                for entry in store.entries(tx)
                if entry.state == "posted" and entry.code in codes
            )

    def judge(self) -> None:
        """The books against the bill, before and after what nobody can tell is charged."""
        bill = sum(charge.micro for charge in self.bill)
        unseen = sum(charge.micro for charge in self.bill if is_blind(charge))
        certain = self._booked(Code.INFERENCE, Code.OVERRUN)
        made = self.attempts
        unknown = [attempt for attempt in made if attempt.outcome == "unknown"]
        # Each request that came in is one attempt, and each attempt that was sent came in.
        sent = Counter((a.provider, a.model, schema_of(a)) for a in made if a.outcome != "unsent")
        assert sent == Counter(self.asked) + self.unheard(unknown)
        assert all(a.cost_micro == 0 for a in made if a.outcome in ("refused", "unsent"))
        # What is certain is booked to the micro-credit, and the rest is held.
        assert certain == bill - unseen
        assert self._booked(Code.UNCERTAIN, Code.CORRECTION, Code.ADJUSTMENT) == 0
        with self.reading() as tx:
            held = store.balance(tx).held.micro
            assert {hold.attempt for hold in posting.open_holds(tx)} == {a.id for a in unknown}
        assert bill <= certain + held

        later = self.clock.now() + EXPIRY
        with self._database() as database, database.write() as tx:
            ended = reconcile.expire(tx, later, EXPIRY)
        assert len(ended) == len(unknown)
        uncertain = self._booked(Code.UNCERTAIN)
        assert (uncertain, self._booked(Code.INFERENCE, Code.OVERRUN)) == (held, certain)
        # The books exceed the bill by what is marked uncertain, less what of it was really billed.
        assert certain + uncertain - bill == uncertain - unseen >= 0
        with self.reading() as tx:
            report, balance = audit.check(tx), store.balance(tx)
            assert attempts.disagreements(tx) == []
        assert report.ok, report.problems
        assert balance.held.micro == 0
        assert balance.available == DEPOSIT - MicroCredits(certain + uncertain)
        self._judge_each_unknown(unknown)

    def unheard(self, unknown: list[Any]) -> Counter[tuple[str, str, str]]:
        """Requests that a double never heard of, though a connection was made."""
        if not isinstance(self.llm, Deaf):
            return Counter()
        return Counter(("llm", a.model, schema_of(a)) for a in unknown if a.provider == "llm")

    def _judge_each_unknown(self, unknown: list[Any]) -> None:
        """No single answer was billed above the hold that is charged for it."""
        worst: dict[tuple[str, str], int] = {}
        for charge in filter(is_blind, self.bill):
            key = (charge.model, charge.schema)
            worst[key] = max(worst.get(key, 0), charge.micro)
        for attempt in unknown:
            with self.reading() as tx:
                row = attempts.find(tx, attempt.id)
            assert row is not None
            assert row.cost_micro >= worst.get((attempt.model, schema_of(attempt)), 0)


class Deaf(ModelDouble):
    """A provider that is never heard of: what listens in its place reads no request."""


def is_blind(charge: Charge) -> bool:
    return charge.kind in BLIND


def schema_of(attempt: Any) -> str:
    return str(attempt.step).partition("-")[0]


def provider(**prices: Prices) -> ModelDouble:
    return ModelDouble({"good": GOOD, "cheap": CHEAP, "spare": GOOD} | prices)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a deposit, closed cleanly, so that all of it stands in the one file."""
    folder = tmp_path_factory.mktemp("template")
    location = settings.locate({"PENSTOCK_STATE_DIR": str(folder)})
    with opened_database(location) as database, database.write() as tx:
        store.deposit(tx, amount=DEPOSIT, ref="first", at=START)
    assert not (folder / "penstock.db-wal").exists()
    return folder / "penstock.db"


@pytest.fixture
def house(tmp_path: Path, template: Path) -> Iterator[Callable[..., House]]:
    """Makes houses; each provider has a socket of its own unless a URL is given for the first."""
    with ExitStack() as stack:

        def make(
            llm: ModelDouble | None = None,
            /,
            url: str | None = None,
            tls: ssl.SSLContext | None = None,
            **changes: str,
        ) -> House:
            first, second = llm or provider(), provider()
            at = url or stack.enter_context(serve(first, tls=tls)).url
            other = stack.enter_context(serve(second)).url
            return House(tmp_path / "state", template, at, other, first, second, changes)

        yield make


MakeHouse = Callable[..., House]


# Faults that an endpoint has now and then, one for each role in one run


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to go wrong, and what the books are to make of it."""

    kind: Kind
    outcome: str
    details: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = 200


BUSY = {"error": {"message": "Overloaded", "type": "overloaded_error"}}
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"


def failing(code: int, *, billed: bool = False, **details: Any) -> Fault:
    kind: Kind = "status_after" if billed else "status"
    outcome = "refused" if code == 429 else "unknown"
    return Fault(kind, outcome, {"code": code, **details}, code)


FAULTS: dict[str, Fault] = {
    "429": failing(429),
    "429 with Retry-After": failing(429, retry_after="2"),
    "500": failing(500),
    "500 and billed": failing(500, billed=True),
    "502 of a proxy and billed": failing(502, billed=True, body=HTML),
    "503": failing(503, retry_after="30"),
    "529": failing(529, body=BUSY),
    "529 and billed": failing(529, billed=True, body=BUSY),
    "reset before it was billed": Fault("reset_before", "unknown", status=None),
    "reset after it was billed": Fault("reset_after", "unknown", status=None),
    "dropped after it was billed": Fault("drop_after", "unknown", status=None),
    "half an answer": Fault("cut_after", "unknown"),
    "a stalled body": Fault("stall", "unknown"),
    "no usage": Fault("no_usage", "unknown"),
    "usage of zero": Fault("zero_usage", "unknown"),
    "an error in a 200": Fault("error_in_200", "unknown"),
    "truncated JSON": Fault("truncated_json", "ok"),
    "cut at its limit": Fault("length", "ok"),
    "prose": Fault("not_json", "ok"),
    "slow": Fault("slow", "ok", {"seconds": 0.2}),
    "a cost beside the usage": Fault("reported_cost", "ok"),
    "another model": Fault("other_model", "ok", {"model": "cheap"}),
    "another model without a price": Fault("other_model", "ok", {"model": "good-2026-11-01"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_every_role_ends_in_an_article_and_the_books_have_the_bill(
    house: MakeHouse, name: str
) -> None:
    fault = FAULTS[name]
    stalls = {"PENSTOCK_MODEL_OPTIONS": f"llm/good=timeout:{STALLED_AFTER_S}"}
    one = house(provider(**{"good-2026-11-01": GOOD}), **(stalls if fault.kind == "stall" else {}))
    for schema in SCHEMAS:
        one.llm.misbehave(fault.kind, schema=schema, **{"model": "good", **fault.details})
    one.published()
    assert one.llm.troubles == [], "every role met the fault"
    made = one.attempts
    if fault.outcome == "ok":
        assert {(a.outcome, a.http_status) for a in made} == {("ok", 200)}
    else:
        spoiled = [a for a in made if a.outcome != "ok"]
        assert {a.model for a in spoiled} == {"good"}
        assert Counter(map(schema_of, spoiled)) == dict.fromkeys(SCHEMAS, 1)
        assert {(a.outcome, a.http_status) for a in spoiled} == {(fault.outcome, fault.status)}
        # A refusal is asked again, what may have been billed never; the next rung answers.
        answering = "good" if fault.outcome == "refused" else "cheap"
        answered = {(a.step, a.model) for a in made if a.outcome == "ok"}
        assert {(a.step, answering) for a in spoiled} <= answered
    one.judge()


def test_an_error_in_a_200_that_says_what_was_used_costs_that(house: MakeHouse) -> None:
    one = house()
    for schema in SCHEMAS:
        one.llm.misbehave("error_in_200", schema=schema, model="good", usage=True)
    one.published()
    assert one.llm.troubles == []
    assert {a.outcome for a in one.attempts} == {"ok"}
    assert sum(a.cost_micro for a in one.attempts) == one.llm.billed_micro
    assert len(one.attempts) == len(one.asked)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_another_model_that_bills_above_the_hold_is_booked_in_full_and_asked_no_more(
    house: MakeHouse, schema: str
) -> None:
    dear = (60_000_000, 6_000_000, 300_000_000)
    prices = "llm/good=1,0.1,5;llm/cheap=0.2,0.02,0.8;other/spare=1,0.1,5;llm/dear=60,6,300"
    one = house(provider(dear=dear), PENSTOCK_PRICES=prices)
    one.llm.misbehave("other_model", model="dear", schema=schema)
    one.published()
    made = one.attempts
    (first,) = (number for number, a in enumerate(made) if a.model_returned == "dear")
    assert made[first].model == "good"
    # Questions that were under way beside it are all that the model still answered.
    assert {a.model for a in made[first + 1 :] if a.step != made[first].step} <= (
        {"good", "cheap"} if schema == "notes" else {"cheap"}
    )
    with one.reading() as tx:
        assert [entry.code for entry in store.entries(tx)].count(Code.OVERRUN) == 1
    one.judge()


# Faults that stay


LASTING = (
    "429", "500 and billed", "529", "reset before it was billed", "dropped after it was billed",
    "no usage", "an error in a 200", "prose",
)  # fmt: skip


@pytest.mark.parametrize("name", LASTING)
def test_a_provider_that_always_fails_is_given_up_and_the_next_one_takes_over(
    house: MakeHouse, name: str
) -> None:
    fault = FAULTS[name]
    one = house(**ladder(TWO_PROVIDERS))
    one.llm.misbehave(fault.kind, times=None, **fault.details)
    one.published()
    asked = Counter(model for _, model, _ in one.asked)
    if fault.outcome == "ok":
        # It answers, and is paid for it: the question and its repair.
        steps = {a.step for a in one.attempts}
        assert max(asked["good"], asked["cheap"]) <= 2 * len(steps)
    else:
        # Three failures in a row and a model rests; questions side by side may be under way.
        assert max(asked["good"], asked["cheap"]) <= 3 + len(
            {a.step for a in one.attempts if schema_of(a) == "notes"}
        )
    assert {a.model for a in one.attempts if a.step == "draft-1" and a.outcome == "ok"} >= {"spare"}
    one.judge()


@pytest.mark.parametrize(
    ("name", "schema"),
    [(name, BEFORE_DRAFTING[number % 2]) for number, name in enumerate(LASTING)],
)
def test_where_every_rung_fails_before_drafting_the_run_becomes_a_digest(
    house: MakeHouse, name: str, schema: str
) -> None:
    fault = FAULTS[name]
    one = house()
    one.llm.misbehave(fault.kind, schema=schema, times=None, **fault.details)
    report = one.once()
    assert (report.outcome, report.kind) == (RunOutcome.PUBLISHED, journal.DIGEST), report.reason
    assert "draft" not in {asked.schema for asked in one.llm.requests}
    one.judge()


# Nobody there


@contextmanager
def slammed_door(*, reset: bool) -> Iterator[str]:
    """Takes each connection and ends it without reading a byte; with RST or FIN."""
    linger = struct.pack("ii", 1, 0)
    with socket.create_server(("127.0.0.1", 0)) as door:

        def slam() -> None:
            while True:
                try:
                    visitor, _ = door.accept()
                except OSError:
                    return
                if reset:
                    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                visitor.close()

        thread = threading.Thread(target=slam, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        door.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@contextmanager
def silence() -> Iterator[str]:
    """Takes each connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as wall:
        yield f"http://127.0.0.1:{wall.getsockname()[1]}"


@pytest.mark.parametrize("reset", [True, False], ids=["RST", "FIN"])
def test_a_connection_that_ends_before_the_request_was_read_is_unknown(
    house: MakeHouse, reset: bool
) -> None:
    with slammed_door(reset=reset) as url:
        one = house(Deaf(), url, **ladder(TWO_PROVIDERS))
        one.published()
        first = [a for a in one.attempts if a.provider == "llm"]
        # Our side cannot tell it from a request that was read, and so it stays held; but an RST
        # may also come so early that there never was a connection.
        allowed = {"unknown", "unsent"} if reset else {"unknown"}
        assert {a.outcome for a in first} <= allowed
        assert {a.http_status for a in first} == {None}
        one.judge()


def test_an_endpoint_that_takes_the_connection_and_says_nothing_is_unknown(
    house: MakeHouse,
) -> None:
    options = "llm/good=timeout:1.5;llm/cheap=timeout:1.5"
    with silence() as url:
        one = house(Deaf(), url, PENSTOCK_MODEL_OPTIONS=options, **ladder(TWO_PROVIDERS))
        one.published()
        first = [a for a in one.attempts if a.provider == "llm"]
        # A machine with much to do may not get as far as a connection in that time.
        taken = [a for a in first if "ConnectTimeout" not in a.error]
        assert {(a.outcome, a.http_status) for a in taken} == {("unknown", None)}
        assert all("no answer in 1.5 s" in a.error for a in taken)
        assert len(first) <= 2 * (3 + 5)
        one.judge()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def judge_unsent(one: House, *words: str) -> None:
    """Nothing reached the first provider, nothing is booked or held for it, and nobody insisted."""
    first = [a for a in one.attempts if a.provider == "llm"]
    assert first
    assert {(a.outcome, a.http_status, a.cost_micro) for a in first} == {("unsent", None, 0)}
    for word in words:
        assert all(word in a.error for a in first), first[0].error
    assert not one.llm.requests
    assert not one.llm.bill
    # Three tries at the first question; then the breaker lets the whole provider rest.
    assert len(first) == 3
    assert max(one.clock.waits) <= 60
    with one.reading() as tx:
        assert store.balance(tx).held.micro == 0
        assert store.account_balance(tx, "inference:llm").micro == 0
    one.judge()


def test_a_port_where_nobody_listens_is_unsent_and_the_next_provider_takes_over(
    house: MakeHouse,
) -> None:
    one = house(None, closed_port(), **ladder(TWO_PROVIDERS))
    one.published()
    judge_unsent(one, "ConnectError")


def test_a_name_that_does_not_resolve_is_unsent_soon_and_the_next_provider_takes_over(
    house: MakeHouse,
) -> None:
    one = house(None, "https://no-such-host.invalid", **ladder(TWO_PROVIDERS))
    begun = time.monotonic()
    one.published()
    # A resolver may itself be slow to say no; a try for a connection is bounded at ten seconds.
    assert time.monotonic() - begun < 120
    judge_unsent(one)


# Certificates


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that only these tests trust."""

    folder: Path
    key: Any
    certificate: Any

    @classmethod
    def made(cls, folder: Path) -> Authority:
        key, certificate = _certificate("Penstock test authority", None, None, is_authority=True)
        return cls(folder, key, certificate)

    @property
    def bundle(self) -> Path:
        """The authority's own certificate, as clients that trust it have it."""
        return _written(self.folder / "authority.pem", self.certificate)

    def context(self, host: str, *, signed: bool = True, days: int = 30) -> ssl.SSLContext:
        """What a server for this host presents; of negative days, it has expired."""
        issuer = (self.key, self.certificate) if signed else (None, None)
        key, certificate = _certificate(host, *issuer, days=days)
        name = f"{host}-{signed}-{days}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            _written(self.folder / f"{name}.pem", certificate),
            _written_key(self.folder / f"{name}.key", key),
        )
        return context


def _certificate(
    name: str, issuer_key: Any, issuer: Any, *, days: int = 30, is_authority: bool = False
) -> tuple[Any, Any]:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    try:
        host: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        host = x509.DNSName(name.replace(" ", "-"))
    ends = datetime.now(UTC) + timedelta(days=days)
    signer = issuer_key or key
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=is_authority,
        crl_sign=is_authority, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=60))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, hashes.SHA256())
    )
    return key, made


def _written(path: Path, certificate: Any) -> Path:
    from cryptography.hazmat.primitives.serialization import Encoding

    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path


def _written_key(path: Path, key: Any) -> Path:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """An authority that this machine trusts beside the public ones, for the length of a test."""
    pytest.importorskip("cryptography", reason="NOT RUN: certificates, since cryptography is gone")
    made = Authority.made(tmp_path)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(certifi.where()).read_bytes() + made.bundle.read_bytes())
    monkeypatch.setattr(certifi, "where", lambda: str(trusted))
    # One context serves every client of a process, so it is made anew here and for the next test.
    trust.context.cache_clear()
    yield made
    trust.context.cache_clear()


def test_an_endpoint_with_a_right_certificate_is_paid_over_tls(
    house: MakeHouse, authority: Authority
) -> None:
    one = house(tls=authority.context("127.0.0.1"))
    assert one.llm_url.startswith("https://")
    one.published()
    assert {a.outcome for a in one.attempts} == {"ok"}
    one.judge()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nobody signed it": ({"host": "127.0.0.1", "signed": False}, "self-signed certificate"),
    "for another host": ({"host": "api.example.org"}, "IP address mismatch"),
    "for another address": ({"host": "127.0.0.2"}, "IP address mismatch"),
    "expired": ({"host": "127.0.0.1", "days": -1}, "certificate has expired"),
    "not valid yet": ({"host": "127.0.0.1", "days": 90}, "certificate is not yet valid"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_certificate_is_unsent_and_the_next_provider_takes_over(
    house: MakeHouse, authority: Authority, name: str
) -> None:
    certificate, words = WRONG[name]
    one = house(tls=authority.context(**certificate), **ladder(TWO_PROVIDERS))
    one.published()
    # Who may not be whom we pay has not seen our key either.
    judge_unsent(one, "ConnectError", words)


def test_an_endpoint_without_tls_where_it_is_expected_is_unsent(house: MakeHouse) -> None:
    with serve(provider()) as plain:
        url = plain.url.replace("http://", "https://")
        one = house(None, url, **ladder(TWO_PROVIDERS))
        one.published()
        judge_unsent(one, "ConnectError")


# Waiting


WAITS: dict[str | None, list[float]] = {
    None: [2, 4],
    "0": [0, 0],
    "0.25": [0.25, 0.25],
    "7": [7, 7],
    "60": [60, 60],
    "61": [60, 60],
    "1000000000": [60, 60],
    "1e309": [60, 60],
    "-5": [2, 4],
    "-1e309": [2, 4],
    "nan": [2, 4],
    "soon": [2, 4],
    "": [2, 4],
    "6m0s": [2, 4],
    "Fri, 01 Jan 2027 00:00:00 GMT": [2, 4],
}


@pytest.mark.parametrize("first", range(0, len(WAITS), 3))
def test_a_rate_limit_is_waited_out_as_asked_but_never_longer_than_a_minute(
    house: MakeHouse, first: int
) -> None:
    one = house()
    some = dict(zip(("plan", "draft", "review"), list(WAITS)[first : first + 3], strict=True))
    for schema, header in some.items():
        one.llm.misbehave("status", code=429, retry_after=header, schema=schema, times=2)
    one.published()
    assert one.clock.waits == [wait for header in some.values() for wait in WAITS[header]]
    for schema in some:
        tries = [(a.model, a.outcome) for a in one.attempts if schema_of(a) == schema][:3]
        assert tries == [("good", "refused"), ("good", "refused"), ("good", "ok")]
    one.judge()


@pytest.mark.parametrize("retry_after", [None, "0", "1000000000"])
def test_a_rate_limit_that_stays_is_tried_three_times_and_then_left_alone(
    house: MakeHouse, retry_after: str | None
) -> None:
    one = house()
    one.llm.misbehave("status", code=429, retry_after=retry_after, model="good", times=None)
    one.published()
    assert [schema for _, model, schema in one.asked if model == "good"] == ["plan"] * 3
    assert len(one.clock.waits) == 2
    one.judge()


# An account that is used up


def _quota(message: str, kind: str = "", code: Any = None, **metadata: str) -> dict[str, Any]:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return {"error": error | ({"metadata": metadata} if metadata else {})}


USED_UP: dict[str, tuple[int, Any]] = {
    "402": (402, None),
    "DeepSeek": (402, _quota("Insufficient Balance", "unknown_error", "invalid_request_error")),
    "OpenAI": (
        429,
        _quota(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota", "insufficient_quota",
        ),
    ),
    "OpenAI, only the type says so": (429, _quota("Too many.", "insufficient_quota")),
    "OpenAI, only the code says so": (429, _quota("Too many.", code="insufficient_quota")),
    "OpenRouter, credits": (
        402,
        _quota("Insufficient credits.", code=402, limit_source="openrouter_credits"),
    ),
    "OpenRouter, key limit": (
        402,
        _quota("Key limit exceeded.", code=402, limit_source="openrouter_key_limit"),
    ),
    "OpenRouter, credits in a 429": (
        429,
        _quota("Rate limit exceeded", code=429, limit_source="openrouter_credits"),
    ),
    "OpenRouter, free models": (
        429,
        _quota("Rate limit exceeded: free-models-per-day. Add 10 credits.", code=429),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", USED_UP)
def test_a_provider_whose_account_is_used_up_is_asked_once_and_rests(
    house: MakeHouse, name: str
) -> None:
    code, body = USED_UP[name]
    one = house(**ladder(TWO_PROVIDERS))
    one.llm.misbehave("status", code=code, body=body, retry_after="1", times=None)
    one.published()
    # Neither again, nor with its other model, nor for another question: waiting pays no bill.
    assert [(model, schema) for name, model, schema in one.asked if name == "llm"] == [
        ("good", "plan")
    ]
    assert one.clock.waits == []
    one.judge()


@pytest.mark.parametrize("name", ["OpenRouter, credits", "OpenRouter, free models"])
def test_an_account_that_is_filled_again_is_asked_after_a_rest_by_the_same_process(
    tmp_path: Path, name: str
) -> None:
    stage = Stage(tmp_path, **ladder("llm/good"))
    stage.deposit("5")
    code, body = USED_UP[name]
    stage.model.misbehave("status", code=code, body=body)

    found: list[tuple[RunOutcome, bool]] = []

    async def live() -> None:
        async with opened_parts(stage.settings, database, Silent(), stage.world()) as parts:
            for topic in TOPICS[:3]:
                report = await parts.cycle.once(topic=topic)
                found.append((report.outcome, len(stage.model.requests) > 1))
                await parts.clock.sleep(0.6 * breaker.REST.total_seconds())

    with opened_for_work(stage.settings.location) as database:
        stage.time.run(live())
    # The first is refused, the second comes within the rest, the third is the probe.
    failed, published = (RunOutcome.FAILED, False), (RunOutcome.PUBLISHED, True)
    assert found == [failed, failed, published]
    stage.judge()


def test_a_budget_that_is_only_in_flight_is_waited_for(house: MakeHouse) -> None:
    # OpenRouter holds money for what is under way, too, and says when some of it is free again.
    one = house(**ladder(TWO_PROVIDERS))
    body = _quota(
        "In-flight budget exhausted", code=402, limit_source="openrouter_in_flight_budget",
        reason="in_flight_budget_exhausted",
    )  # fmt: skip
    one.llm.misbehave("status", code=402, body=body, retry_after="3", schema="plan")
    one.published()
    plans = [(a.model, a.outcome) for a in one.attempts if a.step == "plan"]
    assert plans == [("good", "refused"), ("good", "ok")]
    assert one.clock.waits == [3]
    one.judge()


def test_a_throttle_that_links_to_a_page_about_quotas_is_waited_out(house: MakeHouse) -> None:
    # As Azure says it, for a limit on tokens a minute.
    said = (
        "Requests to the ChatCompletions_Create Operation have exceeded the token rate limit of"
        " your current pricing tier. Please retry after 6 seconds. Please go here:"
        " https://aka.ms/oai/quotaincrease to further increase the default rate limit."
    )
    one = house(**ladder(TWO_PROVIDERS))
    one.llm.misbehave(
        "status", code=429, body=_quota(said, code="429"), retry_after="6", schema="plan"
    )
    one.published()
    assert [a.model for a in one.attempts if a.step == "plan"] == ["good", "good"]
    assert one.clock.waits == [6]
    one.judge()


def test_a_spend_limit_that_is_reached_is_not_waited_out(house: MakeHouse) -> None:
    # As Anthropic says it: a 429 without Retry-After.
    details = {"error_code": "enforced_spend_limit_reached"}
    error = {"type": "rate_limit_error", "message": "Spend limit reached.", "details": details}
    one = house(**ladder(TWO_PROVIDERS))
    one.llm.misbehave("status", code=429, body={"type": "error", "error": error}, times=None)
    one.published()
    assert [asked for asked in one.asked if asked[0] == "llm"] == [("llm", "good", "plan")]
    one.judge()


def test_a_question_that_is_refused_for_itself_teaches_nothing_about_formats(
    house: MakeHouse,
) -> None:
    said = "This request was rejected by our content policy."
    one = house()
    one.llm.misbehave(
        "status", code=400, body=_quota(said, "invalid_request_error", "content_policy_violation"),
        schema="plan", model="good", times=None,
    )  # fmt: skip
    one.published()
    later = [a for a in one.llm.requests if a.model == "good" and a.schema != "plan"]
    assert {manner(asked) for asked in later} == {("json_schema", False)}
    one.judge()


@pytest.mark.parametrize("code", [402, 429])
def test_an_account_used_up_amid_questions_side_by_side_costs_one_refusal_each_at_most(
    house: MakeHouse, code: int
) -> None:
    one = house(**ladder(TWO_PROVIDERS))
    body = _quota("Gone.", "insufficient_quota", "insufficient_quota")
    one.llm.misbehave("status", code=code, body=body, schema="notes", times=None)
    one.published()
    refused = Counter(a.step for a in one.attempts if a.outcome == "refused")
    assert refused
    assert max(refused.values()) == 1
    assert "draft" not in {asked.schema for asked in one.llm.requests}
    one.judge()


# What is learnt of a model


def wants_other_limit_field(model: ModelDouble) -> None:
    model.misbehave("max_completion_tokens", times=None)


def wants_no_schema(model: ModelDouble) -> None:
    model.misbehave("no_json_schema", times=None)


def wants_text(model: ModelDouble) -> None:
    model.misbehave("no_json_schema", times=None)
    model.misbehave("no_json_object", times=None)


def wants_everything_else(model: ModelDouble) -> None:
    wants_text(model)
    wants_other_limit_field(model)


LEARNT: dict[str, tuple[Callable[[ModelDouble], None], list[tuple[str, bool]]]] = {
    "the limit's name": (wants_other_limit_field, [("json_schema", False), ("json_schema", True)]),
    "JSON without a schema": (wants_no_schema, [("json_schema", False), ("json_object", False)]),
    "plain text": (
        wants_text, [("json_schema", False), ("json_object", False), ("text", False)],
    ),
}  # fmt: skip


def manner(asked: Asked) -> tuple[str, bool]:
    """The answer format, and whether the limit goes by its newer name."""
    assert ("max_tokens" in asked.fields) != ("max_completion_tokens" in asked.fields)
    return asked.format, "max_completion_tokens" in asked.fields


@pytest.mark.parametrize("name", LEARNT)
def test_what_a_model_does_not_take_is_learnt_from_its_refusal_and_kept_for_the_run(
    house: MakeHouse, name: str
) -> None:
    arrange, manners = LEARNT[name]
    one = house()
    arrange(one.llm)
    one.published()
    good = [asked for asked in one.llm.requests if asked.model == "good"]
    assert [manner(asked) for asked in good[: len(manners)]] == manners
    assert {manner(asked) for asked in good[len(manners) :]} == {manners[-1]}
    assert {asked.schema for asked in good} == set(SCHEMAS)
    refused = [a for a in one.attempts if a.outcome == "refused" and a.model == "good"]
    assert [(a.step, a.http_status, a.cost_micro) for a in refused] == [("plan", 400, 0)] * (
        len(manners) - 1
    )
    assert one.clock.waits == []
    one.judge()


def test_a_model_that_takes_nothing_of_what_is_usual_is_still_asked_well(house: MakeHouse) -> None:
    one = house()
    wants_everything_else(one.llm)
    one.published()
    good = [asked for asked in one.llm.requests if asked.model == "good"]
    refused = [a for a in one.attempts if a.outcome == "refused" and a.model == "good"]
    assert [a.step for a in refused] == ["plan"] * 3
    assert {manner(asked) for asked in good[3:]} == {("text", True)}
    one.judge()


def test_what_one_model_does_not_take_is_not_held_against_another(house: MakeHouse) -> None:
    one = house(PENSTOCK_MODELS_WRITE="llm/cheap > digest")
    one.llm.misbehave("max_completion_tokens", model="good", times=None)
    one.llm.misbehave("no_json_schema", model="good", times=None)
    one.published()
    drafts = {manner(asked) for asked in one.llm.requests if asked.schema == "draft"}
    assert drafts == {("json_schema", False)}
    one.judge()


# Answers that do not fit


MISFITS: dict[str, tuple[dict[str, Any] | str, str]] = {
    "plan": ({"angle": "One.", "working_title": "Two"}, "questions: Field required"),
    "notes": ({"claims": [{"statement": "A", "quote": "B"}]}, "claims.0.source: Field required"),
    "draft": ({"title": "", "description": "D", "tags": ["x"], "markdown": "M"}, "title: "),
    "review": ({"verdict": "perhaps", "score": 7}, "verdict: "),
}


@pytest.mark.parametrize("stubborn", [False, True], ids=["once", "always"])
def test_an_answer_that_does_not_fit_is_repaired_once_and_then_counts_as_failed(
    house: MakeHouse, stubborn: bool
) -> None:
    one = house()
    given: list[Asked] = []

    def answer(asked: Asked) -> dict[str, Any] | str:
        earlier = asked.schema in {other.schema for other in given}
        if asked.model == "good" and (stubborn or not earlier):
            given.append(asked)
            return MISFITS[asked.schema][0]
        return author.WRITERS[asked.schema](asked.text)

    one.llm.answers.update(dict.fromkeys(SCHEMAS, answer))
    one.published()
    for schema in SCHEMAS:
        judge_repairs(one, schema, stubborn=stubborn)
    one.judge()


def judge_repairs(one: House, schema: str, *, stubborn: bool) -> None:
    misfit, problem = MISFITS[schema]
    of_good = [a for a in one.llm.requests if (a.model, a.schema) == ("good", schema)]
    repairs = [asked for asked in of_good if "could not be used" in asked.text]
    assert repairs
    for repair in repairs:
        # The question again, word for word, with what was wrong and how the answer began.
        assert sum(repair.text.startswith(asked.text) for asked in of_good) == 2
        assert problem in repair.text
        assert json.dumps(misfit, ensure_ascii=False)[:40] in repair.text
    # Another model is asked afresh: the mistake was not its own.
    of_cheap = [a for a in one.llm.requests if (a.model, a.schema) == ("cheap", schema)]
    assert not any("could not be used" in asked.text for asked in of_cheap)
    steps = {a.step for a in one.attempts if (schema_of(a), a.model) == (schema, "good")}
    tries = [Counter(a.model for a in one.attempts if a.step == step) for step in steps]
    assert tries.count(Counter(good=2, cheap=1) if stubborn else Counter(good=2)) == len(repairs)
    assert len(repairs) == (len(steps) if stubborn else 1)
