"""How the probe's question is answered: from the store, as any other, but for nobody and uncounted."""

from iyscheck import wire
from iyscheck.engine import Engine
from iyscheck.server.probing.question import Probe
from iyscheck.server.refusals import Refusal
from iyscheck.v1 import consent_check_pb2 as v1

CALLER = "probe"
"""Who asked, as the seam `answered` is told."""


class ProbeAnswers:
    """Answers one question, which `question` holds, from an engine."""

    def __init__(self, probe: Probe, engine: Engine) -> None:
        self.question = probe.question
        self._engine = engine

    def answer(self) -> bytes:
        """Answer it. Raises Refusal."""
        try:
            request = wire.parse(v1.CheckRequest, self.question)
            answer = self._engine.check(wire.question_of(request.question, "question."), caller=CALLER)
            return wire.check_response(answer, "").SerializeToString()
        except Exception as error:
            raise Refusal.of(error) from error
