"""When a day is proved: never by a file that is not all of it."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.iys.messages import AgreementState
from loader.reading import times
from loader.sources.days.facts import Variant
from loader.sources.days.judgement import REACH_DAYS, SENTENCES, Proved, Why, days_due, is_in_reach, judged
from tests.dice import often
from tests.loader.sources.days.days import DAY, HEADER, MORNING, NEXT_DAY, agreement, evidence, facts, row, summary

ROWS = tuple(
    row(number, status=status, source=source, channel=channel)
    for number, (status, source, channel) in enumerate(
        (
            ("ONAY", "HS_WEB", "MESAJ"),
            ("RET", "IYS_WEB", "EPOSTA"),
            ("RET", "IYS_CM", "ARAMA"),
            ("ONAY", "HS_ATM", "MESAJ"),
        )
    )
)
STATES = st.sampled_from(AgreementState)
DAMAGES = ("none", "cut", "line lost", "line twice", "line more", "bit")
CLOCK = st.sampled_from(
    ["00:30:00", "01:01:59", "01:02:00", "05:59:59", "06:00:00", "11:59:59", "12:00:00", "23:00:00"]
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes, damage: str) -> bytes:
    """A file that came otherwise than İYS made it."""
    lines = content.splitlines(keepends=True)
    if damage == "cut":
        return content[: draw(st.integers(0, max(len(content) - 1, 0)))]
    if damage in {"line lost", "line twice"} and lines:
        place = draw(st.integers(0, len(lines) - 1))
        return b"".join([*lines[:place], *([lines[place]] * 2 if damage == "line twice" else []), *lines[place + 1 :]])
    if damage == "line more":
        return content + row(99).encode()
    if damage == "bit" and content:
        place = draw(st.integers(0, len(content) - 1))
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    return content


class TestLaws:
    """What holds of every day."""

    @given(data=st.data())
    @settings(max_examples=often(400), deadline=None)
    def test_no_false_proof(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """A day that is proved is one of which the file has each row that İYS lists, and no other.

        İYS's digest and counts are true of the day as it ended. A digest of a file in the making may be an older one's.
        Without a digest nobody can tell a changed letter, so there the file is whole, cut, or of other lines.
        """
        rows = data.draw(st.lists(st.sampled_from(ROWS), unique=True))
        pending = data.draw(st.sampled_from([0, 0, 1]))
        has_hash = data.draw(st.booleans())
        state = data.draw(STATES)
        content = (data.draw(st.sampled_from([HEADER, ""])) + "".join(rows)).encode()
        hashed = content if data.draw(st.booleans()) else content.removesuffix(b"\n")
        is_compared = has_hash and state is AgreementState.COMPLETED
        damage = data.draw(st.sampled_from(DAMAGES if is_compared else DAMAGES[:-1]))
        came = data.draw(damaged(content, damage))
        if not is_compared:
            hashed = came
        time = data.draw(CLOCK)
        algorithm = data.draw(st.sampled_from(["sha384", "sha256"]))
        path = tmp_path_factory.getbasetemp() / "day.csv"
        is_there = data.draw(st.booleans())

        judgement = judged(
            evidence(
                facts(path, came) if is_there else None,
                agreement(hashed if has_hash else None, algorithm=algorithm, state=state),
                summary(rows, pending=pending, without=data.draw(st.sampled_from([0, 0, 1]))),
                asked_s=times.watermark(f"{NEXT_DAY} {time}"),
            )
        )

        if judgement.proved is None:
            assert judgement.why
            return
        assert not judgement.why
        assert time >= "01:02:00"
        if judgement.proved is Proved.BY_SILENCE:
            assert (rows, pending) == ([], 0)
            assert not is_there or came in {b"", HEADER.encode()}
            assert time >= "06:00:00"
            return
        came_rows = [line for line in came.decode().splitlines(keepends=True) if line != HEADER]
        assert sorted(came_rows) == sorted(rows)
        assert judgement.loads
        if judgement.proved is Proved.BY_COUNT:
            assert not pending

    @given(
        st.lists(st.sampled_from(ROWS), unique=True, min_size=1),
        st.sampled_from(["sha384", "sha256"]),
        st.booleans(),
        st.integers(0, 2),
    )
    @settings(max_examples=often(30), deadline=None)
    def test_proof(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        rows: list[str],
        algorithm: str,
        has_header: bool,  # noqa: FBT001 - hypothesis passes by name
        pending: int,
    ) -> None:
        """A file with İYS's digest proves its day whatever the summaries count; one without it by exact counts."""
        content = (HEADER * has_header + "".join(rows)).encode()
        file = facts(tmp_path_factory.getbasetemp() / "day.csv", content)

        by_hash = judged(evidence(file, agreement(content, algorithm=algorithm), summary([], pending=pending)))
        by_count = judged(evidence(file, agreement(state=AgreementState.ERROR), summary(rows)))

        assert (by_hash.proved, by_hash.variant) == (Proved.BY_HASH, Variant.AS_IT_IS)
        assert by_count.proved is Proved.BY_COUNT


