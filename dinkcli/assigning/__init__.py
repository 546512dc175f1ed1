"""From rows to labels to files, in memory that stays flat.

``assigner`` computes a block, ``pipeline`` goes from inputs to an output, ``writers`` make the
files, ``shards`` shares the work between processes that do not talk.
"""
