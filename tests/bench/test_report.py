"""The report is made of recorded results alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.__main__ import Part, app, measure
from bench.measures import Results, Row, Run, Section
from bench.peers.programs import AbsentError, program
from bench.processes import ProcessError
from bench.report import files, write
from bench.session import QUICK, Session, peer

ROOT = Path(__file__).parent.parent.parent
FACTS = {
    "cpu": "A Processor",
    "cores": "2",
    "memory": "24 kB",
    "kernel": "6.1",
    "python": "3.11",
    "packages": "numpy 2",
    "commit": "abc",
    "at": "2026-01-01T00:00:00+00:00",
    "load_before": "0.1",
    "loops": "numba",
}


def recorded(folder: Path, kind: str = "standard", at: str = FACTS["at"], rate: float = 8e6) -> None:
    """Record a run with a stream that beats Redis, an absent peer, and frames."""
    stream = Section(name="stream", facts=FACTS | {"at": at}, absent=["h2load: not installed"], notes=["a note"])
    stream.measure(
        "stream, tokens, 1 M", "recipients/s", [Run(rate, {"p50": 1.5}), Run(rate)], "run me", consents=10**6
    )
    stream.measure("Redis MGET", "recipients/s", [Run(1e6), Run(2e6)], "redis-benchmark | it")
    stream.rows.append(Row(name="tokens ÷ MGET", ours="stream, tokens, 1 M", peer="Redis MGET", at_least=5, aim="10"))
    stream.rows.append(Row(name="tokens ÷ nothing", ours="stream, tokens, 1 M", peer="PostgreSQL", at_least=1))
    frames = Section(name="frames", facts=FACTS)
    for frame in (1, 1000):
        name = f"ours, tokens, frames of {frame:,}, 90% hits"
        frames.measure(name, "recipients/s", [Run(frame * 10.0)], "run me", frame=frame)
    Results(kind=kind, sections={"stream": stream, "frames": frames}).write(files(kind, folder)[0])


class TestReport:
    """Tables and charts."""

    def test_content(self, tmp_path: Path) -> None:
        """Targets with ratio, spread and verdict, settings, commands, machine and absent peers all stand in it."""
        recorded(tmp_path)

        text = write("standard", tmp_path).read_text()

        assert "| tokens ÷ MGET | ≥ 5 x | 10 | 6 x | 4 - 8 | 2 | **met** |" in text
        assert "| tokens ÷ nothing | ≥ 1 x |  | not measured: PostgreSQL |" in text
        assert "- h2load: not installed" in text
        assert "consents 1,000,000" in text
        assert "`redis-benchmark \\| it`" in text
        assert "A Processor, 2 cores" in text
        assert "1.500" in text

    def test_refused(self, tmp_path: Path) -> None:
        """How many requests were not answered stands in the row and beside the setting."""
        section = Section(name="unary", facts=FACTS)
        run = Run(90, {"p99": 1.0}, asked=100, unanswered={"CANCELLED": 10})
        section.measure("open loop: Check", "checks/s", [run], "run me", loop="open")
        section.rows.append(Row(name="p99", ours="open loop: Check", of="p99", unit="ms"))
        Results(kind="standard", sections={"unary": section}).write(files("standard", tmp_path)[0])

        text = write("standard", tmp_path).read_text()

        assert "| p99 (10 of 100 not answered: CANCELLED 10) | reported |" in text
        assert "| loop open, 10 of 100 not answered: CANCELLED 10 |" in text

    def test_charts(self, tmp_path: Path) -> None:
        """Every chart that the report shows is there, and drawing it again changes no byte."""
        recorded(tmp_path)
        text = write("standard", tmp_path).read_text()
        before = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}

        write("standard", tmp_path)

        assert set(before) == {"standard-stream.svg", "standard-frames.svg"}
        assert all(f"({name})" in text for name in before)
        assert {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")} == before

    @pytest.mark.parametrize(("at", "shown"), [("2026-02-01", "14 x"), ("2025-12-01", "6 x")])
    def test_newest(self, tmp_path: Path, at: str, shown: str) -> None:
        """What a standard and a full run both measured is shown from the later one."""
        recorded(tmp_path)
        recorded(tmp_path, "full", at, rate=18.7e6)

        assert f"| 10 | {shown} |" in write("full", tmp_path).read_text()

    def test_quick(self, tmp_path: Path) -> None:
        """A quick run has a report of its own and leaves the real one alone."""
        recorded(tmp_path, "quick")

        assert write("quick", tmp_path).name == "quick.md"
        assert not (tmp_path / "report.md").exists()


class TestAbsent:
    """A peer that cannot be had is reported."""

    def test_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that is missing and cannot be installed is an error that says how to get it."""
        monkeypatch.setattr("bench.peers.programs.shutil.which", lambda _: None)

        with pytest.raises(AbsentError, match="apt-get install redis-server"):
            program("redis-server", "redis-server")

    def test_section(self) -> None:
        """The section goes on without the peer and names it."""
        section = Section(name="s", facts=FACTS)

        def start() -> None:
            raise AbsentError("no such thing")

        assert not peer(section, "Redis", start)
        assert section.absent == ["Redis: no such thing"]


