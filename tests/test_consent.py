"""The vocabulary and the rule: an oracle written from the published table against the code."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import consent
from iyscheck.change import KNOWN_SOURCES
from iyscheck.consent import (
    LEGACY_CONSENTS_BEFORE,
    PERMITTING,
    STATES,
    UNREADABLE_STATE,
    Channel,
    LegacyDeadline,
    MessageClass,
    Policy,
    Reason,
    RecipientType,
    Sender,
    Status,
    deadlines_missed,
    decide,
    is_citizens_own,
    permits,
    states,
    verdicts,
    verdicts_by_state,
)
from iyscheck.times import local_seconds
from tests.dice import often
from tests.strategies import source_codes

BOOLEANS = (False, True)
SENDERS = [
    Sender(
        message_class=message_class,
        recipient_type=recipient_type,
        registered=registered,
        authorised=authorised,
        fresh=fresh,
        names_retailer=names_retailer,
        legacy_deadline=deadline,
        merchants_need_record=need_record,
    )
    for message_class in MessageClass
    for recipient_type in RecipientType
    for deadline in LegacyDeadline
    for registered, authorised, fresh, names_retailer, need_record in itertools.product(BOOLEANS, repeat=5)
]
LOCAL_SECONDS = st.integers(0, 2**32 - 1)


def oracle(sender: Sender, *, readable: bool, state: int, listed: bool) -> int:  # noqa: C901, PLR0911 - the table
    """Answer as the published table says, row by row."""
    status, missed = state % 4, state // 4 % 4
    if sender.message_class != 1:
        return 3
    if not readable:
        return 64
    if not sender.registered:
        return 65
    if not sender.authorised:
        return 66
    if not sender.fresh:
        return 67
    if status == 3:
        return 68
    if status == 2:
        return 69
    if status == 1:
        if sender.recipient_type == 1 and missed >= int(sender.legacy_deadline):
            return 70
        if sender.names_retailer and not listed:
            return 71
        return 1
    if sender.recipient_type == 2:
        return 72 if sender.merchants_need_record else 2
    return 73


class TestRule:
    """`decide` is design section 5's table and nothing else."""

    def test_every_combination(self) -> None:
        """For every sender, state, form and list the table of verdicts holds what the published table says."""
        for sender in SENDERS:
            expected = [
                [
                    [oracle(sender, readable=readable, state=state, listed=listed) for state in range(STATES)]
                    for listed in BOOLEANS
                ]
                for readable in BOOLEANS
            ]

            assert verdicts(sender).tolist() == expected

    def test_column_and_single(self) -> None:
        """The look-up table and the function agree for each commercial and one exempt sender."""
        asked = (MessageClass.COMMERCIAL, MessageClass.SECURITY_CODE)
        for sender in (each for each in SENDERS if each.message_class in asked):
            table = verdicts(sender)
            for readable, listed, state in itertools.product(BOOLEANS, BOOLEANS, range(STATES)):
                one = decide(sender, readable=readable, state=state, retailer_listed=listed)

                assert table[int(readable), int(listed), state] == one

    def test_by_state(self) -> None:
        """By its state byte each recipient gets what `decide` gives; a state that no record has gets 0, a denial."""
        for sender in SENDERS:
            by_state = verdicts_by_state(verdicts(sender))
            for listed in BOOLEANS:
                expected = [0] * 256
                expected[:STATES] = [
                    decide(sender, readable=True, state=state, retailer_listed=listed) for state in range(STATES)
                ]
                expected[UNREADABLE_STATE] = decide(sender, readable=False, state=0, retailer_listed=listed)

                assert by_state[int(listed)].tolist() == expected

    def test_table_is_read_only(self) -> None:
        """Nobody can change a verdict in the shared table."""
        with pytest.raises(ValueError, match="read-only"):
            verdicts(SENDERS[0])[0, 0, 0] = Reason.CONSENTED
        with pytest.raises(ValueError, match="read-only"):
            verdicts_by_state(verdicts(SENDERS[0]))[0, 0] = Reason.CONSENTED

    def test_refusal_never_permits(self) -> None:
        """No commercial sender is permitted a refused, unknown or unreadable recipient."""
        for sender in (each for each in SENDERS if each.message_class is MessageClass.COMMERCIAL):
            permitted = PERMITTING[verdicts(sender)]

            assert not permitted[0].any()
            assert not permitted[1][:, [state for state in range(STATES) if state % 4 in (2, 3)]].any()


