"""Stores and plain LMDB files of each size, made once and kept outside the repository.

A stamp beside each says by which code it was made; one made by other code is made anew.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from bench import product
from bench.processes import HERE, Checkout, Remote


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The kept stores of one checkout. `core` is where they are made."""

    folder: Path
    core: int
    checkout: Checkout = HERE
    _ready: set[Path] = field(default_factory=set)
    """Checked already in this run: a store must not be made anew while a server reads it."""

    @property
    def keys(self) -> Path:
        """The folder of the two key files."""
        return self.folder / "keys"

    def store(self, consents: int) -> Path:
        """Return a store of so many consents with a watermark of now; it must not be changed, only copied."""
        path = self.folder / f"store-{consents}"
        if path in self._ready:
            return path
        with self._builder() as builder:
            recipe = str(builder.call("recipe"))
            if not _is_of(path, recipe):
                shutil.rmtree(path, ignore_errors=True)
                made = builder.call("fill", path=str(path), keys=str(self.keys), consents=consents)
                _stamp(path).write_text(
                    f"{recipe}\n{made['seconds']:.1f} s, {made['bytes'] / consents:.1f} bytes each\n"
                )
            builder.call("freshen", path=str(path), keys=str(self.keys))
        self._ready.add(path)
        return path

    def plain(self, consents: int) -> Path:
        """Return a plain LMDB file with the records of that store; only to be read or copied."""
        store, path = self.store(consents), self.folder / f"plain-{consents}"
        recipe = _stamp(store).read_text().partition("\n")[0]
        if not _is_of(path, recipe):
            shutil.rmtree(path, ignore_errors=True)
            with self._builder() as builder:
                builder.call("plain", path=str(store), target=str(path))
            _stamp(path).write_text(recipe + "\n")
        return path

    def _builder(self) -> Remote:
        product.make_keys(self.keys)
        log = self.folder / "stores.log"
        return Remote("bench.product:Builder", {}, core=self.core, log=log, checkout=self.checkout)


def copied(source: Path, folder: Path) -> Path:
    """Copy a store, so that the kept one stays as it is."""
    target = folder / source.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("lock.mdb", "writer.lock"))
    os.sync()  # else the first durable commit would write the whole copy to the disk
    return target


def _stamp(path: Path) -> Path:
    return path.with_name(path.name + ".stamp")


def _is_of(path: Path, recipe: str) -> bool:
    stamp = _stamp(path)
    return path.exists() and stamp.exists() and stamp.read_text().partition("\n")[0] == recipe
