"""The control state is a fold that can be trusted, and its changes are decided by rules that can be read."""

import asyncio
from collections.abc import Sequence

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.control import (
    OFFSET_HEADER,
    Control,
    command_reply,
    decide,
    owner_place,
    place_of,
    public_key,
    state_made_by,
)
from tollgate.errors import Refusal
from tollgate.events import (
    Action,
    CommandIssued,
    ControlBeat,
    ControlTaken,
    CreateKey,
    Event,
    KeySet,
    Limits,
    RevokeKey,
    UpdateKey,
    encode,
)
from tollgate.log import Record
from tollgate.times import iso

NOW_MS = 1_795_000_000_000
CREATE = CreateKey(key_id="k1", hash="h1", name="first", org_id="acme", limits=Limits(monthly_budget_pusd=5 * 10**12))


def record(offset: int, event: Event | bytes | None, key: str | bytes = "k1") -> Record:
    value = encode(event) if not isinstance(event, bytes | None) else event
    return Record("control", 0, offset, NOW_MS, key.encode() if isinstance(key, str) else key, value)


def issued(action: Action, command_id: str = "c1") -> CommandIssued:
    return CommandIssued(command_id=command_id, actor="admin", action=action)


def obeyed(*actions: Action) -> Control:
    """The control state after these commands, at offsets 0, 1, 2 …, each decided by the rules."""
    control = Control()
    for src, action in enumerate(actions):
        state = decide(control, issued(action, f"c{src}"), src, NOW_MS + src)
        assert isinstance(state, KeySet)
        control.apply(record(src, state, place_of(state.key_id, 1, src)))
    return control


def refused(control: Control, action: Action, src: int = 99) -> Refusal:
    outcome = decide(control, issued(action), src, NOW_MS)
    assert isinstance(outcome, Refusal)
    return outcome


# Decisions -----------------------------------------------------------------------------------------------------------


def test_a_created_key_has_what_was_asked_for_and_where_it_came_from():
    key = obeyed(CREATE).key("k1")
    assert key == KeySet(
        key_id="k1",
        hash="h1",
        name="first",
        org_id="acme",
        limits=Limits(monthly_budget_pusd=5 * 10**12),
        version=1,
        src=0,
        command_id="c0",
        created_ms=NOW_MS,
    )


def test_a_second_key_of_the_same_id_is_refused():
    assert refused(obeyed(CREATE), CREATE).status == 409


def test_a_key_that_would_be_expired_at_birth_is_refused():
    refusal = refused(Control(), CreateKey(key_id="k", hash="h", name="n", org_id="o", expires_ms=NOW_MS))
    assert (refusal.status, refusal.param) == (400, "expires_at")


def test_a_change_replaces_what_it_names_and_leaves_the_rest():
    control = obeyed(CREATE, UpdateKey(key_id="k1", limits=Limits(requests_per_minute=3), expected_version=1))
    key = control.key("k1")
    assert key is not None
    assert (key.name, key.limits, key.version) == ("first", Limits(requests_per_minute=3), 2)


def test_of_two_changes_to_one_version_the_second_is_refused():
    control = obeyed(CREATE, UpdateKey(key_id="k1", name="mine", expected_version=1))
    refusal = refused(control, UpdateKey(key_id="k1", name="yours", expected_version=1))
    assert (refusal.status, refusal.code) == (409, "version_conflict")
    assert "version 2" in refusal.message


def test_a_revoked_key_stays_revoked_from_the_first_time_on():
    control = obeyed(CREATE, RevokeKey(key_id="k1"), RevokeKey(key_id="k1"))
    key = control.key("k1")
    assert key is not None
    assert (key.revoked_ms, key.version) == (NOW_MS + 1, 2)


def test_a_revoked_key_cannot_be_changed():
    assert refused(obeyed(CREATE, RevokeKey(key_id="k1")), UpdateKey(key_id="k1", name="x")).code == "key_revoked"


@pytest.mark.parametrize("action", [UpdateKey(key_id="none", name="x"), RevokeKey(key_id="none")])
def test_what_does_not_exist_can_neither_be_changed_nor_revoked(action: Action):
    assert refused(Control(), action).status == 404


