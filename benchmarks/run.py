"""All benchmarks in turns, each in a process of its own; the results go into docs/benchmarks.md.

    python benchmarks/run.py [--only head,assign] [--write docs/benchmarks.md]
    python benchmarks/run.py --only quality --sets digits,cora --data FOLDER

Options that it does not know go to the benchmark, where --only names a single one.

`make bench` runs it with everything installed that it compares with. A benchmark replaces the
section between its markers and leaves the text around alone. The sizes are those that a machine
with two cores takes some minutes for; each script has options for larger ones.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

from common import machine, table, timed, with_spread, write_section

import dinkcli
import dinkcli.cli  # sets how threads wait, for dink and its peers alike

HERE = Path(__file__).parent
# As on a CPU without bfloat16 products and AVX-512, as far as the libraries can be told.
_AVX2 = (
    "DINK_LOW_PRECISION=0",
    "ATEN_CPU_CAPABILITY=avx2",
    "ONEDNN_MAX_CPU_ISA=AVX2",
    "MKL_ENABLE_INSTRUCTIONS=AVX2",
)
_QUICK = (
    "faiss,superkmeans,superkmeans-rabitq,superkmeans-defaults,faiss-super,faiss-super-defaults,"
    "fastkmeans"
)
_SIZES = {
    "": ["--repeats", "3"],
    "-4096": ["--clusters", "4096", "--repeats", "1", "--methods", _QUICK],
    "-768": [
        *("--rows", "60000", "--features", "768", "--clusters", "1000"),
        *("--repeats", "1", "--methods", _QUICK),
    ],
}
_TRAININGS = [
    (name + suffix, settings, size)
    for name, size in _SIZES.items()
    for suffix, settings in (("", ()), ("-avx2", _AVX2))
]
# Sets of quality.py that take seconds; with more time, leave --sets out.
BENCHMARKS = {
    "head": ["head.py", "--rows", "32768", "--clusters", "4000", "--features", "768"],
    "assign": ["assign.py", "--rows", "100000"],
    **{f"train{name}": [*settings, "train.py", *size] for name, settings, size in _TRAININGS},
    "busy": ["busy.py"],
    "readers": ["readers.py", "--rows", "100000"],
    "memory": ["memory.py", "--gigabytes", "1", "--parquet-gigabytes", "0.5"],
    "start-up": ["run.py", "--start-up"],
    "quality": ["quality.py", "--sets", "digits,stdlib"],
}
_COMMANDS = {
    "dink --version": ["--version"],
    "dink --help": ["--help"],
    "dink train (usage error)": ["train", "no-such-file.npy", "-k", "0"],
    "dink info on a model": ["info", "MODEL"],
    "dink assign, 1000 x 384 npy to csv, K = 40": [
        "assign",
        "MODEL",
        "ROWS",
        "-q",
        "-o",
        "OUT.csv",
    ],
    "dink train on the digits": ["train", "DIGITS", "-k", "10", "-q", "-o", "OUT.safetensors"],
}


def start_up(repeats: int = 7) -> str:
    """Wall time of commands that are quick, and whether they load torch."""
    import tempfile

    import numpy as np

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed dink is compiled once
    dink = [sys.executable, "-m", "dinkcli"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "m.safetensors")
        rows = np.random.default_rng(0).normal(size=(1000, 384)).astype(np.float32)
        dinkcli.Model(rows[:40], np.ones(40)).save(model)
        np.save(os.path.join(folder, "x.npy"), rows)
        paths = {
            "MODEL": model,
            "ROWS": os.path.join(folder, "x.npy"),
            "DIGITS": str(HERE.parent / "sample_data" / "digits.npy"),
            "OUT.csv": os.path.join(folder, "out.csv"),
            "OUT.safetensors": os.path.join(folder, "out.safetensors"),
        }
        for name, arguments in _COMMANDS.items():
            command = [paths.get(part, part) for part in arguments]
            times = [
                timed(lambda c=command: subprocess.run([*dink, *c], **quiet, check=False))
                for _ in range(repeats)
            ]
            traced = [sys.executable, "-X", "importtime", "-m", "dinkcli", *command]
            found = subprocess.run(traced, capture_output=True, text=True, check=False).stderr
            loads = any(line.split("|")[-1].strip() == "torch" for line in found.splitlines())
            lines.append((f"`{name}`", with_spread(times), "yes" if loads else "no"))
        bare = [timed(lambda: subprocess.run([sys.executable, "-c", ""])) for _ in range(repeats)]
        torch = [
            timed(lambda: subprocess.run([sys.executable, "-c", "import torch"])) for _ in range(3)
        ]
    lines.append(("Python alone", with_spread(bare), "no"))
    lines.append(("Python and `import torch`", with_spread(torch), "yes"))
    return table(("command", "seconds", "loads torch"), lines)


def run(name: str, others: list[str]) -> str:
    """What a benchmark prints, below its command; ``others`` are options beside its own ones."""
    parts = list(BENCHMARKS[name])
    settings = list(takewhile(lambda part: "=" in part, parts))
    script, *options = parts[len(settings) :]
    options += others  # the last of an option counts
    shown = shlex.join([*settings, "python", f"benchmarks/{script}", *options])
    command = [sys.executable, str(HERE / script), *options]
    environment = os.environ | dict(setting.split("=") for setting in settings)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shown}: exit {done.returncode}")
    return f"    {shown}\n\n{done.stdout.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"some of {','.join(BENCHMARKS)}")
    parser.add_argument("--write", type=Path, help="Markdown file with the sections")
    parser.add_argument("--start-up", action="store_true", help="measure this in this process")
    args, others = parser.parse_known_args()
    if args.start_up:
        print(start_up())
        return
    names = args.only.split(",") if args.only else list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if others and len(names) > 1:
        parser.error(f"{shlex.join(others)}: unknown, or for one benchmark, to name with --only")
    for name in names:
        text = run(name, others)
        print(f"## {name}\n\n{text}\n", flush=True)
        if args.write:
            # A training says it itself: what it uses may be less than what this process would.
            below = "" if name.startswith("train") else f"\n\n{machine()}"
            write_section(args.write, name, text + below)


if __name__ == "__main__":
    main()
