"""The tests of kombu that fail with this transport, and the reasons. See docs/reference/transport.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

import pytest

MOCK = "drives the transport through a mock of Redis that has no scripts"
UNACKED = "reads kombu's `unacked` keys, or checks how it restores from them; this transport has leases"
ONE_SENTINEL = "counts the pools made of Sentinel; the lease keeper has a pool of its own"
ONE_TIMER = "counts the timers in the event loop; the poll is one more"
NO_WAITING = "needs a reply that stays pending; Redis answers a claim at once"
TAKES_EMPTY = "has an event loop that does not catch `Empty`, as kombu's does; an empty claim raises it"
CLASSES = "compares the classes that were replaced"

_UNIT = "unit/transport/test_redis.py::"
_INTEGRATION = "integration/test_redis.py::"
_QOS = "integration/test_redis_brpop_qos.py::"

#: The reason by the pattern of test ids, after `t/`.
EXCEPTIONS = {
    f"{_UNIT}test_PausedBRPOP::*": MOCK,
    f"{_UNIT}test_Channel::test_brpop_start_*": MOCK,
    f"{_UNIT}test_Channel::test_brpop_read_raises": MOCK,
    f"{_UNIT}test_Channel::test_brpop_health_drop_resets_in_poll": MOCK,
    f"{_UNIT}test_Channel_streaming_reauth::test_brpop_read_*": MOCK,
    f"{_UNIT}test_DisconnectRegistration::test_disconnect_then_reconnect_registers_new_socket": MOCK,
    f"{_UNIT}test_Redis::test_publish__*": MOCK,
    f"{_UNIT}test_Redis::test_close_in_poll": MOCK,
    f"{_UNIT}test_Channel::test_register_with_event_loop_stores_trefs_on_cycle": ONE_TIMER,
    f"{_UNIT}test_Channel::test_qos_restore_visible*": UNACKED,
    f"{_UNIT}test_Channel::test_restore_by_tag_*": UNACKED,
    f"{_UNIT}test_Channel::test_restore_keeps_unacked_message_on_connection_error": UNACKED,
    f"{_UNIT}test_Channel::test_restore_no_messages": UNACKED,
    f"{_UNIT}test_Channel::test_global_keyprefix_restore_visible": UNACKED,
    f"{_UNIT}test_Channel::test_global_keyprefix_transaction": UNACKED,
    f"{_UNIT}test_MultiChannelPoller::test_on_poll_init": UNACKED,
    f"{_UNIT}test_MultiChannelPoller::test_maybe_restore_messages_calls_restore_visible": UNACKED,
    f"{_UNIT}test_MultiChannelPoller::test_maybe_restore_messages_swallows_connection_error": UNACKED,
    f"{_UNIT}test_MultiChannelPoller::test_qos_re*": UNACKED,
    f"{_UNIT}test_Channel::test_sentinel_inherits_publish_batch_support": CLASSES,
    f"{_UNIT}test_RedisSentinel::test_getting_master_from_sentinel*": ONE_SENTINEL,
    f"{_UNIT}test_RedisSentinel::test_sentinel_managers_saved_by_managed_pool": ONE_SENTINEL,
    f"{_INTEGRATION}test_RedisRestoreVisible::test_restore_visible_requeues_expired_unacked*": UNACKED,
    f"{_INTEGRATION}test_RedisRestoreBindingLookupFailure::test_failed_*": UNACKED,
    f"{_INTEGRATION}test_RedisRestoreAtShutdown::test_unacked_message_requeued_on_connection_close*": UNACKED,
    f"{_INTEGRATION}test_RedisBrpopHealthCheck::*": NO_WAITING,
    f"{_INTEGRATION}test_event_loop_consumes_after_connection_reconnect*BRPOP*": TAKES_EMPTY,
    f"{_QOS}test_hub_pauses_pending_brpop_until_ack*message*": NO_WAITING,
    f"{_QOS}test_drain_events_resumes_pending_brpop_without_resending": NO_WAITING,
}

ID_TWICE = "sends tasks twice under one id; to Headrace, one id is one job with one outcome"
NEW_STYLE = "has an errback of three parameters; a worker of models has no code of tasks, so it sends the id only"
ERROR_TEXT = "compares the arguments of an exception; an outcome has its message, without values of the job"
SIGNAL = "listens to a signal of the Celery worker that would run the task"
UNTRANSLATED = "reads results in a way in which `jobs` does not turn them back into those of tasks"

_CANVAS = "integration/test_canvas.py::"
_CHORD = f"{_CANVAS}test_chord::"

#: As above, for the suite `canvas-of-jobs`.
JOB_EXCEPTIONS = {
    f"{_CANVAS}test_link_error::test_link_error_callback_retries": ERROR_TEXT,
    f"{_CANVAS}test_link_error::test_link_error_using_signature": ERROR_TEXT,
    f"{_CANVAS}test_link_error::test_mutable_errback_with_stored_arguments[new-style-args]": NEW_STYLE,
    f"{_CANVAS}*[errback_new_style]": NEW_STYLE,
    f"{_CHORD}test_link_error_option_runs_on_body_failure": NEW_STYLE,
    f"{_CHORD}test_mutable_errback_called_by_chord_from_chain*[errback_old_style]": ID_TWICE,
    f"{_CHORD}test_mutable_errback_called_by_chord_from_group[errback_old_style]": ID_TWICE,
    f"{_CHORD}test_reapplying_frozen_chord_dispatches_body_again": ID_TWICE,
    f"{_CHORD}test_chord_on_error": UNTRANSLATED,
    f"{_CANVAS}test_stamping_mechanism::test_task_received_has_access_to_stamps": SIGNAL,
    f"{_CANVAS}test_stamping_mechanism::test_linking_stamped_sig": SIGNAL,
    f"{_CANVAS}test_stamping_mechanism::test_err_linking_stamped_sig": SIGNAL,
}


def mark_exceptions(items: Sequence[pytest.Item], exceptions: Mapping[str, str]) -> None:
    """Expect tests to fail. They run all the same: an exception that passes is an error.

    A test of several subtests is none, as some of those pass.
    """
    for item in items:
        name = item.nodeid.split("/", 1)[1]
        for pattern, reason in exceptions.items():
            if fnmatch(name, pattern.replace("[", "[[]")):
                strict = "subtests" not in getattr(item, "fixturenames", ())
                item.add_marker(pytest.mark.xfail(reason=reason, strict=strict))