@pytest.mark.parametrize("src", [0, 1])
def test_a_command_delivered_again_is_not_decided_again(src: int):
    control = obeyed(CREATE, UpdateKey(key_id="k1", name="x"))
    assert decide(control, issued(RevokeKey(key_id="k1")), src, NOW_MS) is None


def test_a_decision_changes_nothing_by_itself():
    control = obeyed(CREATE)
    before = control.key("k1")
    decide(control, issued(RevokeKey(key_id="k1")), 9, NOW_MS)
    assert control.key("k1") is before


# The fold ------------------------------------------------------------------------------------------------------------

STATES = [key for actions in ([CREATE], [CREATE, RevokeKey(key_id="k1")]) if (key := obeyed(*actions).key("k1"))]


def test_a_key_whose_newest_state_cannot_be_read_is_unknown():
    control = obeyed(CREATE)
    control.apply(record(1, b'{"type":"key_set.9","revoked":"in some new way"}'))
    assert control.key("k1") is None


def test_a_tombstone_removes_its_key():
    control = obeyed(CREATE)
    control.apply(record(1, None, place_of("k1", 1, 0)))
    assert control.key("k1") is None


def test_a_record_that_comes_again_undoes_nothing():
    control = Control()
    control.apply(record(0, None))
    state = STATES[0]
    assert state is not None
    control.apply(record(1, state))
    control.apply(record(0, None))
    assert control.key("k1") == state
    assert control.offset == 2


def test_a_beat_moves_the_offset_and_nothing_else():
    control = obeyed(CREATE)
    control.apply(record(7, ControlBeat(at_ms=NOW_MS), key="beat"))
    assert control.offset == 8
    assert control.key("k1") is not None


def test_an_older_state_of_a_key_does_not_undo_a_newer_one():
    control = Control()
    for state in reversed(STATES):
        assert state is not None
        control.evolve(state, place_of("k1", 1, state.src))
    key = control.key("k1")
    assert key is not None
    assert key.revoked_ms is not None


actions = st.one_of(
    st.builds(CreateKey, key_id=st.sampled_from("ab"), hash=st.just("h"), name=st.text(), org_id=st.just("o")),
    st.builds(UpdateKey, key_id=st.sampled_from("ab"), name=st.text(), expected_version=st.sampled_from([None, 1, 2])),
    st.builds(RevokeKey, key_id=st.sampled_from("ab")),
)


def story(control: Control, commands: Sequence[Action]) -> list[Record]:
    """What the owner writes for these commands."""
    written = []
    for src, action in enumerate(commands):
        outcome = decide(control, issued(action, f"c{src}"), src, NOW_MS + src)
        if isinstance(outcome, KeySet):
            written.append(record(len(written), outcome, place_of(outcome.key_id, 1, src)))
            control.apply(written[-1])
    return written


@given(st.lists(actions, max_size=20), st.data())
def test_every_reader_comes_to_the_same_state_however_often_it_reads(commands: list[Action], data: st.DataObject):
    owner, reader = Control(), Control()
    written = story(owner, commands)
    for end in data.draw(st.lists(st.integers(0, len(written)), max_size=5)):
        for each in written[:end]:
            reader.apply(each)
    for each in written:
        reader.apply(each)
    assert list(reader.all_keys()) == list(owner.all_keys())
    assert (reader.offset, reader.highest_src) == (owner.offset, owner.highest_src)


@given(st.lists(actions, max_size=20))
def test_what_compaction_leaves_is_enough(commands: list[Action]):
    owner, reader = Control(), Control()
    written = story(owner, commands)
    for place in list(owner.obsolete):
        written.append(record(len(written), None, place))
        owner.apply(written[-1])
    for each in compacted(written):
        reader.apply(each)
    assert {key.key_id: key for key in reader.all_keys()} == {key.key_id: key for key in owner.all_keys()}
    assert (reader.offset, reader.highest_src) == (owner.offset, owner.highest_src)
    assert reader.obsolete == owner.obsolete == set()


def compacted(records: Sequence[Record]) -> list[Record]:
    """What Kafka may leave: the newest record of each key."""
    newest = {each.key: each for each in records}
    return sorted(newest.values(), key=lambda each: each.offset)


