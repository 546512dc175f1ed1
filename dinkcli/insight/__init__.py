"""Looking at clusters: how good they are, what is in them, how many there should be.

``survey`` looks at every row once, and the rest builds on it: ``evaluate`` and ``agreement`` give
figures, ``inspect`` the rows of each cluster, ``names`` words. ``sweeper`` tries many K; ``layout``
draws a map; ``report`` makes the page. ``info`` looks at inputs before there is a model.
"""
