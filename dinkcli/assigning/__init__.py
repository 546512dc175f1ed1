"""From rows and a model to labels, and from labels to files, in memory that stays flat.

``assigner`` labels blocks, by NumPy (``backend``) or by ``torch_backend``; ``layout`` says what an
output holds, ``writers`` make files and ``parts`` folders of them; ``pipeline`` goes from inputs to
an output. ``dedup`` and ``sample`` ask about rows in relation to each other, after a ``survey`` of
all; ``update`` takes new rows in.
"""
