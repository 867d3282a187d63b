"""The only place that opens LMDB: one environment per store and process.

Rules that keep it safe, measured or from LMDB's caveats:
- everybody maps 1 TiB (virtual; the file is as large as its data) and nobody calls `set_mapsize`, which kills open
  read transactions of the process;
- a process opens a file once: all its readers share one environment;
- nothing is unmapped while somebody reads: a reader's environment is closed when the last reference to it goes, and
  each transaction holds one;
- an environment never crosses a fork: a child would give its parent's reader slots away;
- readers can write the lock file, or the loader would not know what they read and reuse it;
- nobody but LMDB opens the lock file: closing it again would drop the locks that say that this process lives;
- one writer: a lock file makes a second one fail at once, where LMDB would block for ever.
"""

from iyscheck.store.environment.databases import Databases, read, walk
from iyscheck.store.environment.faults import SYSTEM_ERRORS, files_translated, translated, translation
from iyscheck.store.environment.files import DATA_FILE, LOCK_FILE, MAP_BYTES, newest_in_file
from iyscheck.store.environment.locks import PublisherLock, WriterLock
from iyscheck.store.environment.opened import Environment
from iyscheck.store.environment.opening import check_keys, open_reader, open_writer

__all__ = [
    "DATA_FILE",
    "LOCK_FILE",
    "MAP_BYTES",
    "SYSTEM_ERRORS",
    "Databases",
    "Environment",
    "PublisherLock",
    "WriterLock",
    "check_keys",
    "files_translated",
    "newest_in_file",
    "open_reader",
    "open_writer",
    "read",
    "translated",
    "translation",
    "walk",
]