def good(session: Session) -> Section:
    """Measure something."""
    section = session.section("good")
    section.measure("m", "x/s", [Run(1)], "true")
    return section


def bad(session: Session) -> Section:
    """Measure something, then fail with a text of two lines that names a file of the run."""
    session.section("bad").measure("m", "x/s", [Run(2)], "true")
    raise ProcessError(f"it died; see {session.folder}/its.log:\nmore of it")


def run(parts: dict[str, Part], folder: Path) -> list[Section]:
    """Run sections into a folder."""
    return measure(QUICK, parts, folder / "data", Console(quiet=True), kind="quick", folder=folder / "results")


class TestFailure:
    """A section that fails does not take the others with it."""

    def test_rest(self, tmp_path: Path) -> None:
        """The sections before and after it are measured and kept."""
        run({"bad": bad, "good": good}, tmp_path)

        kept = Results.read(tmp_path / "results" / "quick.json", "quick").sections

        assert list(kept) == ["bad", "good"]
        assert [kept[name].measures[0].values for name in kept] == [[2], [1]]
        assert (kept["bad"].failed, kept["good"].failed) == ("ProcessError: it died; see its.log:", "")

    def test_told(self, tmp_path: Path) -> None:
        """The report names it with its error, first of all and where its figures would be."""
        run({"good": good, "bad": bad}, tmp_path)

        text = (tmp_path / "results" / "quick.md").read_text()

        assert text.index("- bad: ProcessError: it died") < text.index("## Targets")
        assert "**Failed**: ProcessError: it died; see its.log:\n" in text

    def test_mended(self, tmp_path: Path) -> None:
        """When it is measured anew without failing nothing is told of the failure."""
        run({"good": bad}, tmp_path)
        run({"good": good}, tmp_path)

        assert "Failed" not in (tmp_path / "results" / "quick.md").read_text()

    def test_kept_at_once(self, tmp_path: Path) -> None:
        """What is done is in the file before the next section begins, so that an interruption loses nothing."""

        def interrupted(_: Session) -> Section:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run({"good": good, "bad": interrupted}, tmp_path)

        assert list(Results.read(tmp_path / "results" / "quick.json", "quick").sections) == ["good"]

    def test_renewed(self, tmp_path: Path) -> None:
        """Servers that were started for a section that fails are ended, and the next section gets its own."""
        asked = []

        def echo(session: Session) -> Section:
            asked.append(session.echo().pid)
            return session.section("echo")

        def fails(session: Session) -> Section:
            echo(session)
            raise ProcessError("it died")

        run({"first": echo, "second": fails, "third": echo}, tmp_path)

        assert asked[0] == asked[1] != asked[2]
        assert not any(Path(f"/proc/{pid}").exists() for pid in asked)

    @pytest.mark.parametrize(("failed", "code"), [("", 0), ("ProcessError: it died", 1)])
    def test_exit_code(self, monkeypatch: pytest.MonkeyPatch, failed: str, code: int) -> None:
        """The command ends with 1 where a section has failed, else with 0."""
        sections = [Section(name="a", facts=FACTS), Section(name="b", facts=FACTS, failed=failed)]
        monkeypatch.setattr("bench.__main__.measure", lambda *_, **__: sections)

        assert CliRunner().invoke(app, ["--only", "frames"]).exit_code == code


class TestCommand:
    """The command line."""

    def test_unknown_section(self) -> None:
        """A section that there is not is refused with the names of those that there are."""
        done = CliRunner().invoke(app, ["--only", "streams"])

        assert done.exit_code == 2
        assert "stream" in done.output

    def test_help(self) -> None:
        """The help can be had without what only some peers need."""
        done = subprocess.run(
            [sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )

        assert "--against" in done.stdout
