"""Looking at clusters: how good they are, what is in them, how many there should be.

``survey`` looks at every row once; ``quality`` (without classes), ``agreement`` and ``evaluate``
(with them), ``exemplars``, ``names`` and ``overview`` say what there is to say; ``sweeper`` tries
many K; ``layout`` draws a map; ``report`` makes the page. ``info`` looks at inputs before there is
a model.
"""
