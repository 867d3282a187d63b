import dataclasses
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import grpc
import msgspec
import pytest

from iyscheck.cli.status_sentences import BRAND_STATES, LOADED, STATUS_WORDS
from iyscheck.keys import AddressKey, SigningKey, StoreKey, StreamKey
from iyscheck.overview import BrandState, Loaded
from iyscheck.sentences import Language
from iyscheck.store.layout import RejectedRow, SourceState
from iyscheck.v1 import consent_check_pb2 as pb
from tests.builders import StoreBuilder, a_batch
from tests.cli.commands import MAIN, as_process, iyscheck
from tests.client.fake_server import Service, abort, envelope, serving, serving_later
from tests.server.conftest import make_site, serve

YES, NO = "+905000000002", "+905000000003"
NOBODY = ("--server", "127.0.0.1:1", "--timeout", "1.5")
CONTEXT = ("--brand", "1", "--channel", "mesaj", "--recipient-type", "bireysel")


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    """A server that answers by the contract, for tests that change nothing of it."""
    with serving() as service:
        yield service


class TestCheck:
    """`iyscheck check` answers with an exit code, a sentence, or one JSON object."""

    def test_permitted(self, shared: Service) -> None:
        """A permission ends with 0 and says why."""
        done = as_process("check", YES, *CONTEXT, "--server", shared.target)

        assert done.returncode == 0
        assert done.stdout.startswith("PERMITTED  CONSENTED\nThe recipient has given this brand consent")
        assert done.stderr == ""

    def test_denied_in_turkish(self, shared: Service) -> None:
        """A denial ends with 1, and the environment chooses server and language."""
        done = as_process("check", NO, *CONTEXT, IYSCHECK_SERVER=shared.target, IYSCHECK_LANG="tr")

        assert done.returncode == 1
        assert done.stdout.startswith("İZİN YOK  NO_CONSENT\nBu bireyin (BIREYSEL)")

    def test_json_from_input(self, shared: Service) -> None:
        """The address may come from the input, and the JSON holds the whole answer but not the address."""
        done = iyscheck("check", "-", *CONTEXT, "--json", "--server", shared.target, text=YES + "\n")

        answer = json.loads(done.stdout)
        assert done.returncode == 0
        assert (answer["permitted"], answer["reason"], answer["reason_number"]) == (True, "CONSENTED", 1)
        assert answer["position"] == {"log_id": "4c" * 16, "sequence": 7}
        assert answer["as_of"] == "1970-01-01T00:16:40Z"
        assert YES not in done.stdout

    def test_evidence(self, service: Service) -> None:
        """The record behind the answer is shown as text and as JSON."""
        record = pb.Evidence(
            status=pb.CONSENT_STATUS_RET,
            source="HS_WEB",
            registration_time="2024-05-02 10:05:00",
            transaction_id="t" * 64,
        )
        service.reply = lambda *_: pb.CheckResponse(reason=pb.REASON_REFUSED, evidence=record, envelope=envelope())

        text = iyscheck("check", YES, *CONTEXT, "--server", service.target)
        answer = iyscheck("check", YES, *CONTEXT, "--server", service.target, "--json")

        assert "RET, source HS_WEB, registered at İYS 2024-05-02 10:05:00, transaction ttt" in text.stdout
        assert json.loads(answer.stdout)["evidence"]["status"] == "RET"
        assert (text.returncode, answer.returncode) == (1, 1)

    def test_key(self, service: Service, tmp_path: Path) -> None:
        """With an address key, and whatever case or dots the words have, a token goes out and no address."""
        key = AddressKey.create(tmp_path / "address.key")

        iyscheck(
            "check", YES, "--brand", "1", "--channel", "Mesaj", "--recipient-type", "BİREYSEL", "--class", "delivery",
            "--retailer", "77", "--server", service.target, "--address-key", str(tmp_path / "address.key"),
        )  # fmt: skip

        (request,) = service.requests
        assert isinstance(request, pb.CheckRequest)
        assert request.question.address_key_id == key.key_id
        assert request.question.WhichOneof("recipient") == "token"
        assert request.question.message_class == pb.MESSAGE_CLASS_DELIVERY
        assert request.question.retailer_code == 77

    def test_loads_no_store(self, shared: Service) -> None:
        """Asking a question loads neither the store nor the server."""
        code = f"import sys\ntry:\n    {MAIN}\nfinally:\n    print(sorted(sys.modules), file=sys.stderr)"

        done = as_process("check", YES, *CONTEXT, "--server", shared.target, code=code)

        assert "'iyscheck.client.sync'" in done.stderr
        for module in ("lmdb", "iyscheck.store", "iyscheck.engine", "iyscheck.server"):
            assert f"'{module}'" not in done.stderr


