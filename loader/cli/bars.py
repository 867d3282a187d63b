"""Bars on a terminal that show how far a command is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from loader.loading.progress import Progress


@contextmanager
def parts_bar(task: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of parts done and parts in all on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        shown = progress.add_task(task, total=None)
        yield lambda done, total: progress.update(shown, completed=done, total=total)


@contextmanager
def loading_bar(files: list[str], *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("loading", total=None)
        rows = 0

        def watch(step: Progress) -> None:
            nonlocal rows
            rows += step.rows
            progress.update(task, description=f"{len(files)} given, {rows:,} rows", completed=step.bytes)

        yield watch
