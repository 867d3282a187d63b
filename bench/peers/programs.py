"""Programs that some peers need: found, or installed where this machine allows it, or reported as absent."""

import os
import shutil
import subprocess


class AbsentError(RuntimeError):
    """A peer cannot be had here; the text says why."""


def program(name: str, package: str) -> str:
    """Return the path of a program, installing its Debian package if need be. Raises AbsentError."""
    found = shutil.which(name)
    if found:
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid():
        raise AbsentError(f"{name} is not installed (on Debian and Ubuntu: sudo apt-get install {package})")
    environ = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        [apt, "install", "-y", "--no-install-recommends", package],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip - what is run, and how
    found = shutil.which(name)
    if found is None:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise AbsentError(f"{name}: apt-get install {package} failed: {said[-1] if said else 'no message'}")
    return found
