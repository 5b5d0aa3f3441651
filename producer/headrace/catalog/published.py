"""Contracts in Redis: the worker publishes them, producers read them and trust them for a while."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from headrace.catalog import aliases
from headrace.catalog.aliases import Aliases, is_version
from headrace.catalog.contract import Contract
from headrace.connection.commands import Command, Operation, Script, execute
from headrace.errors import HeadraceError, UnknownModel
from headrace.text import did_you_mean
from headrace.wire.keys import Keys

if TYPE_CHECKING:
    import redis

# The newest version is the highest number, whichever worker publishes first or last.
_PUBLISH = Script("""
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local latest = redis.call('HGET', KEYS[1], 'latest')
if not latest or (tonumber(ARGV[1]) or 0) >= (tonumber(latest) or 0) then
  redis.call('HSET', KEYS[1], 'latest', ARGV[1])
end
redis.call('SADD', KEYS[2], ARGV[3])
return 1
""")

_READ = Script("""
local version = ARGV[1]
if version == '' then version = redis.call('HGET', KEYS[1], 'latest') end
return version and redis.call('HGET', KEYS[1], version)
""")

_CONTRACT = msgspec.json.Decoder(Contract)


def publish_contract(redis: redis.Redis, keys: Keys, contract: Contract) -> None:
    """Make a contract known to producers. The highest version is what a job without one is checked against."""
    execute(
        redis,
        _PUBLISH(
            [keys.contracts(contract.model), keys.models],
            [contract.version, msgspec.json.encode(contract), contract.model],
        ),
    )


def fetch_model_names(redis: redis.Redis, keys: Keys) -> list[str]:
    """The models that have a contract, sorted."""
    return decode_model_names(execute(redis, read_model_names(keys)))


def read_model_names(keys: Keys) -> Command:
    """The command that lists the models; `listed` reads its reply."""
    return Command(("SMEMBERS", keys.models))


def decode_model_names(reply: set[bytes] | list[bytes]) -> list[str]:
    """The names in a reply to `every`."""
    return sorted(name.decode() for name in reply)


def list_models(keys: Keys) -> Operation[list[str]]:
    """List the models that have a contract, sorted."""
    return decode_model_names((yield read_model_names(keys)))


class ContractCache:
    """The contracts a producer has read. Safe to use from many threads: an entry is replaced, never changed."""

    def __init__(self, keys: Keys, ttl: float) -> None:
        self._keys = keys
        self._ttl = ttl
        self._read: dict[tuple[str, str | None], tuple[float, Contract]] = {}
        self._aliases: dict[str, tuple[float, Aliases]] = {}

    def read(self, model: str, version: str | None, now: float, *, refresh: bool = False) -> Operation[Contract]:
        """The contract of a version, of the newest for None; at most `ttl` seconds old at the moment `now`.

        Asks Redis if need be, and always with `again`. Raises UnknownModel.
        """
        at, contract = self._read.get((model, version), (0.0, None))
        if contract is not None and not refresh and now - at < self._ttl:
            return contract
        stored = yield _READ([self._keys.contracts(model)], [version or ""])
        if stored is None:
            self._read.pop((model, version), None)
            yield from self._refuse(model, version)
        contract = _decoded(stored, model)
        self._read[model, version] = (now, contract)
        return contract

    def resolve(self, model: str, version: str | None, now: datetime) -> Operation[Contract]:
        """Read the contract of a version, by its number or an alias, or of the newest for None."""
        if version is not None and not is_version(version):
            alias = (yield from self.read_aliases(model, now.timestamp())).by_name.get(version)
            version = version if alias is None else alias.version
        return (yield from self.read(model, version, now.timestamp(), refresh=True))

    def read_aliases(self, model: str, now: float) -> Operation[Aliases]:
        """The model's aliases; at most `ttl` seconds old at the moment `now`."""
        at, known = self._aliases.get(model, (0.0, None))
        if known is not None and now - at < self._ttl:
            return known
        known = aliases.decode_aliases(model, (yield aliases.read_aliases(self._keys, model)))
        self._aliases[model] = (now, known)
        return known

    def was_read_at(self, model: str, version: str | None, now: float) -> bool:
        """Whether the contract was read at this very moment, so that reading again tells nothing new."""
        return self._read.get((model, version), (-1.0,))[0] == now

    def _refuse(self, model: str, version: str | None) -> Operation[None]:
        versions = sorted(
            (name.decode() for name in (yield Command(("HKEYS", self._keys.contracts(model))))), key=_order
        )
        if versions:
            known = ", ".join(name for name in versions if name != "latest")
            raise UnknownModel(f"model {model!r} has no version {version!r}; it has {known}")
        models = yield from list_models(self._keys)
        raise UnknownModel(_no_such_model(model, models))


def _decoded(stored: bytes, model: str) -> Contract:
    try:
        return _CONTRACT.decode(stored)
    except msgspec.DecodeError:
        raise HeadraceError(
            f"the contract of model {model!r} in Redis cannot be read: a newer Headrace may have written it; "
            "upgrade this client, or use Client(check=False)"
        ) from None


def _no_such_model(model: str, models: list[str]) -> str:
    if not models:
        return (
            f"no model {model!r}: no worker has published a contract to this Redis yet; start `headrace worker`, "
            "look at the Redis URL and key prefix, or enqueue unchecked with Client(check=False)"
        )
    meant = did_you_mean(model, models, cutoff=0.5)
    more = ", ..." if len(models) > _MOST_NAMES else ""
    return f"no model {model!r} is published{meant or '.'} Known: {', '.join(models[:_MOST_NAMES])}{more}"


#: An error names this many models at the most.
_MOST_NAMES = 12


def _order(version: str) -> tuple[int, str]:
    return (int(version) if version.isascii() and version.isdigit() else -1, version)
