"""Mutated models, checkpoints, files of every format, and command lines, run in this process.

    python tests/fuzz/campaign.py --inputs 10000 [--kinds texts]

A finding is a traceback, an error that "should not happen", an exit code other than 0, 1 and 2, ten
seconds without an end, or more than 1 GB of memory. It is printed with the seed that repeats it.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import lzma
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from typer.testing import CliRunner

import dinkcli
from dinkcli.cli import app
from dinkcli.training.checkpoint import Checkpoints

_SECONDS = 10
_BYTES = 1 << 30
_NUMBERS = [0, 1, -1, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63)]
_TEXTS = b'0 -1 1e999 NaN null [] {} 4611686018427387904 \xff ""'.split()
_ARGUMENTS = """
    train assign export x.npy x.parquet m.safetensors c.safetensors no.npy . -- - -k -o
    --n-clusters --device cpu cuda:9 --column e id --init random xavier --metric cosine
    --temperature inf nan 0 -1 1e999 --dilation --no-refine --n-init --epochs --batch-size
    --seed --checkpoint-every 0.001s 0s --resume --force --json --quiet --soft --ids
    --sample-weight y.csv y.parquet y.npy y.txt --format 1 2 3 99999999999999999999 -q --help
    --version --no-such
"""
_WORDS = [*_ARGUMENTS.split(), "", "\x1b[31m", "\udcff", "\u202e"]
_QUICK = ["--device", "cpu", "-q", "--n-init", "1", "--epochs", "1", "--no-refine"]


def prepare(folder: Path) -> None:
    """Small good files to mutate, in the folder."""
    rng = np.random.default_rng(0)
    z = (rng.integers(0, 3, (60, 1)) * 9 + rng.normal(size=(60, 4))).astype(np.float32)
    np.save(folder / "x.npy", z)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 4)
    table = pa.table({"id": [f"row {i}" for i in range(60)], "e": rows})
    pq.write_table(table, folder / "x.parquet", row_group_size=25)
    prepare_texts(folder, z)
    model = dinkcli.train(folder / "x.npy", 3, device="cpu", n_init=1, epochs=1, refine=False)
    model.save(folder / "m.safetensors")
    checkpoints = Checkpoints(str(folder / "c.safetensors"), every=0.0)
    options = {"n_init": 1, "epochs": 1, "refine": False}
    dinkcli.train(folder / "x.npy", 3, device="cpu", checkpoints=checkpoints, **options)


def prepare_texts(folder: Path, z: np.ndarray) -> None:
    """The rows in the formats that are parsed rather than mapped."""
    lists = [row.tolist() for row in z]
    rows = [{"id": f"{i:04}", "text": 'a "b", c', "e": row} for i, row in enumerate(lists)]
    coded = [base64.b64encode(row.tobytes()).decode() for row in z]
    words = [f"w{i} {' '.join(map(str, row))}\n" for i, row in enumerate(lists)]
    wide = [",".join(map(str, row)) for row in lists]
    answer = {"object": "list", "data": [{"index": 1, "embedding": row} for row in lists]}
    cells = [f'{i:04},"a ""b"", c\nd","{row}"\n' for i, row in enumerate(lists)]
    texts = {
        "wide.csv": "id,a,b,c,d\n" + "".join(f"{i},{row}\n" for i, row in enumerate(wide)),
        "bare.txt": "# made\n" + "".join(row.replace(",", "  ") + "\n" for row in wide),
        "cells.csv": "id,text,e\n" + "".join(cells),
        "comma.csv": "".join(row.replace(",", ";").replace(".", ",") + "\n" for row in wide),
        "copy.tsv": "".join(f"{i}\tit's\t{row}\n" for i, row in enumerate(lists)),
        "rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "deep.jsonl": "".join(json.dumps({"id": 1, "r": [{"d": row}]}) + "\n" for row in rows),
        "coded.jsonl": "".join(json.dumps({"e": code}) + "\n" for code in coded),
        "array.json": json.dumps(rows, indent=1),
        "answer.json": json.dumps(answer),
        "glove.txt": "".join(words),
        "words.vec": f"{len(z)} {z.shape[1]}\n" + "".join(words),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "utf16.csv").write_bytes(texts["wide.csv"].encode("utf-16"))
    (folder / "rows.gz").write_bytes(gzip.compress(texts["rows.jsonl"].encode()))
    (folder / "cells.xz").write_bytes(lzma.compress(texts["cells.csv"].encode()))
    binary = b"".join(b"w%d " % i + row.tobytes() + b"\n" for i, row in enumerate(z))
    (folder / "words.bin").write_bytes(b"%d %d\n" % z.shape + binary)
    np.savez_compressed(folder / "x.npz", e=z, labels=np.arange(len(z)))
    with h5py.File(folder / "x.h5", "w") as file:
        file["e"], file["id"] = z, np.arange(len(z))
        file["names"] = [f"n{i}" for i in range(len(z))]
    nested = pa.array([{"inner": [row]} for row in lists])
    pq.write_table(pa.table({"coded": coded, "doc": nested}), folder / "deep.parquet")


TEXTS = [
    *("wide.csv", "bare.txt", "cells.csv", "comma.csv", "copy.tsv", "rows.jsonl", "deep.jsonl"),
    *("coded.jsonl", "array.json", "answer.json", "glove.txt", "words.vec", "utf16.csv"),
    *("rows.gz", "cells.xz", "words.bin", "x.npz", "x.h5", "deep.parquet"),
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes after one to four changes of the kinds that break readers."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # Headers are at either end of a file, and where most mistakes are.
        span = rng.choice([64, 1024, len(found) or 1])
        at = min(rng.randrange(span), max(0, len(found) - 1))
        if rng.random() < 0.3:
            at = max(0, len(found) - 1 - at)
        kind = rng.randrange(7)
        if kind == 0 and found:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            width = rng.choice([2, 4, 8])
            number = rng.choice(_NUMBERS) % (1 << 8 * width)
            found[at : at + width] = number.to_bytes(width, "little")
        elif kind == 2:
            del found[at:]
        elif kind == 3:
            del found[at : at + rng.randint(1, 50)]
        elif kind == 4:
            found[at:at] = found[at : at + rng.randint(1, 50)] * rng.randint(1, 4)
        elif kind == 5:
            found[at : at + rng.randint(0, 3)] = rng.choice(_TEXTS)
        else:
            digits = [i for i, byte in enumerate(found[:4096]) if 48 <= byte < 58]
            if digits:
                where = rng.choice(digits)
                found[where : where + 1] = rng.choice(_TEXTS)
    return bytes(found)


def _file(source: str, *commands: list[str]) -> Callable[[Path, random.Random], list[str]]:
    def make(folder: Path, rng: random.Random) -> list[str]:
        bad = f"bad{Path(source).suffix}"
        (folder / bad).write_bytes(mutated((folder / source).read_bytes(), rng))
        return [bad if word == "BAD" else word for word in rng.choice(commands)]

    return make


def _words(folder: Path, rng: random.Random) -> list[str]:
    words = [rng.choice(_WORDS) for _ in range(rng.randint(0, 9))]
    start = [[], ["train", "x.npy", "-k", "3"], ["assign", "m.safetensors", "x.npy"]]
    return [*rng.choice(start), *words]


def _texts(folder: Path, rng: random.Random) -> list[str]:
    source = rng.choice(TEXTS)
    commands = (
        ["info", "BAD"],
        ["assign", "m.safetensors", "BAD", "-q"],
        ["assign", "m.safetensors", "BAD", "-q", "--ids", "id", "--bad-rows", "label"],
        ["assign", "m.safetensors", "BAD", "-q", "--column", rng.choice(["e", "doc.inner.0", "b"])],
        ["info", "BAD", "--bits"],
    )
    return _file(source, *commands)(folder, rng)


KINDS: dict[str, Callable[[Path, random.Random], list[str]]] = {
    "model": _file(
        "m.safetensors",
        ["assign", "BAD", "x.npy", "-q", "-o", "y.npy"],
        ["assign", "BAD", "x.parquet", "--soft"],
        ["export", "BAD", "-o", "y.csv"],
        ["train", "x.npy", "-k", "3", "--init", "BAD", *_QUICK],
    ),
    "checkpoint": _file("c.safetensors", ["train", "x.npy", "-k", "3", "--init", "BAD", *_QUICK]),
    "npy": _file(
        "x.npy",
        ["train", "BAD", "-k", "3", *_QUICK],
        ["assign", "m.safetensors", "BAD", "-o", "y.parquet"],
    ),
    "parquet": _file(
        "x.parquet",
        ["train", "BAD", "-k", "3", *_QUICK],
        ["assign", "m.safetensors", "BAD", "--ids", "id"],
    ),
    "arguments": _words,
    "texts": _texts,
}


class HangError(BaseException):
    """Not an Exception, so that no error boundary takes it for one of its own."""


def _hang(*_: object) -> None:
    raise HangError


def run_one(kind: str, seed: int, folder: Path) -> tuple[list[str], int, str]:
    """The command line, its exit code, and what is wrong with it, or nothing."""
    command = KINDS[kind](folder, random.Random(f"{kind} {seed}"))
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(_SECONDS)
    try:
        result = CliRunner().invoke(app, command)
    except HangError:
        return command, -1, f"no end after {_SECONDS} s"
    finally:
        signal.alarm(0)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return command, result.exit_code, f"{result.exception!r}"
    for sign in ("Traceback", "should not happen", "out of memory"):
        if sign in result.output:
            return command, result.exit_code, result.output.strip().splitlines()[-1]
    if result.exit_code not in (0, 1, 2):
        return command, result.exit_code, f"exit code {result.exit_code}"
    if "\x1b" in result.output:
        return command, result.exit_code, "an escape sequence on the terminal"
    return command, result.exit_code, ""


def campaign(
    inputs: int, seconds: float, first: int = 0, kinds: Sequence[str] = tuple(KINDS)
) -> tuple[Counter[str], list[str]]:
    """How many of each kind ended with which exit code, and the findings."""
    counts: Counter[str] = Counter()
    findings = []
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        limits = resource.getrlimit(resource.RLIMIT_AS)
        try:
            torch.set_num_threads(1)
            prepare(folder)
            kept = {path.name: path.read_bytes() for path in folder.iterdir()}
            for kind in KINDS:  # loads all that is loaded late, before memory is limited
                run_one(kind, -1, folder)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + _BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, limits[1]))
            end = time.monotonic() + seconds
            for number in range(inputs):
                if time.monotonic() > end:
                    break
                kind = kinds[number % len(kinds)]
                command, code, wrong = run_one(kind, first + number, folder)
                counts[f"{kind}: {code}"] += 1
                if wrong:
                    findings.append(f"{kind}, seed {first + number}: {command}: {wrong}")
                for path in folder.iterdir():
                    if path.is_file() and path.name not in kept:
                        path.unlink()
                for file, content in kept.items():
                    if not (folder / file).exists() or (folder / file).read_bytes() != content:
                        (folder / file).write_bytes(content)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
            os.chdir(before)
    return counts, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    arguments = parser.parse_args()
    counts, findings = campaign(
        arguments.inputs, arguments.seconds, arguments.first_seed, arguments.kinds
    )
    for name, number in sorted(counts.items()):
        print(f"{name:20} {number:6}")
    print(*findings, sep="\n")
    print(f"{sum(counts.values())} inputs, {len(findings)} findings")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
