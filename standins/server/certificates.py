"""A private certificate authority, and the server certificate that it signs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from standins.core.files import write_private, write_public

# The host names of the cloud that the stand-ins serve; the proxy refuses all others.
HOSTS = (
    "login.microsoftonline.com",
    "management.azure.com",
    "api.powerbi.com",
    "westeurope.api.azureml.ms",
    "adb-1.1.azuredatabricks.net",
)
LOCAL_NAMES = ("localhost",)
LOCAL_ADDRESSES = ("127.0.0.1",)

_CA_YEARS = 10
_LEAF_DAYS = 397  # the maximum that browsers accept
_RENEW_DAYS = 30


def ensure(folder: Path) -> tuple[Path, Path, Path]:
    """Paths of the authority's certificate, the server's certificate and its key; missing ones are created.

    `ca.pem` stays the same as long as the folder exists, so processes that trust it keep working. The server's
    certificate is renewed shortly before it expires, and when the names have changed. The authority may sign
    only for `HOSTS` and this machine.
    """
    ca_path, ca_key_path = folder / "ca.pem", folder / "ca-key.pem"
    leaf_path, key_path = folder / "server.pem", folder / "server-key.pem"
    ca = _load_ca(ca_path, ca_key_path)
    if ca is None:
        certificate, key = _make_ca()
        write_private(ca_key_path, _pem(key))
        write_public(ca_path, certificate.public_bytes(serialization.Encoding.PEM))
    else:
        certificate, key = ca
    if not _is_valid_leaf(leaf_path, key_path, certificate):
        leaf, leaf_key = _make_leaf(certificate, key)
        write_private(key_path, _pem(leaf_key))
        write_public(leaf_path, leaf.public_bytes(serialization.Encoding.PEM))
    return ca_path, leaf_path, key_path


def _names() -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(name) for name in (*HOSTS, *LOCAL_NAMES)),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in LOCAL_ADDRESSES),
    ]


def _permitted() -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(name) for name in (*HOSTS, *LOCAL_NAMES)),
        *(x509.IPAddress(ipaddress.ip_network(address)) for address in LOCAL_ADDRESSES),
    ]


def _load_ca(path: Path, key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    if not (path.exists() and key_path.exists()):
        return None
    certificate, key = x509.load_pem_x509_certificate(path.read_bytes()), _load_key(key_path)
    permitted = certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    usable = (
        certificate.public_key() == key.public_key()
        and certificate.not_valid_after_utc > _now() + timedelta(days=_LEAF_DAYS)
        and permitted == _permitted()
    )
    return (certificate, key) if usable else None


def _is_valid_leaf(path: Path, key_path: Path, ca: x509.Certificate) -> bool:
    if not (path.exists() and key_path.exists()):
        return False
    leaf = x509.load_pem_x509_certificate(path.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    return (
        leaf.public_key() == _load_key(key_path).public_key()
        and authority == _authority_id(ca)
        and list(names) == _names()
        and leaf.not_valid_after_utc > _now() + timedelta(days=_RENEW_DAYS)
    )


def _make_ca() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Local cloud (stand-ins) private CA")])
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    # Python 3.13 is strict: it requires basic constraints, key usage and key identifiers.
    certificate = (
        _builder(name, name, key.public_key(), timedelta(days=365 * _CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.NameConstraints(_permitted(), excluded_subtrees=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _make_leaf(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), timedelta(days=_LEAF_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names()), critical=False)
        .add_extension(_authority_id(ca), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    start = _now() - timedelta(minutes=5)  # the clock of a container may be slightly behind
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _authority_id(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_id)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} is not an elliptic-curve private key: delete the file and start again")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime:
    return datetime.now(UTC)
