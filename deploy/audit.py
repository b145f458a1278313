"""
Known vulnerabilities of what is shipped: `python -m deploy.audit`.

pip-audit asks the database of osv.dev. Where that cannot be reached the audit is skipped, and says
so: a machine without the network can test everything else.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from deploy.sbom import pins

SERVICE = "https://api.osv.dev/v1/vulns/GHSA-h75v-3vvj-5mfj"
WAIT_SECONDS = 10


def is_reachable(url: str) -> bool:
    """Return whether the service at `url` answers at all."""
    try:
        with urllib.request.urlopen(url, timeout=WAIT_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def main() -> int:
    """Audit; return pip-audit's status, 0 where it was skipped."""
    if not is_reachable(SERVICE):
        sys.stderr.write(f"Audit SKIPPED: {SERVICE.split('/v1')[0]} cannot be reached.\n")
        return 0
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{line}\n" for line in pins())
        file.flush()
        words = ["--vulnerability-service", "osv", "--no-deps", "--disable-pip", "-r", file.name]
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", *words]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
