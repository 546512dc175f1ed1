"""Nearest centres and the sums over their rows: exact, and as fast as the machine allows.

The only room that knows chunks, caches, products of low precision and how far they are off.
``index`` finds nearest centres, ``sums`` makes what centres are updated from, ``tempered`` the same
for annealing; ``probabilities`` is a softmax over centres, ``capacity`` finds labels under a limit
of sizes, and ``prepare`` sees to rows before all that: numbers that float32 can hold, norm 1, a
learned map. Behind them, ``scorer`` computes scores and finds the lowest; ``hardware`` says how
much to do at once and by which products, and brings rows there; ``small`` needs no torch.

Read ``index`` and ``sums``; ``scorer`` and ``hardware`` only to make them faster.
"""
