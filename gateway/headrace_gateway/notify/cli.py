"""The command `headrace notify`: deliver notices until Ctrl-C, and make a secret."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import signal

import click

from headrace.cli.command import group
from headrace.errors import SettingError
from headrace.settings import load_settings
from headrace_gateway.notify.endpoints import EndpointFile
from headrace_gateway.notify.schedule import parse_schedule
from headrace_gateway.notify.settings import NotifySettings
from headrace_gateway.notify.signature import SECRET_PREFIX

#: Seconds after the longest pause between two looks for notices, until a notifier counts as hung.
_SILENCE = 60.0


@group(examples=["headrace notify"], invoke_without_command=True)
@click.pass_context
def notify(context: click.Context) -> None:
    """Tell the endpoints of HEADRACE_NOTIFY how jobs ended, until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(NotifySettings)
    try:
        parse_schedule(settings.notify_schedule)
    except ValueError as error:
        raise SettingError(f"HEADRACE_NOTIFY_SCHEDULE cannot be used: {error}") from None
    endpoints = EndpointFile(settings.notify)
    if not endpoints.current():
        raise SettingError("HEADRACE_NOTIFY names no endpoint; docs/how-to/webhooks.md shows a file of endpoints")
    click.echo(f"notifying {', '.join(sorted(endpoints.current()))}", err=True)
    asyncio.run(_run(settings, endpoints))


@notify.command(examples=["headrace notify secret"])
def secret() -> None:
    """Print a new secret for an endpoint."""
    click.echo(SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode())


async def _run(settings: NotifySettings, endpoints: EndpointFile) -> None:
    from headrace_gateway.notify.deliver import Deliverer
    from headrace_gateway.notify.health import NotifierHealth, serve_health
    from headrace_gateway.notify.metrics import NotifyMetrics
    from headrace_gateway.notify.storage import NoticeStore
    from headrace_gateway.notify.sweep import sweep_forever

    store, metrics = NoticeStore(settings), NotifyMetrics()
    metrics.show_endpoints(endpoints.current())
    # While all requests are under way, the next look waits for the end of one, and for Redis.
    health = NotifierHealth(store.claim_seconds + settings.command_timeout + _SILENCE)
    deliverer = Deliverer(settings, endpoints, store, metrics, health)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, deliverer.stop)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        if settings.notify_metrics_port:
            server = await serve_health(
                health, metrics.registry, settings.notify_metrics_address, settings.notify_metrics_port
            )
            stack.push_async_callback(server.cleanup)
        sweeping = asyncio.create_task(sweep_forever(store, settings.notify_sweep))
        try:
            await deliverer.run()
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
