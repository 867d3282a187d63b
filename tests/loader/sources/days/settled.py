"""A process that settles the days whose files lie in a folder, for tests that kill it: settled.py FOLDER STORE."""

import sys
from datetime import date
from pathlib import Path

from iyscheck.store.layout import SourceState
from iyscheck.store.writer import Writer
from loader.iys.messages import Agreement, AgreementState, FeedSource
from loader.reading import times
from loader.reports.days import DayReports
from loader.sources.days.asking import Answers
from loader.sources.days.facts import FileFacts
from loader.sources.days.judgement import Evidence
from loader.sources.days.settling import Settler
from loader.sources.days.stamp import Stamp
from loader.sources.files.source import FileSource
from loader.sources.names import stream_name
from tests.builders import ADDRESS_KEY, STORE_KEY, a_batch, a_brand
from tests.loader.sources.days.clocks import StandingClock

IYS_CODE, BRAND = 700_001, 600_001


def main(folder: Path, store: Path) -> None:
    """Settle what is not settled."""
    days = [date.fromisoformat(path.stem) for path in sorted(folder.glob("*.csv"))]
    start, end = (times.watermark(f"{day} 00:00:00") for day in (days[0], days[-1]))
    reports = DayReports(store.with_name(store.name + ".days"))
    with Writer.open(store, address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id) as writer:
        seed = SourceState(name="seed", watermarks=((BRAND, start),))
        writer.apply(a_batch(brands=[a_brand(BRAND)]), seed, finished=True)
        for half in FeedSource:
            covered = SourceState(
                name=stream_name(IYS_CODE, BRAND, half), covered_from=start, covered_until=end + 86_400
            )
            writer.apply(a_batch(), covered)
        settler = Settler(
            writer=writer,
            keys=(ADDRESS_KEY, STORE_KEY),
            rejects=store.with_name(store.name + ".rejects"),
            reports=reports,
            clock=StandingClock(end + 2 * 86_400),
            source_of=lambda path, name: FileSource(path, name=name),
            commit_rows=200,
        )
        for day in days:
            if day not in reports.settled(BRAND):
                path = folder / f"{day}.csv"
                file = FileFacts.of(path)
                said = Agreement(day=day, state=AgreementState.COMPLETED, hash=file.itself)
                evidence = Evidence(day=day, asked_s=settler.clock.now(), summary=(), agreement=said, file=file)
                settler.settle(Answers(iys_code=IYS_CODE, brand=BRAND, evidence=evidence, path=path, stamp=Stamp()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
