"""Distinctive terms of each cluster, from the texts of its rows.

Class-based tf-idf (Grootendorst 2022, arXiv 2203.05794): all texts of a cluster are one document.
The weight of a term in a cluster is its share there times log(1 + A / f), with A the mean number
of words of a cluster and f the number of times that the term occurs anywhere.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[^\W\d_][^\W_]+")
_PARTS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_MOST_CHARACTERS = 2000  # of one text
_STOP_WORDS_TEXT = """
a about above after again all also am an and any are as at be because been before being below
between both but by can could did do does doing down during each few for from further had has
have having he her here hers him his how i if in into is it its itself just me more most my no
nor not now of off on once only or other our out over own same she should so some such than that
the their them then there these they this those through to too under until up very was we were
what when where which while who whom why will with would you your
"""
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())


def distinctive_terms(
    texts: Iterable[str], labels: Sequence[int], n_clusters: int, number: int = 8
) -> list[list[str]]:
    """The ``number`` terms of the highest weight of each of K clusters, highest first.

    A term must occur twice in its cluster, in small ones once.
    """
    counts: list[Counter[str]] = [Counter() for _ in range(n_clusters)]
    rows = Counter(labels)
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(set(words(text)))  # a text that repeats a word counts once
    everywhere: Counter[str] = Counter()
    for counter in counts:
        everywhere.update(counter)
    mean = everywhere.total() / max(1, n_clusters)
    result = []
    for label, counter in enumerate(counts):
        least = 2 if rows[label] > 4 else 1
        weights = {
            term: count * math.log(1 + mean / everywhere[term])
            for term, count in counter.items()
            if count >= least
        }
        result.append(sorted(weights, key=lambda term: (-weights[term], term))[:number])
    return result


def words(text: str) -> list[str]:
    """Lower-case words of at least two letters; camelCase and snake_case names fall apart."""
    spaced = _PARTS.sub(" ", text[:_MOST_CHARACTERS])
    found = (word.lower() for word in _WORD.findall(spaced))
    return [word for word in found if word not in _STOP_WORDS]
