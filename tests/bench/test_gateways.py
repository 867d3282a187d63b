"""Gateways ask through both clients, and notice wrong answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import echo, product
from bench.callers import WrongAnswersError
from bench.gateways import Gateway
from bench.processes import HERE, Serving, serving

CONSENTS = 2_000


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys and a filled store."""
    folder = tmp_path_factory.mktemp("gateways")
    product.make_keys(folder / "keys")
    product.Builder().fill(str(folder / "store"), str(folder / "keys"), CONSENTS)
    return folder


@pytest.fixture(name="server", scope="module")
def _server(site: Path) -> Iterator[Serving]:
    """The real server over that store."""
    command = HERE.command(*product.serve_arguments(site / "store", site / "keys"))
    with serving(command, core=0, log=site / "server.log") as server:
        yield server


@pytest.fixture(name="bare", scope="module")
def _bare() -> Iterator[str]:
    """The echo server."""
    server, port = echo.serve("127.0.0.1:0", 8)
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def gateway(site: Path, target: str, bare: str, consents: int = CONSENTS) -> Gateway:
    """Make a small gateway."""
    return Gateway(
        target=target, echo_target=bare, consents=consents, keys=str(site / "keys"), hit_rate=0.9, phones=3_000
    )


class TestGateway:
    """Callers of one process."""

    def test_verified(self, site: Path, server: Serving, bare: str) -> None:
        """Every reason of the real server is the one that the cohort says."""
        assert gateway(site, server.target, bare).verify() == {"questions": 3_000}

    def test_wrong(self, site: Path, server: Serving, bare: str) -> None:
        """Answers that are not what the cohort says are noticed."""
        larger = gateway(site, server.target, bare, consents=2 * CONSENTS)

        with pytest.raises(WrongAnswersError):
            larger.verify()

    @pytest.mark.parametrize("kind", ["tasks", "threads"])
    @pytest.mark.parametrize("way", ["plain", "unary", "batching"])
    @pytest.mark.parametrize("callers", [1, 5])
    def test_rates(self, site: Path, server: Serving, bare: str, kind: str, way: str, callers: int) -> None:
        """A closed loop reports answers per second and how long those of one caller took."""
        ask = getattr(gateway(site, server.target, bare), f"{kind}_{way}")

        found = ask(callers=callers, seconds=0.2, warm_s=0.1)

        assert found["rate"] > 0
        assert found["p50"] <= found["max"]
