"""Kills ``dink train`` and ``dink assign`` at random moments, and looks at what is left.

    python benchmarks/kill.py [--kills 100 --seed 0 --only train]

The signal is SIGKILL. Training: every kill has to leave a whole checkpoint or none, and every chain
of killed and resumed runs has to end with the bytes of a run that nobody killed. Assigning: the
output that was there before has to be there after, byte for byte, or the new one, whole.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import dinkcli

DINK = [sys.executable, "-m", "dinkcli"]


def run(folder: Path, *arguments: str) -> None:
    subprocess.run([*DINK, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def killed(folder: Path, seconds: float, *arguments: str) -> bool:
    """Whether the command was still at work after so many ``seconds``, and is dead now."""
    process = subprocess.Popen([*DINK, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        if process.wait(seconds) != 0:
            raise SystemExit(f"dink {' '.join(arguments)} failed with {process.returncode}")
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def clear(folder: Path) -> int:
    """Removes the temporary files that kills in the middle of a write have left."""
    left = list(folder.glob(".*.tmp"))
    for path in left:
        path.unlink()
    return len(left)


def kill_training(folder: Path, kills: int, rng: random.Random) -> None:
    z = np.load(Path(__file__).parent.parent / "sample_data" / "digits.npy")
    np.save(folder / "x.npy", np.repeat(z, 8, 0) + rng.random())
    command = ["train", "x.npy", "-k", "40", "--device", "cpu", "-q"]
    started = time.monotonic()
    run(folder, *command, "-o", "whole.safetensors")
    seconds = time.monotonic() - started
    whole = (folder / "whole.safetensors").read_bytes()
    command += ["-o", "m.safetensors", "--checkpoint-every", "0.001s", "--resume"]
    model, checkpoint = folder / "m.safetensors", folder / "m.checkpoint.safetensors"
    done = ends = identical = valid = none = temporary = 0
    while done < kills or not model.exists():
        # The start of Python and torch is most of the time; nothing can be lost in it.
        moment = rng.uniform(0.6 * seconds, 1.05 * seconds) if done < kills else 600
        died = killed(folder, moment, *command)
        done += died
        if died and checkpoint.exists():
            valid += dinkcli.load(checkpoint).state is not None
        none += died and not checkpoint.exists() and not model.exists()
        temporary += clear(folder)
        if model.exists():
            ends += 1
            identical += model.read_bytes() == whole
            if done < kills:
                model.unlink()
                checkpoint.unlink(missing_ok=True)
    print(
        f"train: {done} kills; {valid} left a valid checkpoint, {none} none, "
        f"{done - valid - none} a finished model; {temporary} left a temporary file; "
        f"{identical} of {ends} runs that came to an end are bit-identical"
    )
    if identical != ends:
        raise SystemExit(1)


def kill_assigning(folder: Path, kills: int, rng: random.Random) -> None:
    z = np.load(Path(__file__).parent.parent / "sample_data" / "digits.npy")
    dinkcli.train(z, 100, device="cpu").save(folder / "m.safetensors")
    np.save(folder / "big.npy", np.tile(z, (300, 1)))
    command = ["assign", "m.safetensors", "big.npy", "-q", "--device", "cpu", "-o"]
    started = time.monotonic()
    run(folder, *command, "new.parquet")
    seconds = time.monotonic() - started
    new = (folder / "new.parquet").read_bytes()
    old, output = b"what was there before", folder / "y.parquet"
    done = kept = whole = temporary = 0
    while done < kills:
        output.write_bytes(old)
        if not killed(folder, rng.uniform(0.5 * seconds, 1.05 * seconds), *command, "y.parquet"):
            continue
        done += 1
        found = output.read_bytes()
        kept += found == old
        whole += found == new
        temporary += clear(folder)
    print(
        f"assign: {done} kills; {kept} kept the old output, {whole} had the new one whole, "
        f"{done - kept - whole} neither; {temporary} left a temporary file"
    )
    if kept + whole != done:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    works = {"train": kill_training, "assign": kill_assigning}
    parser.add_argument("--only", choices=works)
    args = parser.parse_args()
    os.environ.pop("DINK_DEBUG", None)
    rng = random.Random(args.seed)
    for name, work in works.items():
        if args.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                work(Path(folder), args.kills, rng)


if __name__ == "__main__":
    main()
