"""The file of Compose: one network and one numbering of processes, plain text on the loopback, nothing misspelt."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from iyscheck.server.settings import PREFIX, Settings
from tests.deploy.conftest import DEPLOY, LOADER_PORT, SERVER_PORT, assert_follows, document, program, ran

COMPOSE: dict[str, Any] = document(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BESIDE = {"./keys", "./feed"}
"""Folders that people make."""


def test_ours() -> None:
    """Server and loader are of the image that is built, and their flags and variables are there."""
    build = SERVICES["server"]["build"]
    settings = {PREFIX + name.upper() for name in Settings.model_fields}

    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert_follows(SERVICES["loader"]["command"])
    assert f"127.0.0.1:{LOADER_PORT}" in SERVICES["loader"]["command"]
    for name in ("server", "loader"):
        assert SERVICES[name]["environment"].keys() <= settings
        assert all(isinstance(value, str) for value in SERVICES[name]["environment"].values())


def test_one_pod() -> None:
    """Who shares the store shares process numbers, and all that is on the loopback shares it; each can be restarted."""
    assert {SERVICES[name]["pid"] for name in ("server", "loader")} == {"service:pod"}
    assert {SERVICES[name]["network_mode"] for name in ("server", "loader", "prometheus")} == {"service:pod"}
    assert "pid" not in SERVICES["pod"]
    assert SERVICES["server"]["volumes"] == SERVICES["loader"]["volumes"]
    for service in SERVICES.values():
        assert service["restart"] == "unless-stopped"
        assert service["cap_drop"] == ["ALL"]


def test_loopback() -> None:
    """What speaks plain text is published on the loopback only."""
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]

    assert f"127.0.0.1:{SERVER_PORT}:{SERVER_PORT}" in published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_time_to_end() -> None:
    """The server has more time than its drain takes at most."""
    drains = float(Settings.model_fields["drain_seconds"].default)
    found = re.fullmatch(r"(\d+)s", SERVICES["server"]["stop_grace_period"])

    assert found is not None
    assert int(found[1]) >= drains + 15


def test_mounted() -> None:
    """What is mounted has a place: a volume that is declared, a folder that people make, or one of ours."""
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", ())]
    folders = {source for source, *_ in mounts if source.startswith(".")}

    assert {source for source, *_ in mounts} - folders == COMPOSE["volumes"].keys()
    assert folders == {*BESIDE, "./prometheus", "./grafana"}
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


def test_grafana() -> None:
    """Grafana is told where Prometheus and the dashboards are."""
    grafana, configs = SERVICES["grafana"], COMPOSE["configs"]
    (datasource,) = yaml.safe_load(configs["grafana-datasource"]["content"])["datasources"]
    (provider,) = yaml.safe_load(configs["grafana-dashboards"]["content"])["providers"]

    assert datasource["url"] == "http://pod:9090"
    assert f"./grafana:{provider['options']['path']}:ro" in grafana["volumes"]
    assert {each["source"] for each in grafana["configs"]} == configs.keys()


@pytest.mark.thorough
def test_schema(tmp_path: Path) -> None:
    """The schema of Compose takes it, and not one with a misspelt key."""
    check, bad = program("check-jsonschema"), tmp_path / "compose.yaml"
    said = ran(check, "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    assert said.returncode == 0, said.stdout
    bad.write_text((DEPLOY / "compose.yaml").read_text().replace("stop_grace_period", "stop_grace_perod"))

    assert ran(check, "--builtin-schema", "vendor.compose-spec", bad).returncode != 0
