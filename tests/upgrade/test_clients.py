"""Yesterday's clients and today's servers, and the other way round: one server, and several of both versions."""

from contextlib import ExitStack

import pytest

from tests.upgrade.machines import Machine
from tests.upgrade.versions import Version


@pytest.mark.thorough
def test_yesterdays_client(machine: Machine, yesterday: Version, today: Version) -> None:
    """It is answered by today's servers, one or several, as it is by yesterday's: singly, in batches and in columns."""
    with ExitStack() as parts:
        servers = [parts.enter_context(machine.serving(today)) for _ in range(2)]
        machine.assert_right(machine.told(yesterday, servers[0].target))
        machine.assert_right(machine.told(yesterday, f"ipv4:{','.join(server.target for server in servers)}"))
        assert all(server.metric("consent_check_decisions_total") > 0 for server in servers)


@pytest.mark.thorough
def test_todays_client(machine: Machine, yesterday: Version, today: Version) -> None:
    """It is answered by yesterday's servers, one or several, though they have never heard of two paths."""
    with ExitStack() as parts:
        servers = [parts.enter_context(machine.serving(yesterday)) for _ in range(2)]
        machine.assert_right(machine.told(today, servers[0].target))
        machine.assert_right(machine.told(today, ",".join(server.target for server in servers)))
        assert all(server.metric("consent_check_decisions_total") > 0 for server in servers)


@pytest.mark.thorough
@pytest.mark.parametrize("asks", ["yesterday", "today"])
def test_servers_of_both_versions(machine: Machine, asks: str, yesterday: Version, today: Version) -> None:
    """In the middle of an upgrade there are both: each client is answered by both."""
    version = {"yesterday": yesterday, "today": today}[asks]
    with ExitStack() as parts:
        servers = [parts.enter_context(machine.serving(each)) for each in (yesterday, today)]
        machine.assert_right(machine.told(version, f"ipv4:{','.join(server.target for server in servers)}"))
        assert all(server.metric("consent_check_decisions_total") > 0 for server in servers)
