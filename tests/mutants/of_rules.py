"""Faults of the rules and of the dispatcher: who may move a message, how often it is sent, and until when."""

from tests.mutants.mutant import Change, Mutant

_DECIDE = "server/model/decide.py"
_DELIVERY = "server/dispatch/delivery.py"
_VERDICT = "server/model/verdict.py"

FENCED = (
    Mutant(
        "M4a",
        "Whoever lost a message may not begin it: an intent is taken from the right worker, whatever its claim.",
        (
            Change(
                _DECIDE,
                "    return due.kind == DueKind.SEND and due.held_by(hold)",
                "    return due.kind == DueKind.SEND and due.worker == hold.worker",
            ),
        ),
        ("tests/store/test_apply.py::test_a_claim_that_was_taken_away_can_begin_nothing",),
    ),
    Mutant(
        "M4b",
        "Whoever lost a message may not end it: an outcome is taken whatever the claim that it comes from.",
        (Change(_DECIDE, "if attempt is None or attempt.epoch != fact.hold.epoch:", "if attempt is None:"),),
        ("tests/store/test_fences.py::test_an_outcome_of_another_claim_changes_nothing",),
    ),
    Mutant(
        "M7",
        "A rescue takes nothing from the living: what a dead worker held a moment ago is freed whoever holds it now.",
        (
            Change(
                _DECIDE,
                '    if due is None or not due.held_by(fact.hold):\n        return Refused("STALE")\n    lost =',
                '    if due is None:\n        return Refused("STALE")\n    lost =',
            ),
        ),
        ("tests/store/test_fences.py::test_a_rescue_that_comes_too_late_changes_nothing",),
    ),
)

SENT_ONCE = (
    Mutant(
        "M5a",
        "Sent once where nobody knows: a call whose answer did not come counts as not sent.",
        (
            Change(
                "server/providers/answers.py",
                'return ambiguous(reply.code, "The provider gave no readable answer.")',
                'return unavailable(reply.code, "The provider gave no readable answer.")',
            ),
        ),
        ("tests/system/test_delivery.py::test_a_lost_answer_is_looked_up_not_sent_again",),
    ),
    Mutant(
        "M5b",
        "Sent once where nobody knows: transactional messages and bulk are sent again when their window is over.",
        (
            Change(
                "server/model/policy.py",
                "    return 2 if message.on_unconfirmed == OnUnconfirmed.SEND_AGAIN else 1",
                "    return 2",
            ),
            Change(
                "server/model/policy.py",
                "if channel == Channel.VOICE or message.message_class == MessageClass.BULK:",
                "if channel == Channel.VOICE:",
            ),
        ),
        ("tests/model/test_endings.py::test_the_class_decides_when_nobody_knows",),
    ),
    Mutant(
        "M6",
        "Sent once over crashes: the intent is committed after the call, not before it.",
        (
            Change(
                _DELIVERY,
                "        started = await self._state("
                "over.claim, Started(over.claim.hold, _openings(over, self.report_to)), why)\n",
                """\
        intent = Started(over.claim.hold, _openings(over, self.report_to))
        foreseen = decide(over.claim.case, intent, over.moment.now())
        for attempt in foreseen.attempts if isinstance(foreseen, Decision) else ():
            hand_off = _hand_off_of(over, attempt, self._locale(over), self.report_to)
            _SENT[attempt.provider_key] = await over.provider.send(hand_off)
        started = await self._state(over.claim, intent, why)
""",
            ),
            Change(
                _DELIVERY,
                "outcome = await over.provider.send(hand_off)",
                "outcome = _SENT.pop(attempt.provider_key)",
            ),
            Change(
                _DELIVERY,
                "from server.model.decide import Refused\n",
                "from server.model.decide import Refused, decide\n",
            ),
            Change(_DELIVERY, "\nRuling = Decision | Refused\n", "\nRuling = Decision | Refused\n_SENT = {}\n"),
        ),
        ("tests/system/test_intent.py::test_the_intent_is_stored_before_the_provider_reads_the_text",),
    ),
)

WAITING = (
    Mutant(
        "M27a",
        "No accidental second text: where a receipt is overdue the class is not asked.",
        (
            Change(
                _VERDICT,
                "return any(a.overdue for a in here) and len(here) >= sends_max(message, channel)",
                "return not message.id and len(here) >= sends_max(message, channel)",
            ),
            Change(
                _VERDICT,
                "return len(_taken(attempts, channel, destination)) + 1 < sends_max(message, channel)",
                "return bool(message.id)",
            ),
        ),
        ("tests/system/test_steps.py::test_a_second_text_is_the_classs_to_allow",),
    ),
)

IN_TIME = (
    Mutant(
        "M14a",
        "Nothing stale is sent: a message is planned though its time is over.",
        (
            Change(
                _DELIVERY,
                "        if moment.now() >= claim.case.message.expires_at:",
                "        if moment.now() < 0:",
            ),
        ),
        ("tests/system/test_expiry.py::test_what_no_provider_may_take_ends_when_its_time_is_over",),
    ),
    Mutant(
        "M14b",
        "Nothing stale is sent: an intent is taken though the message's time is over.",
        (
            Change(
                _DECIDE,
                '    if now >= message.expires_at:\n        return Refused("EXPIRED")\n    if any',
                "    if any",
            ),
        ),
        ("tests/model/test_endings.py::test_nothing_starts_after_the_expiry",),
    ),
    Mutant(
        "M14c",
        "Nothing stale is sent: nobody looks at the clock again between the intent and the call.",
        (
            Change(
                _DELIVERY,
                "        if over.moment.now() >= over.claim.case.message.expires_at:",
                "        if over.moment.now() < 0:",
            ),
        ),
        ("tests/system/test_expiry.py::test_nothing_leaves_whose_time_ended_while_its_intent_was_committed",),
    ),
)

JUDGED = (
    Mutant(
        "M16",
        "A breaker is about the line: what a provider refuses about recipients, texts and accounts opens it.",
        (
            Change(
                "server/model/breaker.py",
                "        case Rejected() | Misconfigured() | RateLimited():\n            return None",
                "        case Rejected() | Misconfigured() | RateLimited():\n            return Result.FAILED",
            ),
        ),
        ("tests/system/test_refusals.py::test_any_number_of_bad_recipients_leaves_an_account_in_use",),
    ),
    Mutant(
        "M22",
        "The end is the end: receipts move a message that is done.",
        (Change("server/model/conclude.py", "    if before.done:\n", "    if before.done and not attempts:\n"),),
        ("tests/model/test_states.py::test_every_fact_in_every_state",),
    ),
)

MUTANTS = (*FENCED, *SENT_ONCE, *WAITING, *IN_TIME, *JUDGED)
