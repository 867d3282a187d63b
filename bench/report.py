"""The Markdown report and its charts, made of raw results alone (`scripts/bench --report-only`)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from bench import charts
from bench.measures import Measure, Results, Section, Verdict, verdict

RESULTS = Path(__file__).parent / "results"
LATENCIES = ("p50", "p90", "p99", "p99.9")
_INTRODUCTION = (
    "Made by `scripts/bench{flag}` from the raw runs beside this file. A ratio is taken between neighbouring runs of "
    "ours and the peer; shown are its median and its least and greatest. One server process runs on one core, whoever "
    "asks it on another."
)
_MACHINE = (
    "Commit {commit}, {at}, {seconds:,.0f} s. {cpu}, {cores} cores, {memory}, Linux {kernel}, Python {python}, inner "
    "loops in {loops}; {packages}. Load of the machine before: {load_before}."
)


def files(kind: str, folder: Path = RESULTS) -> tuple[Path, Path]:
    """Return the raw file and the report of a kind of run."""
    report = "quick.md" if kind == "quick" else "report.md"
    return folder / f"{kind}.json", folder / report


def write(kind: str, folder: Path = RESULTS) -> Path:
    """Write the report of a kind; what a standard and a full run have measured stands in one report."""
    kinds = ("quick",) if kind == "quick" else ("standard", "full")
    sections: dict[str, Section] = {}
    for each in kinds:
        for name, section in Results.read(files(each, folder)[0], each).sections.items():
            if name not in sections or section.facts["at"] > sections[name].facts["at"]:
                sections[name] = section
    drawn = _charts(sections, folder, kinds[0])
    path = files(kind, folder)[1]
    path.write_text(markdown(sections.values(), drawn, kind))
    return path


def verdicts(sections: Iterable[Section]) -> list[Verdict]:
    """Judge all rows of all sections."""
    return [
        verdict(row, {measure.name: measure for measure in section.measures})
        for section in sections
        for row in section.rows
    ]


def markdown(sections: Iterable[Section], drawn: Sequence[str], kind: str) -> str:
    """Write the report."""
    kept = list(sections)
    flag = {"quick": " --quick", "full": " --full"}.get(kind, "")
    parts = [
        "# Figures",
        _INTRODUCTION.format(flag=flag),
        *_failures(kept),
        "## Targets",
        _targets(verdicts(kept)),
        *(f"![{name}]({name})" for name in drawn),
        *(_section(section) for section in kept),
    ]
    return "\n\n".join(parts) + "\n"


def _targets(found: Sequence[Verdict]) -> str:
    rows = [
        (
            f"{each.row.name} ({each.unanswered})" if each.unanswered else each.row.name,
            each.target,
            each.row.aim or "",
            _number(median(each.values), each.row.unit) if each.values else each.missing,
            f"{_number(min(each.values))} - {_number(max(each.values))}" if each.values else "",
            str(len(each.values)),
            {True: "**met**", False: "not met", None: ""}[each.met],
        )
        for each in found
    ]
    return _table(("figure", "target", "aim", "median", "spread", "runs", ""), rows)


def _failures(sections: Sequence[Section]) -> list[str]:
    """Say first what is missing."""
    failed = [f"- {section.name}: {section.failed}" for section in sections if section.failed]
    return ["**Failed**, so that their figures are missing or not all there:", "\n".join(failed)] if failed else []


def _section(section: Section) -> str:
    facts: dict[str, object] = dict(section.facts)
    parts = [
        f"## {section.name.capitalize()}",
        _MACHINE.format_map(defaultdict(str, facts, seconds=section.seconds)),  # an older run may lack a fact
    ]
    if section.failed:
        parts.append(f"**Failed**: {section.failed}")
    if section.absent:
        parts.append("**Absent**\n\n" + "\n".join(f"- {text}" for text in section.absent))
    if section.measures:
        parts.append(_measures(section.measures))
    if section.notes:
        parts.append("\n".join(f"- {text}" for text in section.notes))
    return "\n\n".join(parts)


def _measures(measures: Sequence[Measure]) -> str:
    rows = []
    for measure in measures:
        latencies = [measure.latency(percentile) for percentile in LATENCIES]
        told = [measure.unanswered] if measure.unanswered else []
        rows.append(
            (
                measure.name,
                _number(measure.median, measure.unit),
                f"{_number(min(measure.values))} - {_number(max(measure.values))}",
                str(len(measure.runs)),
                *("" if each is None else f"{each:.3f}" for each in latencies),
                ", ".join((*(f"{name} {value}" for name, value in measure.setting.items()), *told)),
                f"`{measure.command}`",
            )
        )
    head = ("measured", "median", "spread", "runs", *(f"{each} ms" for each in LATENCIES), "setting", "command")
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float, unit: str = "") -> str:
    text = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return f"{text} {unit}".strip() if unit != "x" else f"{text} x"


def _charts(sections: dict[str, Section], folder: Path, kind: str) -> list[str]:
    """Draw what there is to draw; returns the names of the files."""
    drawn = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, title, unit in (
        ("stream", "Bulk checks, one server core", "recipients/s"),
        ("unary", "Single checks over gRPC, one server core", "checks/s"),
        ("reach", "Single checks from one gateway process, one server core", "checks/s"),
        ("embedded", "Single checks in process", "checks/s"),
        ("loading", "Loading into an empty store, one core", "rows/s"),
        ("replicas-outbox", "What a log costs who loads", "rows/s"),
        ("replicas-apply", "Committed at the primary, applied in replicas, one core", "changes/s"),
        ("replicas-stream", "A backlog by NATS, all on this machine", "rows/s"),
        ("replicas-boot", "From nothing to a fresh replica", "s"),
    ):
        chosen = _closed(sections.get(name), unit)
        if chosen:
            file = folder / f"{kind}-{name}.svg"
            charts.bars(chosen, title, file)
            drawn.append(file.name)
    series = _by_frame(sections.get("frames"))
    if series:
        file = folder / f"{kind}-frames.svg"
        charts.lines(series, "Bulk checks by frame size", "recipients per frame", file)
        drawn.append(file.name)
    hour = sections.get("replicas-hour")
    if hour is not None and hour.measures:
        file = folder / f"{kind}-replicas-hour.svg"
        shown = [measure for measure in hour.measures if len(measure.runs) > 1]
        title = "5 commits of 1,000 updates a second, 1 M consents"
        charts.growth(shown, float(shown[0].setting["minutes between"]), title, file)
        drawn.append(file.name)
    return drawn


def _closed(section: Section | None, unit: str) -> list[Measure]:
    measures = section.measures if section else []
    return [each for each in measures if each.unit == unit and each.setting.get("loop") != "open"]


def _by_frame(section: Section | None) -> dict[str, dict[float, Measure]]:
    """Gather the measures that differ in frame size only."""
    series: dict[str, dict[float, Measure]] = {}
    for measure in section.measures if section else []:
        who, kind, rest = measure.name.split(", ", 2)
        if rest.endswith("90% hits"):
            frame = float(measure.setting["frame"].replace(",", ""))
            series.setdefault(f"{who}, {kind}", {})[frame] = measure
    return series
