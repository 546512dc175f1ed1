"""Makes the pictures of inspect and of the report anew: ``python docs/images/screenshots.py``.

The report needs Chromium.
"""

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
    "report-light": {"width": 1600, "height": 1000},
    "report-dark": {"width": 1600, "height": 1000, "dark": True},
    "report-phone": {"width": 400, "height": 850},
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
        for line in (
            ["train", data, "-k", 40, "--texts", "id", "-o", model],
            [
                "report",
                model,
                data,
                "--ids",
                "id",
                "-o",
                folder / "r.html",
            ],
        ):
            subprocess.run([sys.executable, "-m", "dinkcli", *map(str, line), "-q"], check=True)
        look = ["inspect", model.name, "--clusters", "8"]
        terminal(look, folder, HERE / "inspect.svg")
        for picture, options in PICTURES.items():
            driver = open_browser(folder / picture, **options)
            driver.get(f"file://{folder / 'r.html'}")
            while driver.execute_script("return document.body.dataset.ready") != "true":
                time.sleep(0.1)
            time.sleep(1)
            driver.save_screenshot(str(HERE / f"{picture}.png"))
            driver.quit()


if __name__ == "__main__":
    main()
