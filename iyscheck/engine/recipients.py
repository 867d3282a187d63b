"""Who is asked about: addresses and tokens become the store's tokens, one by one or as columns."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from iyscheck import address as address_form
from iyscheck.consent import Channel
from iyscheck.errors import (
    AddressKeyMismatchError,
    AddressKeyNotHeldError,
    InputError,
    KeysError,
    QuestionError,
)
from iyscheck.kernel import Kernel
from iyscheck.keys import TOKEN_BYTES, AddressKey
from iyscheck.question import MAX_FRAME_RECIPIENTS, Context, ItemError, Question


class Recipients:
    """Makes tokens with the address key `address_key_id`; for addresses that key itself is needed."""

    def __init__(self, address_key: AddressKey | None, address_key_id: bytes) -> None:
        self._address_key = address_key
        self._key_id = address_key_id
        self.own_key_id = None if address_key is None else address_key.key_id
        """The id of the address key that this process holds, if it does."""

    def token(self, channel: Channel, address: str | None, token: bytes | None, address_key_id: bytes | None) -> bytes:
        """Give the token (16 bytes) of one recipient. Raises QuestionError, KeysError."""
        if (address is None) == (token is None):
            raise QuestionError("recipient", "exactly one of address and token must be given.")
        if token is not None:
            self._check_key_id(address_key_id)
            if not isinstance(token, bytes):  # a batch would look for another
                raise QuestionError("token", f"must have {TOKEN_BYTES} bytes.")
            if len(token) != TOKEN_BYTES:
                raise QuestionError("token", f"it has {len(token)} bytes, not {TOKEN_BYTES}.")
            return token
        return address_form.token(address or "", channel, self._held_key())

    def token_or_error(self, question: Question) -> bytes | ItemError:
        """Give the token of a question of a batch, or what is wrong with it."""
        try:
            return self.token(question.context.channel, question.address, question.token, question.address_key_id)
        except (InputError, KeysError) as error:
            return ItemError.of(error)

    def column(
        self,
        context: Context,
        addresses: Sequence[str] | address_form.TextColumn | None,
        tokens: npt.NDArray[np.uint8] | None,
        address_key_id: bytes | None,
        kernel: Kernel,
    ) -> npt.NDArray[np.uint8]:
        """Give the tokens of a column: uint8, shape (N, 16). Raises QuestionError, KeysError, KernelError."""
        if tokens is None:
            return address_form.tokens(addresses or (), context.channel, self._held_key(), kernel)
        self._check_key_id(address_key_id)
        if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] != TOKEN_BYTES:  # noqa: PLR2004 - a table
            raise QuestionError("tokens", "must be a uint8 array of shape (N, 16).")
        return tokens

    def mixed(
        self,
        channels: Sequence[Channel],
        recipients: npt.NDArray[np.int64],
        addresses: Sequence[str] | address_form.TextColumn | None,
        tokens: npt.NDArray[np.uint8] | None,
        address_key_id: bytes | None,
        kernel: Kernel,
    ) -> npt.NDArray[np.uint8]:
        """Do as `column` for groups of so many recipients each, int64, with a channel each."""
        if tokens is not None:
            self._check_key_id(address_key_id)
            return tokens
        emails = np.array([channel == Channel.EPOSTA for channel in channels], np.bool_).repeat(recipients)
        return address_form.mixed_tokens(addresses or (), emails, self._held_key(), kernel)

    def many(self, questions: Sequence[Question]) -> tuple[npt.NDArray[np.uint8], dict[int, ItemError]]:
        """Give the tokens of N commercial questions, uint8 (N, 16); and by their places, what is wrong with others."""
        tokens = [address_form.UNREADABLE] * len(questions)
        errors: dict[int, ItemError] = {}
        places: list[int] = []
        texts: list[str] = []
        emails: list[bool] = []
        holds = self._address_key is not None
        for place, question in enumerate(questions):
            address = question.address
            if holds and address.__class__ is str and question.token is None:
                places.append(place)
                texts.append(address or "")
                emails.append(question.context.channel == Channel.EPOSTA)
                continue
            token = self.token_or_error(question)
            if isinstance(token, ItemError):
                errors[place] = token
            else:
                tokens[place] = token
        column = np.frombuffer(bytearray(b"".join(tokens)), np.uint8).reshape(-1, TOKEN_BYTES)
        if texts:
            column[places] = address_form.mixed_tokens(texts, np.array(emails, np.bool_), self._held_key())
        return column, errors

    def _held_key(self) -> AddressKey:
        if self._address_key is None:
            raise AddressKeyNotHeldError(
                "Plaintext addresses cannot be answered here: the address key is not held.",
                fix=f"Send tokens made with address key {self._key_id.hex()}, or open the engine with it.",
            )
        return self._address_key

    def _check_key_id(self, given: bytes | None) -> None:
        if given != self._key_id:
            raise AddressKeyMismatchError(
                f"Tokens were made with address key {given.hex() if given else '(none given)'}, "
                f"the store with {self._key_id.hex()}.",
                fix="Make tokens with the store's address key and send its id in address_key_id.",
            )


def cut(recipients: Iterable[str] | npt.NDArray[np.uint8]) -> Iterator[list[str] | npt.NDArray[np.uint8]]:
    """Cut a column into frames; nothing of an iterable is read ahead. Raises QuestionError."""
    if isinstance(recipients, np.ndarray):
        for first in range(0, max(len(recipients), 1), MAX_FRAME_RECIPIENTS):  # an empty one is looked at too
            yield recipients[first : first + MAX_FRAME_RECIPIENTS]
        return
    rest = iter(recipients)
    while frame := list(islice(rest, MAX_FRAME_RECIPIENTS)):
        if not all(isinstance(text, str) for text in frame):
            raise QuestionError("recipients", "has something that is not a text.")
        yield frame
