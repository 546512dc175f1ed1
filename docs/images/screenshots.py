"""Makes the pictures of inspect and of the report anew: ``python docs/images/screenshots.py``.

The report needs Chromium.
"""

import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from browser import open_browser  # noqa: E402

PICTURES = {
    "report-light": {},
    "report-dark": {"dark": True},
    "report-cluster": {"address": "#cluster=8"},
    "report-phone": {"width": 400, "height": 800},
}


def terminal(line: list[str], folder: Path, target: Path) -> None:
    """A command in a folder and what it shows on a terminal of 100 columns, as SVG."""
    from rich.console import Console
    from rich.text import Text

    found = subprocess.run(
        [sys.executable, "-m", "dinkcli", *line],
        check=True,
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"FORCE_COLOR": "1", "COLUMNS": "100"},
    )
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ dink {' '.join(line)}"))
    console.print(Text.from_ansi(found.stdout))
    fonts = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
    svg = console.export_svg(title="dink")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S).replace("Fira Code", "monospace")
    svg = re.sub(r"font-family: [^;]*monospace[^;]*;", f"font-family: {fonts};", svg)
    target.write_text("\n".join(text.rstrip() for text in svg.splitlines()) + "\n")


def main() -> None:
    data = ROOT / "sample_data" / "stdlib.parquet"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "stdlib.dink.safetensors"
        page = folder / "r.html"
        for line in (
            ["train", data, "-k", 40, "--texts", "id", "-o", model],
            ["report", model, data, "--ids", "id", "--columns", "module", "-o", page],
        ):
            subprocess.run([sys.executable, "-m", "dinkcli", *map(str, line), "-q"], check=True)
        look = ["inspect", model.name, "--clusters", "8"]
        terminal(look, folder, HERE / "inspect.svg")
        for picture, options in PICTURES.items():
            address = options.pop("address", "")
            driver = open_browser(folder / picture, **options)
            driver.get(f"file://{page}{address}")
            while driver.execute_script("return document.body.dataset.ready") != "true":
                time.sleep(0.1)
            time.sleep(1)
            # A third of the bytes of PNG, which browsers cannot make smaller.
            shot = {"format": "webp", "quality": 82}
            image = driver.execute_cdp_cmd("Page.captureScreenshot", shot)["data"]
            (HERE / f"{picture}.webp").write_bytes(base64.b64decode(image))
            driver.quit()


if __name__ == "__main__":
    main()
