"""What the demo tells at its end: a row for each act, what was compared, and the same as JSON."""

from collections import Counter
from typing import Any

from rich.table import Table

from bench.cluster.judge import Act
from bench.cluster.story import Story


def summary(story: Story, seconds: float) -> None:
    """Print the tables of the end."""
    table = Table("event", title="What senders saw")
    for head in ("answers", "wrong", "wrong\npermits"):
        table.add_column(head, justify="right")
    table.add_column("errors of\nsenders")
    for head in ("longest\nwait", "oldest\nanswer", "all fresh\nagain after"):
        table.add_column(head, justify="right")
    for act in story.judge.acts[1:]:
        table.add_row(
            act.name,
            f"{act.answers:,}",
            str(act.wrong),
            str(act.wrong_permits),
            ", ".join(f"{code} {count:,}" for code, count in act.errors.most_common()) or "none",
            f"{act.waited_s:.1f} s",
            f"{act.oldest_s:.1f} s",
            "" if act.fresh_after_s is None else f"{act.fresh_after_s:.1f} s",
        )
    story.console.print(table)
    numbers = Table(show_header=False)
    total = _total(story.judge.acts)
    numbers.add_row("answers compared", f"{total['answers']:,}")
    by_primary = story.judge.compared[story.site.primary.name]
    numbers.add_row("of them by the first primary itself", f"{by_primary:,}")
    numbers.add_row("wrong", f"{total['wrong']:,}, permits that should not be: {total['wrong_permits']:,}")
    numbers.add_row("otherwise not as it must be", f"{story.judge.faulty - total['wrong']:,}")
    for name, value in story.numbers.items():
        numbers.add_row(name, value)
    numbers.add_row("took", f"{seconds:.0f} s")
    story.console.print(numbers)
    for text in story.judge.faults:
        story.console.print(f"WRONG: {text}", highlight=False, soft_wrap=True, markup=False, style="bold red")


def as_json(story: Story, seconds: float) -> dict[str, Any]:
    """Write everything for programs."""
    return {
        "seed": story.seed,
        "consents": story.consents,
        "seconds": round(seconds, 1),
        **_total(story.judge.acts),
        "faulty": story.judge.faulty,
        "faults": story.judge.faults,
        "acts": [_act(act) for act in story.judge.acts],
        "numbers": story.numbers,
    }


def _total(acts: list[Act]) -> dict[str, Any]:
    errors: Counter[str] = Counter()
    for act in acts:
        errors.update(act.errors)
    return {
        "answers": sum(act.answers for act in acts),
        "wrong": sum(act.wrong for act in acts),
        "wrong_permits": sum(act.wrong_permits for act in acts),
        "errors": dict(errors),
    }


def _act(act: Act) -> dict[str, Any]:
    return {
        "name": act.name,
        "answers": act.answers,
        "wrong": act.wrong,
        "wrong_permits": act.wrong_permits,
        "errors": dict(act.errors),
        "longest_wait_s": round(act.waited_s, 3),
        "oldest_answer_s": round(act.oldest_s, 3),
        "all_fresh_after_s": None if act.fresh_after_s is None else round(act.fresh_after_s, 3),
    }
