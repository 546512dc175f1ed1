"""The command in a process of its own that need not load its libraries.

Most of what a short command does is to import torch and pyarrow. Here one process, the server, has
imported them, and each command is a fork of it, with its own arguments, folder, environment and
pipes. What a fork cannot honour (``Preloaded.takes``) is for a process that starts afresh.

The modules of dinkcli themselves are loaded by each command, in the order that it chooses. Nothing
may be computed before the fork: the threads that OpenMP would start for it do not survive one.

Run as a script this file is the server; its argument is the descriptor of a socket.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import locale
import os
import runpy
import socket
import subprocess
import sys
import threading
import warnings
from typing import IO, Any

# Variables of these families are read when libraries load; all others when a command runs.
_WHEN_LOADED = (
    *("ARROW", "ATEN", "BLIS", "CUDA", "DINK", "DNNL", "GOMP", "LANG", "LC", "LD", "MALLOC"),
    *("MKL", "NUMEXPR", "OMP", "ONEDNN", "OPENBLAS", "PYTHON", "PYTORCH", "THP", "TORCH"),
)
# The command line comes first: it sets how the threads of OpenMP wait.
LIBRARIES = (
    *("dinkcli.cli", "numpy", "torch", "pyarrow", "pyarrow.parquet", "pyarrow.csv"),
    *("pyarrow.json", "pyarrow.compute", "safetensors.numpy", "rich.console", "rich.table"),
    *("rich.progress", "scipy.optimize", "scipy.sparse.csgraph", "bokeh.embed", "bokeh.plotting"),
)
_LONGEST = 1 << 17  # bytes of a request


class Preloaded:
    """The tests' side: starts the server with that environment and asks it for commands."""

    def __init__(self, env: dict[str, str]) -> None:
        self._loaded_with = _when_loaded(env)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.server = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def takes(self, options: dict[str, Any]) -> bool:
        """Whether a fork gives what ``subprocess.run`` gives with these options."""
        same = _when_loaded(options["env"]) == self._loaded_with
        return same and options.keys() <= {"cwd", "env", "input", "stdin", "text"}

    def run(
        self,
        arguments: list[str],
        *,
        cwd: str | os.PathLike[str],
        env: dict[str, str],
        text: bool = False,
        stdin: IO[Any] | None = None,
        input: str | bytes | None = None,
    ) -> subprocess.CompletedProcess:
        """As ``subprocess.run`` of ``python -m dinkcli`` with its output captured."""
        pipes = [os.pipe() for _ in range(3 if input is not None else 2)]
        (out, out_end), (err, err_end) = pipes[:2]
        source, *feed = pipes[2] if input is not None else (stdin.fileno() if stdin else 0,)
        request = json.dumps([arguments, os.fspath(cwd), env]).encode()
        assert len(request) < _LONGEST
        socket.send_fds(self._socket, [request], [source, out_end, err_end])
        for end in (out_end, err_end, *([source] if feed else [])):
            os.close(end)

        found: dict[int, bytes] = {}
        jobs = [threading.Thread(target=_read, args=(end, found)) for end in (out, err)]
        if input is not None:
            data = input.encode(locale.getpreferredencoding()) if isinstance(input, str) else input
            jobs.append(threading.Thread(target=_write, args=(feed[0], data)))
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        answer = self._socket.recv(64)
        if not answer:
            raise RuntimeError("the process with loaded libraries is gone")
        output = [found[end] for end in (out, err)]
        return subprocess.CompletedProcess(
            ["dink", *arguments], int(answer), *(map(_decoded, output) if text else output)
        )

    def close(self) -> None:
        self._socket.close()
        self.server.wait()


def _when_loaded(env: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if name.startswith(_WHEN_LOADED) and name != "PYTHONIOENCODING"
    }


def _read(end: int, found: dict[int, bytes]) -> None:
    with open(end, "rb") as stream:
        found[end] = stream.read()


def _write(end: int, data: bytes) -> None:
    try:
        with open(end, "wb", buffering=0) as stream:
            view = memoryview(data)
            while view:
                view = view[stream.write(view) :]
    except BrokenPipeError:
        pass  # the command wants no more


def _decoded(data: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(data)).read()


def _serve(requests: socket.socket) -> None:
    """Returns in the forks only, which have become the process that was asked for."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # what is loaded is not looked through, and so not copied, by each fork
    while True:
        request, descriptors, *_ = socket.recv_fds(requests, _LONGEST, 3)
        if not request:
            os._exit(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of jemalloc's thread, which knows forks
            child = os.fork()
        if child == 0:
            requests.close()
            _become(*json.loads(request), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(arguments: list[str], cwd: str, env: dict[str, str], descriptors: list[int]) -> None:
    """Gives this process what ``python -m dinkcli`` finds when it starts."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["dinkcli", *arguments]
    sys.path[0] = os.getcwd()
    encoding, _, errors = env.get("PYTHONIOENCODING", "").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        buffer: Any = os.fdopen(number, "wb" if number else "rb", closefd=False)
        buffer.raw.name = f"<{name}>"
        stream = io.TextIOWrapper(
            buffer,
            encoding or getattr(sys, name).encoding,
            "backslashreplace" if name == "stderr" else errors or getattr(sys, name).errors,
            newline="\n" if number else None,
            line_buffering=name == "stderr",
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:
        os._exit(130)  # pytest has been stopped as well
    # Out of here, so that Python itself ends the process with its exit code and its last words.
    runpy.run_module("dinkcli", run_name="__main__", alter_sys=True)
