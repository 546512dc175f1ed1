"""What Windows and macOS lack: train, assign and export run without it."""

import os
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT, SAMPLES

pytestmark = pytest.mark.slow

# As a Python on Windows: modules of POSIX are not there, nor are these functions, and no folder is
# opened. Libraries are loaded before, and see the real system.
HIDDEN = textwrap.dedent("""
    import os, signal, sys
    import torch, numpy, psutil, pyarrow.parquet, scipy.sparse
    for module in ("fcntl", "resource", "pwd", "grp", "termios", "posix"):
        sys.modules[module] = None
    for name in ("fork", "sysconf", "posix_fadvise", "sched_getaffinity", "getuid", "mkfifo"):
        if hasattr(os, name):
            delattr(os, name)
    for name in ("SIGHUP", "SIGKILL", "SIGALRM"):
        delattr(signal, name)
    real_open = os.open
    def open_file(path, flags, *more, **keywords):
        if isinstance(path, (str, bytes)) and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, flags, *more, **keywords)
    os.open = open_file
    from dinkcli.cli import main
    main()
""")


def test_train_assign_and_export_need_no_posix(tmp_path):
    def dink(*arguments):
        result = subprocess.run(
            [sys.executable, "-c", HIDDEN, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    rows = SAMPLES / "digits.npy"
    model = dink("train", rows, "-k", 10, "-o", tmp_path / "m.safetensors").strip()
    labels = dink("assign", model, rows).splitlines()
    assert labels[0] == "row,cluster" and len(labels) == 1798
    dink("assign", model, rows, "-o", "labels.parquet", "-q")
    dink("assign", model, rows, "-o", "parts", "--rows-per-file", 1000, "-q")
    assert sorted(os.listdir(tmp_path / "parts"))[1:] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    dink("export", model, "-o", "centers.npy", "-q")
    dink("plan", rows, "-k", 10)
    dink("info", rows)
