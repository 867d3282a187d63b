"""The ledger under everything that can happen, in any order, and who comes first."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from iyscheck.client.batching.ledger import Frame, Kinds, Ledger
from iyscheck.errors import ServiceFailedError
from tests.client.batching.ledger_calls import Caller, key_of, served
from tests.dice import often

CAPACITY, LINES, WINDOW = 6, 2, 2


def travels(caller: Caller) -> tuple[object, ...]:
    """What calls of one frame must have in common."""
    *_, message_class, _, min_position, key_id = caller.key
    return (message_class.exempt, min_position, key_id)


class Calls(RuleBasedStateMachine):
    """A ledger under calls, cancellations, deadlines, broken lines and answers in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger[Caller] = Ledger(capacity=CAPACITY, lines=LINES, window=WINDOW)
        self.ledger.frame_size = 2
        self.kinds = Kinds()
        self.callers: list[Caller] = []
        self.flying: list[list[Frame[Caller]]] = [[] for _ in range(LINES)]
        self.now = 0.0

    def give(self, batch: Frame[Caller], outcomes: list[str]) -> None:
        """Hand out outcomes as the shells do."""
        for caller, outcome in zip(batch.waiters, outcomes, strict=True):
            if not caller.done():
                caller.outcomes.append(outcome)

    @rule(kind=st.just(0) | st.integers(0, 7), patience=st.integers(1, 40))
    def call(self, kind: int, patience: int) -> None:
        """Somebody asks, if there is room."""
        flying = [caller for line in self.flying for batch in line for caller in batch.waiters]
        queued = [caller for caller in self.callers if not caller.done() and caller not in flying]
        room = self.ledger.room()
        assert room > 0 or len(queued) + len(flying) == CAPACITY  # those who left take no room in the queue
        if room:
            caller = Caller(key_of(kind), f"recipient {len(self.callers)}", self.now + patience)
            self.callers.append(caller)
            self.ledger.put(caller.key, self.kinds.of(caller.key), caller.recipient, caller, caller.deadline)

    @rule(number=st.integers(0))
    def leave(self, number: int) -> None:
        """Somebody gives up."""
        waiting = [caller for caller in self.callers if not caller.done()]
        if waiting:
            waiting[number % len(waiting)].left = True

    @rule(groups=st.integers(1, 3))
    def learn_limits(self, groups: int) -> None:
        """A server takes more or fewer groups in a frame than the last one."""
        self.ledger.frame_groups = groups

    @rule(line=st.integers(0, LINES - 1))
    def send(self, line: int) -> None:
        """A frame leaves by a line with room, never longer than allowed, with nobody in it who is gone."""
        loads = [len(flying) for flying in self.flying]
        assert self.ledger.roomy(range(LINES)) == (None if min(loads) == WINDOW else loads.index(min(loads)))
        batch = self.ledger.take(line, self.now)
        if batch is not None:
            assert 1 <= len(batch.waiters) <= self.ledger.frame_size
            assert not any(caller.done() for caller in batch.waiters)
            assert 1 <= len(batch.batches) <= self.ledger.frame_groups
            assert all(each.waiters for each in batch.batches)
            if len(batch.batches) > 1:
                assert not any(each.alone for each in batch.batches)
                assert len({travels(each) for each in batch.waiters}) == 1
            self.flying[line].append(batch)

    @precondition(lambda self: any(self.flying))
    @rule(line=st.integers(0, LINES - 1))
    def answer(self, line: int) -> None:
        """The reply whose turn it is comes in."""
        if self.flying[line]:
            batch = self.flying[line].pop(0)
            assert self.ledger.land(line, batch.frame_id) is batch
            self.give(batch, served(batch))

    @precondition(lambda self: any(self.flying))
    @rule(line=st.integers(0, LINES - 1))
    def answer_without_groups(self, line: int) -> None:
        """The reply shows that the server knows no groups: nobody is answered, and each kind is asked again alone."""
        if self.flying[line] and len(self.flying[line][0].batches) > 1:
            frame = self.ledger.land(line, self.flying[line].pop(0).frame_id)
            self.ledger.part(frame)
            assert all(batch.alone for batch in frame.batches)
            assert list(self.ledger.held())[: len(frame.batches)] == frame.batches

    @precondition(lambda self: any(self.flying))
    @rule(line=st.integers(0, LINES - 1))
    def answer_out_of_turn(self, line: int) -> None:
        """A reply whose turn it is not is refused, and nothing is handed out."""
        owed = self.flying[line]
        wrong = owed[-1].frame_id if len(owed) > 1 else 10**9
        with pytest.raises(ServiceFailedError, match="turn"):
            self.ledger.land(line, wrong)

    @rule(line=st.integers(0, LINES - 1))
    def lose_stream(self, line: int) -> None:
        """A line breaks: what it owes is asked again, before anything else."""
        self.ledger.give_back(line)
        self.flying[line].clear()

    @rule(line=st.integers(0, LINES - 1))
    def lose_all(self, line: int) -> None:
        """A line fails for good: its calls fail with it, and no others."""
        owed = [caller for batch in self.flying[line] for caller in batch.waiters]
        lost = self.ledger.write_off(line)
        assert lost == owed
        self.flying[line].clear()
        for caller in lost:
            if not caller.done():
                caller.outcomes.append("failed")

    @precondition(lambda self: any(self.flying))
    @rule(line=st.integers(0, LINES - 1))
    def refuse_to_make(self, line: int) -> None:
        """The frame that was taken last could not be made: its calls fail, and no others."""
        if self.flying[line]:
            batch = self.flying[line].pop()
            self.ledger.withdraw(line, batch)
            self.give(batch, ["failed"] * len(batch.waiters))

    @rule()
    def lose_queue(self) -> None:
        """No line can be had: all that is not on its way fails."""
        flying = {id(caller) for line in self.flying for batch in line for caller in batch.waiters}
        for caller in self.ledger.write_off_queue():
            assert id(caller) not in flying
            if not caller.done():
                caller.outcomes.append("failed")

    @rule(seconds=st.integers(0, 15))
    def pass_time(self, seconds: int) -> None:
        """Whoever has no time left is found, whoever has is not, and the next deadline is named."""
        self.now += seconds
        late, soonest = self.ledger.expired(self.now)
        waiting = [caller for caller in self.callers if not caller.done()]
        assert {id(caller) for caller in late} == {id(each) for each in waiting if each.deadline <= self.now}
        for caller in late:
            caller.outcomes.append("late")
        others = [caller.deadline for caller in self.callers if not caller.done()]
        assert soonest is not None if others else True
        assert soonest is None or self.now < soonest <= min(others, default=soonest)

    @rule(seconds=st.integers(0, 15))
    def look_for_stuck_lines(self, seconds: int) -> None:
        """A line is stuck if its oldest frame was sent too long ago."""
        since = self.now - seconds
        stuck = [line for line, owed in enumerate(self.flying) if owed and owed[0].sent < since]
        assert self.ledger.stuck(since) == stuck

    @invariant()
    def every_outcome_is_ones_own(self) -> None:
        """Nobody gets two outcomes, or the answer to another question."""
        for caller in self.callers:
            assert len(caller.outcomes) <= 1
            assert caller.outcomes in ([], ["failed"], ["late"], [f"{caller.key} {caller.recipient!r}"])

    @invariant()
    def memory_is_bounded(self) -> None:
        """The ledger holds no more than its capacity, and knows how much it holds."""
        held = list(self.ledger.held())
        assert self.ledger.outstanding == sum(len(batch.waiters) for batch in held) <= CAPACITY
        for batch in held:
            assert [caller.recipient for caller in batch.waiters] == batch.recipients
            assert [caller.deadline for caller in batch.waiters] == batch.deadlines
        for line, flying in enumerate(self.flying):
            assert self.ledger.load(line) == len(flying) <= WINDOW
        on_their_way = [batch for flying in self.flying for frame in flying for batch in frame.batches]
        assert held[len(held) - len(on_their_way) :] == on_their_way

    @invariant()
    def nobody_is_lost(self) -> None:
        """Whoever still waits is in the ledger, once."""
        alive = self.ledger.alive()
        assert sorted(map(id, alive)) == sorted(id(caller) for caller in self.callers if not caller.done())

    def teardown(self) -> None:
        """When all lines answer, everybody who still waits gets an answer."""
        while self.ledger.waiting or any(self.flying):
            for line in range(LINES):
                self.send(line)
                self.answer(line)
        assert all(caller.done() for caller in self.callers)
        assert self.ledger.outstanding == 0
        self.every_outcome_is_ones_own()


