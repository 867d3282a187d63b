"""Many mixed questions answered together: a bad one harms only itself."""

from collections.abc import Sequence

import numpy as np

from iyscheck import address as address_form
from iyscheck.change import Position
from iyscheck.engine.answers import Answered, Answers
from iyscheck.engine.recipients import Recipients
from iyscheck.errors import QuestionError
from iyscheck.keys import TOKEN_BYTES, StoreKey
from iyscheck.question import Answer, BatchAnswer, ItemError, Question
from iyscheck.store.snapshot import Snapshot


class Batch:
    """Questions and the tags of their recipients. An ItemError among the questions stays at its place."""

    def __init__(self, questions: Sequence[Question | ItemError], recipients: Recipients, store_key: StoreKey) -> None:
        self._questions = questions
        self._tokens = [recipients.token_or_error(question) for question in questions]
        readable = [token if isinstance(token, bytes) else address_form.UNREADABLE for token in self._tokens]
        column = np.frombuffer(b"".join(readable), np.uint8).reshape(-1, TOKEN_BYTES)
        packed = store_key.tags(column).tobytes()
        self._tags = [packed[at : at + TOKEN_BYTES] for at in range(0, len(packed), TOKEN_BYTES)]

    @property
    def reads(self) -> bool:
        """Whether anything in it needs the store: exempt messages do not."""
        return any(
            isinstance(question, Question) and not question.context.message_class.exempt and isinstance(token, bytes)
            for question, token in zip(self._questions, self._tokens, strict=True)
        )

    def answer(self, snapshot: Snapshot | None, position: Position, answers: Answers) -> BatchAnswer:
        """Answer all from one snapshot, which may be None where the store is not read. Raises StoreError."""
        each = zip(self._questions, self._tokens, self._tags, strict=True)
        items = [_item(snapshot, answers, question, token, tag) for question, token, tag in each]
        return BatchAnswer(items=items, envelope=answers.batch_envelope(items, position))

    def tell(self, answered: Answered, caller: str, answer: BatchAnswer) -> None:
        """Tell of those questions that were answered."""
        for question, tag, item in zip(self._questions, self._tags, answer.items, strict=True):
            if isinstance(question, Question) and isinstance(item, Answer):
                exempt = question.context.message_class.exempt
                answered(caller, question.context, b"" if exempt else tag, item)


def _item(
    snapshot: Snapshot | None, answers: Answers, question: Question | ItemError, token: bytes | ItemError, tag: bytes
) -> Answer | ItemError:
    if isinstance(question, ItemError):
        return question
    if isinstance(token, ItemError):
        return token
    if question.context.message_class.exempt:
        return answers.exempt(question.context)
    if snapshot is None:
        raise RuntimeError("a commercial question is not answered without the store")
    try:
        return answers.single(snapshot, question.context, tag)
    except QuestionError as error:
        return ItemError.of(error)
