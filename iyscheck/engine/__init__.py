"""Answers questions from a store, in the process that asks: the rule over columns, with evidence and freshness.

The engine knows store and rule and nothing of gRPC. The server is made of it; a gateway can use it without one:

```python
from iyscheck.consent import Channel, Policy, RecipientType
from iyscheck.engine import Engine
from iyscheck.errors import IyscheckError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Answer, Context, Question

engine = Engine.open(
    "store",
    store_key=StoreKey.load("keys/store.key"),
    address_key=AddressKey.load("keys/address.key"),
    policy=Policy(merchants_need_record=True, freshness_limit_s=26 * 3600),
)
who = Context(brand=600123, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
numbers = ["+90 532 123 45 67", "0532 123 45 68"]

try:
    answer = engine.check(
        brand=600123, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=numbers[0]
    )
    may_send = answer.permitted  # until answer.envelope.valid_until
except IyscheckError:
    may_send = False  # it was not answered

for item in engine.check_many(Question(context=who, address=number) for number in numbers):
    print(item.reason.name if isinstance(item, Answer) else item.message)

column = engine.check_column(
    brand=600123, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, recipients=numbers
)
allowed = [number for number, yes in zip(numbers, column.permitted) if yes]
engine.close()
```

Spelling and types are those of `iyscheck.client.Client`: to move between the two, change the line that opens. What
only a network needs (`frame_size`, `window`, `client_reference`) is not here, and an engine raises its own errors
where a server sends them. Only an engine takes `caller`: who asks through you, which `answered` is told. Whatever an
engine does not know it does not permit: an error is an error, never an answer.

- **Threads**: share one engine; nothing needs a lock. Columns release the GIL for most of their time with `[fast]`.
  In asyncio call `check` as it is, columns through `asyncio.to_thread`.
- **Processes**: each opens its own, which share the memory of the store. LMDB allows no use across a fork: a child
  whose parent had the store open is refused with StoreClosedError, also to open it. So open after the fork
  (`post_fork` of gunicorn, the initializer of a pool), or start processes with 'spawn' or 'forkserver'. Two engines
  of one process on one store are fine. Each check that runs takes one of 1,024 reader slots; those of killed
  processes are taken back.
- **Commits**: each single check and batch reads what is committed when it starts, each frame of a column likewise; no
  reopening, also after the loader was killed. `min_position` waits for a commit. A brand whose data is older than
  `freshness_limit_s` is DATA_STALE. A store whose files are *replaced* or moved is noticed within half a
  second: what is at the path then is opened, or everything commercial is DATA_STALE until it can be.
- **Memory**: the store is mapped, not read: what is used is kept in the system's page cache, once for all processes,
  and shows as shared memory. An engine itself keeps 8 bytes for each page of the index (of some 300 consents), once a
  column was asked.
- **Closing**: leave the `with` block, or call `close`: checks that run in other threads end as they would, later ones
  raise StoreClosedError. Exempt messages are permitted all the same. An engine that nobody closes harms nothing.
- **Crashes**: a core dump of your process holds the keys. The server's processes leave none; an engine changes no
  limit of its host, so set yours if others can read its dumps.
- **Needs**: leave to read `data.mdb` and to write `lock.mdb`, by the user who asks. On a volume mounted read-only
  LMDB would read without telling the loader, which then reuses what is being read; so it is refused. Never open or
  copy the files of a store inside the process that has it open: closing them would drop LMDB's locks.
- **A server instead** where other languages or machines ask, where those who ask must not hold the store key, or
  where many short-lived processes do: each would open the store and fill its own caches.
"""

from iyscheck.engine.answers import Answered
from iyscheck.engine.asking import Engine
from iyscheck.engine.opened import Freshness

__all__ = ["Answered", "Engine", "Freshness"]
