"""Brands, rights and subscriptions."""

from loader.iys.messages import FeedSource, SubscriptionState
from tests.iys.accounts import Managed
from tests.iys.answers import Answer, refused, said
from tests.iys.movements import turkish
from tests.iys.operations.paging import part_of
from tests.iys.world import Call, Operation, World


def _brands(world: World, call: Call) -> Answer:
    """List the brands of a provider, with how many consents each has."""
    brands = sorted({brand for account in world.accounts.of(call.iys_code) for brand in account.brands})
    if not brands:
        return refused(404, "H001")
    return said(
        [
            {"brandCode": brand, "name": f"Brand {brand}", "master": index == 0, "stats": _stats(world, brand)}
            for index, brand in enumerate(brands)
        ]
    )


def _stats(world: World, brand: int) -> dict[str, object]:
    last: dict[tuple[object, ...], object] = {}
    for source in FeedSource:
        for movement in world.movements.of(brand, source):
            last[movement.consent] = movement.row.get("status")
    statuses = list(last.values())
    approval, rejection = statuses.count("ONAY"), statuses.count("RET")
    total = world.accounts.told_consents.get(brand, len(statuses))
    return {"consents": {"approval": approval, "rejection": rejection, "total": total}, "retailers": {"total": 0}}


def _providers(world: World, call: Call) -> Answer:
    """List the brands that an integrator manages, in pages."""
    part = part_of(call)
    if isinstance(part, Answer):
        return part
    assert call.account is not None
    managed = call.account.manages
    listed = [_listed(each, as_text=world.quirks.codes_as_text) for each in part.of(managed)]
    return said({"pagination": part.told(managed), "list": listed})


def _provider(_world: World, call: Call) -> Answer:
    """List the brands of one provider that an integrator manages."""
    assert call.account is not None
    listed = [_listed(m, as_text=False) for m in call.account.manages if m.iys_code == int(call.parameters["iysCode"])]
    if not listed:
        return refused(403, "H353")
    return said({"pagination": {"offset": 0, "pageSize": len(listed), "totalCount": len(listed)}, "list": listed})


def _listed(managed: Managed, *, as_text: bool) -> dict[str, object]:
    listed: dict[str, object] = {
        "brandCode": str(managed.brand) if as_text else managed.brand,
        "name": managed.name,
        "master": managed.master,
        "title": f"{managed.name} A.Ş.",
        "iysCode": str(managed.iys_code) if as_text else managed.iys_code,
        "agreementControl": managed.agreement_control,
        "viaControl": managed.via_control,
    }
    return listed | dict[str, object](managed.rights)


def _subscription(world: World, call: Call) -> Answer:
    """Tell of the subscription of a provider."""
    state = world.accounts.state(call.iys_code)
    if state is SubscriptionState.ABSENT:
        return refused(404, "H437")
    told = _told(world, call, state)
    if call.account is not None and call.account.kind == "provider":
        told |= {"consentLimit": 100_000, "usedConsentLimit": 10, "consentLimitExceed": False}
    return said(told)


def _integrator_subscription(world: World, call: Call) -> Answer:
    """Tell of the subscription of an integrator."""
    state = world.accounts.state(call.iys_code)
    if state is SubscriptionState.ABSENT:
        return refused(404, "H437")
    told = _told(world, call, state)
    told.setdefault("subscriptionId", told.pop("subsciprtionId", None))  # a spelling that providers alone are told
    if "subscipritionId" in told:
        del told["subscriptionId"]
    return said(told | {"iysCode": str(call.iys_code)})


def _told(world: World, call: Call, state: SubscriptionState) -> dict[str, object]:
    year_s = 365 * 86_400
    return {
        "startDate": turkish(call.now_s - year_s / 2),
        "expirationDate": turkish(call.now_s + year_s / 2),
        "subscriptionPackageName": "A package",
        "status": state.value,
        world.quirks.subscription_id: f"subscription-{call.iys_code}",
    }


OPERATIONS = (
    Operation(name="brands", method="GET", path="/sps/{iysCode}/brands", answer=_brands, needs="code"),
    Operation(
        name="providers", method="GET", path="/integrator/{integratorCode}/sps", answer=_providers, needs="integrator"
    ),
    Operation(
        name="provider",
        method="GET",
        path="/integrator/{integratorCode}/sps/{iysCode}",
        answer=_provider,
        needs="integrator",
    ),
    Operation(
        name="subscription",
        method="GET",
        path="/sps/{iysCode}/subscription",
        answer=_subscription,
        needs="code",
        while_paused=True,
    ),
    Operation(
        name="integrator_subscription",
        method="GET",
        path="/integrator/{integratorCode}/subscription",
        answer=_integrator_subscription,
        needs="integrator",
        while_paused=True,
    ),
)
