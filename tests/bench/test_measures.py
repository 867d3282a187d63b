"""Runs, ratios and verdicts."""

from pathlib import Path

import pytest

from bench.measures import Measure, Results, Row, Run, Section, alternate, verdict


def a_measure(name: str, values: list[float], p99: list[float] | None = None) -> Measure:
    """Make a measure of these values."""
    latencies = [{"p99": each} for each in p99] if p99 else [{}] * len(values)
    runs = [Run(value, latency) for value, latency in zip(values, latencies, strict=True)]
    return Measure(name=name, unit="x/s", runs=runs, command="true")


def measured(*measures: Measure) -> dict[str, Measure]:
    """Index measures by name."""
    return {measure.name: measure for measure in measures}


class TestAlternate:
    """Sides take turns."""

    def test_order(self) -> None:
        """Each second round goes backwards, so that a drifting machine favours no side."""
        order: list[str] = []

        def side(name: str) -> Run:
            order.append(name)
            return Run(len(order))

        runs = alternate(3, {"a": lambda: side("a"), "b": lambda: side("b")})

        assert order == ["a", "b", "b", "a", "a", "b"]
        assert [run.value for run in runs["b"]] == [2, 3, 6]


class TestVerdict:
    """A row is judged by the median of its ratios."""

    def test_pairs(self) -> None:
        """A ratio is taken of runs that are neighbours, not of medians."""
        row = Row(name="r", ours="a", peer="b", at_least=2)

        found = verdict(row, measured(a_measure("a", [2, 30, 8]), a_measure("b", [1, 10, 2])))

        assert found.values == [2, 3, 4]
        assert found.met is True
        assert found.target == "≥ 2 x"

    @pytest.mark.parametrize(
        ("row", "met"),
        [
            (Row(name="r", ours="a", at_least=5), True),
            (Row(name="r", ours="a", at_least=5.1), False),
            (Row(name="r", ours="a", at_most=5), True),
            (Row(name="r", ours="a", at_most=4.9), False),
            (Row(name="r", ours="a", at_least=4, at_most=6), True),
            (Row(name="r", ours="a", at_least=6, at_most=7), False),
            (Row(name="r", ours="a"), None),
        ],
    )
    def test_bounds(self, row: Row, *, met: bool | None) -> None:
        """The median of the values decides, and a bound itself is met."""
        assert verdict(row, measured(a_measure("a", [1, 5, 100]))).met is met

    def test_percentile(self) -> None:
        """A row on latency compares percentiles, not rates."""
        row = Row(name="r", ours="a", peer="b", of="p99", at_most=2)

        found = verdict(row, measured(a_measure("a", [9, 9], [3, 3]), a_measure("b", [1, 1], [2, 1])))

        assert found.values == [1.5, 3]

    def test_absent(self) -> None:
        """A row whose peer was not measured is not met, and says so."""
        found = verdict(Row(name="r", ours="a", peer="Redis MGET", at_least=0), measured(a_measure("a", [1])))

        assert found.met is None
        assert "Redis MGET" in found.missing

    def test_refused(self) -> None:
        """A row says how many requests were not answered, and a bound on latency is not met by refusing."""
        runs = [Run(9, {"p99": 1}, asked=1_000), Run(9, {"p99": 1}, asked=1_000, unanswered={"CANCELLED": 3})]
        measure = Measure(name="a", unit="x/s", runs=runs, command="true")

        latency = verdict(Row(name="r", ours="a", of="p99", at_most=2), measured(measure))
        rate = verdict(Row(name="r", ours="a", at_least=9), measured(measure))

        assert latency.unanswered == "3 of 2,000 not answered: CANCELLED 3"
        assert (latency.met, rate.met) == (False, True)

    def test_all_answered(self) -> None:
        """A measure says that all requests of an open loop were answered, and nothing of a closed one."""
        answered = Measure(name="a", unit="x/s", runs=[Run(9, {"p99": 1}, asked=1_000)], command="true")

        found = verdict(Row(name="r", ours="a", of="p99", at_most=2), measured(answered))

        assert (answered.unanswered, a_measure("b", [1]).unanswered) == ("all 1,000 answered", "")
        assert (found.met, found.unanswered) == (True, "")

    def test_unequal(self) -> None:
        """Sides with different numbers of runs did not alternate: that is an error."""
        row = Row(name="r", ours="a", peer="b")

        with pytest.raises(ValueError, match="zip"):
            verdict(row, measured(a_measure("a", [1, 2]), a_measure("b", [1])))


class TestResults:
    """The raw file."""

    def test_merge(self, tmp_path: Path) -> None:
        """A section measured anew takes the place of its old one and leaves the others alone."""
        path = tmp_path / "results" / "standard.json"
        first = Results(kind="standard", sections={name: Section(name=name, facts={"at": "1"}) for name in ("a", "b")})
        first.write(path)

        again = Results.read(path, "standard")
        again.sections["a"] = Section(name="a", facts={"at": "2"})
        again.write(path)

        assert {name: each.facts["at"] for name, each in Results.read(path, "standard").sections.items()} == {
            "a": "2",
            "b": "1",
        }

    def test_same_name(self) -> None:
        """Two measures of one name in a section are an error: a row could mean either."""
        section = Section(name="s", facts={})
        section.measure("m", "x/s", [Run(1)], "true")

        with pytest.raises(ValueError, match="two measures"):
            section.measure("m", "x/s", [Run(2)], "true")
