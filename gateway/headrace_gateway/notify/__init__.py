"""Webhooks: tell the endpoints of the operator how jobs ended, at least once each.

    endpoints    the endpoints by name, from the operator's file: URL, secrets, events
    signature    the headers of Standard Webhooks
    schedule     what follows an attempt: done, another attempt, or a dead letter
    payload      the body of a request
    requests     one POST
    storage      the notices in Redis, over scripts that are repeated while Redis is away
    deliver      claims notices, posts them, and records what became of each
    sweep        finds outcomes that were stored without their notice
    metrics      counts of what this process delivered
    health       /live, /ready and /metrics
    cli          `headrace notify`

The notices are in Redis (`headrace.wire.notice`). A claim moves the next attempt of a notice into the future, so
the notices of a process that was killed are due again by themselves, for any other.
"""
