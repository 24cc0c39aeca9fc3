"""Adds the certificates of a PEM file to the system's trust; those already trusted are left out.

The file is what the building machine trusts: often the whole of Mozilla's bundle and one certificate more, of the proxy.
"""

# ruff: noqa: INP001  (a program that runs in the build, not a module)
import re
import ssl
import subprocess
import sys
from pathlib import Path

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
LOCAL = Path("/usr/local/share/ca-certificates")


def certificates(bundle: Path) -> dict[bytes, str]:
    """The certificates in a PEM file by their DER form."""
    text = bundle.read_text(encoding="utf-8", errors="replace")
    return {ssl.PEM_cert_to_DER_cert(pem): pem for pem in PEM.findall(text)}


def main(extra: Path) -> None:
    """Trust what ``extra`` holds."""
    known = certificates(SYSTEM_BUNDLE)
    new = [pem for der, pem in certificates(extra).items() if der not in known]
    for number, pem in enumerate(new):
        (LOCAL / f"ff-extra-{number}.crt").write_text(pem + "\n", encoding="ascii")
    subprocess.run(["update-ca-certificates"], check=True, timeout=60)
    sys.stdout.write(f"trust: {len(known)} certificates of Debian's, {len(new)} added\n")


main(Path(sys.argv[1]))
