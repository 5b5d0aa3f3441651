"""Signatures of versions: who may make a version that serves.

A signature is of the bytes of a manifest, which name the model, the version and the digest of the artifact. It
lies beside the manifest, in a file that bears the id of the key, so that keys can be changed one after another:

    manifest.json
    signature.3f1c0a...      base64

Two kinds of keys: ed25519, where workers hold only the public half; and a secret that both sides hold
(HMAC-SHA256), which needs no further package.
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

#: What is signed begins with this, so that no signature made for something else is one of a manifest.
_CONTEXT = b"headrace manifest 1\n"
_SECRET = "headrace-hmac-sha256:"  # noqa: S105  # what a file that holds one begins with
_SECRET_BYTES = 32
_MOST_BYTES = 64 * 1024

#: Reads a file of the version whose signature is checked; None where it is not there.
Read = Callable[[str], bytes | None]


class Verifier(Protocol):
    """A key that can tell whether a signature is one of its own."""

    @property
    def id(self) -> str:
        """16 hexadecimal digits, which tell nothing of a secret."""

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether the signature is that of these bytes."""


class Signer(Protocol):
    """A key that can sign."""

    @property
    def id(self) -> str:
        """That of the key which verifies."""

    def sign(self, data: bytes) -> bytes:
        """The signature of some bytes."""


class Secret:
    """A secret that signs and verifies."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.id = hmac.new(secret, b"headrace key id", "sha256").hexdigest()[:16]

    def sign(self, data: bytes) -> bytes:
        """The signature of some bytes."""
        return hmac.digest(self._secret, _CONTEXT + data, "sha256")

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether the signature is that of these bytes."""
        return hmac.compare_digest(self.sign(data), signature)


class PublicKey:
    """The half of an ed25519 key that verifies."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.id = hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether the signature is that of these bytes."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, _CONTEXT + data)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """The half of an ed25519 key that signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.id = PublicKey(key.public_key()).id

    def sign(self, data: bytes) -> bytes:
        """The signature of some bytes."""
        return self._key.sign(_CONTEXT + data)


def signature_name(key: str) -> str:
    """The file of a version that holds its signature by the key of that id."""
    return f"signature.{key}"


def written(signature: bytes) -> bytes:
    """A signature as it lies in its file."""
    return base64.b64encode(signature) + b"\n"


class Keyring:
    """The keys whose signatures count, and whether a version needs one."""

    def __init__(self, keys: Sequence[Verifier] = (), *, required: bool = False) -> None:
        self._keys, self._required = keys, required

    @classmethod
    def parse(cls, files: str, *, required: bool) -> Keyring:
        """The keys in files, with commas between; as HEADRACE_MODEL_KEYS has them. Raises SettingError."""
        keys: list[Verifier] = []
        for name in filter(None, map(str.strip, files.split(","))):
            try:
                key = read_key(Path(name))
            except ModelError as error:
                raise SettingError(f"HEADRACE_MODEL_KEYS cannot be used: {error}") from None
            if isinstance(key, PrivateKey):
                raise SettingError(
                    f"HEADRACE_MODEL_KEYS names the private key {name}; a worker needs the public one only, "
                    "and should not have the other"
                )
            keys.append(key)
        if required and not keys:
            raise SettingError("HEADRACE_REQUIRE_SIGNATURE is true and HEADRACE_MODEL_KEYS names no key")
        return cls(keys, required=required)

    def check(self, manifest: bytes, title: str, read: Read) -> None:
        """Raise ModelError for a version that must not serve, before more of it is looked at than its manifest.

        A wrong signature by a key that counts is refused also where none is needed: something was changed.
        """
        signed = False
        for key in self._keys:
            found = read(signature_name(key.id))
            if found is None:
                continue
            if not key.verifies(manifest, _signature(found)):
                raise ModelError(
                    f"the signature of {title} by the key {key.id} is not one of its manifest; one of the two was "
                    "changed or damaged, add the model again"
                )
            signed = True
        if self._required and not signed:
            ids = " or ".join(key.id for key in self._keys)
            raise ModelError(
                f"{title} is not signed by the key {ids}, and HEADRACE_REQUIRE_SIGNATURE is true; "
                f"`headrace models sign {title} --key FILE` signs it"
            )


def _signature(found: bytes) -> bytes:
    try:
        return base64.b64decode(found.strip(), validate=True)
    except binascii.Error:
        return b""


def read_signer(path: Path) -> Signer:
    """The key in a file, to sign with. Raises ModelError."""
    key = read_key(path)
    if isinstance(key, PublicKey):
        raise ModelError(f"{path} is a public key, which cannot sign; the private one is needed")
    return key


def read_key(path: Path) -> Secret | PublicKey | PrivateKey:
    """The key in a file. Raises ModelError; never shows what is in the file."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except OSError as error:
        raise ModelError(f"the key {path} cannot be read: {error.strerror}") from None
    if data.startswith(_SECRET.encode()):
        secret = _signature(data.removeprefix(_SECRET.encode()))
        if len(secret) < _SECRET_BYTES:
            raise ModelError(f"the key {path} is damaged: it holds fewer than {_SECRET_BYTES} bytes")
        return Secret(secret)
    if b"PRIVATE KEY-----" in data or b"PUBLIC KEY-----" in data:
        return _pem(path, data)
    raise ModelError(f"{path} is no key: neither of `headrace models keys new` nor PEM")


def _pem(path: Path, data: bytes) -> PublicKey | PrivateKey:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    try:
        private = b"PRIVATE KEY-----" in data
        key = load_pem_private_key(data, password=None) if private else load_pem_public_key(data)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise ModelError(f"the key {path} cannot be read: damaged, or locked by a password") from None
    match key:
        case Ed25519PrivateKey():
            return PrivateKey(key)
        case Ed25519PublicKey():
            return PublicKey(key)
        case _:
            raise ModelError(f"the key {path} is none of ed25519; `headrace models keys new` makes one")


def create_keys(name: Path, *, secret: bool) -> tuple[str, list[Path]]:
    """Make a key: NAME.key and NAME.pub, or NAME.key alone for a secret. Returns its id and the files."""
    private = name.with_name(name.name + ".key")
    if secret:
        made = secrets.token_bytes(_SECRET_BYTES)
        _write_new(private, (_SECRET + base64.b64encode(made).decode() + "\n").encode(), 0o600)
        return Secret(made).id, [private]
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    public = name.with_name(name.name + ".pub")
    half = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write_new(public, half, 0o644)
    return PrivateKey(key).id, [private, public]


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    except FileExistsError:
        raise ModelError(f"{path} is there already; a key is not written over") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror}") from None


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401  # whether it is there
    except ImportError:
        raise ModelError(
            "ed25519 keys need the package cryptography: pip install 'headrace-worker[signing]'; "
            "`headrace models keys new --hmac` makes a key that needs none"
        ) from None
