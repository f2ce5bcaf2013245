"""Whose name stands under the pictures: the operator's certificate, or a development one that the farm makes itself.

C2PA asks for a leaf under an authority, with the e-mail-protection purpose (C2PA specification 2.2, "Trust model"); a
bare self-signed certificate is refused. The development authority is trusted by this farm alone: other verifiers say
"untrusted", which is the truth.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fluxfarm.errors import InternalError, StoreUnavailable
from fluxfarm.settings import Settings

FOLDER: Final = "c2pa"
FILE: Final = "development.pem"  #: the key, its certificate and the authority's, in one file that appears at once
LIFE: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key (PKCS 8) and its chain, leaf first, all PEM; ``anchor`` is the last certificate of the chain."""

    chain: bytes
    key: bytes = field(repr=False)

    @property
    def anchor(self) -> bytes:
        """The authority that this farm trusts."""
        _, begin, rest = self.chain.rpartition(b"-----BEGIN CERTIFICATE-----")
        return begin + rest


def identity(settings: Settings) -> Identity:
    """The operator's files (``C2PA_CERTIFICATE``, ``C2PA_KEY``), else the development identity of the data folder.

    Raises:
        InternalError: one of the two files is not named, cannot be read or is no PEM.
        StoreUnavailable: the data folder cannot be used.
    """
    certificate, key = settings.c2pa_certificate, settings.c2pa_key
    if certificate is None and key is None:
        return _development(settings.data_dir / FOLDER)
    if certificate is None or key is None:
        raise InternalError("C2PA_CERTIFICATE and C2PA_KEY go together: name both files or none.")
    try:
        found = Identity(certificate.read_bytes(), key.read_bytes())
        x509.load_pem_x509_certificates(found.chain)
        serialization.load_pem_private_key(found.key, None)
    except (OSError, ValueError, TypeError) as error:
        kind = type(error).__name__
        message = f"C2PA_CERTIFICATE or C2PA_KEY cannot be used ({kind}): both are PEM, the key without a password."
        raise InternalError(message) from error
    return found


def _development(folder: Path) -> Identity:
    place = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            _keep(place, _make())
        key, _, chain = place.read_bytes().partition(b"\n\n")
    except OSError as error:
        raise StoreUnavailable(
            f"The folder {FOLDER} of the data folder cannot be used ({type(error).__name__})."
        ) from error
    return Identity(chain, key + b"\n")


def _keep(place: Path, body: bytes) -> None:
    """Processes that start together agree on one identity: the first hard link counts."""
    fresh = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        place.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink(missing_ok=True)


def _make() -> bytes:
    """The key, a blank line, the leaf and the authority; the authority's own key is thrown away."""
    above, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = (
        _builder("Fluxfarm development authority", "Fluxfarm development authority", above.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .sign(above, hashes.SHA256())
    )
    leaf = (
        _builder("Fluxfarm development", "Fluxfarm development authority", own.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
        .sign(above, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.rstrip() + b"\n\n" + leaf.public_bytes(pem) + authority.public_bytes(pem)


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC) - timedelta(minutes=5)  # machines of one farm may disagree about the minute
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Fluxfarm"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )
