"""Why a message takes its way: what is asked about, and the answer as the contract shows it."""

from collections.abc import Mapping

from angarium.v1 import message_pb2 as wire
from angarium.v1.notification_service_pb2 import SendRequest
from angarium.v1.routing_service_pb2 import ExplainRouteRequest

from server.api.caller import Call
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.api.convert.messages import new_message, template_for
from server.api.convert.words import CHANNELS, VERDICTS
from server.model.clock import Micros
from server.model.explanation import Candidate, Explanation
from server.model.messages import NewMessage
from server.model.templates import Template

_SENT_WITH = (
    "intent",
    "recipient",
    "message_class",
    "channel",
    "scenario",
    "tags",
    "template_key",
    "params",
    "text",
)
"""The fields that an ExplainRouteRequest has from a SendRequest."""


def might_be_sent(
    checks: Checks, request: ExplainRouteRequest, call: Call, now: Micros, templates: Mapping[str, Template]
) -> NewMessage | None:
    """The message that a request describes, of use once `checks` have settled; None where it names one by its id.

    `templates`: the tenant's by key.
    """
    if request.tracking_id:
        checks.line("tracking_id", request.tracking_id, ID_CHARS_MAX)
        for field, _ in request.ListFields():
            if field.name in _SENT_WITH:
                checks.fail(field.name, "must not stand beside tracking_id")
        return None
    given = {field.name: value for field, value in request.ListFields() if field.name in _SENT_WITH}
    sent = SendRequest(**given)
    template = template_for(sent, templates)
    return new_message(checks, sent, call, "", now, template.message_class if template else None)


def route_explanation(explanation: Explanation) -> wire.RouteExplanation:
    """Why a message takes its way."""
    return wire.RouteExplanation(
        rules=(
            wire.RouteExplanation.Rule(name=look.name, matched=look.matched, why=look.why) for look in explanation.rules
        ),
        candidates=map(_candidate, explanation.candidates),
        country=explanation.country,
        operator=explanation.operator,
        segments=explanation.segments,
        encoding=explanation.encoding,
        revision=explanation.revision,
    )


def _candidate(candidate: Candidate) -> wire.RouteExplanation.Candidate:
    return wire.RouteExplanation.Candidate(
        step=candidate.step,
        channel=CHANNELS.number(candidate.channel),
        provider=candidate.provider,
        verdict=VERDICTS.number(candidate.verdict),
        reason=candidate.reason,
        detail=candidate.detail,
    )
