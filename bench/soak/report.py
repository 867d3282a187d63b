"""What a soak tells: a line every ten seconds, a table at the end, and everything as JSON."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.soak.flatness import Growth
from bench.soak.run import Healing, Soak


def line(soak: Soak, console: Console, seconds: float) -> None:
    """Print how it stands."""
    tally = soak.tally
    latest = {each.pid: each for each in soak.samples[-6:]}
    memory = " ".join(f"{each.role[0]}{each.memory:.0f}" for each in latest.values())
    errors = ", ".join(f"{code} {count:,}" for code, count in tally.errors.most_common())
    parts = [
        f"{seconds / 60:5.1f} min",
        f"{tally.checks.total():,} checks",
        f"wrong {tally.wrongs.total()}",
        f"late {len(tally.late)}",
        f"errors: {errors or 'none'}",
        f"faults {soak.faults.total()}",
        f"loads {soak.feeder.loads}",
        f"MB {memory}",
    ]
    console.print("   ".join(parts), highlight=False, soft_wrap=True)


def summary(soak: Soak, console: Console) -> None:
    """Print the tables of the end."""
    healing = Table(
        "fault", "times", "all answered again after", "all workers serve after", "nobody answered for", title="Faults"
    )
    for name, each in sorted(soak.healing.items()):
        healing.add_row(
            name, str(each.times), *(f"{took:.1f} s" for took in (each.healed_s, each.whole_s, each.silence_s))
        )
    console.print(healing)
    flat = Table("what", "second quarter", "last quarter", "may grow by", "", title="Flatness")
    growths = soak.growths()
    for growth in growths:
        if growth.holds is None:
            continue
        verdict = "flat" if growth.holds else "GROWS"
        flat.add_row(
            growth.what, _figure(growth, growth.before), _figure(growth, growth.after), f"{growth.bound:.0f}", verdict
        )
    console.print(flat)
    tally = soak.tally
    told = [
        f"{tally.checks.total():,} checks, {tally.wrongs.total()} wrong answers, {len(tally.late)} late calls",
        f"{tally.told:,} statuses told to watchers",
        f"{soak.feeder.loads:,} loads of {soak.model.rows:,} rows, {soak.feeder.resumed} of them resumed in the middle",
        "errors: " + (", ".join(f"{code} {count:,}" for code, count in tally.errors.most_common()) or "none"),
        *(f"the server ended by itself: {how}, {count} times" for how, count in soak.server.ends.items()),
        *(f"too little to compare: {each.what}" for each in growths if each.holds is None),
        *(f"left out: {text}" for text in soak.site.left_out),
        *(f"{each.what}: {asdict(each)}" for each in tally.wrong),
    ]
    for text in told:
        console.print(text, highlight=False, soft_wrap=True, markup=False)
    faulty = soak.faulty()
    for text in faulty:
        console.print(f"FAILED: {text}", highlight=False, soft_wrap=True, markup=False, style="bold red")
    console.print(f"seed {soak.seed}: " + ("failed" if faulty else "all is well"), highlight=False)


def _figure(growth: Growth, value: float | None) -> str:
    return "" if value is None else f"{value:.1f} {growth.unit}".strip()


def _rounded(healing: Healing) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(healing).items()}


def as_json(soak: Soak, seconds: float) -> dict[str, Any]:
    """Write everything for programs."""
    tally = soak.tally
    return {
        "machine": soak.machine,
        "seed": soak.seed,
        "seconds": round(seconds, 1),
        "interrupted": soak.interrupted,
        "faults": {name: _rounded(each) for name, each in sorted(soak.healing.items())},
        "left_out": soak.site.left_out,
        "checks": dict(tally.checks),
        "reasons": dict(tally.reasons),
        "errors": dict(tally.errors),
        "wrong": dict(tally.wrongs),
        "wrong_answers": [asdict(each) for each in tally.wrong],
        "late": tally.late,
        "told_to_watchers": tally.told,
        "loads": soak.feeder.loads,
        "resumed": soak.feeder.resumed,
        "rows": soak.model.rows,
        "ended_by_itself": dict(soak.server.ends),
        "flatness": [asdict(each) | {"holds": each.holds} for each in soak.growths()],
        "failed": soak.faulty(),
    }
