"""A throw-away authority for TLS, and the certificate of a server that it signed."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def throw_away_trust(folder: Path) -> Path:
    """Makes the authority and the key and certificate of a server on 127.0.0.1.

    Gives the file of the authority's certificate; `server.pem` beside it is for the server.
    """
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in ("ca", "kafka")]
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = []
    for key, name, is_authority in zip(keys, names, (True, False), strict=True):
        builder = x509.CertificateBuilder(names[0], name, key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - day).not_valid_after(now + day)
        builder = builder.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        made.append(builder.add_extension(address, critical=False).sign(keys[0], hashes.SHA256()))
    authority, own = (one.public_bytes(serialization.Encoding.PEM) for one in made)
    key = keys[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(key + own + authority)
    (folder / "ca.pem").write_bytes(authority)
    return folder / "ca.pem"
