"""Many mixed questions answered together: a bad one harms only itself."""

from collections.abc import Sequence
from itertools import chain

from iyscheck.change import Position
from iyscheck.engine.answers import Answered, Answers, new_decision_id
from iyscheck.engine.recipients import Recipients
from iyscheck.keys import StoreKey
from iyscheck.question import Answer, BatchAnswer, Context, ItemError, Question
from iyscheck.store.snapshot import Snapshot


class Batch:
    """Questions and the tags of those that need the store. An ItemError among the questions stays at its place.

    Exempt messages are not looked at any further.
    """

    def __init__(self, questions: Sequence[Question | ItemError], recipients: Recipients, store_key: StoreKey) -> None:
        self._questions = questions
        self._errors = {place: item for place, item in enumerate(questions) if isinstance(item, ItemError)}
        self._exempt: dict[int, Context] = {}
        places: list[int] = []
        asked: list[Question] = []
        for place, question in enumerate(questions):
            if isinstance(question, ItemError):
                continue
            if question.context.message_class.exempt:
                self._exempt[place] = question.context
            else:
                places.append(place)
                asked.append(question)
        tokens, errors = recipients.many(asked)
        self._errors.update({places[at]: error for at, error in errors.items()})
        kept = [at for at in range(len(asked)) if at not in errors] if errors else range(len(asked))
        self._places = [places[at] for at in kept]
        self._contexts = [asked[at].context for at in kept]
        self._tags = store_key.tags(tokens[kept] if errors else tokens)

    @property
    def reads(self) -> bool:
        """Whether anything in it needs the store: exempt messages do not."""
        return bool(self._places)

    def answer(self, snapshot: Snapshot | None, position: Position, answers: Answers) -> BatchAnswer:
        """Answer all from one snapshot, which may be None where the store is not read. Raises StoreError."""
        decision_id = new_decision_id()
        items: dict[int, Answer | ItemError] = dict(self._errors)
        items.update((place, answers.exempt(context)) for place, context in self._exempt.items())
        if snapshot is not None:
            answered = answers.many(snapshot, self._contexts, self._tags, decision_id)
            items.update(zip(self._places, answered, strict=True))
        in_order = [items[place] for place in range(len(self._questions))]
        envelopes = {id(item.envelope): item.envelope for item in in_order if isinstance(item, Answer)}
        envelope = answers.common_envelope(list(envelopes.values()), position, decision_id)
        return BatchAnswer(items=in_order, envelope=envelope)

    def tell(self, answered: Answered, caller: str, answer: BatchAnswer) -> None:
        """Tell of those questions that were answered, in their order."""
        tags = dict(zip(self._places, map(bytes, self._tags), strict=True))
        contexts = dict(chain(self._exempt.items(), zip(self._places, self._contexts, strict=True)))
        for place, item in enumerate(answer.items):
            if isinstance(item, Answer):
                answered(caller, contexts[place], tags.get(place, b""), item)
