"""Gateways whose callers ask for many brands in turn, by the batching client.

The same process asks about the same addresses for one brand and for many: the question is what it costs that the calls
of a real gateway are not all of one brand. Every answer of a first pass is compared.
"""

import asyncio
from typing import Final

import numpy as np

from bench.callers import WrongAnswersError
from bench.cohort import BRAND, CHANNEL, PHONE_CHARS, RECIPIENT_TYPE, Cohort, brand_of
from bench.gateways import Gateway

BRANDS: Final = 220
"""In the store; fewer are asked where fewer are wanted, about their own recipients."""
_VERIFIED: Final = 20_000


class Brands(Gateway):
    """Plain phones, each with the brand that has its record."""

    def __init__(self, *, target: str, echo_target: str, consents: int, keys: str, hit_rate: float) -> None:
        super().__init__(target=target, echo_target=echo_target, consents=consents, keys=keys, hit_rate=hit_rate)
        cohort = Cohort(consents)
        items = cohort.drawn(500_000, hit_rate=hit_rate, seed=17)
        text = cohort.phones(items).tobytes().decode()
        self._all = [text[at : at + PHONE_CHARS] for at in range(0, len(text), PHONE_CHARS)]
        self._brands = brand_of(items, BRANDS)
        self._all_reasons = cohort.reasons(items)

    def _choose(self, brands: int) -> list[int]:
        """Take the phones of so many brands, and say whom each is asked for; of one brand: that which has all."""
        rows = np.flatnonzero(self._brands <= (BRANDS if brands == 1 else brands))
        self._phones = [self._all[row] for row in rows.tolist()]
        self._reasons = self._all_reasons[rows].tolist()
        return [BRAND] * len(rows) if brands == 1 else self._brands[rows].tolist()

    def verify_brands(self, *, brands: int) -> dict[str, float]:
        """Ask about many by the batching client and compare each reason."""
        of = self._choose(brands)[:_VERIFIED]

        async def run() -> int:
            async with self._async_client() as client, client.batching() as checks:
                answers = await asyncio.gather(
                    *(
                        checks.check(brand=brand, channel=CHANNEL, recipient_type=RECIPIENT_TYPE, address=phone)
                        for brand, phone in zip(of, self._phones, strict=False)
                    )
                )
            return sum(answer.reason != reason for answer, reason in zip(answers, self._reasons, strict=False))

        if wrong := asyncio.run(run()):
            raise WrongAnswersError(f"{wrong} single checks of {brands} brands were answered wrongly")
        return {"questions": len(of)}

    def tasks_brands(self, *, callers: int, brands: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask iyscheck from tasks by the batching client, each question for the next brand."""
        of = self._choose(brands)

        async def run() -> dict[str, float]:
            async with self._async_client() as client, client.batching() as checks:
                check, phones = checks.check, self._phones
                return await self.by_tasks(
                    lambda at: check(brand=of[at], channel=CHANNEL, recipient_type=RECIPIENT_TYPE, address=phones[at]),
                    callers,
                    seconds,
                    warm_s,
                )

        return asyncio.run(run())

    def threads_brands(self, *, callers: int, brands: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask iyscheck from threads by the batching client, each question for the next brand."""
        of = self._choose(brands)
        with self._client() as client, client.batching() as checks:
            check, phones = checks.check, self._phones
            return self.by_threads(
                lambda at: check(brand=of[at], channel=CHANNEL, recipient_type=RECIPIENT_TYPE, address=phones[at]),
                callers,
                seconds,
                warm_s,
            )
