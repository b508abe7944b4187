"""An authority for tests and the certificates that it signs, made with the openssl command."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NO_OPENSSL = "openssl not found (install OpenSSL)"


def has_openssl() -> bool:
    return shutil.which("openssl") is not None


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of a certificate and its private key; `both` is one file with the two, as Kafka likes it."""

    cert: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates; `cert` is what those who trust it need."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.cert, self._key = folder / "ca.pem", folder / "ca.key"
        _openssl(
            "req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.cert, "-days", "2", "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(self, name: str, *, alternatives: str = "") -> Certificate:
        """Return a certificate of that common name; `alternatives` such as `IP:127.0.0.1,DNS:kafka-1`."""
        made = Certificate(*(self._folder / f"{name}.{kind}" for kind in ("pem", "key", "both.pem")))
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n" if alternatives else "basicConstraints=CA:FALSE\n")
        _openssl("req", *_NEW_KEY, "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-CAcreateserial", "-days", "2",
            "-extfile", extensions, "-out", made.cert,
        )  # fmt: skip
        made.both.write_text(made.key.read_text() + made.cert.read_text())
        return made


def encrypted(key: Path, password: str) -> Path:
    """Return a copy of a private key that only opens with the password."""
    locked = key.with_suffix(".locked.key")
    _openssl("pkcs8", "-topk8", "-in", key, "-out", locked, "-passout", f"pass:{password}")
    return locked


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: object) -> None:
    run = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