class TestStarting:
    """A server that is not there yet is waited for."""

    @pytest.mark.parametrize("arguments", [("check", YES, *CONTEXT), ("info",)], ids=["check", "info"])
    def test_waits(self, arguments: tuple[str, ...]) -> None:
        """Who asks while the server starts is answered, and told in between what is waited for."""
        with serving_later(2.4) as target:
            done = iyscheck(*arguments, "--server", target, "--timeout", "30", "--json")

        assert done.returncode == 0
        assert json.loads(done.stdout)
        assert done.stderr == (f"iyscheck: No iyscheck server answers at {target}. Waiting up to 30 s for it.\n")

    def test_not_for_ever(self) -> None:
        """When the time is over, the error says that nobody was there."""
        done = iyscheck("info", "--server", "127.0.0.1:1", "--timeout", "1.5", "--json")

        assert done.returncode == 2
        assert json.loads(done.stdout)["error"]["reason"] == "UNAVAILABLE"


class TestErrors:
    """Whatever goes wrong is one sentence and exit code 2; never a traceback, never the address."""

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("check", YES, *CONTEXT, *NOBODY), "No iyscheck server answers at 127.0.0.1:1."),
            (("check", YES, *CONTEXT, "--brand", "99999999999"), "brand: must be from 1 to"),
            (("check", YES, *CONTEXT, "--address-key", "nowhere.key"), "nowhere.key does not exist."),
            (("check", "-", *CONTEXT), "must hold exactly one line"),
            (("info", *NOBODY), "No iyscheck server answers at 127.0.0.1:1."),
            (("keys", "show", "nowhere.key"), "nowhere.key does not exist."),
        ],
        ids=["nobody", "brand", "key", "input", "info", "keys"],
    )
    def test_sentence_and_json(self, arguments: tuple[str, ...], says: str) -> None:
        """The sentence stands on the error output; with --json there is also an object on standard output."""
        text = iyscheck(*arguments)
        answer = iyscheck(*arguments, "--json")

        assert (text.returncode, answer.returncode) == (2, 2)
        *waits, told = text.stderr.splitlines()
        assert says in told
        assert answer.stderr.splitlines()[-1] == told
        assert all(line.endswith("Waiting up to 1.5 s for it.") for line in waits)
        assert (text.stdout, len(waits) <= 1) == ("", True)
        error = json.loads(answer.stdout)["error"]
        assert error.keys() == {"reason", "field", "message", "fix"}
        assert says in error["message"]
        assert "5000000002" not in text.stderr + answer.stdout + answer.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("check",),
            ("nonsense",),
            ("check", YES),
            ("check", YES, *CONTEXT, "--channel", "fax"),
            ("check", YES, *CONTEXT, "--lang", "de"),
            ("check", YES, *CONTEXT, "--timeout", "0"),
            ("keys", "create"),
        ],
        ids=" ".join,
    )
    def test_usage(self, arguments: tuple[str, ...]) -> None:
        """A command line that cannot be right ends with 2 and a hint, not with "denied"."""
        done = iyscheck(*arguments)

        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "Usage:" in done.stderr + done.stdout

    @pytest.mark.parametrize(
        "arguments",
        [("check", YES, "--nope"), ("check",), ("check", YES, *CONTEXT, "--brand", "x"), ("nonsense",)],
        ids=" ".join,
    )
    def test_usage_for_programs(self, arguments: tuple[str, ...]) -> None:
        """A program that asks for JSON gets an object also for a command line that cannot be right."""
        done = iyscheck(*arguments, "--json")

        assert done.returncode == 2
        assert json.loads(done.stdout)["error"]["reason"] == "USAGE"
        assert "Usage:" in done.stderr

    @pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
    @pytest.mark.parametrize("full", [False, True], ids=["nobody reads", "disk full"])
    def test_unread(self, shared: Service, flags: tuple[str, ...], full: bool) -> None:  # noqa: FBT001 - pytest's
        """An answer that cannot be printed is no denial: exit code 2, and a sentence."""
        if full:
            writing = os.open("/dev/full", os.O_WRONLY)
        else:
            reading, writing = os.pipe()
            os.close(reading)
        asked = ["check", YES, *CONTEXT, "--server", shared.target, *flags]
        try:
            done = subprocess.run(
                [sys.executable, "-c", MAIN, *asked], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
            )
        finally:
            os.close(writing)

        assert done.returncode == 2
        assert done.stderr.startswith("iyscheck: Standard output cannot be written: ")
        assert done.stderr.count("\n") == 1

    def test_server_error(self, service: Service) -> None:
        """What the server refuses is told with its code."""
        service.reply = lambda _, context: abort(
            context, grpc.StatusCode.FAILED_PRECONDITION, "ADDRESS_KEY_NOT_HELD", "address"
        )

        done = iyscheck("check", YES, *CONTEXT, "--server", service.target, "--json")

        assert done.returncode == 2
        error = json.loads(done.stdout)["error"]
        assert (error["reason"], error["field"]) == ("ADDRESS_KEY_NOT_HELD", "address")

    def test_own_fault(self) -> None:
        """Even our own mistakes end in a sentence that shows no address."""
        code = f"import iyscheck.client.sync as s\ns.Client = lambda *a, **k: 1 / 0\n{MAIN}"

        done = as_process("check", YES, *CONTEXT, code=code)

        assert done.returncode == 2
        assert done.stderr == "iyscheck: iyscheck itself failed (ZeroDivisionError). Please report it.\n"