@given(st.lists(actions, max_size=20), st.integers(0, 20))
def test_commands_delivered_again_from_any_point_change_nothing(commands: list[Action], restart: int):
    owner = Control()
    story(owner, commands)
    before = list(owner.all_keys())
    for src, action in list(enumerate(commands))[restart:]:
        outcome = decide(owner, issued(action, f"c{src}"), src, NOW_MS + 1000)
        if src <= owner.highest_src:
            assert outcome is None
        else:  # refused the first time, and for the same reasons again
            assert isinstance(outcome, Refusal)
    assert list(owner.all_keys()) == before


# Owners come and go --------------------------------------------------------------------------------------------------


def taken(offset: int, epoch: int) -> Record:
    return record(offset, ControlTaken(epoch=epoch, instance=f"worker-{epoch}"), owner_place(epoch))


def test_what_a_replaced_owner_writes_changes_nothing():
    control = obeyed(CREATE)
    control.apply(taken(1, epoch=5))
    late = msgspec.structs.replace(STATES[1], src=7)
    control.apply(record(2, late, place_of("k1", 1, 7)))
    assert control.key("k1") == STATES[0]
    assert control.highest_src == 0
    assert control.obsolete == {place_of("k1", 1, 7)}


def test_not_even_what_cannot_be_read_of_a_replaced_owner_changes_anything():
    control = obeyed(CREATE)
    control.apply(taken(1, epoch=5))
    control.apply(record(2, b'{"type":"key_set.9"}', place_of("k1", 1, 7)))
    assert control.key("k1") == STATES[0]


def test_a_replaced_owner_cannot_begin_again_under_its_old_epoch():
    control = Control()
    control.apply(taken(0, epoch=5))
    control.apply(taken(1, epoch=3))
    assert control.epoch == 5


def test_states_written_before_there_were_epochs_count_until_an_owner_begins():
    control = Control()
    control.apply(record(0, STATES[0]))
    control.apply(taken(1, epoch=0))
    control.apply(record(2, STATES[1]))
    assert control.key("k1") == STATES[0]


def test_a_state_that_is_replaced_may_be_deleted_and_its_deletion_deletes_no_other():
    control = obeyed(CREATE, RevokeKey(key_id="k1"))
    assert control.obsolete == {place_of("k1", 1, 0)}
    control.apply(record(2, None, place_of("k1", 1, 0)))
    assert control.key("k1") == STATES[1]
    assert control.obsolete == set()


class Site:
    """Owners that follow each other on one topic; those that were replaced go on for a while."""

    def __init__(self) -> None:
        self.topic: list[Record] = []
        self.true = Control()  # what every command has led to, decided by whoever was the owner then
        self.owners: list[tuple[int, Control]] = []
        self.src = 0

    def write(self, key: bytes, event: Event | None) -> None:
        self.topic.append(record(len(self.topic), event, key))

    def follow(self, control: Control) -> None:
        for each in self.topic[control.offset :]:
            control.apply(each)

    def take_over(self) -> None:
        epoch = 10 * (len(self.owners) + 1)
        self.write(owner_place(epoch), ControlTaken(epoch=epoch, instance="w"))
        control = Control()
        for each in compacted(self.topic):
            control.apply(each)
        self.owners.append((epoch, control))

    def command(self, number: int, action: Action) -> None:
        """To an owner, perhaps a former one: what it decides upon is what it knows, which may be old."""
        epoch, control = self.owners[number % len(self.owners)]
        self.src += 1
        valid = epoch == self.owners[-1][0]
        if valid:
            self.follow(control)
        outcome = decide(control, issued(action, f"c{self.src}-{epoch}"), self.src, NOW_MS + self.src)
        if not isinstance(outcome, KeySet):
            return
        place = place_of(outcome.key_id, epoch, self.src)
        self.write(place, outcome)
        if valid:
            self.true.evolve(outcome, place)
            self.follow(control)
            while control.obsolete:
                self.write(control.obsolete.pop(), None)
        else:  # it has decided on the strength of its own words; it dies when it reads them back
            control.evolve(outcome, place)


steps = st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 3), actions)), max_size=30)


