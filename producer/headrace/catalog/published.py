"""Contracts in Redis: workers publish them, and producers read them and cache them for a while."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from headrace.catalog import aliases
from headrace.catalog.aliases import Aliases, is_version
from headrace.catalog.contract import Contract
from headrace.connection.commands import Command, Operation, Script, execute
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.errors import StoredDataError, UnknownModel
from headrace.text import did_you_mean
from headrace.wire.keys import Keys
from headrace.wire.names import is_model_name
from headrace.wire.stored import decode_stored, show

if TYPE_CHECKING:
    import redis

# The newest version is the highest number, in whatever order workers publish. The cost of both scripts is linear
# in the bytes of one contract.
_PUBLISH = Script(
    "publish_contract",
    CHECKED_FUNCTION
    + """
local contracts, models = KEYS[1], KEYS[2]
local version, contract, model = unpack(ARGV)
local latest = checked('HGET', contracts, 'latest')
checked('SADD', models, model)  -- the first write, and it writes nothing if the key is of another type
redis.call('HSET', contracts, version, contract)
if not latest or (tonumber(version) or 0) >= (tonumber(latest) or 0) then
  redis.call('HSET', contracts, 'latest', version)
end
return 1
""",
)

_READ = Script(
    "read_contract",
    CHECKED_FUNCTION
    + """
local contracts, version = KEYS[1], ARGV[1]
if version == '' then version = checked('HGET', contracts, 'latest') end
return version and checked('HGET', contracts, version)
""",
    flag="no-writes",
)

_CONTRACT = msgspec.json.Decoder(Contract)

#: Most models that an error names.
_MAX_NAMES = 12


def publish_contract(redis: redis.Redis, keys: Keys, contract: Contract) -> None:
    """Publish a contract for producers. Jobs without a version are checked against that of the highest version."""
    execute(
        redis,
        _PUBLISH(
            [keys.contracts(contract.model), keys.models],
            [contract.version, msgspec.json.encode(contract), contract.model],
        ),
    )


def fetch_model_names(redis: redis.Redis, keys: Keys) -> list[str]:
    """Return the names of the models with a contract, sorted."""
    return decode_model_names(execute(redis, read_model_names(keys)))


def read_model_names(keys: Keys) -> Command:
    """Return the command that reads the names of the models; `decode_model_names` decodes its reply."""
    return Command(("SMEMBERS", keys.models))


def decode_model_names(reply: set[bytes] | list[bytes]) -> list[str]:
    """Decode the reply to `read_model_names`: the names, sorted. A member that is no model's name is skipped."""
    return sorted(name for name in (member.decode(errors="replace") for member in reply) if is_model_name(name))


def list_models(keys: Keys) -> Operation[list[str]]:
    """List the models with a contract, sorted by name."""
    return decode_model_names((yield read_model_names(keys)))


class ContractCache:
    """The contracts and aliases that a producer has read, each cached for `ttl` seconds.

    Safe for threads: an entry is replaced, never changed.
    """

    def __init__(self, keys: Keys, ttl: float) -> None:
        self._keys = keys
        self._ttl = ttl
        #: By model and requested version: the moment of reading, and the contract.
        self._contracts: dict[tuple[str, str | None], tuple[float, Contract]] = {}
        #: By model: the moment of reading, and the aliases.
        self._aliases: dict[str, tuple[float, Aliases]] = {}

    def cached(self, model: str, version: str | None, now: float) -> Contract | None:
        """Return a contract from the cache, for arguments of `read`; None if it is not there or too old."""
        read_at, contract = self._contracts.get((model, version), (0.0, None))
        return contract if now - read_at < self._ttl else None

    def cached_aliases(self, model: str, now: float) -> Aliases | None:
        """Return aliases from the cache, None if they are not there or too old."""
        read_at, aliases_of_model = self._aliases.get(model, (0.0, None))
        return aliases_of_model if now - read_at < self._ttl else None

    def read(self, model: str, version: str | None, now: float, *, refresh: bool = False) -> Operation[Contract]:
        """Read the contract of a version, or of the newest version for None. Raises UnknownModel.

        `now` is the time in seconds by which the age of cached contracts is measured. `refresh` skips the cache.
        """
        cached = None if refresh else self.cached(model, version, now)
        if cached is not None:
            return cached
        stored = yield _READ([self._keys.contracts(model)], [version or ""])
        if stored is None:
            self._contracts.pop((model, version), None)
            yield from self._raise_unknown(model, version)
        contract = _decode_contract(stored, model)
        self._contracts[model, version] = (now, contract)
        return contract

    def resolve(self, model: str, version: str | None, now: datetime) -> Operation[Contract]:
        """Read the contract of a version, given by number or alias, or of the one that serves for None.

        The version that serves is `production`, where there is this alias, else the newest: never a canary.
        Nothing is taken from the cache.
        """
        moment = now.timestamp()
        if version is None or not is_version(version):
            current = yield from self.read_aliases(model, moment, refresh=True)
            if version is None:
                version = current.serving
            elif version in current.by_name:
                version = current.by_name[version].version
        return (yield from self.read(model, version, moment, refresh=True))

    def read_aliases(self, model: str, now: float, *, refresh: bool = False) -> Operation[Aliases]:
        """Read the aliases of a model. `now` is the time in seconds by which their age is measured.

        `refresh` skips the cache.
        """
        cached = None if refresh else self.cached_aliases(model, now)
        if cached is not None:
            return cached
        fresh = aliases.decode_aliases(model, (yield aliases.read_aliases(self._keys, model)))
        self._aliases[model] = (now, fresh)
        return fresh

    def was_read_at(self, model: str, version: str | None, now: float) -> bool:
        """Decide whether the contract was read at the time `now`, so that reading it again tells nothing new."""
        return self._contracts.get((model, version), (-1.0,))[0] == now

    def _raise_unknown(self, model: str, version: str | None) -> Operation[None]:
        fields: list[bytes] = yield Command(("HKEYS", self._keys.contracts(model)))
        versions = sorted((show(name) for name in fields if name != b"latest"), key=version_order)
        if versions:
            raise UnknownModel(f"model {model!r} has no version {version!r}; it has {', '.join(versions)}")
        models = yield from list_models(self._keys)
        raise UnknownModel(_no_such_model(model, models))


def check_published(keys: Keys, model: str) -> Operation[None]:
    """Check that a model has a contract. Raises UnknownModel."""
    models = yield from list_models(keys)
    if model not in models:
        raise UnknownModel(_no_such_model(model, models))


def _decode_contract(stored: bytes, model: str) -> Contract:
    try:
        return decode_stored(_CONTRACT.decode, stored, f"the contract of model {model!r} in Redis")
    except StoredDataError as error:
        raise StoredDataError(f"{error}, or submit unchecked with Client(check=False)") from None


def _no_such_model(model: str, models: list[str]) -> str:
    if not models:
        return (
            f"no model {model!r}: no contract is published to this Redis yet; start `headrace worker` or run "
            "`headrace models publish`, look at the Redis URL and key prefix, or enqueue unchecked with "
            "Client(check=False)"
        )
    suggestion = did_you_mean(model, models, cutoff=0.5)
    more = ", ..." if len(models) > _MAX_NAMES else ""
    return f"no model {model!r} is published{suggestion or '.'} Known: {', '.join(models[:_MAX_NAMES])}{more}"


def version_order(version: str) -> tuple[int, str]:
    """Return the key that sorts versions, the oldest first."""
    return (int(version) if version.isascii() and version.isdigit() else -1, version)
