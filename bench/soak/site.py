"""Where a soak takes place: a folder with keys, store and feed, a small disk, a limit of threads, and a warden."""

import os
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Self

from bench.machine import ROOT
from bench.soak import warden
from iyscheck.keys import AddressKey, StoreKey

_DISK_BYTES: Final = 32 * 2**20
_CGROUPS: Final = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
"""Where the first and the second version of control groups count processes."""
_FILLER: Final = "filler"
_WARDEN_S: Final = 60.0


@dataclass(kw_only=True)
class Site:
    """A folder for one soak. The end of its `with` block leaves nothing of it, no process either."""

    keep: bool = False
    path: Path = field(init=False)
    mark: str = field(init=False)
    disk: Path = field(init=False)
    """For temporary files and the log of the server; a file system of its own if `has_disk`."""
    has_disk: bool = False
    group: Path | None = None
    """A control group that can be told how many threads there may be."""
    left_out: list[str] = field(default_factory=list)
    """What this machine or this user does not let us do."""
    _warden: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        self.mark = secrets.token_hex(8)
        self.path = Path(tempfile.mkdtemp(prefix="iyscheck-soak-"))
        self.disk = self.path / "disk"
        for folder in (self.disk, self.path / "feed"):
            folder.mkdir()
        AddressKey.create(self.path / "address.key")
        StoreKey.create(self.path / "store.key")
        self._mount()
        self._make_group()
        arguments = [self.mark, str(self.disk) if self.has_disk else "", str(self.group or "")]
        arguments.append("" if self.keep else str(self.path))
        self._warden = subprocess.Popen(
            [sys.executable, "-m", "bench.soak.warden", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,  # it outlives a terminal that is closed
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()
            self._warden.wait(_WARDEN_S)

    @property
    def keys(self) -> list[str]:
        """Store and keys as flags, the same for loader and server."""
        keys = [f"--address-key={self.path / 'address.key'}", f"--store-key={self.path / 'store.key'}"]
        return [f"--store={self.path / 'store'}", *keys]

    @property
    def store_file(self) -> Path:
        """The file that everything is in."""
        return self.path / "store" / "data.mdb"

    def start(
        self,
        arguments: Sequence[str],
        *,
        inputs: int = subprocess.DEVNULL,
        output: IO[bytes] | int,
        errors: IO[bytes] | int | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start Python with the mark."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("IYSCHECK_", "GRPC_"))}
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdin=inputs,
            stdout=output,
            stderr=errors,
            env=clean | {warden.VARIABLE: self.mark, "TMPDIR": str(self.disk)},
        )

    def temporary_files(self) -> int:
        """Count the files, folders and sockets that servers have in the temporary folder, without their logs."""
        found = [name for _, folders, files in os.walk(self.disk) for name in (*folders, *files)]
        return sum(not name.endswith((".log", _FILLER)) for name in found)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fill the small disk to its last byte for a while."""
        filler = self.disk / _FILLER
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def no_new_threads(self, pids: Sequence[int]) -> Iterator[None]:
        """Let the system refuse threads and processes to the server for a while."""
        if self.group is not None:
            limit = self.group / "pids.max"
            limit.write_text((self.group / "pids.current").read_text())
            try:
                yield
            finally:
                limit.write_text("max")
            return
        before = {pid: resource.prlimit(pid, resource.RLIMIT_NPROC) for pid in pids}
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_NPROC, (1, hard))
        try:
            yield
        finally:
            for pid, limits in before.items():
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_NPROC, limits)

    def _mount(self) -> None:
        command = ["/usr/bin/env", "mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "iyscheck-soak", str(self.disk)]
        done = subprocess.run(command, capture_output=True, check=False)
        self.has_disk = done.returncode == 0
        if not self.has_disk:
            self.left_out.append("full disk: only root may mount the small disk that is to be filled")

    def _make_group(self) -> None:
        """Make a control group; who is not root needs none, since the limit of a user's processes holds for him."""
        for parent in _CGROUPS:
            group = parent / f"iyscheck-soak-{self.mark}"
            try:
                group.mkdir()
            except OSError:
                continue
            if (group / "pids.max").exists():
                self.group = group
                return
            with suppress(OSError):
                group.rmdir()
        if os.geteuid() == 0:
            self.left_out.append("no new threads: no control group can be made, and other limits do not hold for root")

    @property
    def can_limit_threads(self) -> bool:
        """Whether `no_new_threads` has an effect."""
        return self.group is not None or os.geteuid() != 0

    def join_group(self, pid: int) -> None:
        """Have a process and its children counted."""
        if self.group is not None:
            (self.group / "cgroup.procs").write_text(str(pid))


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_gone(pid: int, seconds: float) -> bool:
    """Wait until a process has ended."""
    until = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_alive(pid)
