"""Nearest centres and the sums over their rows: exact, and as fast as the machine allows.

The only room that knows chunks, caches, short products and how far they are off. ``index`` finds
nearest centres, ``sums`` makes what centres are updated from; ``maps`` and ``folded`` put a learned
map before that; ``limits`` says which numbers float32 can hold. Behind them, ``scorer`` computes
scores, ``best`` finds the lowest of them, ``products`` multiplies. ``device`` says how much to do
at once; on GPUs ``fused`` finds the two best in one kernel, ``runs`` adds up, and rows arrive by
``copies``. ``exact`` has the last word on ties.

Read ``index`` and ``sums``; ``scorer``, ``best`` and ``products`` only to make them faster.
"""
