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
from pathlib import Path

from common import machine, table, timed, with_spread, write_section

import dinkcli
import dinkcli.cli  # sets how threads wait, for dink and its peers alike

HERE = Path(__file__).parent
# Sets of quality.py that take seconds; with more time, leave --sets out.
BENCHMARKS = {
    "head": ["head.py", "--rows", "32768", "--clusters", "4000", "--features", "768"],
    "assign": ["assign.py", "--rows", "100000"],
    "train": ["train.py", "--methods", "faiss,superkmeans,fastkmeans"],
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
}


def start_up(repeats: int = 7) -> str:
    """Wall time of commands that need no torch, and whether they load it."""
    import tempfile

    import numpy as np

    dink = [sys.executable, "-m", "dinkcli"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "m.safetensors")
        dinkcli.Model(np.eye(10, 64, dtype=np.float32), np.ones(10)).save(model)
        for name, arguments in _COMMANDS.items():
            command = [model if part == "MODEL" else part for part in arguments]
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
    script, *options = BENCHMARKS[name]
    options += others  # the last of an option counts
    shown = shlex.join(["python", f"benchmarks/{script}", *options])
    command = [sys.executable, str(HERE / script), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
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
            write_section(args.write, name, f"{text}\n\n{machine()}")


if __name__ == "__main__":
    main()