Calls.TestCase.settings = settings(max_examples=often(150), stateful_step_count=40, deadline=None)
TestCalls = Calls.TestCase


class TestOrder:
    """Nobody waits behind those who came later."""

    def put(self, ledger: Ledger[Caller], *kinds: int) -> None:
        """Put calls of some kinds."""
        for number, kind in enumerate(kinds):
            key = key_of(kind)
            ledger.put(key, Kinds().of(key), f"{kind}.{number}", Caller(key, f"{number}", 1), 1)

    def taken(self, ledger: Ledger[Caller]) -> list[list[str | bytes]]:
        """Take and land all frames."""
        frames = []
        while (frame := ledger.take(0, 0)) is not None:
            frames.append([recipient for _, recipients in frame.parts for recipient in recipients])
            ledger.land(0, frame.frame_id)
        return frames

    @pytest.mark.parametrize("kind", range(1, 8))
    def test_apart(self, kind: int) -> None:
        """Calls that differ in anything but their recipient do not travel together."""
        ledger: Ledger[Caller] = Ledger()
        self.put(ledger, 0, kind, 0)

        assert self.taken(ledger) == [["0.0", "0.2"], [f"{kind}.1"]]

    def test_first_key_first(self) -> None:
        """Calls of one key leave together, keys in the order in which they came."""
        ledger: Ledger[Caller] = Ledger()
        self.put(ledger, 1, 2, 1, 3, 2)

        assert self.taken(ledger) == [["1.0", "1.2"], ["2.1", "2.4"], ["3.3"]]

    def test_together(self) -> None:
        """Where the server takes groups, what differs in brand, channel, type or retailer shares a frame, in order."""
        ledger: Ledger[Caller] = Ledger()
        ledger.frame_groups = 9
        self.put(ledger, 0, 1, 4, 2, 6, 3, 7, 5, 0)

        assert self.taken(ledger) == [["0.0", "0.8", "1.1", "2.3", "3.5", "5.7"], ["4.2"], ["6.4"], ["7.6"]]

    def test_full(self) -> None:
        """A frame takes no more calls or groups than allowed; who came first is not overtaken by what is cut off."""
        ledger: Ledger[Caller] = Ledger(window=9)
        ledger.frame_groups, ledger.frame_size = 2, 3
        self.put(ledger, 1, 2, 3, 2, 2, 5)

        assert self.taken(ledger) == [["1.0", "2.1", "2.3"], ["2.4", "3.2"], ["5.5"]]

    def test_alone(self) -> None:
        """What a server without groups did not answer is asked again before all others, kind by kind."""
        ledger: Ledger[Caller] = Ledger()
        ledger.frame_groups = 9
        self.put(ledger, 1, 2)
        frame = ledger.take(0, 0)
        assert frame is not None
        ledger.land(0, frame.frame_id)
        self.put(ledger, 3, 1, 5)

        ledger.part(frame)

        assert ledger.outstanding == 5
        assert self.taken(ledger) == [["1.0"], ["2.1"], ["3.0", "1.1", "5.2"]]

    def test_returned_first(self) -> None:
        """What comes back from a broken line leaves before what has gathered since, in its old order."""
        ledger: Ledger[Caller] = Ledger(window=2)
        self.put(ledger, 1, 2)
        ledger.take(0, 0)
        ledger.take(0, 0)
        self.put(ledger, 1)

        ledger.give_back(0)

        assert self.taken(ledger) == [["1.0"], ["2.1"], ["1.0"]]

    def test_two_broken_lines(self) -> None:
        """What comes back last leaves first: it has waited on its way for no less."""
        ledger: Ledger[Caller] = Ledger(lines=2)
        self.put(ledger, 1, 2)
        ledger.take(0, 0)
        ledger.take(1, 0)

        ledger.give_back(1)
        ledger.give_back(0)

        assert self.taken(ledger) == [["1.0"], ["2.1"]]

    def test_ids(self) -> None:
        """No two frames have one id, on whatever lines, and each line takes home only the oldest of its own."""
        ledger: Ledger[Caller] = Ledger(lines=2)
        self.put(ledger, 1, 2, 3)
        first, second, other = (ledger.take(line, 0) for line in (0, 0, 1))
        assert first is not None
        assert second is not None
        assert other is not None

        for wrong in (second.frame_id, other.frame_id, 0):
            with pytest.raises(ServiceFailedError, match="turn"):
                ledger.land(0, wrong)
        assert ledger.land(0, first.frame_id) is first
        with pytest.raises(ServiceFailedError, match="turn"):
            ledger.land(0, first.frame_id)
        assert ledger.outstanding == 2
        assert ledger.land(0, second.frame_id) is second
        with pytest.raises(ServiceFailedError, match="turn"):
            ledger.land(0, second.frame_id)

    def test_withdrawn(self) -> None:
        """A frame that could not be made leaves its line, and its calls are outstanding no more."""
        ledger: Ledger[Caller] = Ledger()
        self.put(ledger, 1, 1, 2)
        frame = ledger.take(0, 0)
        assert frame is not None

        ledger.withdraw(0, frame)

        assert (ledger.outstanding, ledger.load(0)) == (1, 0)

    def test_parts_keep_their_time(self) -> None:
        """A batch that leaves in parts keeps the deadline of each call."""
        ledger: Ledger[Caller] = Ledger()
        ledger.frame_size = 2
        callers = [Caller(key_of(0), f"{number}", number) for number in range(1, 5)]
        for caller in callers:
            ledger.put(caller.key, Kinds().of(caller.key), caller.recipient, caller, caller.deadline)

        ledger.take(0, 0)

        assert ledger.expired(3) == (callers[2:3] + callers[:2], 4)

    def test_window(self) -> None:
        """A line takes as many frames as its window is wide; the emptiest line is chosen, and none if all are full."""
        ledger: Ledger[Caller] = Ledger(lines=2, window=2)
        self.put(ledger, 1, 2, 3, 4, 5)

        chosen = []
        while (line := ledger.roomy([0, 1])) is not None:
            chosen.append(line)
            assert ledger.sendable(line)
            assert ledger.take(line, 0) is not None

        assert chosen == [0, 1, 0, 1]
        assert ledger.waiting
        assert not ledger.sendable(0)
        assert ledger.take(0, 0) is None

    def test_room_of_those_who_left(self) -> None:
        """Whoever left a full queue leaves room, be it in what gathers or in what came back, and no batch of nobody."""
        ledger: Ledger[Caller] = Ledger(capacity=4)
        self.put(ledger, 1, 1)
        ledger.take(0, 0)
        self.put(ledger, 2, 3)
        ledger.give_back(0)
        assert ledger.room() == 0

        for caller in ledger.alive()[:3]:
            caller.left = True

        assert ledger.room() == 3
        assert [batch.recipients for batch in ledger.held()] == [["3.1"]]

    def test_queue_written_off(self) -> None:
        """Where no line can be had all goes that waits for one, what came back first, and nothing of it stays."""
        ledger: Ledger[Caller] = Ledger()
        self.put(ledger, 1, 2)
        ledger.take(0, 0)
        ledger.give_back(0)

        lost = ledger.write_off_queue()

        assert [caller.recipient for caller in lost] == ["0", "1"]
        assert (ledger.outstanding, list(ledger.held())) == (0, [])

    def test_stuck(self) -> None:
        """The oldest frame of a line says whether it is stuck."""
        ledger: Ledger[Caller] = Ledger(lines=2)
        self.put(ledger, 1, 2, 3)
        ledger.take(0, 0)
        ledger.take(0, 5)
        ledger.take(1, 5)

        assert [ledger.stuck(since) for since in (0, 3, 6)] == [[], [0], [0, 1]]

    def test_long_batch(self) -> None:
        """A batch longer than a frame leaves in parts, before anything else."""
        ledger: Ledger[Caller] = Ledger()
        ledger.frame_size = 2
        self.put(ledger, 1, 1, 2, 1)

        assert self.taken(ledger) == [["1.0", "1.1"], ["1.3"], ["2.2"]]
