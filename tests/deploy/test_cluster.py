"""The files of a log and its replicas: each machine has its own keys, and what is made fits what reads it."""

import importlib.util
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from iyscheck.server.settings import PREFIX, Settings
from loader.cli.app import app
from loader.replication import log_objects
from loader.replication.cluster import Cluster
from tests.deploy.conftest import (
    DEPLOY,
    LOADER_PORT,
    METRICS_PORT,
    PUBLISHER_PORT,
    REPLICA_PORT,
    ROOT,
    assert_follows,
    document,
    loader_flags,
    program,
    ran,
)

HERE: Final = DEPLOY / "cluster"
COMPOSE: Final[dict[str, Any]] = document(HERE / "compose.yaml")
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
REPLICATES: Final = ("replicate-1", "replicate-2", "maker")
SERVES: Final = ("serve-1", "serve-2")
NATS: Final = ("nats-1", "nats-2", "nats-3")
OF_CONSENTS: Final = {"store.key", "address.key"}
IN_EARNEST: Final = Path("/etc/iyscheck")


def secrets_of(service: str) -> dict[str, str]:
    """Return the files that a service is given: where it finds them, and which they are."""
    return {each["target"]: each["source"] for each in SERVICES[service].get("secrets", ())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script makes."""
    folder = tmp_path_factory.mktemp("made") / "folder"
    script = importlib.util.spec_from_file_location("prepare", HERE / "prepare.py")
    assert script is not None
    assert script.loader is not None
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    module.prepare(folder)
    return folder


class TestMade:
    """What the script makes is what programs read."""

    def test_all_that_is_given(self, made: Path) -> None:
        """Each file that a container is given is made, and what is made is given to one or is mounted."""
        given = {Path(each["file"]).name for each in COMPOSE["secrets"].values()}
        mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())]
        mounted = {Path(mount).name for mount in mounts if mount.startswith("./made/")}

        assert {path.name for path in made.iterdir()} == given | mounted
        assert given == COMPOSE["secrets"].keys()
        assert {source for name in SERVICES for source in secrets_of(name).values()} == given

    def test_private(self, made: Path) -> None:
        """Keys can be read by their owner only."""
        kept = [path for path in made.iterdir() if path.suffix in {".key", ".nk"}]

        assert len(kept) == len({"address", "store", "stream", "primary", "maker"}) + len({"client", *NATS}) + 3
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)

    @pytest.mark.parametrize("service", ["load", "publish", "create-log", *REPLICATES])
    def test_cluster_file(self, service: str, made: Path, tmp_path: Path) -> None:
        """Where a machine's files lie as it has them, its cluster file is right, and it may make what it makes."""
        for target, source in secrets_of(service).items():
            assert Path(target).parent == IN_EARNEST
            content = (made / source).read_bytes()
            (tmp_path / Path(target).name).touch((made / source).stat().st_mode & 0o777)
            (tmp_path / Path(target).name).write_bytes(content)
        cluster = Cluster.read(tmp_path / "cluster.toml")

        cluster.stream_key()
        cluster.opener()
        if service in {"load", "create-log", "publish"}:
            cluster.sealer()
        if service in {"publish", "maker"}:
            cluster.signing_key("snapshots")
        for path in (cluster.nats.nkey, cluster.nats.ca, cluster.nats.cert, cluster.nats.key):
            assert path is not None
            assert path.exists() == (service != "load"), "the loader speaks to nobody"

    def test_users(self, made: Path) -> None:
        """NATS has the users whose keys were made, and no other; each may do what its role may."""
        text = (made / "users.conf").read_text()
        users = re.findall(r"nkey: (U\w{55}), permissions: \$(\w+)", text)
        cluster_files = [(made / f"{name}.toml").read_text() for name in ("primary", "maker", "replica")]

        assert [role for _, role in users] == ["PUBLISHER", "MAKER", "FOLLOWER"]
        assert len({key for key, _ in users}) == len(users)
        assert text.count("nkey: U") == len(users)
        for file, (_, role) in zip(cluster_files, users, strict=True):
            assert f'\nname = "{role.lower()}"\napi = "iys.api"\n' in file
            assert f"_INBOX_{role.lower()}.>" in text

    @pytest.mark.parametrize("name", NATS)
    def test_nats(self, name: str, made: Path, tmp_path: Path) -> None:
        """A nats-server takes its settings with these files, and not with another's key beside its certificate."""
        for target, source in secrets_of(name).items():
            (tmp_path / Path(target).name).write_bytes((made / source).read_bytes())
        text = (HERE / "nats" / "nats.conf").read_text()
        assert set(re.findall(r'"/etc/nats/([\w.]+)"', text)) | {"users.conf"} == {
            each.name for each in tmp_path.iterdir()
        }
        (tmp_path / "nats.conf").write_text(text.replace("/etc/nats/", f"{tmp_path}/"))
        check = (program("nats-server"), "-t", "-c", tmp_path / "nats.conf")

        assert ran(*check).returncode == 0
        (tmp_path / "server.key").write_bytes((made / "client.key").read_bytes())
        assert ran(*check).returncode != 0

    def test_room(self) -> None:
        """What create-log asks for fits into what NATS may take, beside a bucket: an account is charged each copy."""
        command: Any = typer.main.get_command(app)
        given = {each.name: each.default for each in command.commands["create-log"].params}
        users = (HERE / "nats" / "users.conf").read_text()
        of_log, of_bucket = (int(found) for found in re.findall(r"max_file: (\d+)GB", users))
        (server,) = re.findall(r"max_file_store: (\d+)GB", (HERE / "nats" / "nats.conf").read_text())
        bucket = log_objects.KEPT_BYTES / 10**9

        assert of_log >= given["replicas"] * given["kept_gb"]
        assert of_bucket >= bucket
        assert int(server) >= given["kept_gb"] + bucket

    @pytest.mark.parametrize("hidden", ["", "nkeys"])
    def test_help(self, hidden: str, tmp_path: Path) -> None:
        """It makes no folder where it is asked for help, and says what to install where something is missing."""
        if hidden:
            (tmp_path / f"{hidden}.py").write_text(f"raise ModuleNotFoundError('not here', name={hidden!r})")
        before = {*tmp_path.iterdir()}
        done = subprocess.run(
            [sys.executable, "-B", str(HERE / "prepare.py"), "--help"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        )

        assert {*tmp_path.iterdir()} == before
        assert (done.returncode == 0) == (not hidden)
        assert "Traceback" not in done.stderr
        if hidden:
            assert "nkeys" in done.stderr
            assert "pip install 'iyscheck[replicas]'" in done.stderr
        else:
            assert "FOLDER" in done.stdout

    def test_never_anew(self, made: Path) -> None:
        """What is there is left as it is."""
        before = {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}
        script = subprocess.run(
            [sys.executable, str(HERE / "prepare.py"), str(made)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )

        assert "FileExistsError" in script.stderr
        assert {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()} == before


class TestCompose:
    """Nothing is misspelt, and no machine has more than it needs."""

    @pytest.mark.parametrize(
        ("service", "port"),
        [("publish", PUBLISHER_PORT), *((name, REPLICA_PORT) for name in REPLICATES), ("create-log", None)],
    )
    def test_ours(self, service: str, port: int | None) -> None:
        """The loader's commands have flags and variables that there are; they are of the image that is built."""
        name, *arguments = SERVICES[service]["command"]
        flags, known = loader_flags(name)
        build = SERVICES[service]["build"]

        assert {each for each in arguments if each.startswith("--")} <= flags
        assert port is None or arguments[-1] == f"127.0.0.1:{port}"
        assert ("--snapshots" in arguments) == (service == "maker")
        assert "IYSCHECK_CLUSTER" in known
        assert (HERE / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
        assert "replicas" in build["args"]["EXTRAS"].split(",")
        assert {each.partition(":")[0] for each in SERVICES[service]["volumes"]} & {
            "primary",
            "maker",
            "replica-1",
            "replica-2",
        }

    def test_loader_and_servers(self) -> None:
        """The loader follows the folder for feed files; servers have settings that there are."""
        assert_follows(SERVICES["load"]["command"])
        assert f"127.0.0.1:{LOADER_PORT}" in SERVICES["load"]["command"]
        for name in SERVES:
            assert SERVICES[name]["environment"].keys() <= {PREFIX + each.upper() for each in Settings.model_fields}
            assert SERVICES[name]["environment"]["IYSCHECK_METRICS_LISTEN"].endswith(f":{METRICS_PORT}")

    @pytest.mark.parametrize("service", [*REPLICATES, "publish"])
    def test_no_keys_of_consents(self, service: str) -> None:
        """Who moves sealed batches has neither key of consents."""
        assert OF_CONSENTS.isdisjoint(secrets_of(service).values())

    def test_keys_where_they_belong(self) -> None:
        """Servers have no key of the log; a machine signs with its own; each is one user at NATS."""
        for name in SERVES:
            assert set(secrets_of(name).values()) == OF_CONSENTS
        signs = {name: secrets_of(name).get("/etc/iyscheck/signing.key") for name in SERVICES}
        users = {name: secrets_of(name).get("/etc/iyscheck/nats.nk") for name in SERVICES}

        assert {name: key for name, key in signs.items() if key} == {
            "create-log": "primary.key",
            "load": "primary.key",
            "publish": "primary.key",
            "maker": "maker.key",
        }
        assert {name: key for name, key in users.items() if key} == {
            "create-log": "publisher.nk",
            "publish": "publisher.nk",
            "maker": "maker.nk",
            "replicate-1": "follower.nk",
            "replicate-2": "follower.nk",
        }

    def test_one_machine_each(self) -> None:
        """Who shares a store shares process numbers and the loopback, and nobody else does."""
        for pod, members in {
            "primary": ("create-log", "load", "publish"),
            "replica-1": ("replicate-1", "serve-1"),
            "replica-2": ("replicate-2", "serve-2"),
        }.items():
            assert all(SERVICES[name]["pid"] == SERVICES[name]["network_mode"] == f"service:{pod}" for name in members)
            assert len({tuple(SERVICES[name]["volumes"]) for name in members}) == 1
            assert any(mount.startswith(f"{pod}:") for mount in SERVICES[members[0]]["volumes"])
        for name, service in SERVICES.items():
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"], name

    def test_loopback(self) -> None:
        """What speaks plain text is published on the loopback only; NATS is not published at all."""
        published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

        assert published.keys() == {"replica-1", "replica-2"}
        assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)

    def test_nats_names(self) -> None:
        """Each server of NATS has the name that its certificate, its peers and its clients know it by."""
        text = (HERE / "nats" / "nats.conf").read_text()
        for name in NATS:
            assert SERVICES[name]["networks"]["default"]["aliases"] == [f"{name}.example"]
            assert SERVICES[name]["command"][-2:] == ["--name", name]
            assert f"{name}.example:6222" in text

    @pytest.mark.thorough
    def test_schema(self, tmp_path: Path) -> None:
        """The schema of Compose takes it, and not one with a misspelt key."""
        check, bad = program("check-jsonschema"), tmp_path / "compose.yaml"
        said = ran(check, "--builtin-schema", "vendor.compose-spec", HERE / "compose.yaml")
        assert said.returncode == 0, said.stdout
        bad.write_text((HERE / "compose.yaml").read_text().replace("stop_grace_period", "stop_grace_perod"))

        assert ran(check, "--builtin-schema", "vendor.compose-spec", bad).returncode != 0
