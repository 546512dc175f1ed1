"""From rows and a model to labels, and from labels to files, in memory that stays flat.

``assigner`` computes a block, ``job`` says which columns come of it, ``pipeline`` goes from inputs
to an output, ``writers`` make the files, ``shards`` shares the work between processes that do not
talk. ``jobs`` ask about rows in relation to each other: near-duplicates and samples.
"""
