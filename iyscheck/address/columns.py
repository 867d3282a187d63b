"""Blocks and tokens of a column of addresses."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.address.emails import email_blocks
from iyscheck.address.phones import phone_blocks
from iyscheck.address.single import block, token
from iyscheck.address.texts import TextColumn
from iyscheck.consent import Channel
from iyscheck.kernel import Kernel
from iyscheck.keys import BLOCK_BYTES, AddressKey, blank

_FEW_PHONES: Final = {Kernel.NUMPY: 64, Kernel.NUMBA: 16}
"""Up to so many texts, one by one they are blocks sooner: a column takes 30 µs (compiled 10) however short it is."""
_FEW_EMAILS: Final = {Kernel.NUMPY: 32, Kernel.NUMBA: 8}


def tokens(
    addresses: Sequence[str] | TextColumn, channel: Channel, key: AddressKey, kernel: Kernel = Kernel.NUMPY
) -> npt.NDArray[np.uint8]:
    """Make the tokens of a column, uint8 of shape (N, 16); rows that are not accepted are all zero."""
    if isinstance(addresses, TextColumn):
        return key.tokens(blocks(addresses, channel, kernel))
    few = _FEW_EMAILS if channel is Channel.EPOSTA else _FEW_PHONES
    if 0 < len(addresses) <= few[kernel] and not isinstance(addresses, str):
        if len(addresses) == 1:
            return np.frombuffer(bytearray(token(addresses[0], channel, key)), np.uint8).reshape(1, BLOCK_BYTES)
        packed = b"".join([block(address, channel) for address in addresses])
        return key.tokens(np.frombuffer(packed, np.uint8).reshape(-1, BLOCK_BYTES))
    return key.tokens(blocks(TextColumn.of(addresses), channel, kernel))


def mixed_tokens(
    addresses: Sequence[str] | TextColumn,
    emails: npt.NDArray[np.bool_],
    key: AddressKey,
    kernel: Kernel = Kernel.NUMPY,
) -> npt.NDArray[np.uint8]:
    """Make the tokens of a column of both forms: `emails`, bool of shape (N,), says whose is an e-mail's.

    What `tokens` makes of each row by itself; the key is used once.
    """
    if emails.all() or not emails.any():
        return tokens(addresses, Channel.EPOSTA if emails.any() else Channel.MESAJ, key, kernel)
    column = addresses if isinstance(addresses, TextColumn) else TextColumn.of(addresses)
    found = np.zeros((len(column), BLOCK_BYTES), np.uint8)
    for channel, of_form in ((Channel.MESAJ, ~emails), (Channel.EPOSTA, emails)):
        rows = np.flatnonzero(of_form)
        part = TextColumn(data=column.data, starts=column.starts[rows], ends=column.ends[rows])
        found[rows] = blocks(part, channel, kernel)
    return key.tokens(found)


def readable(tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which tokens (or blocks), uint8 of shape (N, 16), stand for an address: bool of shape (N,)."""
    return ~blank(tokens)


def blocks(column: TextColumn, channel: Channel, kernel: Kernel = Kernel.NUMPY) -> npt.NDArray[np.uint8]:
    """Make the blocks of a column, uint8 of shape (N, 16); rows that are not accepted are all zero."""
    return email_blocks(column, kernel) if channel is Channel.EPOSTA else phone_blocks(column, kernel)
