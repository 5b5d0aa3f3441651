"""Let the process that imports this poll once a minute: a worker with the options of `rare_polls`."""

from __future__ import annotations

from headrace_worker.transport import blocking_claim, claim_loop, notifications, poller, transport

_POLL_SECONDS = 60.0

for _module in (notifications, poller, transport):
    _module.POLL_SECONDS = _POLL_SECONDS  # type: ignore[attr-defined]  # imported there
for _module in (blocking_claim, claim_loop):
    _module.LOOK_SECONDS = _POLL_SECONDS  # type: ignore[attr-defined]  # imported there
