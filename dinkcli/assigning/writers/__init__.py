"""Writers of rows: to one file, to a stream (``formats``), or to a folder of ``parts``."""
