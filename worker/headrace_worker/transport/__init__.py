"""Headrace's kombu transport: Redis lists as kombu lays them out, consumed by claims under a lease.

transport          the transport as kombu loads it
broker_settings    Celery's settings that choose it for a broker's URL
poller             kombu's poller, with the listeners of notifications
channel            the adapter between kombu's hooks and the claim loop
qos                the end of a message: acknowledged, rejected or requeued
message            a claim as one message to Celery
ordinary_message   the message of an ordinary Celery task

claim_loop         what to send to Redis next, and what a reply means: idle, sent, blocking
notifications      client tracking, by which an idle worker sleeps
listener           the connection on which Redis names changed keys
blocking_claim     BLMOVE, by which an idle worker waits at Redis

claims             the types: limits, claim, lease
lease_keeper       renews leases, and brings back the jobs of lost workers
leases             the operations on leases
claim_script       CLAIM
publish_script     PUBLISH, and the limits of dead letters
follow_up_scripts  what follows outcomes: take it, send it, put it off
lease_scripts      the other scripts
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

from headrace_worker.transport.broker_settings import ALIAS, CLUSTER_ALIAS, SENTINEL_ALIAS, Hook, broker_settings
from headrace_worker.transport.channel import Channel, ClaimingChannel, SentinelChannel
from headrace_worker.transport.lease_keeper import LeaseKeeper, silence_timeout
from headrace_worker.transport.poller import Poller
from headrace_worker.transport.transport import ClusterTransport, SentinelTransport, Transport, make_keeper

__all__ = [
    "ALIAS",
    "Channel",
    "ClaimingChannel",
    "ClusterTransport",
    "Hook",
    "LeaseKeeper",
    "Poller",
    "SentinelChannel",
    "SentinelTransport",
    "Transport",
    "broker_settings",
    "make_keeper",
    "silence_timeout",
]

# kombu loads a transport by its alias, or by the scheme of a URL.
TRANSPORT_ALIASES[ALIAS] = f"{__name__}:Transport"
TRANSPORT_ALIASES[SENTINEL_ALIAS] = f"{__name__}:SentinelTransport"
TRANSPORT_ALIASES[CLUSTER_ALIAS] = f"{__name__}:ClusterTransport"
