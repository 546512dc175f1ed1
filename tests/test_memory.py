"""Resident memory does not follow the size of the data: the benchmark in small."""

import re
import subprocess
import sys

from conftest import ROOT, environment


def test_memory_does_not_grow_with_the_files(tmp_path):
    peaks = []
    for gigabytes in ("0.03", "0.3"):
        command = [sys.executable, ROOT / "benchmarks" / "memory.py", "--folder", tmp_path]
        command += ["--gigabytes", gigabytes, "--parquet-gigabytes", gigabytes]
        command += ["--memory", "40MB", "--clusters", "20", "--epochs", "1"]
        process = subprocess.run(command, capture_output=True, text=True, env=environment())
        assert process.returncode == 0, process.stderr
        peaks.append([int(mb) for mb in re.findall(r"(?:train|assign) (\d+) MB", process.stdout)])
    assert len(peaks[0]) == 4
    # Ten times the rows: 270 MB more, if they were held.
    for small, large in zip(*peaks, strict=True):
        assert large < small + 150, peaks
