"""Certificates: what a finished run did and measured, chained, signed, and verified again.

They certify a procedure and its measurements, not a privacy guarantee (docs/certificate.md).
"""

from .certificate import CERTIFICATE, SALT, issue, read_certificate, read_run, refuse_second
from .keys import fingerprint, generate, public_path, read_private, read_public
from .recomputed import ABSOLUTE, RELATIVE
from .sections import Recorded
from .statement import STATEMENT
from .verify import Check, Given, stands_alone, verify

__all__ = [
    "ABSOLUTE",
    "CERTIFICATE",
    "RELATIVE",
    "SALT",
    "STATEMENT",
    "Check",
    "Given",
    "Recorded",
    "fingerprint",
    "generate",
    "issue",
    "read_certificate",
    "public_path",
    "read_private",
    "read_public",
    "read_run",
    "refuse_second",
    "stands_alone",
    "verify",
]