class TestPermits:
    """A reason permits only if it is known and 1 to 63."""

    def test_scalar(self) -> None:
        """Only the three known reasons below 64 permit, whatever number is asked about."""
        permitting = [number for number in range(-300, 100_000) if permits(number)]

        assert permitting == [1, 2, 3]

    def test_column(self) -> None:
        """The look-up array says for each byte what the function says."""
        assert np.flatnonzero(PERMITTING).tolist() == [1, 2, 3]
        assert PERMITTING.shape == (256,)

    def test_zero_filled(self) -> None:
        """A zero-filled column of reasons denies everybody."""
        assert not PERMITTING[np.zeros(1000, np.uint8)].any()


class TestNumbers:
    """The numbers on wire and disk never change."""

    @pytest.mark.parametrize(
        ("kind", "numbers"),
        [
            (Channel, {"ARAMA": 1, "MESAJ": 2, "EPOSTA": 3}),
            (RecipientType, {"BIREYSEL": 1, "TACIR": 2}),
            (Status, {"NONE": 0, "ONAY": 1, "RET": 2, "UNKNOWN": 3}),
            (LegacyDeadline, {"ANNOUNCED": 1, "OVER_150K": 2, "UP_TO_150K": 3}),
            (
                Reason,
                {
                    "UNSPECIFIED": 0,
                    "CONSENTED": 1,
                    "MERCHANT_NOT_REFUSED": 2,
                    "EXEMPT_MESSAGE": 3,
                    "INVALID_ADDRESS": 64,
                    "BRAND_NOT_REGISTERED": 65,
                    "BRAND_INACTIVE": 66,
                    "DATA_STALE": 67,
                    "STATUS_UNKNOWN": 68,
                    "REFUSED": 69,
                    "REGISTERED_TOO_LATE": 70,
                    "RETAILER_NOT_AUTHORISED": 71,
                    "MERCHANT_NOT_RECORDED": 72,
                    "NO_CONSENT": 73,
                    "LOCALLY_SUPPRESSED": 74,
                },
            ),
        ],
    )
    def test_golden(self, kind: type[Channel], numbers: dict[str, int]) -> None:
        """Each name has the number that the contract gives it, and there is no other."""
        assert {member.name: member.value for member in kind} == numbers

    def test_exempt(self) -> None:
        """Every message class but COMMERCIAL is exempt."""
        assert [each for each in MessageClass if not each.exempt] == [MessageClass.COMMERCIAL]


class TestDeadlines:
    """Consents of before December 2020 had to be registered by one of three dates, each half-open."""

    @pytest.mark.parametrize(
        ("registered", "missed"),
        [
            ("2020-11-30 23:59:59", 0),
            ("2020-12-01 00:00:00", 1),
            ("2020-12-31 23:59:59", 1),
            ("2021-01-01 00:00:00", 2),
            ("2021-05-31 23:59:59", 2),
            ("2021-06-01 00:00:00", 3),
            ("2025-01-01 00:00:00", 3),
        ],
    )
    @pytest.mark.parametrize("consented", ["", "2015-05-01 00:00:00", "2020-11-30 23:59:59"])
    def test_old_consents(self, consented: str, registered: str, missed: int) -> None:
        """A consent taken before the cut, or at no stated time, misses the deadlines before its registration."""
        seconds = local_seconds(consented) if consented else 0

        found = deadlines_missed(
            np.array([seconds], np.int64), np.array([local_seconds(registered)], np.int64), np.zeros(1, np.bool_)
        )

        assert found.tolist() == [missed]

    @pytest.mark.parametrize("consented", ["2020-12-01 00:00:00", "2024-02-29 12:00:00"])
    def test_new_consents(self, consented: str) -> None:
        """A consent taken from the cut on misses none, however late it is registered."""
        registered = np.array([local_seconds("2026-01-01 00:00:00")])
        found = deadlines_missed(np.array([local_seconds(consented)]), registered, np.zeros(1, np.bool_))

        assert found.tolist() == [0]

    @pytest.mark.parametrize(
        "source", [*KNOWN_SOURCES, "", "IYS", "IYS_", "IYS_YENI_KAYNAK", "iys_web", "HS_IYS_WEB", " IYS_WEB"]
    )
    def test_citizens(self, source: str) -> None:
        """What a citizen did at İYS misses no deadline, by whatever code of theirs; any other source does."""
        old, late = np.array([local_seconds("2019-08-20 10:00:00")]), np.array([local_seconds("2024-01-01 00:00:00")])

        column = deadlines_missed(old, late, np.array([is_citizens_own(source)]))

        citizens = source[:4] == "IYS_"
        assert column.tolist() == [0 if citizens else 3]
        assert consent.state(Status.ONAY, int(old[0]), int(late[0]), source) == (1 if citizens else 1 + 3 * 4)

    def test_cut(self) -> None:
        """The cut is midnight of 1 December 2020 without zone arithmetic."""
        assert LEGACY_CONSENTS_BEFORE == 1_606_780_800

    @pytest.mark.parametrize("chosen", LegacyDeadline)
    def test_policy_picks_one(self, chosen: LegacyDeadline) -> None:
        """An individual's ONAY that missed exactly n deadlines is too late for each chosen one up to n."""
        sender = replace(SENDERS[-1], message_class=MessageClass.COMMERCIAL, recipient_type=RecipientType.BIREYSEL)
        sender = replace(sender, legacy_deadline=chosen, names_retailer=False)

        reasons = [
            decide(sender, readable=True, state=Status.ONAY | missed << 2, retailer_listed=False) for missed in range(4)
        ]

        too_late = [missed >= chosen for missed in range(4)]
        assert reasons == [Reason.REGISTERED_TOO_LATE if late else Reason.CONSENTED for late in too_late]


