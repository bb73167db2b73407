"""Accounts, attempts begun with them, and what providers post about those, for the claims about receipts."""

from dataclasses import replace
from typing import Any

from sqlalchemy import insert

from server.model.conclude import Decision
from server.model.configuration_tables import ProviderAccount
from server.model.decide import Refused
from server.model.enums import DueKind, FailureReason, MessageClass, ReceiptKind
from server.model.facts import Started
from server.model.failures import Failure
from server.model.messages import Attempt, Behind, Case
from server.model.outcomes import Receipt, Report
from server.model.work import Claim
from server.store.store import Store
from tests.store.letters import TENANTS, accept_all, letter, rows, started

SEND = frozenset({DueKind.SEND})
UID, OTHER_UID = "uid-first", "uid-other"
DELIVERED = Receipt(ReceiptKind.DELIVERED)
UNDELIVERED = Receipt(ReceiptKind.UNDELIVERED, Failure(FailureReason.RECIPIENT_UNREACHABLE, "Gone.", "30003"))
ON_ITS_WAY = Receipt(ReceiptKind.OTHER)


async def add_accounts(store: Store, *uids: str, tenant: str = TENANTS[0]) -> None:
    """Provider accounts with these uids."""
    made = [ProviderAccount(tenant_id=tenant, name=uid, uid=uid, type="sandbox").model_dump() for uid in uids]
    await store._database.write(lambda connection: connection.execute(insert(ProviderAccount), made).close())


async def claimed(store: Store, count: int = 1) -> list[Claim]:
    """As many fresh messages, claimed."""
    await accept_all(store, [letter() for _ in range(count)])
    claims = await store.claim(MessageClass.TRANSACTIONAL, SEND, count)
    assert len(claims) == count
    return claims


async def begun(store: Store, *, steps: int = 0, uid: str = UID) -> Claim:
    """A message of which one attempt is in flight, with so many steps behind it."""
    (claim,) = await claimed(store)
    assert isinstance(await store.apply(claim.case.message.id, start_of(claim, steps=steps, uid=uid)), Decision)
    return claim


def start_of(claim: Claim, *, steps: int = 0, uid: str = UID) -> Started:
    """The intent of one hand-off by this account, of the next step."""
    (opening,) = started(claim).openings
    step = 1 + max((attempt.step for attempt in claim.case.attempts), default=0)
    behind = Behind(candidates=steps, steps=steps)
    return Started(claim.hold, (replace(opening, account_uid=uid, step=step, behind=behind),))


async def post(
    store: Store, id_: str, receipt: Receipt, claim: Claim | None = None, *, uid: str = UID, number: int = 1
) -> Decision | Refused | None:
    """A provider's report of its message `id_`, by the URL of a claim's attempt where one is given."""
    message_id = claim.case.message.id if claim else ""
    return await store.receive(uid, Report(id_, receipt), message_id, number if claim else 0)


async def case_of(store: Store, claim: Claim) -> Case:
    """All that is known of the message now."""
    return await store.reading.message(TENANTS[0], tracking_id=claim.case.message.id)


async def attempt_of(store: Store, claim: Claim) -> Attempt:
    """Its first attempt now."""
    return (await case_of(store, claim)).attempts[0]


async def waiting(store: Store) -> list[tuple[Any, ...]]:
    """What lies in the inbox: account, id and kind."""
    order = "account_uid, provider_message_id, kind"
    return await rows(store, f"SELECT {order} FROM receipt_inbox ORDER BY {order}")
