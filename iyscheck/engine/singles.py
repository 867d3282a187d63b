"""Many single questions of many callers answered together, each as if it had been asked alone."""

from collections.abc import Sequence
from time import monotonic

import numpy as np

from iyscheck.engine.answers import Answered, Answers
from iyscheck.engine.condition import Condition
from iyscheck.engine.recipients import Recipients
from iyscheck.errors import InputError, KeysError
from iyscheck.keys import TOKEN_BYTES, StoreKey
from iyscheck.question import Answer, Question


class Singles(Condition):
    """The part of an engine that answers single questions together."""

    _recipients: Recipients
    _store_key: StoreKey
    _answers: Answers
    _answered: Answered | None

    def check_each(self, questions: Sequence[Question], callers: Sequence[str]) -> list[Answer | Exception | None]:
        """Answer N questions from one snapshot: what `check` answers to each, with a decision of its own.

        None stands for a question that cannot be answered: `check` says why. An exception is what `answered` raised,
        who is told of each question's caller. Raises StoreError.
        """
        answers: list[Answer | Exception | None] = [None] * len(questions)
        tags = [b""] * len(questions)
        places: list[int] = []
        tokens: list[bytes] = []
        for place, question in enumerate(questions):
            context = question.context
            if context.message_class.exempt:
                answers[place] = self._answers.exempt(context)
                continue
            try:
                token = self._recipients.token(
                    context.channel, question.address, question.token, question.address_key_id
                )
            except (InputError, KeysError):
                continue
            places.append(place)
            tokens.append(token)
        if places:
            packed = self._store_key.tags(np.frombuffer(b"".join(tokens), np.uint8).reshape(-1, TOKEN_BYTES)).tobytes()
            cut = [packed[at : at + TOKEN_BYTES] for at in range(0, len(packed), TOKEN_BYTES)]
            if monotonic() >= self._opened.look_again_s:
                self._opened.look()
            with self._opened.store.snapshot() as snapshot:
                found = self._answers.each(snapshot, [questions[place].context for place in places], cut)
            for place, tag, answer in zip(places, cut, found, strict=True):
                answers[place], tags[place] = answer, tag
        if self._answered is not None:
            for place, (question, caller, tag) in enumerate(zip(questions, callers, tags, strict=True)):
                answers[place] = _told(self._answered, caller, question, tag, answers[place])
        return answers


def _told(
    answered: Answered, caller: str, question: Question, tag: bytes, answer: Answer | Exception | None
) -> Answer | Exception | None:
    """Tell of one answer; what is raised then stands in its place."""
    if isinstance(answer, Answer):
        try:
            answered(caller, question.context, tag, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the end of this question alone
            return error
    return answer
