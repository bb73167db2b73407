"""The limits that are enforced, as WhoAmI tells them: by name, with the unit in the name."""

from collections.abc import Mapping

from server.api import admission, interceptor
from server.api.convert import checks, messages, providers, routing
from server.model import limits, otp, policy
from server.model.clock import DAY, HOUR, SECOND
from server.model.enums import MessageClass
from server.model.limits import BucketKind
from server.model.segments import SEGMENTS_MAX
from server.store.templates import TEMPLATES_MAX

LIMITS: Mapping[str, str] = {
    name: str(value)
    for name, value in {
        "request_bytes_max": interceptor.REQUEST_BYTES_MAX,
        "unary_seconds_max": int(interceptor.UNARY_SECONDS_MAX),
        "calls_in_flight_per_process_max": admission.CALLS_MAX,
        "watch_streams_per_process_max": admission.STREAMS_MAX,
        "watch_streams_per_client_max": admission.STREAMS_PER_CLIENT_MAX,
        "watch_streams_per_connection_max": admission.STREAMS_PER_CONNECTION_MAX,
        "page_size_max": checks.PAGE_SIZE_MAX,
        "text_characters_max": messages.TEXT_CHARS_MAX,
        "sms_parts_max": SEGMENTS_MAX,
        "request_id_characters_max": messages.REQUEST_ID_CHARS_MAX,
        "reference_characters_max": messages.REFERENCE_CHARS_MAX,
        "sender_characters_max": messages.SENDER_CHARS_MAX,
        "tags_max": messages.TAGS_MAX,
        "tag_characters_max": messages.TAG_CHARS_MAX,
        "device_tokens_max": messages.DEVICE_TOKENS_MAX,
        "schedule_days_ahead_max": policy.SCHEDULE_AHEAD_MAX // DAY,
        "otp_ttl_seconds_max": policy.LIVES[MessageClass.OTP].most // SECOND,
        "transactional_ttl_hours_max": policy.LIVES[MessageClass.TRANSACTIONAL].most // HOUR,
        "bulk_ttl_days_max": policy.LIVES[MessageClass.BULK].most // DAY,
        "otp_cooldown_seconds": limits.COOLDOWN.span // SECOND,
        "otp_sends_of_an_address_in_10_minutes_max": limits.LIMITS[BucketKind.DESTINATION][1].most,
        "otp_sends_of_an_address_a_day_max": limits.LIMITS[BucketKind.DESTINATION][2].most,
        "otp_sends_of_a_verification_max": limits.VERIFICATION_SENDS_MAX,
        "otp_sends_of_a_prefix_in_10_minutes_max": limits.LIMITS[BucketKind.PREFIX][0].most,
        "otp_sends_of_an_end_user_an_hour_max": limits.LIMITS[BucketKind.IP][0].most,
        "otp_checks_of_an_address_a_minute_max": limits.LIMITS[BucketKind.CHECKS][0].most,
        "otp_wrong_checks_of_an_address_an_hour_max": limits.LIMITS[BucketKind.WRONG][0].most,
        "otp_attempts_max": otp.ATTEMPTS_MAX,
        "otp_attempts_of_a_short_own_code_max": otp.ATTEMPTS_MAX_SHORT,
        "templates_max": TEMPLATES_MAX,
        "provider_timeout_seconds_max": providers.TIMEOUT_SECONDS[1],
        "routing_rules_max": routing.RULES_MAX,
        "request_id_days_kept": 7,
        "messages_days_kept_after_done": 7,
    }.items()
}
