"""From rows and a model to labels, and from labels to files, in memory that stays flat.

``assigner`` computes a block by a ``backend`` (NumPy's, or torch's in ``torch_backend``),
``capacity`` limits clusters, ``pipeline`` goes from inputs to an output, ``writers`` make files,
``shards`` shares the work between processes that do not talk. ``dedup`` (with ``near`` and
``groups``) and ``sample`` ask about rows in relation to each other, after a ``survey`` of all.
"""
