from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from headrace.errors import ModelError, SettingError
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.signing import Keyring, SecretKey, create_keys, read_key, read_signer
from headrace_worker.store.store import Store
from tests.support.stored_versions import DATA, make_manifest


class Key:
    """A key as `headrace models keys new` creates it, with its files."""

    def __init__(self, folder: Path, name: str, *, secret: bool) -> None:
        self.id, files = create_keys(folder / name, secret=secret)
        self.private, self.public = files[0], files[-1]

    def signing_store(self, folder: Path) -> Store:
        return Store(folder, signer=read_signer(self.private))


@pytest.fixture(params=["ed25519", "hmac"])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> Key:
    return Key(tmp_path, "release", secret=request.param == "hmac")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def open_store(folder: Path, *keys: Key, required: bool = True) -> Store:
    """Return the store as a worker opens it that accepts these keys."""
    files = ",".join(str(key.public) for key in keys)
    return Store.from_settings(WorkerSettings(models=str(folder), model_keys=files, require_signature=required))


def test_a_signed_version_is_read(key: Key, folder: Path) -> None:
    added = key.signing_store(folder).add(make_manifest(), DATA)
    assert open_store(folder, key).read_manifest("churn", "1") == added
    assert sorted(path.name for path in (folder / "churn/1").iterdir()) == [
        "artifact.skops",
        "manifest.json",
        f"signature.{key.id}",
    ]


def test_an_unsigned_version_is_refused_if_a_signature_is_required(key: Key, folder: Path) -> None:
    Store(folder).add(make_manifest(), DATA)
    (folder / "churn/1/artifact.skops").unlink()  # it is not read
    with pytest.raises(ModelError, match=f"churn@1 is not signed by the key {key.id}, and HEADRACE_REQUIRE_SIGN"):
        open_store(folder, key).read_artifact("churn", "1", max_bytes=100)
    assert open_store(folder, key, required=False).read_manifest("churn", "1").title == "churn@1"


@pytest.mark.parametrize("required", [True, False])
def test_a_manifest_that_was_changed_is_refused(key: Key, folder: Path, required: bool) -> None:
    key.signing_store(folder).add(make_manifest(), DATA)
    path = folder / "churn/1/manifest.json"
    path.write_bytes(path.read_bytes().replace(b"Dummy", b"Dumme"))
    with pytest.raises(ModelError, match=r"the signature of churn@1 by the key .* does not match its manifest"):
        open_store(folder, key, required=required).read_manifest("churn", "1")


@pytest.mark.parametrize("content", [b"", b"\n", b"!", b"\xff" * 100, base64.b64encode(bytes(64)), b"A" * 10_000])
def test_a_malformed_signature_is_refused(key: Key, folder: Path, content: bytes) -> None:
    key.signing_store(folder).add(make_manifest(), DATA)
    (folder / f"churn/1/signature.{key.id}").write_bytes(content)
    with pytest.raises(ModelError, match="does not match its manifest"):
        open_store(folder, key).read_manifest("churn", "1")


def test_a_signature_is_valid_for_one_version_only(key: Key, folder: Path) -> None:
    key.signing_store(folder).add(make_manifest(), DATA)
    key.signing_store(folder).add(make_manifest(), DATA)
    for name in ("manifest.json", f"signature.{key.id}"):
        shutil.copy(folder / "churn/1" / name, folder / "churn/2" / name)
    with pytest.raises(ModelError, match="the manifest of churn@2 names churn@1"):
        open_store(folder, key).read_manifest("churn", "2")
    shutil.copytree(folder / "churn", folder / "fraud")
    with pytest.raises(ModelError, match="the manifest of fraud@1 names churn@1"):
        open_store(folder, key).read_manifest("fraud", "1")


def test_a_signature_by_an_unknown_key_is_ignored(folder: Path, tmp_path: Path) -> None:
    accepted, unknown = Key(tmp_path, "accepted", secret=False), Key(tmp_path, "unknown", secret=False)
    unknown.signing_store(folder).add(make_manifest(), DATA)
    with pytest.raises(ModelError, match="is not signed by the key"):
        open_store(folder, accepted).read_manifest("churn", "1")
    # A file name with the accepted key's id does not make the signature valid.
    (folder / f"churn/1/signature.{unknown.id}").rename(folder / f"churn/1/signature.{accepted.id}")
    with pytest.raises(ModelError, match="does not match its manifest"):
        open_store(folder, accepted).read_manifest("churn", "1")


