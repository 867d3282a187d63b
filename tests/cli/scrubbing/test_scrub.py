import csv
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from iyscheck.address import Unreadable
from iyscheck.cli.scrubbing.lists import RowFault
from iyscheck.cli.scrubbing.words import SCRUB_WORDS, explain_fault
from iyscheck.consent import Reason
from iyscheck.keys import AddressKey
from iyscheck.sentences import Language, explain, explain_unreadable
from iyscheck.v1 import consent_check_pb2 as pb
from tests.cli.commands import Done, as_process, iyscheck
from tests.client.fake_server import Service, frame_reply

CONTEXT = ("--brand", "1", "--channel", "mesaj", "--recipient-type", "bireysel")
YES, NO = "05000000002", "05000000003"
LIST = f"\ufeffAd;Telefon\r\nAyşe;{YES}\r\nAli;{NO}\r\nx\r\nCan;05000000004\r\n"


def lasting(requests: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext) -> Iterator[pb.StreamCheckResponse]:
    """Answer as the fake server does, but so that the answers hold."""
    for request in requests:
        yield lastingly(request)


def lastingly(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
    """One such answer."""
    reply = frame_reply(request)
    reply.envelope.valid_until.seconds = 4_000_000_000
    return reply


@pytest.fixture
def list_(tmp_path: Path) -> Path:
    """A list as Turkish Excel writes it."""
    path = tmp_path / "liste.csv"
    path.write_bytes(LIST.encode())
    return path


@pytest.fixture
def lasting_service(service: Service) -> Service:
    """A server whose answers do not end."""
    service.frames = lasting
    return service


def scrub(service: Service, path: Path, *flags: str) -> Done:
    """Wash a list."""
    return iyscheck("scrub", str(path), *CONTEXT, "--server", service.target, "--timeout", "30", *flags)


def found(folder: Path) -> dict[str, list[str]]:
    """Read the results: their lines, by the ends of their names."""
    return {
        path.name.removeprefix("liste.csv."): path.read_bytes().decode().split("\r\n")
        for path in folder.iterdir()
        if path.name != "liste.csv"
    }


class TestResults:
    """What stands in the files."""

    def test_all(self, lasting_service: Service, list_: Path) -> None:
        """Every row has its answer behind it; unreadable ones are by themselves, too. Only the owner reads."""
        done = scrub(lasting_service, list_, "--lang", "tr")

        files = found(list_.parent)
        assert done.returncode == 0, done.stderr
        yes, no = (explain(reason, Language.TURKISH).why for reason in (Reason.CONSENTED, Reason.NO_CONSENT))
        cells = explain_fault(RowFault.WRONG_CELLS, Language.TURKISH)
        assert files == {
            "iyscheck.csv": [
                "\ufeffAd;Telefon;iyscheck_izin;iyscheck_neden;iyscheck_açıklama;iyscheck_veri_tarihi;iyscheck_karar_no",
                f"Ayşe;{YES};EVET;CONSENTED;{yes};1970-01-01 02:16:40;decision-1/0",
                f"Ali;{NO};HAYIR;NO_CONSENT;{no};1970-01-01 02:16:40;decision-1/1",
                f"x;;HAYIR;WRONG_CELLS;{cells};;",
                f"Can;05000000004;EVET;CONSENTED;{yes};1970-01-01 02:16:40;decision-1/2",
                "",
            ],
            "okunamayan.csv": [
                "\ufeffAd;Telefon;iyscheck_neden;iyscheck_açıklama;iyscheck_satır",
                f"x;;WRONG_CELLS;{cells};4",
                "",
            ],
        }
        modes = {stat.S_IMODE(path.stat().st_mode) for path in list_.parent.iterdir() if path != list_}
        assert modes == {0o600}
        assert list_.read_bytes() == LIST.encode()

    @pytest.mark.parametrize(
        ("flags", "files"),
        [
            (("--only", "permitted"), {"izinli.csv": 2}),
            (("--only", "denied"), {"izinsiz.csv": 2}),
            (("--split",), {"izinli.csv": 2, "izinsiz.csv": 2}),
        ],
    )
    def test_parts(self, lasting_service: Service, list_: Path, flags: tuple[str, ...], files: dict[str, int]) -> None:
        """Permitted and denied rows can be had by themselves, with the header; no other file is written."""
        done = scrub(lasting_service, list_, *flags, "--into", str(list_.parent))

        lines = found(list_.parent)
        assert done.returncode == 0
        assert {name: len(each) - 2 for name, each in lines.items()} == files | {"okunamayan.csv": 1}
        assert all(each[0].startswith("\ufeffAd;Telefon;iyscheck_") for each in lines.values())
        assert all(";EVET;" in line for line in lines.get("izinli.csv", [])[1:-1])
        assert all(";HAYIR;" in line for line in lines.get("izinsiz.csv", [])[1:-1])

    def test_windows(self, lasting_service: Service, list_: Path) -> None:
        """What is put behind a row is in the list's own encoding and delimiter, in quotes where that stands in it."""
        list_.write_bytes(f"Ad,Telefon\nÇağrı,{YES}\nAli,yok\n".encode("cp1254"))

        done = scrub(lasting_service, list_, "--lang", "tr")

        text = (list_.parent / "liste.csv.iyscheck.csv").read_bytes().decode("cp1254")
        header, first, _ = csv.reader(text.splitlines())
        sentence = explain(Reason.CONSENTED, Language.TURKISH).why
        assert done.returncode == 0
        assert header[4:6] == ["iyscheck_açıklama", "iyscheck_veri_tarihi"]
        assert "," in sentence
        assert first[:5] == ["Çağrı", YES, "EVET", "CONSENTED", sentence]

    @pytest.mark.parametrize("language", Language)
    def test_every_sentence(self, language: Language) -> None:
        """Each sentence that may stand in a cell can be written in both encodings."""
        sentences = [explain(reason, language).why for reason in Reason]
        sentences += [explain_unreadable(cause, language) for cause in Unreadable]
        faults = [explain_fault(fault, language) for fault in RowFault]

        assert all(each.encode("cp1254").decode("cp1254") == each for each in sentences + faults)
        assert len({*faults, *sentences}) == len(faults) + len(sentences)

    def test_tokens(self, lasting_service: Service, list_: Path) -> None:
        """With an address key no address leaves the process, and an unreadable one is told why it is not read."""
        key = AddressKey.create(list_.parent / "address.key")
        requests: list[pb.StreamCheckRequest] = []

        def keep(asked: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext) -> Iterator[pb.StreamCheckResponse]:
            for request in asked:
                requests.append(request)
                yield lastingly(request)

        lasting_service.frames = keep
        list_.write_text(f"{YES}\n05000000002 dahili 5\n")

        done = scrub(lasting_service, list_, "--address-key", str(list_.parent / "address.key"))

        text = (list_.parent / "liste.csv.okunamayan.csv").read_text()
        assert done.returncode == 0
        assert [(request.address_key_id, list(request.addresses)) for request in requests] == [(key.key_id, [])]
        assert explain_unreadable(Unreadable.LETTERS, Language.ENGLISH) in text

    def test_exempt(self, lasting_service: Service, list_: Path) -> None:
        """A row that cannot be read is denied also where the message class is exempt: it was never asked about."""

        def exempt(asked: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext) -> Iterator[pb.StreamCheckResponse]:
            for request in asked:
                reply = lastingly(request)
                reply.reasons = bytes([Reason.EXEMPT_MESSAGE]) * len(reply.reasons)
                yield reply

        lasting_service.frames = exempt

        scrub(lasting_service, list_, "--class", "delivery")

        lines = found(list_.parent)["iyscheck.csv"]
        assert [line.split(";")[2] for line in lines[1:-1]] == ["EVET", "EVET", "HAYIR", "EVET"]


class TestTold:
    """What is said."""

    def test_detected(self, lasting_service: Service, list_: Path) -> None:
        """What the list was taken for is said before, and the column once more at the end."""
        done = scrub(lasting_service, list_)

        assert "UTF-8 with its mark (BOM), 2 columns parted by ';', " in done.stderr
        assert "the first row is taken for the header: Ad | Telefon, addresses in column 2 (Telefon)." in done.stderr
        assert "addresses in column 2 (Telefon)." in done.stdout
        assert "4 rows: 2 permitted, 2 denied." in done.stdout
        assert "no column iyscheck_kanıt_tarihi" in done.stdout
        assert "The answers hold until 2096-10-02T07:06:40Z." in done.stdout

    def test_json(self, lasting_service: Service, list_: Path) -> None:
        """A program gets one object with the same."""
        done = scrub(lasting_service, list_, "--json")

        told = json.loads(done.stdout)
        assert told["detected"] == {
            "encoding": "UTF-8",
            "byte_order_mark": True,
            "delimiter": "';'",
            "columns": 2,
            "header": ["Ad", "Telefon"],
            "column": 2,
            "column_name": "Telefon",
        }
        assert told["reasons"] == {"CONSENTED": 2, "NO_CONSENT": 1, "WRONG_CELLS": 1}
        assert (told["rows"], told["permitted"], told["denied"], told["unreadable"]) == (4, 2, 2, 1)
        assert (told["as_of"], told["valid_until"]) == ("1970-01-01T00:16:40Z", "2096-10-02T07:06:40Z")
        assert (told["ended"], told["evidence"], told["resumed_rows"]) == (False, False, 0)
        assert [Path(path).name for path in told["files"]] == ["liste.csv.iyscheck.csv", "liste.csv.okunamayan.csv"]

    def test_ended(self, service: Service, list_: Path) -> None:
        """Where answers have ended before the list was washed that is said, and the exit code is 1."""
        done = scrub(service, list_)

        assert done.returncode == 1
        assert "The first answers have ended meanwhile (1970-01-01T00:33:20Z): do not send." in done.stdout
        assert found(list_.parent).keys() == {"iyscheck.csv", "okunamayan.csv"}

    @pytest.mark.parametrize("language", Language)
    def test_words(self, language: Language) -> None:
        """Every word is there in every language, and none is another language's."""
        other = SCRUB_WORDS[next(each for each in Language if each is not language)]
        for name in SCRUB_WORDS[language].__dataclass_fields__:
            assert getattr(SCRUB_WORDS[language], name) not in ("", getattr(other, name))

    def test_no_address(self, service: Service, list_: Path) -> None:
        """No address is in what is printed, also where all goes wrong."""
        outputs = [scrub(service, list_), scrub(service, list_), scrub(service, list_, "--column", "9", "--afresh")]
        list_.write_bytes(LIST.encode() + f"a;b;EVET;{YES}\r\n".encode())
        outputs.append(scrub(service, list_, "--afresh"))

        assert [done.returncode for done in outputs] == [1, 2, 2, 2]
        assert not any(number[1:] in done.stdout + done.stderr for number in (YES, NO) for done in outputs)


class TestAgain:
    """Runs that were broken off, and others."""

    def test_refused_midway(self, service: Service, list_: Path) -> None:
        """What was washed before an error is kept, and asked about no second time."""
        list_.write_text("".join(f"{number:011}\n" for number in range(5000000000, 5000000120)))
        asked: list[str] = []

        def failing(
            requests: Iterator[pb.StreamCheckRequest], context: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                asked.extend(request.addresses)
                if len(asked) == 60 and not done:
                    context.abort(grpc.StatusCode.INTERNAL, "")
                yield lastingly(request)

        done: list[Done] = []
        service.frames = failing
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("iyscheck.cli.scrubbing.washing.STEP_ROWS", 30)
            first = scrub(service, list_)
            between = {path.name for path in list_.parent.iterdir()}
            done.append(first)
            second = scrub(service, list_, "--json")

        assert (first.returncode, second.returncode) == (2, 0)
        assert json.loads(second.stdout)["resumed_rows"] == 30
        assert asked[60:] == [f"{number:011}" for number in range(5000000030, 5000000120)]
        assert between == {"liste.csv"} | {
            f"liste.csv.{end}" for end in ("iyscheck.csv.part", "okunamayan.csv.part", "iyscheck.resume")
        }
        lines = (list_.parent / "liste.csv.iyscheck.csv").read_text().splitlines()
        assert [line.split(";")[0] for line in lines] == [f"{number:011}" for number in range(5000000000, 5000000120)]

    def test_patience(self, service: Service, list_: Path) -> None:
        """A frame over the caller's rate is asked about again, and those before it are not."""
        asked: list[list[str]] = []

        def limited(
            requests: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                asked.append(list(request.addresses))
                if len(asked) == 1:
                    error = pb.ItemError(reason="RATE_LIMITED", message="Over the rate.")
                    yield pb.StreamCheckResponse(frame_id=request.frame_id, error=error)
                else:
                    yield lastingly(request)

        service.frames = limited

        done = scrub(service, list_)

        assert done.returncode == 0, done.stderr
        assert asked == [[YES, NO, "05000000004"]] * 2

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (("--brand", "2"), "--brand: given differently"),
            (("--split",), "--only or --split: given differently"),
            (("--lang", "tr"), "--lang: given differently"),
            ((), "the list has changed"),
        ],
    )
    def test_another(self, service: Service, list_: Path, change: tuple[str, ...], says: str) -> None:
        """What was begun otherwise is not gone on with, but can be begun anew."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("iyscheck.cli.scrubbing.washing.STEP_ROWS", 1)
            service.frames = lambda requests, context: (
                lastingly(request) if YES in request.addresses else context.abort(grpc.StatusCode.INTERNAL, "")
                for request in requests
            )
            assert scrub(service, list_).returncode == 2
        service.frames = lasting
        if not change:
            list_.write_bytes(LIST.encode().replace(b"Ali", b"Ada"))

        refused, afresh = scrub(service, list_, *change), scrub(service, list_, *change, "--afresh")

        assert refused.returncode == 2
        assert says in refused.stderr
        assert afresh.returncode == 0

    def test_results_there(self, lasting_service: Service, list_: Path) -> None:
        """Results are not written over unless that is asked for; those of rows that cannot be read go with them."""
        scrub(lasting_service, list_)
        before = found(list_.parent)
        list_.write_text(f"{YES}\n")

        refused = scrub(lasting_service, list_)
        kept = found(list_.parent)
        afresh = scrub(lasting_service, list_, "--afresh")

        assert (refused.returncode, afresh.returncode) == (2, 0)
        assert "liste.csv.iyscheck.csv exists already" in refused.stderr
        assert kept == before
        assert found(list_.parent).keys() == {"iyscheck.csv"}

    def test_two_at_once(self, lasting_service: Service, list_: Path) -> None:
        """While a list is washed nobody else washes it."""
        inner: list[Done] = []

        def wash_too(
            requests: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                lasting_service.frames = lasting
                inner.append(as_process("scrub", str(list_), *CONTEXT, "--server", lasting_service.target))
                yield lastingly(request)

        lasting_service.frames = wash_too

        outer = scrub(lasting_service, list_, "--timeout", "60")

        assert (outer.returncode, inner[0].returncode) == (0, 2)
        assert "another `iyscheck scrub` is washing it" in inner[0].stderr

    def test_changed_meanwhile(self, lasting_service: Service, list_: Path) -> None:
        """A list that changes while it is washed has no result."""

        def change(
            requests: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                list_.write_bytes(LIST.encode() + b"a;b\r\n")
                yield lastingly(request)

        lasting_service.frames = change

        done = scrub(lasting_service, list_)

        assert done.returncode == 2
        assert "has changed while it was washed" in done.stderr
        assert "iyscheck.csv" not in found(list_.parent)


class TestNobody:
    """Without a server."""

    def test_list_first(self, list_: Path) -> None:
        """What is wrong with the list is said before a server is looked for."""
        list_.write_bytes(b"PK\x03\x04")
        pipe = list_.with_name("pipe")
        os.mkfifo(pipe)

        for path, says in ((list_, "Excel workbook"), (list_.with_name("none"), "No such file"), (pipe, "not a file")):
            done = iyscheck("scrub", str(path), *CONTEXT, "--server", "127.0.0.1:1", "--json")

            assert done.returncode == 2
            error = json.loads(done.stdout)["error"]
            assert error["field"] == "LIST"
            assert says in error["message"]

    def test_nobody(self, list_: Path) -> None:
        """Where nobody answers nothing is written."""
        done = iyscheck("scrub", str(list_), *CONTEXT, "--server", "127.0.0.1:1", "--timeout", "1.5")

        assert done.returncode == 2
        assert "No iyscheck server answers" in done.stderr
        assert list(list_.parent.iterdir()) == [list_]
