"""The decision index in LMDB: kept with the records, in their transactions, and always derivable from them.

What a page is stands in `pages`. `index` decides which pages there are:

- **apply** puts the changes of a batch into the pages they belong to, and notes which pages a commit changed, so
  that a reader's refresh looks at those only.
- **growth**: when the generation in use is fuller than GROW_AT, a next one with more shards is built beside it,
  some shards at each commit, from the records. Shards below the frontier get every change too; the others need
  none, since the records they will be built from have it. When the frontier arrives, the next generation takes
  over in that very transaction and the old one's pages are deleted, some at each commit. Nobody ever stops.
- **rebuild** is growth without waiting for commits. What was damaged in a page dies with its generation.

A shard's consents are, in each context, one run of neighbouring record keys. So shards are built in any order from
the records alone, a crash at any point needs no more than the frontier, and a page that is found damaged while it
is being changed is built anew on the spot.
"""

from iyscheck.store.index.entries import Entries, check_contexts, entries_of, states_of_records
from iyscheck.store.index.index import Index
from iyscheck.store.index.page_table import PageTable, Taker
from iyscheck.store.index.place_order import PlaceOrder
from iyscheck.store.index.state import REVISIONS_KEPT, read_state

__all__ = [
    "REVISIONS_KEPT",
    "Entries",
    "Index",
    "PageTable",
    "PlaceOrder",
    "Taker",
    "check_contexts",
    "entries_of",
    "read_state",
    "states_of_records",
]
