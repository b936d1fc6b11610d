"""The cluster's certificates, by the openssl command: one call each, and no library to keep."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

DAYS = "365"
# openssl's own file adds extensions, which are then there twice.
EMPTY_CONFIG = "[req]\ndistinguished_name = name\n[name]\n"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """The certificate authority in the directory `directory`, made if there is none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.pair = Pair(directory / "ca.crt", directory / "ca.key")
        if not self.pair.certificate.exists():
            (directory / "openssl.cnf").write_text(EMPTY_CONFIG)
            usage = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
            self._request("ca", "/CN=test-cluster", usage, ())

    def issue(self, name: str, common_name: str, group: str = "", hosts: Sequence[str] = ()) -> Pair:
        """A certificate for clients and for servers at `hosts` (names or addresses)."""
        usage = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth,clientAuth",
        ]
        if hosts:
            usage.append("subjectAltName=" + ",".join(f"{'IP' if _is_address(h) else 'DNS'}:{h}" for h in hosts))
        subject = (f"/O={group}" if group else "") + f"/CN={common_name}"
        return self._request(name, subject, usage, ("-CA", self.pair.certificate, "-CAkey", self.pair.key))

    def kubeconfig(self, path: Path, server: str, user: Pair) -> Path:
        """Write the file `path` with which `user` talks to the API server at the URL `server`; all is in the file."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": server, "certificate-authority-data": _data(self.pair.certificate)},
                }
            ],
            "users": [
                {
                    "name": "user",
                    "user": {
                        "client-certificate-data": _data(user.certificate),
                        "client-key-data": _data(user.key),
                    },
                }
            ],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1) + "\n")
        return path

    def _request(self, name: str, subject: str, usage: Sequence[str], signer: Sequence[str | Path]) -> Pair:
        pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        extensions = [argument for each in usage for argument in ("-addext", each)]
        _openssl(
            *("req", "-x509", "-config", self.directory / "openssl.cnf", "-subj", subject, "-days", DAYS, "-nodes"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-out", pair.certificate, "-keyout", pair.key, *extensions, *signer),
        )
        return pair


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")
