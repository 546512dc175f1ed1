"""Writers of assignments: to one file, to a stream, or to a folder of parts."""

from dinkcli.assigning.writers.base import Layout, Rows, Writer
from dinkcli.assigning.writers.formats import (
    FORMATS,
    Encoding,
    encoding_of,
    names_a_file,
    open_writer,
    stream_writer,
)
from dinkcli.assigning.writers.parts import PartsWriter

__all__ = [
    "FORMATS",
    "Encoding",
    "Layout",
    "PartsWriter",
    "Rows",
    "Writer",
    "encoding_of",
    "names_a_file",
    "open_writer",
    "stream_writer",
]