class TestCases:
    """Each thing that keeps a day from being proved."""

    def judge(self, path: Path, content: bytes | None, said: bytes | None, **fields: object) -> tuple[Why, ...]:
        """Judge a day of which İYS counts the four rows."""
        state = fields.pop("state", AgreementState.COMPLETED)
        assert isinstance(state, AgreementState)
        counted = summary(ROWS, **fields)  # type: ignore[arg-type] # the fields of summary, passed on
        file = None if content is None else facts(path / "day.csv", content)
        judgement = judged(evidence(file, agreement(said, state=state), counted))
        assert (judgement.proved is None) == bool(judgement.why)
        return judgement.why

    def test_why(self, tmp_path: Path) -> None:
        """Each has its own name, and loads nothing where the file is cut or another one."""
        whole = "".join(ROWS).encode()
        rest = "".join(ROWS[1:]).encode()
        error = AgreementState.ERROR

        assert self.judge(tmp_path, whole, whole) == ()
        assert self.judge(tmp_path, whole, rest) == (Why.OTHER_HASH,)
        assert self.judge(tmp_path, whole[:-1], whole) == (Why.LINE_CUT, Why.MISSHAPEN, Why.OTHER_HASH)
        assert self.judge(tmp_path, whole + b"1,2\n", whole + b"1,2\n") == (Why.MISSHAPEN,)
        assert self.judge(tmp_path, None, None) == (Why.NO_FILE,)
        assert self.judge(tmp_path, whole, None, state=AgreementState.QUEUED) == (Why.FILE_IN_THE_MAKING,)
        assert self.judge(tmp_path, whole, whole, state=error) == ()
        assert self.judge(tmp_path, rest, rest, state=error) == (Why.OTHER_ROWS,)
        assert self.judge(tmp_path, rest, None, state=error) == (Why.OTHER_ROWS,)
        assert self.judge(tmp_path, whole, None, pending=1) == (Why.PENDING, Why.OTHER_ROWS)
        assert self.judge(tmp_path, whole, None, without=1) == (Why.SUMMARY_INCOMPLETE, Why.OTHER_ROWS)

    def test_too_early(self, tmp_path: Path) -> None:
        """Before 01:02 of the next day nothing proves a day, and nothing is loaded."""
        whole = "".join(ROWS).encode()
        file = facts(tmp_path / "day.csv", whole)
        shown_s = times.watermark(f"{NEXT_DAY} 01:02:00")

        found = [judged(evidence(file, agreement(whole), summary(ROWS), asked_s=shown_s + at)) for at in (-1, 0)]

        assert [(each.why, each.loads) for each in found] == [((Why.TOO_EARLY,), False), ((), True)]

    def test_loads(self, tmp_path: Path) -> None:
        """A whole file that nothing contradicts is loaded, proof or not; one that contradicts its digest is not."""
        file = facts(tmp_path / "day.csv", "".join(ROWS).encode())

        assert judged(evidence(file, agreement(), summary(ROWS, pending=1))).loads
        assert not judged(evidence(file, agreement(b"other"), summary(ROWS))).loads
        assert not judged(evidence(facts(tmp_path / "cut", b"a,b"), agreement(), summary(ROWS))).loads

    @pytest.mark.parametrize("digest", ["", "a" * 40, "a" * 128])
    def test_strange_digest(self, tmp_path: Path, digest: str) -> None:
        """A digest of unknown length proves nothing, and is no leave to go by counts."""
        said = agreement()
        said = type(said)(day=DAY, state=said.state, hash=digest)
        file = facts(tmp_path / "day.csv", "".join(ROWS).encode())

        judgement = judged(evidence(file, said, summary(ROWS)))

        assert judgement.why == ((Why.HASH_UNREADABLE,) if digest else ())

    @pytest.mark.parametrize("state", AgreementState)
    def test_silence(self, tmp_path: Path, state: AgreementState) -> None:
        """No file and no movements is a quiet day only where nothing speaks of a file, all is listed, and it is six."""
        quiet = state in {AgreementState.ABSENT, AgreementState.COMPLETED}
        for file in (None, facts(tmp_path / "empty", b""), facts(tmp_path / "header", HEADER.encode())):
            said = agreement(state=state)

            found = judged(evidence(file, said, summary([]), asked_s=MORNING + 12 * 3600)).proved

            assert found is (Proved.BY_SILENCE if quiet else None)
            assert judged(evidence(file, said, summary([], without=1))).proved is None
            assert judged(evidence(file, said, summary([], pending=1))).proved is None
            assert judged(evidence(file, said, summary([]), asked_s=MORNING - 3601)).proved is None

    def test_digest_of_nothing(self) -> None:
        """A digest of a file without rows speaks of none; any other one does."""
        for content, proved in ((b"", Proved.BY_SILENCE), (HEADER.encode(), Proved.BY_SILENCE), (b"x", None)):
            assert judged(evidence(None, agreement(content), summary([]))).proved is proved

    def test_sentences(self) -> None:
        """Each reason has a sentence."""
        assert set(SENTENCES) == set(Why)


class TestDue:
    """Which days are asked for."""

    def test_due(self) -> None:
        """The last seven days that are not settled, in their order."""
        now_s = times.watermark(f"{NEXT_DAY} 02:00:00")
        settled = {DAY - timedelta(days=back) for back in range(1, 5)}

        assert days_due(now_s, settled=settled) == (date(2025, 5, 26), date(2025, 5, 27), DAY)
        reach = [DAY + timedelta(days=days) for days in range(-10, 3) if is_in_reach(DAY + timedelta(days=days), now_s)]
        assert [*days_due(now_s, settled=())] == reach
        assert len(reach) == REACH_DAYS