@given(steps, st.data())
def test_whatever_replaced_owners_write_and_compaction_drops_every_reader_sees_what_the_owners_decided(
    steps: list[tuple[int, Action] | None], data: st.DataObject
):
    site = Site()
    site.take_over()
    for step in steps:
        if step is None:
            site.take_over()
        else:
            site.command(*step)
    live, late = Control(), Control()
    cut = data.draw(st.integers(0, len(site.topic)))
    for each in (*compacted(site.topic[:cut]), *site.topic[cut:]):
        live.apply(each)
    for each in compacted(site.topic):
        late.apply(each)
    expected = {key.key_id: key for key in site.true.all_keys()}
    assert {key.key_id: key for key in live.all_keys()} == expected
    assert {key.key_id: key for key in late.all_keys()} == expected
    assert live.highest_src == late.highest_src == site.true.highest_src


# Waiting -------------------------------------------------------------------------------------------------------------


async def test_waiting_ends_when_the_offset_is_applied():
    control = Control()
    waiting = asyncio.create_task(control.wait_for(2, timeout_s=5))
    await asyncio.sleep(0)
    for offset in range(2):
        assert not waiting.done()
        control.apply(record(offset, ControlBeat(at_ms=NOW_MS)))
        await asyncio.sleep(0)
    assert await waiting is True


async def test_what_is_applied_already_is_not_waited_for():
    assert await Control().wait_for(0, timeout_s=0) is True


async def test_waiting_gives_up_in_time_and_leaves_nothing_behind():
    control = Control()
    assert await control.wait_for(1, timeout_s=0.001) is False
    assert control._waiting == []


# What is shown -------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_without_its_hash_and_with_exact_money():
    state = KeySet(
        key_id="k1",
        hash="THE-HASH",
        name="first",
        org_id="acme",
        limits=Limits(monthly_budget_pusd=1, requests_per_minute=3),
        expires_ms=NOW_MS + 1,
        version=4,
        src=0,
        command_id="c",
        created_ms=NOW_MS,
    )
    assert public_key(state) == {
        "id": "k1",
        "object": "key",
        "name": "first",
        "organization": "acme",
        "team": None,
        "limits": {"requests_per_minute": 3, "concurrent_requests": None},
        "quota": {"monthly_budget": "0.000000000001"},
        "version": 4,
        "created_at": "2026-11-18T11:06:40.000Z",
        "expires_at": "2026-11-18T11:06:40.001Z",
        "revoked_at": None,
    }
    assert b"THE-HASH" not in command_reply(issued(CREATE), state, epoch=0).body


def test_the_owner_answers_a_command_with_the_key_and_where_it_shows():
    state = obeyed(CREATE).key("k1")
    assert state is not None
    created = command_reply(issued(CREATE), state, epoch=3, control_offset=17)
    assert (created.status, created.last, created.request_id) == (201, True, "c1")
    assert dict(created.headers)[OFFSET_HEADER] == "18"
    assert orjson.loads(created.body)["id"] == "k1"
    assert command_reply(issued(RevokeKey(key_id="k1")), state, epoch=3).status == 200


def test_a_command_whose_answer_was_lost_can_be_answered_while_its_state_stands():
    control = obeyed(CREATE)
    assert state_made_by(control, issued(CREATE, "c0")) == STATES[0]
    assert state_made_by(control, issued(CREATE, "another")) is None
    assert state_made_by(obeyed(CREATE, RevokeKey(key_id="k1")), issued(CREATE, "c0")) is None


def test_the_owner_refuses_in_the_shape_that_clients_read():
    reply = command_reply(issued(CREATE), Refusal(409, "key_exists", "There is one."), epoch=3)
    assert reply.status == 409
    assert orjson.loads(reply.body)["error"]["message"] == "There is one."


def test_times_are_shown_in_utc_to_the_millisecond():
    assert iso(1) == "1970-01-01T00:00:00.001Z"


def test_a_time_of_no_calendar_year_is_shown_as_the_nearest_that_is():
    assert iso(2**63) == "9999-12-31T23:59:59.999Z"
    assert iso(-(2**63)) == "0001-01-01T00:00:00.000Z"