AROUND_THE_CUTS = LOCAL_SECONDS | st.sampled_from(
    [before + seconds for before in consent.REGISTERED_BEFORE.values() for seconds in (-1, 0, 1)]
)


class TestStates:
    """A state byte holds status, deadlines missed and whether there is a retailer list."""

    @settings(max_examples=often(200), deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 255), LOCAL_SECONDS, LOCAL_SECONDS, st.booleans(), st.booleans()), max_size=20
        )
    )
    def test_packing(self, rows: list[tuple[int, int, int, bool, bool]]) -> None:
        """The packed column is what packing each record alone gives; a status beyond 3 is unknown."""
        packed = states(
            np.array([row[0] for row in rows], np.uint8),
            np.array([row[1] for row in rows], np.int64),
            np.array([row[2] for row in rows], np.int64),
            np.array([row[3] for row in rows], np.bool_),
            np.array([row[4] for row in rows], np.bool_),
        )

        cuts = [local_seconds(f"{day} 00:00:00") for day in ("2020-12-01", "2021-01-01", "2021-06-01")]
        expected = []
        for status, consented, registered, by_citizen, listed in rows:
            missed = sum(registered >= cut for cut in cuts) if consented < cuts[0] and not by_citizen else 0
            expected.append(min(status, 3) + 4 * missed + 16 * listed)
        assert packed.tolist() == expected
        assert packed.dtype == np.uint8

    @settings(max_examples=often(200), deadline=None)
    @given(st.sampled_from([Status.ONAY, Status.RET, Status.UNKNOWN]), AROUND_THE_CUTS, AROUND_THE_CUTS, source_codes)
    def test_one_is_a_column_of_one(self, status: Status, consented: int, registered: int, source: str) -> None:
        """The state of one record is what a column of it gives."""
        times = np.array([consented], np.int64), np.array([registered], np.int64)
        by_citizen = np.array([is_citizens_own(source)])

        assert consent.state(status, consented, registered, source) == states(
            np.array([status], np.uint8), *times, by_citizen, np.zeros(1, bool)
        )

    def test_input_is_kept(self) -> None:
        """Packing leaves the columns it was given as they were."""
        status, zeros = np.array([9, 1], np.uint8), np.zeros(2, np.int64)

        states(status, zeros, zeros, np.array([False, True]), np.array([True, True]))

        assert status.tolist() == [9, 1]


class TestPolicyId:
    """Answers of different rules never carry the same policy id."""

    def test_every_choice_counts(self) -> None:
        """Any two different policies have different ids of sixteen hex digits."""
        policies = [
            Policy(merchants_need_record=need, legacy_deadline=deadline, freshness_limit_s=limit)
            for need, deadline, limit in itertools.product(BOOLEANS, LegacyDeadline, (0, 1, 93_600))
        ]

        ids = {policy.policy_id for policy in policies}

        assert len(ids) == len(policies)
        assert all(len(each) == 16 and int(each, 16) >= 0 for each in ids)

    def test_golden(self) -> None:
        """The id of the default policy changes only with the rule's version."""
        assert Policy().policy_id == Policy(legacy_deadline=LegacyDeadline.UP_TO_150K).policy_id
        assert Policy().policy_id == "bcfa8539f7299ec2"
