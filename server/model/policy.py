"""How long and how often, by class and channel: the table of the design's policy."""

from dataclasses import dataclass

from server.model.clock import DAY, HOUR, MINUTE, SECOND, Micros
from server.model.enums import Channel, MessageClass, OnUnconfirmed
from server.model.messages import Attempt, Message


@dataclass(frozen=True, slots=True)
class Life:
    """How long a message may wait for its hand-off, from its schedule time or its acceptance."""

    default: Micros
    least: Micros
    most: Micros


@dataclass(frozen=True, slots=True)
class Retry:
    """Repeats on one account after an outcome that was certainly not processed, with full jitter up to the cap."""

    repeats_max: int
    first: Micros
    cap: Micros


LIVES = {
    MessageClass.OTP: Life(300 * SECOND, 30 * SECOND, 600 * SECOND),
    MessageClass.TRANSACTIONAL: Life(HOUR, SECOND, 72 * HOUR),
    MessageClass.BULK: Life(24 * HOUR, SECOND, 7 * DAY),
}
SCHEDULE_AHEAD_MAX: Micros = 90 * DAY
SCHEDULE_PAST_MAX: Micros = MINUTE

_RETRIES = {
    MessageClass.OTP: Retry(4, SECOND // 5, 2 * SECOND),
    MessageClass.TRANSACTIONAL: Retry(6, SECOND, 4 * MINUTE),
    MessageClass.BULK: Retry(8, 5 * SECOND, HOUR),
}
_PUSH_RETRY = Retry(5, 10 * SECOND, 2 * MINUTE)

_WINDOWS = {MessageClass.OTP: 3 * SECOND, MessageClass.TRANSACTIONAL: MINUTE, MessageClass.BULK: MINUTE}
_PUSH_WINDOW: Micros = 5 * SECOND
_EMAIL_WINDOW: Micros = MINUTE
LOOK_UP_EVERY: Micros = SECOND
LOOK_UP_MARGIN: Micros = SECOND
"""So long after a hand-off's deadline its request can no longer be on its way: then "never registered" is proof."""

_RECEIPT_TIMEOUTS = {
    Channel.SMS: 72 * HOUR,
    Channel.VOICE: HOUR,
    Channel.PUSH: HOUR,
    Channel.EMAIL: 72 * HOUR,
    Channel.CHAT: 72 * HOUR,
}
POLLS: tuple[Micros, ...] = (2 * SECOND, 5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE)
POLL_EVERY: Micros = 15 * MINUTE
PUSHED_POLL_AFTER: Micros = MINUTE
"""Where receipts are pushed, a poll only finds what was lost on its way."""

PAUSE_MAX: Micros = MINUTE
"""The longest that a message is put off for an account that is closed, or a tenant that is switched off."""

POISON_ALONE_AFTER = 2
POISON_CLAIMS = 5


def retry_of(message_class: MessageClass, channel: Channel) -> Retry:
    """The repeats that a class allows; push waits longer, as its providers ask."""
    return _PUSH_RETRY if channel == Channel.PUSH else _RETRIES[message_class]


def backoff(retry: Retry, repeats: int, jitter: float) -> Micros:
    """The pause before repeat number `repeats` (from 1): full jitter under an exponential that is capped."""
    return int(jitter * min(retry.cap, retry.first * 2 ** (repeats - 1)))


def window_of(message_class: MessageClass, channel: Channel) -> Micros:
    """How long an ambiguous attempt is reconciled before the class's policy decides."""
    if channel == Channel.PUSH:
        return _PUSH_WINDOW
    return _EMAIL_WINDOW if channel == Channel.EMAIL else _WINDOWS[message_class]


def sends_max(message: Message, channel: Channel) -> int:
    """How many times a message may be handed off although an earlier hand-off may have been taken."""
    if channel == Channel.PUSH:
        return 3
    if channel == Channel.EMAIL:
        return 2
    if message.message_class == MessageClass.OTP:
        return 2
    if channel == Channel.VOICE or message.message_class == MessageClass.BULK:
        return 1
    return 2 if message.on_unconfirmed == OnUnconfirmed.SEND_AGAIN else 1


def receipt_deadline(message: Message, attempt: Attempt) -> Micros:
    """Until when a receipt of this attempt is awaited; for an OTP, until it expires.

    Never longer than the provider keeps its statuses, and no time at all where it reports nothing.
    """
    if not (attempt.follow.reports or attempt.follow.looks_up):
        return attempt.ended_at
    if message.message_class == MessageClass.OTP:
        return max(message.expires_at, attempt.ended_at)
    timeout = _RECEIPT_TIMEOUTS[attempt.channel]
    kept = attempt.follow.keeps_seconds * SECOND
    return attempt.ended_at + (min(timeout, kept) if kept else timeout)


def next_poll(since: Micros, now: Micros, *, pushed: bool = False) -> Micros:
    """When the status is asked for next: after 2 s, 5 s, 15 s, 60 s, 5 min, then every 15 min.

    `pushed`: receipts come by themselves, so that the first time is after 60 s.
    """
    elapsed = max(now - since, PUSHED_POLL_AFTER - 1) if pushed else now - since
    for pause in POLLS:
        if pause > elapsed:
            return since + pause
    return now + POLL_EVERY
