"""What messages say: their own templates at the revision that they were accepted with, and those that steps name."""

from collections.abc import Mapping

from server.model.messages import Attempt, Message
from server.model.templates import NO_TEMPLATES, Template, Wording, beside, worded
from server.model.work import Claim
from server.store.store import Store


async def templates_for(store: Store, message: Message) -> Mapping[str, Template]:
    """The tenant's templates by key, and under "" the message's own. Raises Unavailable."""
    own = None
    if message.template_key:
        own = await store.configuration.pinned(message.tenant_id, message.template_key, message.template_revision)
    return beside(store.configuration.snapshot.templates.get(message.tenant_id, NO_TEMPLATES), own)


async def wording_of_attempt(store: Store, claim: Claim, attempt: Attempt) -> Wording | None:
    """What an attempt said, by the message's own template; None where that is not known any more.

    Where its step named a template of its own the wording differs, and a look-up by it finds nothing.
    """
    message, tenant = claim.case.message, store.configuration.snapshot.tenants.get(claim.case.message.tenant_id)
    if claim.content is None or tenant is None:
        return None
    own = (await templates_for(store, message)).get("")
    return worded(message, claim.content, own, attempt.channel, attempt.account, tenant.default_locale)
