"""Signatures of versions, and the keys that workers accept.

A manifest is signed as bytes. It names the model, the version and the digest of the artifact. The signature is
stored beside it, in a file named after the key's id, so that a version can be signed with an old and a new key:

    manifest.json
    signature.3f1c0a...      base64

There are two kinds of keys: ed25519, where workers hold only the public key, and HMAC-SHA256, where both sides
hold the same secret, which needs no additional package.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from headrace.errors import ModelError, SettingError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Prepended to the signed bytes, so that a signature made for another purpose is not valid for a manifest.
_CONTEXT = b"headrace manifest 1\n"
_SECRET_PREFIX = "headrace-hmac-sha256:"  # noqa: S105  # the first bytes of a key file, no secret itself
_SECRET_BYTES = 32
#: The largest key file, in bytes.
_MAX_KEY_BYTES = 64 * 1024

#: Returns the content of a signature file by its name; None if the version has no such file.
ReadSignature = Callable[[str], bytes | None]


class Verifier(Protocol):
    """A key that verifies signatures."""

    @property
    def id(self) -> str:
        """The key's id: 16 hexadecimal digits, which reveal nothing about a secret."""

    def is_valid(self, data: bytes, signature: bytes) -> bool:
        """Decide whether a signature of the data was made with this key."""


class Signer(Protocol):
    """A key that signs."""

    @property
    def id(self) -> str:
        """The id of the key that verifies its signatures."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature of the data."""


class SecretKey:
    """A secret for HMAC-SHA256, which signs and verifies."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.id = hmac.new(secret, b"headrace key id", "sha256").hexdigest()[:16]

    def sign(self, data: bytes) -> bytes:
        """Return the signature of the data."""
        return hmac.digest(self._secret, _CONTEXT + data, "sha256")

    def is_valid(self, data: bytes, signature: bytes) -> bool:
        """Decide whether a signature of the data was made with this key."""
        return hmac.compare_digest(self.sign(data), signature)


class PublicKey:
    """An ed25519 public key, which verifies."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.id = hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]

    def is_valid(self, data: bytes, signature: bytes) -> bool:
        """Decide whether a signature of the data was made with this key."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, _CONTEXT + data)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """An ed25519 private key, which signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.id = PublicKey(key.public_key()).id

    def sign(self, data: bytes) -> bytes:
        """Return the signature of the data."""
        return self._key.sign(_CONTEXT + data)


def signature_name(key: str) -> str:
    """Return the name of the file with a version's signature by the key with that id."""
    return f"signature.{key}"


def encode_signature(signature: bytes) -> bytes:
    """Return the content of a signature file."""
    return base64.b64encode(signature) + b"\n"


class Keyring:
    """The keys whose signatures are accepted. With `required`, a version needs a signature by one of them."""

    def __init__(self, keys: Sequence[Verifier] = (), *, required: bool = False) -> None:
        self._keys, self._required = keys, required

    @classmethod
    def parse(cls, files: str, *, required: bool) -> Keyring:
        """Read the key files of HEADRACE_MODEL_KEYS, which are separated by commas. Raises SettingError."""
        keys: list[Verifier] = []
        for name in filter(None, map(str.strip, files.split(","))):
            try:
                key = read_key(Path(name))
            except ModelError as error:
                raise SettingError(f"HEADRACE_MODEL_KEYS cannot be used: {error}") from None
            if isinstance(key, PrivateKey):
                raise SettingError(
                    f"HEADRACE_MODEL_KEYS names the private key {name}; a worker needs only the public "
                    "key and should not have the private one"
                )
            keys.append(key)
        if required and not keys:
            raise SettingError("HEADRACE_REQUIRE_SIGNATURE is true and HEADRACE_MODEL_KEYS names no key")
        return cls(keys, required=required)

    def check(self, manifest: bytes, title: str, read_signature: ReadSignature) -> None:
        """Raise ModelError for a version that must not serve, before its manifest is parsed.

        An invalid signature by an accepted key is refused even if no signature is required: a file was changed.
        """
        is_signed = False
        for key in self._keys:
            content = read_signature(signature_name(key.id))
            if content is None:
                continue
            if not key.is_valid(manifest, _decode_base64(content)):
                raise ModelError(
                    f"the signature of {title} by the key {key.id} does not match its manifest; one of the two "
                    "was changed or damaged, add the model again"
                )
            is_signed = True
        if self._required and not is_signed:
            ids = " or ".join(key.id for key in self._keys)
            raise ModelError(
                f"{title} is not signed by the key {ids}, and HEADRACE_REQUIRE_SIGNATURE is true; "
                f"`headrace models sign {title} --key FILE` signs it"
            )


def _decode_base64(content: bytes) -> bytes:
    """Return the decoded bytes; empty if the content is not base64."""
    try:
        return base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        return b""


def read_signer(path: Path) -> Signer:
    """Read a key that signs from a file. Raises ModelError."""
    key = read_key(path)
    if isinstance(key, PublicKey):
        raise ModelError(f"{path} is a public key, which cannot sign; use the private key")
    return key


def read_key(path: Path) -> SecretKey | PublicKey | PrivateKey:
    """Read a key from a file. Raises ModelError, whose message never contains the file's content."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise ModelError(f"the key {path} cannot be read: {error.strerror}") from None
    if data.startswith(_SECRET_PREFIX.encode()):
        secret = _decode_base64(data.removeprefix(_SECRET_PREFIX.encode()))
        if len(secret) < _SECRET_BYTES:
            raise ModelError(f"the key {path} is damaged: it holds fewer than {_SECRET_BYTES} bytes")
        return SecretKey(secret)
    if b"PRIVATE KEY-----" in data or b"PUBLIC KEY-----" in data:
        return _read_pem(path, data)
    raise ModelError(f"{path} is no key: neither of `headrace models keys new` nor PEM")


def _read_pem(path: Path, data: bytes) -> PublicKey | PrivateKey:
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    try:
        is_private = b"PRIVATE KEY-----" in data
        key = load_pem_private_key(data, password=None) if is_private else load_pem_public_key(data)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise ModelError(f"the key {path} cannot be read: it is damaged, or locked by a password") from None
    match key:
        case Ed25519PrivateKey():
            return PrivateKey(key)
        case Ed25519PublicKey():
            return PublicKey(key)
        case _:
            raise ModelError(f"the key {path} is not an ed25519 key; `headrace models keys new` makes one")


def create_keys(name: Path, *, secret: bool) -> tuple[str, list[Path]]:
    """Create NAME.key and NAME.pub, or NAME.key alone for a secret. Returns the key's id and the files."""
    private_file = name.with_name(name.name + ".key")
    if secret:
        random_bytes = secrets.token_bytes(_SECRET_BYTES)
        content = _SECRET_PREFIX + base64.b64encode(random_bytes).decode() + "\n"
        _write_new(private_file, content.encode(), 0o600)
        return SecretKey(random_bytes).id, [private_file]
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    public_file = name.with_name(name.name + ".pub")
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new(private_file, private_pem, 0o600)
    _write_new(public_file, public_pem, 0o644)
    return PrivateKey(key).id, [private_file, public_file]


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    except FileExistsError:
        raise ModelError(f"{path} exists already; a key is never overwritten") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror}") from None


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401  # only tests that it is installed
    except ImportError:
        raise ModelError(
            "ed25519 keys need the package cryptography: pip install 'headrace-worker[signing]'; "
            "`headrace models keys new --hmac` makes a key that does not need it"
        ) from None