class TestHelp:
    """Each command explains itself."""

    @pytest.mark.parametrize("command", ["check", "info", "keys create", "keys show", "status"])
    def test_examples(self, command: str) -> None:
        """The help of a command shows how to call it."""
        done = iyscheck(*command.split(), "--help")

        assert done.returncode == 0
        assert f"  iyscheck {command}" in done.stdout

    def test_commands(self) -> None:
        """The command names its subcommands, and `serve` lists its settings."""
        done, serve = iyscheck("--help"), iyscheck("serve", "--help")

        assert all(name in done.stdout for name in ("check", "info", "keys", "serve", "status"))
        assert "--store-key" in serve.stdout


class TestKeys:
    """Key files are made once, for their owner only, and only their ids are shown."""

    def test_create_and_show(self, tmp_path: Path) -> None:
        """Both keys are made, can be loaded, and have the ids that were printed."""
        made = iyscheck("keys", "create", str(tmp_path / "keys"), "--json")
        files = [tmp_path / "keys" / name for name in ("address.key", "store.key")]
        shown = iyscheck("keys", "show", *map(str, files))

        address_key, store_key = AddressKey.load(files[0]), StoreKey.load(files[1])
        assert [key["key_id"] for key in json.loads(made.stdout)["keys"]] == [
            address_key.key_id.hex(),
            store_key.key_id.hex(),
        ]
        assert [line.split()[:2] for line in shown.stdout.splitlines()] == [
            ["address-key", address_key.key_id.hex()],
            ["store-key", store_key.key_id.hex()],
        ]
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
        for file in files:
            assert file.read_text().split()[-1] not in made.stdout + shown.stdout

    @pytest.mark.parametrize(("command", "kind"), [("create-stream", StreamKey), ("create-signing", SigningKey)])
    def test_keys_of_a_log(self, tmp_path: Path, command: str, kind: type[StreamKey | SigningKey]) -> None:
        """The keys of a log are made one by one; of a signing key the public one is told, since others need it."""
        file = tmp_path / "new.key"

        made = iyscheck("keys", command, str(file))
        again = iyscheck("keys", command, str(file))
        shown = iyscheck("keys", "show", str(file), "--json")

        key = kind.load(file)
        told = {"file": str(file), "kind": key.kind, "key_id": key.key_id.hex()}
        if isinstance(key, SigningKey):
            told["public"] = key.public.hex()
        assert json.loads(shown.stdout) == {"keys": [told]}
        assert set(told.values()) <= set(made.stdout.split())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().split()[-1] not in made.stdout + shown.stdout + again.stderr
        assert (again.returncode, "exists already" in again.stderr) == (2, True)

    def test_never_overwritten(self, tmp_path: Path) -> None:
        """Where one of the files is there already, none is made."""
        StoreKey.create(tmp_path / "store.key")

        done = iyscheck("keys", "create", str(tmp_path))

        assert done.returncode == 2
        assert "store.key exists already" in done.stderr
        assert not (tmp_path / "address.key").exists()


