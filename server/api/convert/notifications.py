"""Messages, attempts and events as the contract shows them, and the filter by which they are chosen."""

from collections.abc import Callable, Sequence

from angarium.v1 import message_pb2 as wire

from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.api.convert.messages import REFERENCE_CHARS_MAX, TAG_CHARS_MAX, phone_of
from server.api.convert.times import timestamp
from server.api.convert.words import CHANNELS, CLASSES, KINDS, OUTCOMES, REASONS, STATES, STATUSES
from server.model.clock import Micros
from server.model.enums import Channel, State
from server.model.failures import Failure
from server.model.messages import Attempt, Event, Message
from server.model.watching import Filter

FILTER_VALUES_MAX = 100
_FURTHEST = (State.FAILED, State.UNDELIVERED, State.SENDING, State.UNCONFIRMED, State.SENT, State.DELIVERED)


def notification(message: Message) -> wire.Notification:
    """A message as its caller sees it."""
    return wire.Notification(
        tracking_id=message.id,
        tenant_id=message.tenant_id,
        client_id=message.client_id,
        request_id=message.request_id,
        status=STATUSES.number(message.status),
        state=STATES.number(message.state),
        done=message.done,
        intent=message.intent,
        message_class=CLASSES.number(message.message_class),
        channel=CHANNELS.number(message.channel),
        provider=message.provider,
        failure=failure(message.failure),
        recipient_hint=message.recipient_hint,
        reference=message.reference,
        tags=message.tags,
        verification_id=message.verification_id,
        template_key=message.template_key,
        template_revision=message.template_revision,
        rule=message.rule,
        attempt_count=message.attempt_count,
        last_sequence=message.last_seq,
        segments=message.segments,
        schedule_time=timestamp(message.schedule_at),
        create_time=timestamp(message.created_at),
        update_time=timestamp(message.updated_at),
        expire_time=timestamp(message.expires_at),
        finish_time=timestamp(message.done_at),
    )


def status_event(event: Event) -> wire.StatusEvent:
    """One entry of a message's log."""
    return wire.StatusEvent(
        tracking_id=event.message_id,
        sequence=event.seq,
        kind=KINDS.number(event.kind),
        event_time=timestamp(event.at),
        state=STATES.number(event.state),
        status=STATUSES.number(event.status),
        done=event.done,
        channel=CHANNELS.number(event.channel),
        provider=event.provider,
        attempt=event.attempt,
        outcome=OUTCOMES.number(event.outcome),
        failure=failure(event.failure),
        tenant_id=event.tenant_id,
        intent=event.intent,
        reference=event.reference,
        tags=event.tags,
    )


def attempt(made: Attempt) -> wire.Attempt:
    """One hand-off."""
    return wire.Attempt(
        number=made.number,
        step=made.step,
        channel=CHANNELS.number(made.channel),
        provider=made.account,
        outcome=OUTCOMES.number(made.outcome),
        failure=failure(made.failure),
        provider_message_id=made.provider_message_id,
        start_time=timestamp(made.started_at),
        end_time=timestamp(made.ended_at),
        segments=made.segments,
        state=STATES.number(made.state),
        receipt_time=timestamp(made.receipt_at),
    )


def failure(why: Failure | None) -> wire.Failure | None:
    """Why something came to nothing."""
    if why is None:
        return None
    return wire.Failure(reason=REASONS.number(why.reason), message=why.message, provider_code=why.provider_code)


def channel_results(attempts: Sequence[Attempt]) -> list[wire.ChannelResult]:
    """The attempts summed up by channel, in the order in which the channels were tried."""
    channels = dict.fromkeys(made.channel for made in attempts)
    return [_channel_result(channel, [a for a in attempts if a.channel == channel]) for channel in channels]


def _channel_result(channel: Channel, attempts: Sequence[Attempt]) -> wire.ChannelResult:
    furthest = max(attempts, key=lambda made: (_FURTHEST.index(made.state), made.number))
    return wire.ChannelResult(
        channel=CHANNELS.number(channel),
        state=STATES.number(furthest.state),
        provider=furthest.account,
        attempt_count=len(attempts),
        failure=failure(furthest.failure),
        update_time=timestamp(max(max(a.started_at, a.ended_at, a.receipt_at) for a in attempts)),
        device_count=len({a.destination for a in attempts}) if channel == Channel.PUSH else 0,
    )


def wanted(given: wire.NotificationFilter, region: str, index: Callable[[str], str]) -> Filter:
    """The filter of a request; `index` hashes a phone number. Raises Invalid with every bad field."""
    checks = Checks()
    found = Filter(
        states=_states(checks, given),
        intents=frozenset(checks.lines("filter.intents", given.intents, FILTER_VALUES_MAX, ID_CHARS_MAX)),
        tags=frozenset(checks.lines("filter.tags", given.tags, FILTER_VALUES_MAX, TAG_CHARS_MAX)),
        tracking_ids=frozenset(
            checks.lines("filter.tracking_ids", given.tracking_ids, FILTER_VALUES_MAX, ID_CHARS_MAX)
        ),
        reference=checks.line("filter.reference", given.reference, REFERENCE_CHARS_MAX),
        client_id=checks.line("filter.client_id", given.client_id, ID_CHARS_MAX),
        phone_index=index(phone_of(checks, "filter.phone", given.phone, region, voice=True)),
        channel=checks.word("filter.channel", CHANNELS, given.channel),
        provider=checks.line("filter.provider", given.provider, ID_CHARS_MAX),
        message_class=checks.word("filter.message_class", CLASSES, given.message_class),
        created_min=_since(checks, given),
        created_max=_before(checks, given),
    )
    checks.settle()
    return found


def _states(checks: Checks, given: wire.NotificationFilter) -> frozenset[State]:
    checks.count("filter.states", given.states, FILTER_VALUES_MAX)
    if 0 in given.states:
        checks.fail("filter.states", "holds STATE_UNSPECIFIED")
    states = (checks.word("filter.states", STATES, number) for number in dict.fromkeys(given.states))
    return frozenset(state for state in states if state is not None)


def _since(checks: Checks, given: wire.NotificationFilter) -> Micros:
    at = checks.time("filter.create_time_min", given.create_time_min) if given.HasField("create_time_min") else None
    return max(at or 0, 0)


def _before(checks: Checks, given: wire.NotificationFilter) -> Micros:
    """0 would mean no bound: whatever lies before 1970 becomes its first microsecond, before which there is nothing."""
    at = checks.time("filter.create_time_max", given.create_time_max) if given.HasField("create_time_max") else None
    return 0 if at is None else max(at, 1)
