"""The manifests of Kubernetes: probes of the right health, names that meet each other, and no key that nobody knows."""

import os
import re
import signal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from iyscheck.client import Client
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.server.settings import PREFIX, Settings
from tests.deploy.conftest import DEPLOY, LOADER_PORT, METRICS_PORT, SERVER_PORT, assert_follows, document, program, ran
from tests.processes import Site

KUBERNETES = DEPLOY / "kubernetes"
BASE = {path.stem: document(path) for path in (KUBERNETES / "base").glob("*.yaml")}
SET: dict[str, Any] = BASE["statefulset"]["spec"]
POD: dict[str, Any] = SET["template"]["spec"]
(SERVER,), (LOADER,) = POD["containers"], POD["initContainers"]
DRAINS = float(Settings.model_fields["drain_seconds"].default)
VERSION = "1.37"


def ports(container: dict[str, Any]) -> dict[str, int]:
    """Read the ports of a container by name."""
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def variables(container: dict[str, Any]) -> dict[str, str]:
    """Read the variables of a container."""
    return {each["name"]: each["value"] for each in container["env"]}


def test_kustomizations() -> None:
    """Each resource is a file that is there, and each file is a resource."""
    assert set(BASE["kustomization"]["resources"]) == {f"{name}.yaml" for name in BASE if name != "kustomization"}
    for resource in document(KUBERNETES / "monitoring" / "kustomization.yaml")["resources"]:
        assert (KUBERNETES / "monitoring" / resource).exists()


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_probes(probe: str) -> None:
    """Start and readiness ask for the health of the empty name, never for freshness, at gRPC's port, in plain text."""
    assert SERVER[probe]["grpc"] == {"port": SERVER_PORT}
    assert variables(SERVER)["IYSCHECK_LISTEN"] == f"0.0.0.0:{SERVER_PORT}"
    assert variables(SERVER)["IYSCHECK_INSECURE"] == "on"


def test_liveness() -> None:
    """The probe that ends a server asks its supervisor alone, at a port that it listens on, and never for health."""
    (how,) = SERVER["livenessProbe"].keys() & {"grpc", "httpGet", "tcpSocket", "exec"}

    assert how == "httpGet"
    assert ports(SERVER)[SERVER["livenessProbe"]["httpGet"]["port"]] == METRICS_PORT
    assert variables(SERVER)["IYSCHECK_METRICS_LISTEN"] == f"0.0.0.0:{METRICS_PORT}"


def is_alive(address: str, within_s: float) -> bool:
    """Ask what the liveness probe asks: alive is who answers in time, and with no error."""
    try:
        with urlopen(f"http://{address}{SERVER['livenessProbe']['httpGet']['path']}", timeout=within_s):
            return True
    except OSError:
        return False


