"""Sends and checks of codes, for the claims about the store."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
from sqlalchemy import event

from server.model.clock import SECOND
from server.model.enums import DueKind, MessageClass
from server.model.errors import Exhausted
from server.model.messages import NewMessage, Recipient
from server.model.otp import Check, Checked, CodeWanted
from server.model.work import Acceptance, Claim
from server.store.store import Store
from tests.store.letters import TENANTS, change, letter, rows

PHONE = "+989120000555"
WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
SEND = frozenset({DueKind.SEND})
_WANTED = {field.name for field in fields(CodeWanted)}


def code_letter(phone: str = PHONE, tenant: str = TENANTS[0], request_id: str = "", **asked: Any) -> NewMessage:
    """An OtpSend about to be accepted. What `asked` holds is wanted of the code, or else a field of the message."""
    of_code = {"destination": phone, "prefix": phone[:-4], "ttl": 300 * SECOND}
    of_message: dict[str, Any] = {"message_class": MessageClass.OTP, "intent": "OTP"}
    for name, value in asked.items():
        (of_code if name in _WANTED else of_message)[name] = value
    new = letter(tenant, request_id, **of_message)
    otp = CodeWanted(**of_code)
    params = {"token": otp.token} if otp.token else {}
    content = replace(new.content, recipient=Recipient(phone=phone, email=otp.beside), text="", params=params)
    return replace(new, content=content, otp=otp)


def check(code: str, verification_id: str = "", tenant: str = TENANTS[0], **named: Any) -> Check:
    """A check by the verification's id, or by what else is named."""
    asked = {"tenant_id": tenant, "client_id": "shop", "code": code, "verification_id": verification_id}
    return Check(**{**asked, "fingerprint": f"{verification_id}/{code}".encode(), **named})


async def claimed(store: Store, acceptance: Acceptance) -> Claim:
    """The claim of a message that was just accepted."""
    claims = await store.claim(MessageClass.OTP, SEND, 50)
    return next(claim for claim in claims if claim.case.message.id == acceptance.message.id)


async def code_in(store: Store, acceptance: Acceptance) -> str:
    """The code that goes out with it."""
    content = (await claimed(store, acceptance)).content
    assert content is not None
    return content.params.get("CODE") or content.params["token"]


def wrong(code: str, by: int = 1) -> str:
    """A code of the same shape that is another one."""
    return code[:-1] + str((int(code[-1], 36) + by) % 10)


async def pass_time(store: Store, seconds: int) -> None:
    """Everything that was counted and begun lies so much further back: for the rules that much time has passed."""
    span = seconds * SECOND
    await change(store, f"UPDATE verification SET created_at = created_at - {span}, expires_at = expires_at - {span}")
    for tenant, kind, subject, hits in await rows(store, "SELECT tenant_id, kind, subject, hits FROM limit_bucket"):
        earlier = json.dumps([hit - span for hit in json.loads(hits)])
        this = f"tenant_id = '{tenant}' AND kind = '{kind}' AND subject = '{subject}'"
        await change(store, f"UPDATE limit_bucket SET hits = '{earlier}' WHERE {this}")
    await change(store, f"UPDATE limit_bucket SET blocked_until = blocked_until - {span}")


async def sent(store: Store, **asked: Any) -> Acceptance:
    return await store.accept(code_letter(**asked))


async def resent(store: Store, **asked: Any) -> Acceptance:
    """One more send, after the cooldown."""
    await pass_time(store, 31)
    return await sent(store, **asked)


async def refusal(store: Store, new: NewMessage) -> Exhausted:
    with pytest.raises(Exhausted) as refused:
        await store.accept(new)
    return refused.value


async def checked(stores: Sequence[Store], checks: Sequence[Check]) -> list[Any]:
    """The answers to checks that come at once, each to the next store in turn."""
    calls = (stores[number % len(stores)].verify(one) for number, one in enumerate(checks))
    return await asyncio.gather(*calls, return_exceptions=True)


def tally(answers: Sequence[Any]) -> Counter[str]:
    """How often each result came, and each refusal by its limit."""
    return Counter(
        answer.result.value if isinstance(answer, Checked) else answer.metadata["limit"] for answer in answers
    )


async def the_row(store: Store, columns: str) -> tuple[Any, ...]:
    (row,) = await rows(store, f"SELECT {columns} FROM verification")
    return row


def tally_of_sends(answers: Sequence[Any]) -> Counter[str]:
    return Counter(
        "sent" if isinstance(one, Acceptance) else one.metadata.get("limit", one.reason.value) for one in answers
    )


@asynccontextmanager
async def held_before(store: Store, begins: str) -> AsyncIterator[threading.Event]:
    """The writer stops in front of the first statement that begins so until the block ends; the event is set then."""
    reached, gate = threading.Event(), threading.Event()

    def stand(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(begins):
            reached.set()
            gate.wait(20)

    # It stays for the life of the engine: once the gate is open, it is nothing.
    event.listen(store._database._writer_engine, "before_cursor_execute", stand)
    try:
        yield reached
    finally:
        gate.set()
