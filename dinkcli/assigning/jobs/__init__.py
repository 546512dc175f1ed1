"""What clusters are for: near-duplicates, samples, and the tables that say what was found.

Each job asks about rows in relation to each other, where the rest of the room asks about one row
at a time. Read ``survey`` (one pass over all rows: label, distance, key), ``shelves`` (the rows
again, by cluster, in a file), then a job: ``dedup`` (with ``border``, ``pairs``, ``groups``) or
``sample`` (with ``quotas``, ``choose``). ``workplace`` keeps what is done for a run that goes on,
``table`` hands the rows to the writers, ``asked`` checks the options.
"""
