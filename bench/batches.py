"""Load of batch calls: closed and open loops as of single checks."""

from bench.callers import UnaryCaller, WrongAnswersError
from iyscheck.v1 import consent_check_pb2 as v1

BATCH = "/iyscheck.v1.ConsentCheckService/BatchCheck"
_DISTINCT = 50


class BatchCaller(UnaryCaller):
    """Asks batches of one size over and over."""

    def __init__(self, *, target: str, consents: int, keys: str, hit_rate: float, questions: int) -> None:
        super().__init__(
            target=target, kind="tokens", consents=consents, keys=keys, hit_rate=hit_rate, count=_DISTINCT * questions
        )
        asked = [v1.CheckRequest.FromString(payload).question for payload in self._questions.payloads]
        starts = range(0, len(asked), questions)
        self._reasons = [self._questions.reasons[at : at + questions] for at in starts]
        self._questions.payloads[:] = [
            v1.BatchCheckRequest(questions=asked[at : at + questions]).SerializeToString() for at in starts
        ]
        self._check = self._way.shown(self._channel.unary_unary(BATCH))

    def _compare(self, number: int, data: bytes, *, exactly: bool) -> None:
        """Raise WrongAnswersError unless this is the answer to batch `number`."""
        del exactly
        reply = v1.BatchCheckResponse.FromString(data)
        if [item.result.reason for item in reply.items] != self._reasons[number % _DISTINCT]:
            raise WrongAnswersError("a batch was answered wrongly")
