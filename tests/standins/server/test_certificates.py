"""The private certificate authority and the server certificate."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from standins.server import certificates


class TestCertificates:
    def test_the_authority_stays_and_an_invalid_certificate_is_replaced(self, tmp_path: Path) -> None:
        ca, leaf, key = certificates.ensure(tmp_path)
        before, leaf_before = ca.read_bytes(), leaf.read_bytes()
        assert certificates.ensure(tmp_path)[1].read_bytes() == leaf_before
        key.unlink()
        certificates.ensure(tmp_path)
        assert ca.read_bytes() == before
        assert leaf.read_bytes() != leaf_before

    def test_keys_are_readable_by_their_owner_only(self, tmp_path: Path) -> None:
        certificates.ensure(tmp_path)
        for name in ("ca-key.pem", "server-key.pem"):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600

    def test_the_authority_can_sign_for_these_names_only(self, tmp_path: Path) -> None:
        ca = x509.load_pem_x509_certificate(certificates.ensure(tmp_path)[0].read_bytes())
        names = ca.extensions.get_extension_for_class(x509.NameConstraints)
        assert names.critical
        allowed = [name.value for name in names.value.permitted_subtrees or []]
        assert "management.azure.com" in allowed
        assert "pypi.org" not in allowed
