"""Machines with networks of their own, which can be parted: namespaces of Linux on bridges. Only root can have them."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import pytest

from tests.replication.disks import only_root, run
from tests.replication.town import Machine

_NET: Final = "10.213"
_ROOT: Final = 254


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Machines by name. `address` is where they find each other; tests reach them at their `host`, parted or not."""

    names: Sequence[str]
    prefix: str

    def address(self, name: str) -> str:
        """Return where other machines find one."""
        return f"{_NET}.0.{self.names.index(name) + 1}"

    @property
    def machines(self) -> dict[str, Machine]:
        """All of them, as a town takes them."""
        return {
            name: Machine(
                host=f"{_NET}.1.{number}", within=("/usr/bin/env", "ip", "netns", "exec", f"{self.prefix}{number}")
            )
            for number, name in enumerate(self.names, 1)
        }

    @contextmanager
    def parted(self, *names: str) -> Iterator[None]:
        """Cut these off from all others; among themselves they are as before."""
        for name in names:
            self._put(name, "o")
        try:
            yield
        finally:
            for name in names:
                self._put(name, "d")

    def _put(self, name: str, bridge: str) -> None:
        run("ip", "link", "set", f"{self.prefix}d{self.names.index(name) + 1}", "master", f"{self.prefix}{bridge}")

    def make(self) -> None:
        """Make all."""
        for bridge in "dom":  # where all are, where those are that are cut off, and where tests reach all
            run("ip", "link", "add", f"{self.prefix}{bridge}", "type", "bridge")
            run("ip", "link", "set", f"{self.prefix}{bridge}", "up")
        run("ip", "addr", "add", f"{_NET}.1.{_ROOT}/24", "dev", f"{self.prefix}m")
        for number in range(1, len(self.names) + 1):
            space = f"{self.prefix}{number}"
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            for third, bridge in enumerate("dm"):
                link = f"{self.prefix}{bridge}{number}"
                run("ip", "link", "add", link, "type", "veth", "peer", "name", f"e{bridge}", "netns", space)
                run("ip", "link", "set", link, "master", f"{self.prefix}{bridge}", "up")
                run("ip", "-n", space, "addr", "add", f"{_NET}.{third}.{number}/24", "dev", f"e{bridge}")
                run("ip", "-n", space, "link", "set", f"e{bridge}", "up")

    def remove(self) -> None:
        """Remove all that is there."""
        words = [["ip", "netns", "del", f"{self.prefix}{number}"] for number in range(1, len(self.names) + 1)]
        words += [["ip", "link", "del", f"{self.prefix}{bridge}"] for bridge in "dom"]
        for each in words:
            subprocess.run(each, capture_output=True, check=False)


@contextmanager
def networks(*names: str) -> Iterator[Networks]:
    """Give machines with networks of their own."""
    only_root("parted networks are namespaces")
    if shutil.which("ip") is None:
        pytest.skip("NOT TESTED: parted networks, since there is no ip (Debian: iproute2)")
    made = Networks(names=names, prefix=f"iy{os.getpid() % 100_000}")
    try:
        try:
            made.make()
        except AssertionError as error:
            pytest.skip(f"NOT TESTED: parted networks, since none can be made here: {error}")
        yield made
    finally:
        with suppress(OSError):
            made.remove()
