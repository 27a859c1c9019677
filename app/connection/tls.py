"""TLS to venues: verified against the system's authorities (or SSL_CERT_FILE), and of 1.2 at least.

Python says so itself since 3.10; Debian's leaves the version to OpenSSL's configuration.
"""

from __future__ import annotations

import ssl


def context() -> ssl.SSLContext:
    """For one client."""
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made
