"""Many single questions of many callers answered together, each as if it had been asked alone."""

from collections.abc import Sequence
from time import monotonic
from typing import Final

from iyscheck.consent import MessageClass
from iyscheck.engine.answers import Answered, Answers
from iyscheck.engine.condition import Condition
from iyscheck.engine.recipients import Recipients
from iyscheck.errors import InputError, KeysError
from iyscheck.keys import TOKEN_BYTES, StoreKey
from iyscheck.question import Finding, Question

_COMMERCIAL: Final = MessageClass.COMMERCIAL
"""A name for each check, as in `asking`."""


class Singles(Condition):
    """The part of an engine that answers single questions together."""

    _recipients: Recipients
    _store_key: StoreKey
    _answers: Answers
    _answered: Answered | None

    def check_each(self, questions: Sequence[Question], callers: Sequence[str]) -> list[Finding | Exception | None]:
        """Answer N questions from one snapshot: what `check` answers to each, with a decision of its own.

        None stands for a question that cannot be answered: `check` says why. An exception is what `answered` raised,
        who is told of each question's caller. Raises StoreError.
        """
        found: list[Finding | Exception | None] = [None] * len(questions)
        tags = [b""] * len(questions)
        exempt: list[int] = []
        places: list[int] = []
        tokens: list[bytes] = []
        for place, question in enumerate(questions):
            context = question.context
            if context.message_class is not _COMMERCIAL and context.message_class.exempt:
                exempt.append(place)
                continue
            try:
                token = self._recipients.token(
                    context.channel, question.address, question.token, question.address_key_id
                )
            except (InputError, KeysError):
                continue
            places.append(place)
            tokens.append(token)
        if exempt:
            free = self._answers.exempt_each([questions[place].context for place in exempt])
            for place, finding in zip(exempt, free, strict=True):
                found[place] = finding
        if places:
            packed = self._store_key.packed_tags(b"".join(tokens))
            cut = [packed[at : at + TOKEN_BYTES] for at in range(0, len(packed), TOKEN_BYTES)]
            if monotonic() >= self._opened.look_again_s:
                self._opened.look()
            with self._opened.store.snapshot() as snapshot:
                read = self._answers.each(snapshot, [questions[place].context for place in places], cut)
            for place, tag, each in zip(places, cut, read, strict=True):
                found[place], tags[place] = each, tag
        if self._answered is not None:
            _tell(self._answered, questions, callers, tags, found)
        return found


def _tell(
    answered: Answered,
    questions: Sequence[Question],
    callers: Sequence[str],
    tags: Sequence[bytes],
    found: list[Finding | Exception | None],
) -> None:
    """Tell of each answer; what is raised then stands in its place."""
    for place, each in enumerate(found):
        if isinstance(each, Finding):
            try:
                answered(callers[place], questions[place].context, tags[place], each.answer())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the end of this question alone
                found[place] = error
