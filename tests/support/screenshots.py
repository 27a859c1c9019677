"""The pictures of docs/images, of a demo that runs:

collector demo --port 9090
python -m tests.support.screenshots http://127.0.0.1:9090 docs/images
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.browser import Viewer, chromium

#: File -> path, color scheme, milliseconds to wait until there is something to see, window.
PICTURES: dict[str, tuple[str, str, int, tuple[int, int]]] = {
    "overview.png": ("/", "dark", 12_000, (1440, 850)),
    "market.png": ("/market/coinbase/BTC-USD", "dark", 75_000, (1440, 940)),
}


def main(base: str, directory: Path) -> None:
    """Write every picture."""
    directory.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, (path, scheme, wait_ms, (width, height)) in PICTURES.items():
            viewer = Viewer(browser, base, color_scheme=scheme, viewport={"width": width, "height": height})
            page = viewer.open(path)
            page.wait_for_timeout(wait_ms)
            page.screenshot(path=directory / name)
            print(
                f"{directory / name}: {(directory / name).stat().st_size / 1000:.0f} kB", *viewer.faults(), sep="\n  "
            )
            viewer.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
