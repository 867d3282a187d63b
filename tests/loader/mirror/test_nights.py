"""Which days are tried when: laws over a simulated week."""

from collections import defaultdict
from datetime import date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from loader.mirror.nights import HOLE_RETRY_S, RETRY_S, BrandDay, Nights
from loader.reading import times
from tests.builders import NOW
from tests.dice import often

FROM_S, UNTIL_S = 2 * 3_600, 12 * 3_600


@given(
    steps=st.lists(st.tuples(st.floats(60, 9_000), st.booleans(), st.integers(0, 9)), max_size=120),
    settled=st.frozensets(st.integers(0, 30)),
)
@settings(max_examples=often(120), deadline=None)
def test_week(steps: list[tuple[float, bool, int]], settled: frozenset[int]) -> None:
    """Only unsettled days in reach are tried, at night or for a hole; yesterday every half hour, older ones once."""
    nights, now = Nights(from_s=FROM_S, until_s=UNTIL_S), float(NOW)
    first = times.day_of(NOW) - timedelta(days=7)
    done = {first + timedelta(days=number) for number in settled}
    tries: defaultdict[date, list[float]] = defaultdict(list)
    for seconds, has_hole, most in steps:
        now += seconds
        today, time_of_day = times.day_of(int(now)), times.local_now(now) % 86_400
        due = nights.due(7, 1, now, settled=lambda: done, has_hole=has_hole)
        assert list(due) == sorted(due)
        if not has_hole:
            assert not due or FROM_S <= time_of_day <= UNTIL_S
        for each in due:
            assert 1 <= (today - each.day).days <= 7
            assert each.day not in done
            last = tries[each.day][-1:]
            if last and not has_hole:
                is_yesterday = each.day == today - timedelta(days=1)
                assert now - last[0] >= RETRY_S if is_yesterday else times.day_of(int(last[0])) < today
            elif last:
                assert now - last[0] >= HOLE_RETRY_S
        for each in due[:most]:
            tries[each.day].append(now)
            nights.tried(each, now)
        if has_hole or FROM_S <= time_of_day <= UNTIL_S:
            never = {today - timedelta(days=back) for back in range(1, 8)} - done - tries.keys()
            assert never <= {each.day for each in due}


def test_brands_apart() -> None:
    """What was tried of one brand says nothing of another."""
    nights, now = Nights(from_s=0, until_s=86_400), float(NOW)
    yesterday = times.day_of(NOW) - timedelta(days=1)
    nights.tried(BrandDay(yesterday, 7, 1), now)

    one, other = (nights.due(7, brand, now, settled=frozenset, has_hole=False) for brand in (1, 2))

    assert [each.day for each in other][-1] == yesterday
    assert len(one) == len(other) - 1