def test_a_version_may_be_signed_by_an_old_and_a_new_key(folder: Path, tmp_path: Path) -> None:
    old, new = Key(tmp_path, "old", secret=True), Key(tmp_path, "new", secret=False)
    old.signing_store(folder).add(make_manifest(), DATA)
    assert open_store(folder, new, old).read_manifest("churn", "1")
    with pytest.raises(ModelError, match="is not signed by the key"):
        open_store(folder, new).read_manifest("churn", "1")
    Store(folder).sign("churn", "1", read_signer(new.private), max_bytes=100)
    for keys in ((old,), (new,), (new, old)):
        assert open_store(folder, *keys).read_manifest("churn", "1")


def test_a_version_that_does_not_match_its_manifest_is_not_signed(key: Key, folder: Path) -> None:
    Store(folder).add(make_manifest(), DATA)
    (folder / "churn/1/artifact.skops").write_bytes(b"another model")
    with pytest.raises(ModelError, match="another digest"):
        Store(folder).sign("churn", "1", read_signer(key.private), max_bytes=100)
    assert not list((folder / "churn/1").glob("signature.*"))


def test_a_private_key_is_readable_by_its_owner_only_and_never_overwritten(key: Key, tmp_path: Path) -> None:
    assert stat.S_IMODE(key.private.stat().st_mode) == 0o600
    before = key.private.read_bytes()
    for secret in (True, False):
        with pytest.raises(ModelError, match=r"release.key exists already"):
            create_keys(tmp_path / "release", secret=secret)
    assert key.private.read_bytes() == before


def test_a_worker_accepts_no_private_key(folder: Path, tmp_path: Path) -> None:
    key = Key(tmp_path, "release", secret=False)
    with pytest.raises(SettingError, match=r"names the private key .*; a worker needs only the public key"):
        Keyring.parse(str(key.private), required=True)
    with pytest.raises(ModelError, match="is a public key, which cannot sign"):
        read_signer(key.public)


def test_a_required_signature_needs_a_key() -> None:
    with pytest.raises(SettingError, match="HEADRACE_REQUIRE_SIGNATURE is true and HEADRACE_MODEL_KEYS names no"):
        Keyring.parse(" , ", required=True)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no key"),
        (b"hunter2", "is no key"),
        (b"headrace-hmac-sha256:", "is damaged"),
        (b"headrace-hmac-sha256:" + base64.b64encode(b"short"), "is damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", "damaged, or locked by a password"),
        (b"-----BEGIN PUBLIC KEY-----\n", "damaged, or locked by a password"),
    ],
)
def test_an_invalid_key_file_is_reported_without_its_content(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ModelError, match=problem) as raised:
        read_key(tmp_path / "key")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(SettingError, match="HEADRACE_MODEL_KEYS cannot be used"):
        Keyring.parse(str(tmp_path / "key"), required=False)
    with pytest.raises(ModelError, match=r"nowhere cannot be read: No such file"):
        read_key(tmp_path / "nowhere")


def test_keys_of_another_kind_are_reported(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "key").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ModelError, match="is not an ed25519 key"):
        read_key(tmp_path / "key")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_key_made_by_openssl_is_accepted(folder: Path, tmp_path: Path) -> None:
    private, public = tmp_path / "a.key", tmp_path / "a.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, timeout=20)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, timeout=20)
    Store(folder, signer=read_signer(private)).add(make_manifest(), DATA)
    assert Store(folder, keyring=Keyring.parse(str(public), required=True)).read_manifest("churn", "1")


def test_the_id_of_a_secret_key_reveals_nothing_about_the_secret() -> None:
    secret = b"s" * 32
    assert SecretKey(secret).id not in {hashlib.sha256(secret).hexdigest()[:16], secret.hex()[:16]}
    assert len(SecretKey(secret).id) == 16


def test_a_signature_the_key_made_for_another_purpose_is_invalid() -> None:
    secret, data = b"s" * 32, b"a manifest, or anything"
    assert not SecretKey(secret).is_valid(data, hmac.digest(secret, data, "sha256"))
    assert SecretKey(secret).is_valid(data, hmac.digest(secret, b"headrace manifest 1\n" + data, "sha256"))