@pytest.mark.thorough
def test_store_away(tmp_path: Path) -> None:
    """A server whose store is away is not ready, and alive: a restart would end its one-time passwords for nothing.

    One whose supervisor hangs is not alive.
    """
    site = Site.make(tmp_path)
    brand = {"kind": "brand", "brandCode": 1, "iysCode": 1, "active": True, "creationDate": "2024-01-01 09:00:00"}
    assert site.load(str(site.feed("brand.jsonl", [brand]))) == 0
    who: dict[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
    with site.serving("--workers=2") as said, grpc.insecure_channel(said["listen"]) as channel:
        health: Any = HealthStub(channel)
        watched = health.Watch(HealthCheckRequest(service=""), timeout=60)
        assert next(watched).status == HealthCheckResponse.SERVING
        site.store.rename(tmp_path / "away")

        assert next(watched).status == HealthCheckResponse.NOT_SERVING
        assert is_alive(said["metrics_listen"], within_s=SERVER["livenessProbe"]["timeoutSeconds"])
        with Client(said["listen"], timeout_s=20) as client:
            assert client.check(**who, address="+905321000001", message_class=MessageClass.SECURITY_CODE).permitted
        (supervisor,) = {parent_of(pid) for pid in said["workers"]}
        os.kill(supervisor, signal.SIGSTOP)
        try:
            assert not is_alive(said["metrics_listen"], within_s=0.5)
        finally:
            os.kill(supervisor, signal.SIGCONT)


def parent_of(pid: object) -> int:
    """Find out who started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_patience() -> None:
    """A start has ten minutes, as the supervisor gives it; a worker that hangs is its first; an end has its time."""
    start, alive = SERVER["startupProbe"], SERVER["livenessProbe"]

    assert start["periodSeconds"] * start["failureThreshold"] >= 600
    assert alive["periodSeconds"] * alive["failureThreshold"] > 40
    assert POD["terminationGracePeriodSeconds"] > DRAINS + 15


def test_one_store() -> None:
    """Server and loader share one store, one key folder, and process numbers; the loader is there first, and stays."""
    assert SERVER["volumeMounts"] == LOADER["volumeMounts"]
    assert LOADER["restartPolicy"] == "Always"
    assert POD["shareProcessNamespace"] is True
    mounted = {mount["name"] for mount in SERVER["volumeMounts"]}
    claimed = {claim["metadata"]["name"] for claim in SET["volumeClaimTemplates"]}
    assert mounted == {volume["name"] for volume in POD["volumes"]} | claimed
    paths = {mount["mountPath"] for mount in SERVER["volumeMounts"]}
    image = (DEPLOY / "Dockerfile").read_text()
    assert {"/var/lib/iyscheck", "/var/cache/iyscheck", "/etc/iyscheck/keys", "/tmp"} <= paths  # noqa: S108 - theirs
    assert set(re.findall(r"(?:NUMBA_CACHE_DIR|HOME)=(\S+)", image)) <= paths
    (keys,) = (volume["secret"] for volume in POD["volumes"] if volume["name"] == "keys")
    assert keys["defaultMode"] == 0o400


def test_settings() -> None:
    """Variables are settings, the loader's flags are there, and there are as many workers as cores are asked for."""
    settings = {PREFIX + name.upper() for name in Settings.model_fields}

    assert variables(SERVER).keys() <= settings
    assert variables(LOADER).keys() <= settings
    assert_follows(LOADER["args"])
    assert f"0.0.0.0:{LOADER_PORT}" in LOADER["args"]
    assert variables(SERVER)["IYSCHECK_WORKERS"] == SERVER["resources"]["requests"]["cpu"]


def test_names_meet() -> None:
    """Service, policy, budget, monitor and set mean the same pods and ports."""
    service = BASE["service"]
    monitor = document(KUBERNETES / "monitoring" / "service-monitor.yaml")["spec"]
    labels = SET["template"]["metadata"]["labels"]
    named = ports(SERVER) | ports(LOADER)
    assert named == {"grpc": SERVER_PORT, "metrics": METRICS_PORT, "loader-metrics": LOADER_PORT}
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == named
    assert all(port["targetPort"] == port["name"] for port in service["spec"]["ports"])
    assert service["spec"]["clusterIP"] == "None"
    assert SET["serviceName"] == service["metadata"]["name"]
    for selector in (
        SET["selector"]["matchLabels"],
        service["spec"]["selector"],
        BASE["disruption-budget"]["spec"]["selector"]["matchLabels"],
        BASE["network-policy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector == labels
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    jobs = {each["port"]: each["relabelings"][0]["replacement"] for each in monitor["endpoints"]}
    assert jobs == {"metrics": "iyscheck", "loader-metrics": "iyscheck-loader"}
    open_ports = {port["port"] for rule in BASE["network-policy"]["spec"]["ingress"] for port in rule["ports"]}
    assert open_ports == named.keys()


@pytest.mark.parametrize("container", [SERVER, LOADER], ids=["server", "loader"])
def test_hardened(container: dict[str, Any]) -> None:
    """No container runs as root, writes to its image, or may become more than it is."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] == POD["securityContext"]["fsGroup"] == 10001


@pytest.mark.thorough
def test_schemas(tmp_path: Path) -> None:
    """What kustomize renders passes the strict schemas of Kubernetes, and a misspelt probe does not."""
    kubectl, validate = program("kubectl"), program("kubernetes-validate")
    rendered = ran(kubectl, "kustomize", KUBERNETES / "base")
    assert rendered.returncode == 0, rendered.stderr
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(rendered.stdout)
    bad.write_text(rendered.stdout.replace("readinessProbe:", "readynessProbe:"))
    said = ran(validate, "--strict", "--kubernetes-version", VERSION, good)
    assert said.returncode == 0, said.stdout + said.stderr

    refused = ran(validate, "--strict", "--kubernetes-version", VERSION, bad)
    assert refused.returncode != 0
    assert "readynessProbe" in refused.stdout + refused.stderr


@pytest.mark.thorough
def test_monitoring() -> None:
    """The folder for the Prometheus operator has all of `base`, and its monitor, of which there is no schema here."""
    kubectl = program("kubectl")
    base, with_monitor = (ran(kubectl, "kustomize", KUBERNETES / name).stdout for name in ("base", "monitoring"))

    kinds = re.findall(r"^kind: (\w+)$", with_monitor, re.MULTILINE)
    assert sorted(kinds) == sorted([*re.findall(r"^kind: (\w+)$", base, re.MULTILINE), "ServiceMonitor"])
