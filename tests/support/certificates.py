"""Certificates of TLS servers in tests."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_authority(folder: Path) -> Path:
    """Make a private certificate authority, `ca.pem`, and a certificate of it, `server.pem`. Return the folder."""
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    commands = [
        [*new, "-x509", "-days", "2", "-subj", "/CN=a private authority", "-keyout", "ca.key", "-out", "ca.pem"],
        [*new, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"],
        [
            *("openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"),
            *("-CAcreateserial", "-extfile", "names", "-out", "server.pem"),
        ],
    ]
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


def speaks_tls(server: Path) -> bool:
    """Return whether a server was built with TLS."""
    libraries = subprocess.run(["ldd", server], capture_output=True, text=True, timeout=10).stdout
    return "libssl" in libraries


def tls_options(authority: Path) -> list[str]:
    """Return the options of a server with the certificate in a folder of `make_authority`."""
    return [
        *("--tls-auth-clients", "no", "--tls-cert-file", str(authority / "server.pem")),
        *("--tls-key-file", str(authority / "server.key"), "--tls-ca-cert-file", str(authority / "ca.pem")),
    ]
