"""What nobody knows yet, and how it ends: asked, compared, or charged in full."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import journal
from daemon.inference import attempts
from daemon.inference.billing import Billing
from daemon.inference.port import UsageApi
from daemon.journal import PublicationState, RunOutcome
from daemon.reconcile import Findings
from ledger import audit, store
from ledger.database import Database
from ledger.money import ZERO, MicroCredits
from ledger.rules import Code
from tests.cli_helpers import Desk
from tests.doubles.model import Kind
from tests.doubles.model import UsageApi as Api
from tests.stage import Stage

MakeStage = Callable[..., Stage]
# Outcomes the books cannot know, and which of them leave the answer's name behind.
UNNAMED: tuple[Kind, ...] = ("stall", "reset_after", "drop_after", "cut_after")
NAMED: tuple[Kind, ...] = ("no_usage", "zero_usage", "error_in_200")
LADDER = {"PENSTOCK_MODELS_WRITE": "llm/good > llm/cheap", "PENSTOCK_CALL_TIMEOUT": "30"}


@pytest.fixture
def stage(tmp_path: Path) -> MakeStage:
    made: list[Stage] = []

    def make(usage_api: Api | None = "openrouter", /, **changes: str) -> Stage:
        one = Stage(tmp_path / str(len(made)), **(LADDER | changes))
        one.model.usage_api = usage_api
        one.deposit("5")
        made.append(one)
        return one

    return make


def booked(one: Stage) -> int:
    """What the books say the provider has been paid, in micro-credits."""
    with one.reading() as tx:
        return store.account_balance(tx, "inference:llm").micro


def held(one: Stage) -> int:
    with one.reading() as tx:
        return store.balance(tx).held.micro


def codes(one: Stage, code: Code) -> list[store.Entry]:
    with one.reading() as tx:
        return [entry for entry in store.entries(tx) if entry.code == code]


def unknown(one: Stage) -> list[Any]:
    with one.reading() as tx:
        return [a for a in attempts.recent(tx) if a.outcome == "unknown"]


def sleep(one: Stage, **span: float) -> None:
    one.time.run(one.time.clock.sleep(timedelta(**span).total_seconds()))


def sound(one: Stage) -> None:
    with one.reading() as tx:
        assert audit.check(tx).problems == []


def spoil_a_draft(one: Stage, kind: Kind) -> None:
    one.model.misbehave(kind, schema="draft", model="good")


@pytest.mark.parametrize("kind", [*UNNAMED, *NAMED])
@pytest.mark.parametrize("usage_api", ["openrouter", "new-api"])
def test_what_the_counter_rose_by_ends_the_hold_and_the_books_match_the_bill(
    stage: MakeStage, kind: Kind, usage_api: Api
) -> None:
    one = stage(usage_api)
    one.model.forgets_answers = True
    # Somebody used the key before us: the first reading only notes that.
    one.model.used_before = 123_456_789
    assert one.reconcile().providers[0].note.startswith("noted where its counter stands")
    spoil_a_draft(one, kind)
    one.once()
    assert held(one) > 0
    assert booked(one) < one.model.billed_micro
    found = one.reconcile()
    assert booked(one) == one.model.billed_micro
    assert held(one) == 0
    assert [hold.state for hold in found.holds] == ["settled"]
    assert not found.unconfirmed
    assert not found.failed
    assert codes(one, Code.CORRECTION) == []
    (attempt,) = unknown(one)
    assert attempt.cost_micro == found.holds[0].cost.micro  # type: ignore[union-attr]
    sound(one)


def test_a_request_the_provider_never_counted_is_given_back(stage: MakeStage) -> None:
    one = stage()
    one.reconcile()
    spoil_a_draft(one, "reset_before")
    one.once()
    before = booked(one)
    assert held(one) > 0
    found = one.reconcile()
    assert [(hold.state, hold.cost) for hold in found.holds] == [("voided", ZERO)]
    assert (booked(one), held(one)) == (before, 0)
    assert booked(one) == one.model.billed_micro
    sound(one)


@pytest.mark.parametrize("kind", NAMED)
def test_an_answer_with_a_name_is_looked_up_even_before_a_first_reading(
    stage: MakeStage, kind: Kind
) -> None:
    one = stage()
    spoil_a_draft(one, kind)
    one.once()
    found = one.reconcile()
    assert [hold.state for hold in found.holds] == ["settled"]
    assert "chatcmpl-" in found.holds[0].why
    assert booked(one) == one.model.billed_micro
    assert held(one) == 0
    sound(one)


def test_reconciling_twice_books_nothing_twice(stage: MakeStage) -> None:
    one = stage()
    one.reconcile()
    one.once()
    one.model.charge(7_777)
    first = one.reconcile()
    assert first.providers[0].corrected.micro == 7_777
    with one.reading() as tx:
        entries = list(store.entries(tx))
    again = one.reconcile()
    assert again.providers[0].corrected == ZERO
    with one.reading() as tx:
        assert list(store.entries(tx)) == entries
    (correction,) = codes(one, Code.CORRECTION)
    assert (correction.debit, correction.credit) == ("inference:llm", "treasury")
    assert correction.amount.micro == 7_777
    assert booked(one) == one.model.billed_micro


def test_an_expired_charge_is_given_back_when_the_counter_shows_it_was_none(
    stage: MakeStage,
) -> None:
    one = stage()
    one.reconcile()
    spoil_a_draft(one, "reset_before")
    one.once()
    sleep(one, hours=25)
    one.model.misbehave("status", code=400, times=None)
    one.once()  # the next start charges what is a day old
    (uncertain,) = codes(one, Code.UNCERTAIN)
    assert booked(one) == one.model.billed_micro + uncertain.amount.micro
    found = one.reconcile()
    assert found.providers[0].corrected == -uncertain.amount
    assert booked(one) == one.model.billed_micro
    with one.reading() as tx:
        # What came back makes no room under a cap.
        spent = store.spent(tx, since=one.time.clock.now() - timedelta(days=1))
    assert spent >= uncertain.amount
    sound(one)


def test_an_expired_charge_is_corrected_by_its_answer_once(stage: MakeStage) -> None:
    one = stage()
    one.model.usage_api = None
    spoil_a_draft(one, "no_usage")
    one.once()
    sleep(one, hours=25)
    assert [hold.state for hold in one.reconcile().holds] == ["uncertain"]
    (uncertain,) = codes(one, Code.UNCERTAIN)
    one.model.usage_api = "openrouter"
    found = one.reconcile()
    assert [hold.state for hold in found.holds] == ["corrected"]
    (correction,) = codes(one, Code.CORRECTION)
    assert correction.corrects == uncertain.id
    assert correction.attempt == uncertain.attempt
    assert booked(one) == one.model.billed_micro
    assert one.reconcile().holds == []
    assert booked(one) == one.model.billed_micro
    sound(one)


def expired(one: Stage) -> store.Entry:
    """The charge in full of an answer that the provider can be asked about from now on."""
    one.model.usage_api = None
    spoil_a_draft(one, "no_usage")
    one.once()
    sleep(one, hours=25)
    one.reconcile()
    one.model.usage_api = "openrouter"
    (uncertain,) = codes(one, Code.UNCERTAIN)
    return uncertain


def adjust(one: Stage, amount: MicroCredits, *, corrects: str, ref: str) -> None:
    """As a person does, beside whatever is under way."""
    desk = Desk(one.outbox.parent / "desk", {"PENSTOCK_STATE_DIR": str(one.outbox.parent)})
    done = desk.run(
        "ledger", "adjust", str(amount), "--ref", ref, "--memo", "the bill", "--corrects", corrects
    )
    assert done.code == 0, done.said


def test_what_a_person_corrects_while_the_provider_is_asked_is_not_booked_twice(
    stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage()
    uncertain = expired(one)
    asked = Billing.cost_of

    async def cost_of(self: Billing, remote_id: str) -> MicroCredits | None:
        cost = await asked(self, remote_id)
        adjust(one, MicroCredits(1000), corrects=uncertain.id, ref="bill")
        return cost

    monkeypatch.setattr(Billing, "cost_of", cost_of)
    one.reconcile()
    assert booked(one) == one.model.billed_micro
    with one.reading() as tx:
        assert attempts.disagreements(tx) == []
    sound(one)


def test_a_correction_for_which_there_is_no_room_stops_no_other_piece_of_work(
    stage: MakeStage,
) -> None:
    one = stage()
    uncertain = expired(one)
    half = MicroCredits(uncertain.amount.micro // 2)
    adjust(one, half, corrects=uncertain.id, ref="a")
    adjust(one, -half, corrects="adjustment:a", ref="b")
    found = one.reconcile()
    (hold,) = found.holds
    assert (hold.state, hold.cost) == ("refused", uncertain.amount)
    assert "ledger adjust" in hold.why
    assert found.providers[0].note.startswith("noted where its counter stands")
    with one.reading() as tx:
        assert attempts.disagreements(tx) == []
    sound(one)


@pytest.mark.parametrize("hours", ["24", "2"])
def test_a_hold_nobody_can_tell_about_is_charged_in_full_when_its_time_has_come(
    stage: MakeStage, hours: str
) -> None:
    one = stage(None, PENSTOCK_HOLD_EXPIRY=hours)
    spoil_a_draft(one, "stall")
    one.once()
    claimed = held(one)
    before = booked(one)
    found = one.reconcile()
    assert [hold.state for hold in found.holds] == ["pending"]
    assert found.unconfirmed
    assert held(one) == claimed
    sleep(one, hours=int(hours))
    found = one.reconcile()
    assert [(h.state, h.cost.micro if h.cost else 0) for h in found.holds] == [
        ("uncertain", claimed)
    ]
    assert not found.unconfirmed
    assert (booked(one), held(one)) == (before + claimed, 0)
    (entry,) = codes(one, Code.UNCERTAIN)
    assert entry.amount.micro == claimed
    assert booked(one) >= one.model.billed_micro
    sound(one)


def test_an_expiry_of_zero_waits_for_reconcile_and_asks_first(stage: MakeStage) -> None:
    one = stage(PENSTOCK_HOLD_EXPIRY="0")
    one.reconcile()
    spoil_a_draft(one, "stall")
    one.once()
    one.model.misbehave("status", code=400, times=None)
    sleep(one, hours=30)
    one.once()
    assert held(one) > 0, "`once` charges nothing that `reconcile` could still ask about"
    one.reconcile()
    assert codes(one, Code.UNCERTAIN) == []
    assert booked(one) == one.model.billed_micro


def test_an_expiry_of_zero_charges_at_once_where_nobody_can_be_asked(stage: MakeStage) -> None:
    one = stage(None, PENSTOCK_HOLD_EXPIRY="0")
    spoil_a_draft(one, "stall")
    one.once()
    claimed = held(one)
    assert [hold.state for hold in one.reconcile().holds] == ["uncertain"]
    assert codes(one, Code.UNCERTAIN)[0].amount.micro == claimed


def test_a_first_reading_waits_until_no_older_request_is_held(stage: MakeStage) -> None:
    # Else the charge would come after a reading that has it already, and be given back wrongly.
    one = stage()
    spoil_a_draft(one, "stall")
    one.once()
    found = one.reconcile()
    assert "once no request from before is held" in found.providers[0].note
    assert found.unconfirmed
    sleep(one, hours=25)
    one.reconcile()
    assert held(one) == 0
    for _ in range(2):
        one.reconcile()
    assert booked(one) >= one.model.billed_micro
    assert codes(one, Code.CORRECTION) == []


def test_a_provider_that_does_not_answer_leaves_everything_as_it_is(stage: MakeStage) -> None:
    one = stage()
    one.reconcile()
    spoil_a_draft(one, "stall")
    one.once()
    one.model.usage_status = 503
    before = (booked(one), held(one))
    found = one.reconcile()
    assert found.failed
    assert found.unconfirmed
    assert "503" in found.providers[0].error
    assert (booked(one), held(one)) == before
    one.model.usage_status = 200
    assert not one.reconcile().unconfirmed
    assert booked(one) == one.model.billed_micro


def test_a_new_key_or_a_counter_that_went_back_begins_anew(stage: MakeStage) -> None:
    one = stage()
    one.model.used_before = 50_000_000
    one.reconcile()
    one.once()
    one.model.used_before = 0  # as after the key was made anew
    sleep(one, hours=49)
    found = one.reconcile()
    assert found.providers[0].note.startswith("noted where its counter stands")
    assert codes(one, Code.CORRECTION) == []
    assert booked(one) == one.model.billed_micro
    one.model.charge(10)
    assert one.reconcile().providers[0].corrected.micro == 10


def test_one_answer_that_cannot_be_looked_up_keeps_nobody_from_the_others(
    stage: MakeStage,
) -> None:
    one = stage()
    one.reconcile()
    for schema in ("draft", "review"):
        one.model.misbehave("no_usage", schema=schema, model="good")
    one.once()
    with one.reading() as tx:
        first, second = attempts.unknown_open(tx)
    one.model.chokes_on = first.remote_id
    found = one.reconcile()
    # The counter ends what could not be asked about.
    assert {hold.attempt: hold.state for hold in found.holds} == {
        first.id: "settled", second.id: "settled",
    }  # fmt: skip
    assert found.failed
    assert "503" in found.providers[0].error
    assert booked(one) == one.model.billed_micro
    one.model.chokes_on = None
    assert not one.reconcile().failed
    sound(one)


@pytest.mark.parametrize("api", ["openrouter", "new-api"])
def test_a_counter_that_was_read_behind_itself_is_waited_for(stage: MakeStage, api: Api) -> None:
    one = stage(api)
    one.reconcile()
    one.once()
    one.reconcile()
    corrections = codes(one, Code.CORRECTION)
    behind = one.model.billed_micro // 2
    one.model.used_before -= behind
    for _ in range(2):
        found = one.reconcile()
        assert "it stands lower than" in found.providers[0].note
        assert not found.failed
        sleep(one, hours=12)
    one.model.used_before += behind
    assert one.reconcile().providers[0].corrected == ZERO
    assert codes(one, Code.CORRECTION) == corrections
    assert booked(one) == one.model.billed_micro
    sound(one)


def test_what_new_api_rounds_each_answer_to_is_what_is_booked(stage: MakeStage) -> None:
    one = stage("new-api")
    one.reconcile()
    one.once()
    listed = sum(charge.listed for charge in one.model.bill)
    assert booked(one) == listed != one.model.billed_micro
    found = one.reconcile()
    assert booked(one) == one.model.billed_micro
    assert found.providers[0].corrected.micro == one.model.billed_micro - listed
    sound(one)


def billed_anew(one: Stage) -> None:
    """From here on the counter and the books move by the same, and that is seen."""
    before = booked(one)
    one.once()
    bought = booked(one) - before
    one.model.charge(10)
    assert one.reconcile().providers[0].corrected.micro == 10
    assert booked(one) == before + bought + 10
    assert one.reconcile().providers[0].corrected == ZERO
    sound(one)


@pytest.mark.parametrize("anew", [False, True])
def test_a_person_corrects_what_was_booked_before_a_counter_was_first_read(
    stage: MakeStage, anew: bool
) -> None:
    one = stage()
    one.model.forgets_answers = True
    if anew:
        one.model.used_before = 50_000_000
        one.reconcile()
        one.model.used_before = 0  # as after the key was made anew
        sleep(one, hours=49)
    uncertain = expired(one)
    assert one.reconcile().providers[0].note.startswith("noted where its counter stands")
    before = booked(one)
    adjust(one, MicroCredits(1000), corrects=uncertain.id, ref="less")
    assert one.reconcile().providers[0].corrected == ZERO
    adjust(one, MicroCredits(-300), corrects="adjustment:less", ref="not so much less")
    assert one.reconcile().providers[0].corrected == ZERO
    assert booked(one) == before - 700
    adjust(one, MicroCredits(-5000), corrects=uncertain.id, ref="more")
    billed_anew(one)
    assert codes(one, Code.CORRECTION)[-1].amount == MicroCredits(10)


def test_an_answer_tells_its_cost_only_after_a_counter_was_first_read(stage: MakeStage) -> None:
    one = stage()
    expired(one)
    one.model.forgets_answers = True
    one.reconcile()
    assert booked(one) > one.model.billed_micro
    one.model.forgets_answers = False
    assert [hold.state for hold in one.reconcile().holds] == ["corrected"]
    assert booked(one) == one.model.billed_micro
    billed_anew(one)
    assert booked(one) == one.model.billed_micro


@pytest.mark.parametrize("anew", [False, True])
def test_what_was_compared_is_the_bill_whoever_corrects_a_part_of_it(
    stage: MakeStage, anew: bool
) -> None:
    one = stage()
    one.reconcile()
    spoil_a_draft(one, "reset_before")
    one.once()
    sleep(one, hours=25)
    one.model.misbehave("status", code=400)
    one.once()  # the next start charges what is a day old
    (uncertain,) = codes(one, Code.UNCERTAIN)
    assert one.reconcile().providers[0].corrected == -uncertain.amount
    assert booked(one) == one.model.billed_micro
    if anew:
        one.model.used_before = -one.model.billed_micro
        sleep(one, hours=49)
        assert one.reconcile().providers[0].note.startswith("noted where its counter stands")
    # The counter gave it back already, of no entry in particular.
    adjust(one, uncertain.amount, corrects=uncertain.id, ref="twice")
    sleep(one, seconds=1)
    assert one.reconcile().providers[0].corrected == uncertain.amount
    assert booked(one) == one.model.billed_micro
    sound(one)


def test_a_request_just_made_is_waited_for_until_it_must_be_counted(stage: MakeStage) -> None:
    one = stage()
    one.reconcile()
    one.once()
    ended = one.time.clock.now()
    one.reconcile()
    waited = one.time.clock.now() - ended
    assert timedelta(seconds=55) < waited <= timedelta(seconds=61)
    again = one.time.clock.now()
    one.reconcile()
    assert one.time.clock.now() - again < timedelta(seconds=1)


def test_a_provider_told_not_to_be_asked_is_not_asked(stage: MakeStage) -> None:
    one = stage(PENSTOCK_PROVIDER_LLM_USAGE="none")
    assert one.settings.endpoints["llm"].usage_api is UsageApi.NONE
    one.once()
    found = one.reconcile()
    assert found.providers[0].api is None
    assert one.model.usage_requests == []


def test_two_providers_with_one_key_are_not_compared(stage: MakeStage) -> None:
    one = stage(
        PENSTOCK_PROVIDERS="llm,again",
        PENSTOCK_PROVIDER_AGAIN_URL="https://llm.test/v1",
        PENSTOCK_PROVIDER_AGAIN_KEY="test-key",
    )
    one.once()
    found = one.reconcile()
    assert all("the same key" in provider.note for provider in found.providers)
    assert codes(one, Code.CORRECTION) == []


def test_a_restored_backup_learns_what_was_spent_since(stage: MakeStage, tmp_path: Path) -> None:
    one = stage()
    one.reconcile()
    path = Path(one.settings.location.state_dir) / "penstock.db"
    old = path.read_bytes()
    one.once()
    spent = booked(one)
    assert spent == one.model.billed_micro > 0
    for file in path.parent.glob("penstock.db*"):
        file.unlink()
    path.write_bytes(old)
    assert booked(one) == 0
    found = one.reconcile()
    assert found.providers[0].corrected.micro == spent
    assert booked(one) == one.model.billed_micro
    sound(one)


@settings(max_examples=12, deadline=None)
@given(
    spoiled=st.lists(
        st.tuples(st.sampled_from([*UNNAMED, *NAMED, "reset_before"]), st.integers(0, 6)),
        max_size=4,
    ),
    strange=st.integers(0, 50_000),
    forgets=st.booleans(),
)
def test_whatever_went_wrong_the_books_end_at_the_bill(
    tmp_path_factory: pytest.TempPathFactory,
    spoiled: list[tuple[Kind, int]],
    strange: int,
    forgets: bool,
) -> None:
    one = Stage(tmp_path_factory.mktemp("any"), **LADDER)
    one.model.usage_api = "openrouter"
    one.model.forgets_answers = forgets
    one.deposit("5")
    one.reconcile()
    for kind, after in spoiled:
        one.model.misbehave(kind, after=after)
    one.once()
    if strange:
        one.model.charge(strange)
    found: Findings = one.reconcile()
    assert booked(one) == one.model.billed_micro
    assert held(one) == 0
    assert not found.unconfirmed
    sound(one)


def doubt(one: Stage, run: str) -> None:
    """As if the process had died between the effect and its receipt."""
    with closing(Database(one.settings.location.database_url)) as database, database.write() as tx:
        journal.change_publication(
            tx, run, "outbox", state=PublicationState.UNCONFIRMED, url=None, remote_id=None,
            published_at=None, error="no answer",
        )  # fmt: skip
        journal.finish_run(
            tx, run, outcome=RunOutcome.UNCONFIRMED, reason="no answer", at=one.time.clock.now()
        )


def test_a_publication_in_doubt_that_is_there_is_published(stage: MakeStage) -> None:
    one = stage(None)
    run = str(one.once().run)
    doubt(one, run)
    found = one.reconcile()
    assert [row.state for row in found.publications] == [PublicationState.PUBLISHED]
    assert not found.unconfirmed
    with one.reading() as tx:
        row, publication = journal.run(tx, run), journal.publication(tx, run, "outbox")
    assert row is not None
    assert publication is not None
    assert row.outcome == RunOutcome.PUBLISHED
    assert publication.url.endswith(".html")
    assert publication.error is None
    assert publication.published_at is not None


def test_a_publication_in_doubt_that_is_not_there_is_sent_again(stage: MakeStage) -> None:
    one = stage(None)
    run = str(one.once().run)
    (article,) = one.articles()
    doubt(one, run)
    for file in one.outbox.iterdir():
        file.unlink()
    found = one.reconcile()
    assert [row.state for row in found.publications] == [PublicationState.PUBLISHED]
    assert not found.unconfirmed
    assert one.articles() == [article]
    with one.reading() as tx:
        row = journal.run(tx, run)
    assert row is not None
    assert row.outcome == RunOutcome.PUBLISHED


def test_a_publication_in_doubt_that_cannot_be_looked_up_stays_in_doubt(stage: MakeStage) -> None:
    one = stage(None)
    run = str(one.once().run)
    doubt(one, run)
    shutil.rmtree(one.outbox)
    one.outbox.write_text("no folder")
    found = one.reconcile()
    assert [row.state for row in found.publications] == [PublicationState.UNCONFIRMED]
    assert found.unconfirmed
    with one.reading() as tx:
        row = journal.run(tx, run)
    assert row is not None
    assert row.outcome == RunOutcome.UNCONFIRMED


def test_a_counter_that_can_no_longer_be_read_is_an_error(stage: MakeStage) -> None:
    one = stage()
    assert not one.reconcile().failed
    one.model.usage_status = 401
    found = one.reconcile()
    assert found.failed
    assert "is the key still good" in found.providers[0].error
