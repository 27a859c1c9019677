"""An import that leaves out what only the tests' tools bring, and dynaconf and structlog would import where it is: 10 MiB."""

import sys

for name in ("flask", "rich"):
    sys.modules[name] = None  # type: ignore[assignment]
