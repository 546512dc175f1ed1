"""The command line. It parses, calls one core function, and shows the result.

Nothing here imports torch or pyarrow at the top, so that help and usage errors are quick.
"""

from dinkcli.cli.app import app, main

__all__ = ["app", "main"]
