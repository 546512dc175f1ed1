"""From files to rows, and what writing files needs too.

``inputs`` opens whatever the caller names: ``files`` finds bytes, ``formats`` reads them behind the
protocol of ``base``, ``array`` what Python holds in memory. ``dataset`` joins them to one data set,
``derived`` changes or copies its rows, ``sidefiles`` reads what lies beside them. ``atomic`` and
``machine`` serve others as well. Imports nothing of dink but its errors, and never torch.

Read ``base``, ``dataset``, ``inputs``, then one of ``formats``.
"""
