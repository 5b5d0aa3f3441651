"""One POST to an endpoint: 15 seconds for all of it, no redirects, no cookies, and a short look at the answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp

from headrace_gateway.notify.schedule import Answer

#: Bytes of an answer that are read. An answer that goes on is cut: its status has been read.
_ANSWER_BYTES = 64 * 1024


def open_session(*, timeout: float, connections: int) -> aiohttp.ClientSession:
    """Return a session for requests that take `timeout` seconds at most. Close it.

    It takes the proxy of the environment (HTTPS_PROXY), as the notifier may have no other way out.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ttl_dns_cache=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout),
        trust_env=True,
        auto_decompress=False,
        raise_for_status=False,
    )


async def post(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Post a body and return the answer. It raises nothing that an endpoint can cause.

    An answer that breaks off is none: the request is repeated, and the receiver knows it by its id.
    """
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            await _read_some(response)
            return Answer(status=response.status, retry_after=response.headers.get("Retry-After"))
    except TimeoutError:
        return Answer(error="timeout")
    except aiohttp.ClientConnectorCertificateError:
        return Answer(error="certificate-refused")
    except (aiohttp.ClientSSLError, ssl.SSLError):
        return Answer(error="tls-failed")
    except aiohttp.ClientConnectorDNSError:
        return Answer(error="name-not-resolved")
    except aiohttp.ClientConnectorError:
        return Answer(error="not-reachable")
    except (
        aiohttp.ClientPayloadError,
        aiohttp.ServerDisconnectedError,
        ConnectionError,
        asyncio.IncompleteReadError,
    ):
        return Answer(error="answer-broke-off")
    except (aiohttp.ClientError, ValueError, OSError) as error:
        return Answer(error=f"no-answer-{type(error).__name__}")


async def _read_some(response: aiohttp.ClientResponse) -> None:
    """Read the answer, so that its connection can be used again; close the connection of a long one."""
    remaining = _ANSWER_BYTES
    async for chunk in response.content.iter_any():
        remaining -= len(chunk)
        if remaining <= 0:
            response.close()
            return
