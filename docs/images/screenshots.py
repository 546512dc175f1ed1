"""Makes the pictures of the report anew: ``python docs/images/screenshots.py``; needs Chromium."""

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


def main() -> None:
    data = ROOT / "sample_data" / "stdlib.parquet"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in (
            ["train", data, "-k", 40, "--text-column", "id", "-o", folder / "m.safetensors"],
            [
                "report",
                folder / "m.safetensors",
                data,
                "--id-column",
                "id",
                "-o",
                folder / "r.html",
            ],
        ):
            subprocess.run([sys.executable, "-m", "dinkcli", *map(str, line), "-q"], check=True)
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
