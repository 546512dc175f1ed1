"""The readers of each format, chosen by content in ``dinkcli.data.inputs``.

``table`` is what formats with columns share, ``vectors`` turns their cells into rows, ``raw`` reads
arrays that lie in a file as they are.
"""
