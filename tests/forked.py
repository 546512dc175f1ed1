"""The process in whose place a fork of the server of ``preloaded`` runs; see there.

Its arguments are the server's socket, the path of Python, and what Python is to do. Signals that
come here are passed on; how the fork ends is how this process ends, and the other way round.

``socket`` and ``signal`` would take longer to import than all else that happens here.
"""

import _signal as signal
import _socket as socket
import os
import sys

_, path, python, *arguments = sys.argv


def passed_on(child, number):
    try:
        os.kill(child, number)
    except ProcessLookupError:
        pass  # it has just ended


def forked():
    """The exit code of the fork; None where the server takes no such process."""
    streams_alone = len(os.listdir("/proc/self/fd")) == 4  # and the folder itself
    if not streams_alone or arguments[:1] not in (["-m"], ["-c"]):
        return None
    words = [os.getcwd(), str(len(arguments)), *arguments]
    words += [f"{name}={value}" for name, value in os.environ.items()]
    request = "\0".join(words).encode("utf-8", "surrogateescape")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        server.connect(path)
        streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
        server.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        child = server.recv(64)
    except OSError:  # no server, a stream that is closed, a request that is too long
        return None
    if not child:
        return None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: passed_on(int(child), number))
    return int(server.recv(64) or b"-9")


code = forked()
if code is None:
    os.execv(python, [python, *arguments])
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
