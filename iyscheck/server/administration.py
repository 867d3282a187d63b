"""Answers those who operate a server; like `handlers` it only translates, and asks who knows.

Everything here reads. What it tells has no address, token, tag or key in it, and no secret of the settings.
"""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import islice
from platform import python_version
from typing import Final

import msgspec
from google.protobuf.message import Message

import iyscheck
from iyscheck import wire
from iyscheck.callers.identity import Entry
from iyscheck.consent import RULE_VERSION
from iyscheck.engine import Engine
from iyscheck.errors import StoreError
from iyscheck.keys import ADDRESS_FORM
from iyscheck.overview import Build, CallerOverview, CallersInForce, IndexCondition, Overview, Worker
from iyscheck.question import (
    MAX_BATCH_QUESTIONS,
    MAX_CLIENT_REFERENCE_BYTES,
    MAX_FRAME_GROUPS,
    MAX_FRAME_RECIPIENTS,
    MAX_MESSAGE_BYTES,
)
from iyscheck.server.gate import Gate
from iyscheck.server.settings import Settings
from iyscheck.store import layout
from iyscheck.v1 import admin_pb2 as admin

BRANDS_SHOWN: Final = 100
"""Of a caller's brands."""
_LIMITS: Final = {
    "max_batch_questions": MAX_BATCH_QUESTIONS,
    "max_frame_recipients": MAX_FRAME_RECIPIENTS,
    "max_message_bytes": MAX_MESSAGE_BYTES,
    "max_client_reference_bytes": MAX_CLIENT_REFERENCE_BYTES,
    "max_frame_groups": MAX_FRAME_GROUPS,
}
_TEXTS: Final = ("legacy_deadline", "log_level")
"""Settings whose texts are one of a few words."""


class AdminHandlers:
    """Answers the four RPCs of the admin service.

    `serving` gives each name that health knows, and whether it serves. `worker` is this process among how many.
    """

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        settings: Settings,
        *,
        serving: Callable[[], Mapping[str, bool]],
        worker: int = 0,
        workers: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._inspection = engine.inspection()
        self._gate = gate
        self._serving = serving
        self._settings = shown(settings)
        self._answer_ttl_s = settings.answer_ttl
        self._clock = clock
        self._worker = Worker(number=worker, workers=workers, started_at=clock())

    @property
    def calls(self) -> Mapping[str, Callable[[bytes], Message]]:
        """What answers each RPC, by its name."""
        return {
            "GetStatus": self.get_status,
            "ListBrands": self.list_brands,
            "ListSources": self.list_sources,
            "ListCallers": self.list_callers,
        }

    def get_status(self, data: bytes) -> admin.GetStatusResponse:
        """Tell what a glance shows; a store that cannot be read is told, too."""
        wire.parse(admin.GetStatusRequest, data)
        engine, callers, store, store_error = self._engine, self._gate.callers, None, ""
        try:
            store = self._inspection.store()
        except StoreError as error:
            store_error = error.reason
        index = engine.index_stats()
        return wire.status_response(
            Overview(
                answered_at=self._clock(),
                store_error=store_error,
                store=store,
                index=IndexCondition(
                    pages=index.pages,
                    pages_not_taken=index.pages_not_taken,
                    recipients_from_records=index.recipients_from_records,
                ),
                serving=self._serving(),
                build=build(engine.kernel.value),
                policy=engine.policy,
                answer_ttl_s=self._answer_ttl_s,
                limits=_LIMITS,
                settings=self._settings,
                worker=self._worker,
                callers=None
                if callers is None
                else CallersInForce(callers=len(callers.entries), file_usable=self._gate.file_usable),
            )
        )

    def list_brands(self, data: bytes) -> admin.ListBrandsResponse:
        """Give a page of the brands."""
        asked = wire.brands_asked(wire.parse(admin.ListBrandsRequest, data))
        found, after = self._inspection.brands(**msgspec.structs.asdict(asked))
        return wire.brands_response(found, asked, after, now_s=self._clock())

    def list_sources(self, data: bytes) -> admin.ListSourcesResponse:
        """Give a page of the sources."""
        asked = wire.sources_asked(wire.parse(admin.ListSourcesRequest, data))
        found, after = self._inspection.sources(**msgspec.structs.asdict(asked))
        return wire.sources_response(found, asked, after)

    def list_callers(self, data: bytes) -> admin.ListCallersResponse:
        """Give a page of the callers, by name."""
        asked = wire.callers_asked(wire.parse(admin.ListCallersRequest, data))
        callers = self._gate.callers
        entries = {} if callers is None else callers.entries
        names = sorted(name for name in entries if asked.after is None or name > asked.after)
        chosen = names[: asked.most]
        found = [_caller(entries[name], self._gate.refusals(name)) for name in chosen]
        return wire.callers_response(found, chosen[-1] if len(names) > len(chosen) else None)


def shown(settings: Settings) -> dict[str, str]:
    """Write of the settings the numbers, the switches and those of a few words: no paths, no addresses, no secrets."""
    found: dict[str, str] = {}
    for name, value in settings.plain().items():
        if isinstance(value, bool):
            found[name] = str(value).lower()
        elif isinstance(value, int | float):
            found[name] = f"{value:g}" if isinstance(value, float) else str(value)
        elif name in _TEXTS:
            found[name] = str(value)
    return found


def build(kernel: str) -> Build:
    """Say which versions of what this server is made of."""
    return Build(
        version=iyscheck.__version__,
        kernel=kernel,
        rule_version=RULE_VERSION,
        address_form=ADDRESS_FORM,
        store_format=layout.FORMAT_VERSION,
        grpc_version=version("grpcio"),
        python_version=python_version(),
    )


def _caller(entry: Entry, refusals: Mapping[str, int]) -> CallerOverview:
    caller = entry.caller
    return CallerOverview(
        name=caller.name,
        calls=tuple(sorted(caller.calls)),
        brand_count=None if caller.brands is None else len(caller.brands),
        brands=tuple(islice(sorted(caller.brands or ()), BRANDS_SHOWN)),
        channels=tuple(sorted(caller.channels)),
        addresses=caller.addresses,
        rate=caller.rate,
        streams=caller.streams,
        keys=len(entry.keys),
        certificates=len(entry.certificates),
        refusals=refusals,
    )
