"""Python that need not load its libraries: for tests that start the command hundreds of times.

Most of what a short command does is to import torch and pyarrow. Here one process, the server, has
imported them, and what is started with ``python`` becomes a fork of it, with its own arguments,
folder, environment and standard streams: ``-m module`` or ``-c code``. Anything that a fork cannot
honour (another flag, more open files, variables that libraries read when they load) is started
afresh. Exit codes, signals in both directions and pipes are those of a process of its own.

The modules of dinkcli themselves are loaded by each command, in the order that it chooses. Nothing
may be computed before the fork: the threads that OpenMP would start for it do not survive one.

Run as a script this file is the server; its arguments are the path of its socket and a descriptor
that is closed when it is to end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

# Variables of these families are read when libraries load; all others when a command runs.
_WHEN_LOADED = (
    *("ARROW", "ATEN", "BLIS", "CUDA", "DINK", "DNNL", "GOMP", "LANG", "LC", "LD", "MALLOC"),
    *("MKL", "NUMEXPR", "OMP", "ONEDNN", "OPENBLAS", "PYTHON", "PYTORCH", "THP", "TORCH"),
)
_NOT_WHEN_LOADED = ("PYTHONIOENCODING", "TORCHELASTIC_", "TORCH_NCCL_")
# The command line comes first: it sets how the threads of OpenMP wait.
LIBRARIES = (
    *("dinkcli.cli", "numpy", "torch", "pyarrow", "pyarrow.parquet", "pyarrow.csv"),
    *("pyarrow.json", "pyarrow.compute", "safetensors.numpy", "rich.console", "rich.table"),
    *("rich.progress", "scipy.optimize", "scipy.sparse.csgraph"),
    "torch.distributed.run",
)
_LONGEST = 1 << 17  # bytes of a request


class Preloaded:
    """The server, and the path of a ``python`` whose processes are forks of it."""

    def __init__(self, env: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="dink-"))
        path, python = self._folder / "socket", self._folder / "python"
        client = Path(__file__).with_name("forked.py")
        words = map(shlex.quote, [sys.executable, "-S", "-E", str(client), str(path)])
        python.write_text(f'#!/bin/sh\nexec {" ".join(words)} {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        self.python = str(python)
        theirs, self._life = os.pipe()
        self.server = subprocess.Popen(
            [sys.executable, __file__, str(path), str(theirs)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[theirs],
        )
        os.close(theirs)
        assert self.server.stdout is not None and self.server.stdout.readline() == b"ready\n"

    def close(self) -> None:
        os.close(self._life)
        self.server.communicate()
        shutil.rmtree(self._folder)


class _Server:
    def __init__(self, path: str, life: int) -> None:
        self._loaded_with = _when_loaded(dict(os.environ))
        self._running: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(64)
        self._life = life
        self._selector.register(life, selectors.EVENT_READ, self._end)
        self._selector.register(self._listener, selectors.EVENT_READ, self._begin)

    def serve(self) -> tuple:
        """Returns in the forks only, what they have to become."""
        while True:
            for key, _ in self._selector.select():
                asked = key.data()
                if asked:
                    return asked

    def _end(self) -> None:
        for child in self._running:
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    def _begin(self) -> tuple | None:
        client, _ = self._listener.accept()
        try:
            request, descriptors, *_ = socket.recv_fds(client, _LONGEST, 3)
        except ConnectionError:  # killed before it said anything
            request = b""
        if not request:
            client.close()
            return None
        cwd, n_arguments, *words = request.decode("utf-8", "surrogateescape").split("\0")
        arguments, variables = words[: int(n_arguments)], words[int(n_arguments) :]
        env = dict(variable.split("=", 1) for variable in variables)
        if len(descriptors) == 3 and _when_loaded(env) == self._loaded_with:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of jemalloc's thread, which knows forks
                child = os.fork()
            if child == 0:
                self._leave(client)
                return arguments, cwd, env, descriptors
            self._watch(child, client)
        else:
            client.close()
        for descriptor in descriptors:
            os.close(descriptor)
        return None

    def _leave(self, client: socket.socket) -> None:
        """Closes in a fork what belongs to the server."""
        self._selector.close()
        for each in (self._listener, client, *self._running.values()):
            each.close()
        os.close(self._life)

    def _watch(self, child: int, client: socket.socket) -> None:
        """Tells the client how the child ends; ends the child if the client is killed before."""
        process = os.pidfd_open(child)
        self._running[child] = client

        def ended() -> None:
            _, status = os.waitpid(child, 0)
            _tell(client, os.waitstatus_to_exitcode(status))
            for each in (process, client):
                if each in self._selector.get_map():
                    self._selector.unregister(each)
            os.close(process)
            client.close()
            del self._running[child]

        def gone() -> None:
            if child not in self._running:
                return  # it has ended in the same moment
            self._selector.unregister(client)
            os.kill(child, signal.SIGKILL)

        self._selector.register(process, selectors.EVENT_READ, ended)
        self._selector.register(client, selectors.EVENT_READ, gone)
        _tell(client, child)


def _tell(client: socket.socket, number: int) -> None:
    """Nobody listens where the client has been killed, with or without an answer unread."""
    with contextlib.suppress(ConnectionError):
        client.send(str(number).encode())


def _when_loaded(env: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if name.startswith(_WHEN_LOADED) and not name.startswith(_NOT_WHEN_LOADED)
    }


def _become(arguments: list[str], cwd: str, env: dict[str, str], descriptors: list[int]) -> None:
    """Gives this process what Python finds when it starts, and runs what was asked for."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    encoding, _, errors = env.get("PYTHONIOENCODING", "").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        buffer: Any = os.fdopen(number, "wb" if number else "rb", closefd=False)
        buffer.raw.name = f"<{name}>"
        stream = io.TextIOWrapper(
            buffer,
            encoding or getattr(sys, name).encoding,
            "backslashreplace" if name == "stderr" else errors or getattr(sys, name).errors,
            newline="\n" if number else None,
            line_buffering=name == "stderr" or buffer.isatty(),
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    kind, what, *rest = arguments
    if kind == "-m":
        sys.argv, sys.path[0] = [what, *rest], os.getcwd()
        if what != "dinkcli":
            sys.modules.pop(what, None)  # Python warns of modules that are run a second time
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = ["-c", *rest], ""
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    server = _Server(sys.argv[1], int(sys.argv[2]))
    try:
        for name in LIBRARIES:
            importlib.import_module(name)
        gc.freeze()  # what is loaded is not looked through, and so not copied, by each fork
        print("ready", flush=True)
        asked = server.serve()
    except KeyboardInterrupt:
        os._exit(130)  # pytest has been stopped as well
    # Out of there, so that Python itself ends the process with its exit code and last words.
    _become(*asked)