class TestStatus:
    """`iyscheck status` shows how a server and its data are."""

    @pytest.fixture(name="target", scope="class")
    @staticmethod
    def _target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        """A server over brands in several states and a source with rejected rows, without a callers file."""
        site = make_site(tmp_path_factory.mktemp("status"))
        with StoreBuilder(site.path / "store") as store:
            store.brand(3, watermark=1).brand(4, active=False).commit("more")
            rows = tuple(RejectedRow(line, "recipient", "INVALID_ADDRESS") for line in (3, 8))
            state = SourceState(name="/feeds/today.jsonl", rows=9, rejected=2, rejected_brands=(1,), first_rejects=rows)
            store.writer.apply(a_batch(rows=9), msgspec.structs.replace(state, watermarks=((1, 2**31),)), finished=True)
        with serve(site) as served:
            yield served.server.address

    @pytest.mark.parametrize(
        ("language", "sentences"),
        [
            (
                "en",
                [
                    "SERVING",
                    "4 brands: 1 fresh, 1 stale, 1 without watermark, 1 inactive",
                    "2 rejected row(s) of 1 source(s) wait, and 1 watermark(s) for them.",
                    "brand 3: stale, complete to 1970-01-01T00:00:01Z",
                    "brand 2: without watermark, complete to never",
                    "A brand's data may be 26 h old.",
                    "There is no callers file",
                ],
            ),
            (
                "tr",
                [
                    "HİZMET VERİYOR",
                    "4 marka: 1 güncel, 1 eskimiş, 1 tamlık bilgisi yok, 1 etkin değil",
                    "1 kaynağın 2 reddedilmiş satırı, onları 1 markanın tamlık bilgisi bekliyor.",
                    "marka 3: eskimiş, tam olduğu an 1970-01-01T00:00:01Z",
                    "Çağıranlar dosyası yok",
                ],
            ),
        ],
    )
    def test_text(self, target: str, language: str, sentences: list[str]) -> None:
        """What a glance shows is there in both languages, and of what waits where it is."""
        done = iyscheck("status", "--server", target, "--lang", language)

        assert done.returncode == 0
        for sentence in (*sentences, "/feeds/today.jsonl", "3: INVALID_ADDRESS recipient", "accept-rejects"):
            assert sentence in done.stdout

    def test_json(self, target: str) -> None:
        """Programs get all of it."""
        done = iyscheck("status", "--server", target, "--json")

        fields = json.loads(done.stdout)
        assert (done.returncode, fields["store_error"], fields["callers"]) == (0, "", None)
        assert fields["store"]["brands"] == {
            "fresh": 1,
            "late": 0,
            "stale": 1,
            "none": 1,
            "inactive": 1,
            "unregistered": 0,
        }
        assert [brand["brand_code"] for brand in fields["troubled_brands"]] == [3, 2]
        (source,) = fields["held_sources"]
        assert source["rejects"][1] == {"line": 8, "field": "recipient", "reason": "INVALID_ADDRESS"}
        assert fields["worker"]["workers"] == 1

    def test_words(self) -> None:
        """Both languages say everything, with the same facts."""
        english, turkish = (STATUS_WORDS[language] for language in Language)
        for field in dataclasses.fields(english):
            ours, theirs = getattr(english, field.name), getattr(turkish, field.name)
            facts = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in (ours, theirs)]
            assert facts[0] == facts[1], field.name
        for table in (BRAND_STATES, LOADED):
            assert all(len(set(words.values())) == len(words) for words in table.values())
            assert set(table[Language.ENGLISH]) == set(table[Language.TURKISH])
        assert set(BRAND_STATES[Language.ENGLISH]) == set(BrandState)
        assert set(LOADED[Language.ENGLISH]) == set(Loaded)


class TestInfo:
    """`iyscheck info` shows what the server says about itself."""

    def test_text_and_json(self, shared: Service) -> None:
        """Both forms hold the same fields."""
        text = iyscheck("info", "--server", shared.target)
        answer = iyscheck("info", "--server", shared.target, "--json")

        fields = json.loads(answer.stdout)
        assert (text.returncode, answer.returncode) == (0, 0)
        assert fields["max_frame_recipients"] == 65_536
        assert [line.split()[0] for line in text.stdout.splitlines()] == list(fields)
