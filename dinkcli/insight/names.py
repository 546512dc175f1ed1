"""Names of clusters: distinctive terms of the texts of their rows, or what people call them.

Class-based tf-idf (Grootendorst 2022, arXiv 2203.05794): all texts of a cluster are one document.
The weight of a term in a cluster is the number of its texts with the term, times log(1 + A / f),
with A the mean number of terms of a cluster and f the number of texts with the term anywhere.
Terms are words and pairs of words that stand beside each other. Words of one stem are one term,
shown as what is most frequent in the cluster.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dinkcli.errors import UsageError
from dinkcli.models.model import OUTLIER

if TYPE_CHECKING:
    from dinkcli.models.model import Model

_WORD = re.compile(r"[^\W\d_][^\W_]*(?:['\u2019][^\W\d_]+)*")  # contractions are words
_PARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MOST_CHARACTERS = 2000  # of one text
_MOST_TERMS = 2_000_000  # in memory, of all clusters; terms that occurred once go first
TERMS = 8  # of a cluster
_IN_A_NAME = 3
_SAME = 0.5  # a pair that makes up this share of a word's texts stands for the word (docs/LOG.md)
_STOP_WORDS_TEXT = """
a about above after again all also am an and any are as at be because been before being below
between both but by can could did do does doing down during each few for from further had has
have having he her here hers him his how i if in into is it its itself just me more most my no
nor not now of off on once only or other our out over own same she should so some such than that
the their them then there these they this those through to too under until up very was we were
what when where which while who whom why will with would you your
cannot get got let like may might must need please really shall still want
i'm i've i'll i'd you're you've you'll you'd we're we've we'll they're they've it's that's there's
what's who's how's where's he's she's let's
"""
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())
_PARTICLES = frozenset(("up", "off", "out", "down", "away", "back", "over"))  # end a pair: top up
# Endings, and what a stem has in their place. Only words that occur are stems.
_ENDINGS = (
    ("ies", ("y",)),
    ("es", ("e", "")),
    ("s", ("",)),
    ("ying", ("y", "ie")),
    ("ing", ("", "e")),
    ("ied", ("y",)),
    ("ed", ("", "e")),
    ("ation", ("e", "")),
    ("ment", ("",)),
)


def names_of(terms: Sequence[Sequence[str]]) -> list[str]:
    """Names from the terms of the highest weight, "" without any; no two begin alike where another
    of the terms in the name can stand first."""
    first: set[str] = set()
    names = []
    for each in terms:
        shown = list(each[:_IN_A_NAME])
        new = next((i for i, term in enumerate(shown) if term.split()[0] not in first), 0)
        if shown:
            shown.insert(0, shown.pop(new))
            first.add(shown[0].split()[0])
        names.append(", ".join(shown))
    return names


def clusters_of(groups: np.ndarray) -> dict[int, tuple[int, ...]]:
    """The clusters of each group by its number, both ascending; ``groups`` (K,) are those of the
    clusters, -1 for one in none."""
    numbers = np.unique(groups[groups != OUTLIER]).tolist()
    return {number: tuple(np.flatnonzero(groups == number).tolist()) for number in numbers}


def group_names(model: Model, groups: np.ndarray) -> dict[int, str]:
    """Names of the ``groups`` (K,) of clusters, by number: those that the model keeps, else of the
    terms that weigh most in their clusters, or of the largest clusters where there are no terms."""
    inside, terms = clusters_of(groups), []
    for clusters in inside.values():
        weights: Counter[str] = Counter()
        for j in clusters:
            for rank, term in enumerate(model.terms[j] if model.terms else [model.all_names[j]]):
                weights[term] += model.cluster_sizes[j] / (1 + rank)
        terms.append([term for term, _ in weights.most_common(_IN_A_NAME) if term])
    names = {}
    for (number, clusters), name in zip(inside.items(), names_of(terms), strict=True):
        own = model.all_names[clusters[0]] if len(clusters) == 1 else name
        names[number] = model.group_names.get(clusters, own)
    return names


def distinctive_terms(
    texts: Iterable[str], labels: Sequence[int], n_clusters: int, number: int = TERMS
) -> list[list[str]]:
    """The ``number`` terms of the highest weight of each of K clusters, highest first."""
    terms = Terms(n_clusters)
    terms.add(texts, labels)
    return terms.of_clusters(number)


class Terms:
    """Counts the terms of K clusters, text by text."""

    def __init__(self, n_clusters: int):
        self._counts: list[Counter[str]] = [Counter() for _ in range(n_clusters)]
        self._rows: Counter[int] = Counter()

    def add(self, texts: Iterable[object], labels: Sequence[int]) -> None:
        """Of rows with these labels; None is a text without words."""
        for text, label in zip(texts, labels, strict=True):
            self._counts[label].update(_terms("" if text is None else str(text)))
            self._rows[label] += 1
        if sum(map(len, self._counts)) > _MOST_TERMS:
            self._counts = [
                Counter({term: n for term, n in counter.items() if n > 1})
                for counter in self._counts
            ]

    def of_clusters(self, number: int) -> list[list[str]]:
        """K lists of at most ``number`` terms. A term must occur in two texts of its cluster, in
        small clusters in one."""
        base = _bases(set().union(*self._counts))
        joined = [Counter[str]() for _ in self._counts]
        total: Counter[str] = Counter()
        for written, counts in zip(self._counts, joined, strict=True):
            for term, count in written.items():
                counts[base[term]] += count
            total.update(counts)
        mean = total.total() / max(1, len(joined))
        result = []
        for label, (written, counts) in enumerate(zip(self._counts, joined, strict=True)):
            least = 2 if self._rows[label] > 4 else 1
            weights = {
                term: count * math.log(1 + mean / total[term])
                for term, count in counts.items()
                if count >= least
            }
            chosen = _chosen(weights, counts, number)
            # Shown as what is most frequent in the cluster.
            by_count = sorted(written, key=lambda term: (-written[term], term), reverse=True)
            shown = {base[term]: term for term in by_count}
            result.append([shown[term] for term in chosen])
        return result


def _terms(text: str) -> set[str]:
    """Words and pairs of a text, in lower case and without a possessive 's; camelCase and
    snake_case names fall apart. A text that repeats a term counts once."""
    every = _WORD.findall(_PARTS.sub(" ", text[:_MOST_CHARACTERS]).lower().replace("\u2019", "'"))
    every = [word if word in _STOP_WORDS else word.removesuffix("'s") for word in every]
    words = {
        word
        for word in every
        if len(word) > 1 and word not in _STOP_WORDS and not word.endswith("n't")
    }
    return words | {
        f"{a} {b}"
        for a, b in pairwise(every)
        if a != b and a not in _STOP_WORDS and (b not in _STOP_WORDS or b in _PARTICLES)
    }


def _chosen(weights: dict[str, float], counts: Counter[str], number: int) -> list[str]:
    """The terms of the highest weight, none of which says what another one said."""
    chosen: list[str] = []
    for term in sorted(weights, key=lambda term: (-weights[term], term)):
        if len(chosen) == number:
            break
        parts = term.split()
        alike = [other for other in chosen if set(other.split()) & set(parts)]
        if not alike:
            chosen.append(term)
        elif all(other in parts for other in alike) and (
            counts[term] >= _SAME * min(counts[other] for other in alike)
        ):
            # The pair says more than words that it mostly comes from: it takes their place.
            chosen[chosen.index(alike[0])] = term
            chosen = [other for other in chosen if other == term or other not in alike]
    return chosen


def _bases(terms: Iterable[str]) -> dict[str, str]:
    """Each of the terms with the stems of its words, or itself."""
    known = {term for term in terms if " " not in term}
    stems = {word: _stem(word, known) for word in known}
    return {term: " ".join(stems.get(word, word) for word in term.split()) for term in terms}


def _stem(word: str, known: set[str]) -> str:
    """The shortest of the ``known`` words that endings were added to."""
    for ending, instead in _ENDINGS:
        if not word.endswith(ending) or word.endswith("ss") or len(word) < len(ending) + 3:
            continue
        rest = word.removesuffix(ending)
        candidates = [rest + each for each in instead]
        if ending in ("ing", "ed") and rest[-1] == rest[-2]:
            candidates.append(rest[:-1])  # topped
        if stem := next((each for each in candidates if each in known), None):
            return _stem(stem, known)
    return word


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_THOUGHTS = re.compile(r".*</think>", re.DOTALL)
_LONGEST_NAME = 80  # characters, of a language model's: more is an explanation
_FENCE = re.compile(r"[ \t]*(```|~~~)")
_HEADER = re.compile(r"\W*(cluster|topic|id|number|#)\W+(name|label|title|topic)\W*", re.IGNORECASE)
_RULE = re.compile(r"[\s|:+=-]*")  # between the header and the rows of a table, or a blank line
_ANSWER = re.compile(
    r"""[|\s]*(?:[-*+•#]+\s+)?            # a cell of a table, a bullet or a heading
    (?P<mark>[*_`"'(\[]*)(?:(?:cluster|topic|group)\s*)?\#?(?P<number>[-+−]?[0-9]{1,9})[*_`"')\]]*
    (?:\s*[:,;=|\t→]|[.)](?=\s)|\s+[-–—](?=\s)|(?<=[)\]])(?=\s))[*_]*
    \s*(?P<name>.*)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_NUMBERS = ("cluster", "cluster_id", "id", "number", "index", "topic", "group")
_NAMES = ("name", "title", "label", "topic")


def parse_names(text: str, n_clusters: int, source: str) -> dict[int, str]:
    """Names by cluster, of lines such as ``17: name``, ``17,name`` or ``**17**. name``, of JSON of
    numbers and names, objects with both, or K names, or of K lines of names in the order of the
    clusters. All of it may stand in a code fence.

    A name that is null is none. What is said of -1, the number of outliers, is left out. Something
    else, or a cluster that the model does not have, is a UsageError.
    """
    text = _fenced(re.split(r"\r\n|\r|\n", text), source)
    is_json = text[:1] in ("{", "[") and not re.match(r"\[-?\d+\]", text)
    pairs = _of_json(text, source) if is_json else _of_lines(text, source)
    numbers = [number for number, _ in pairs]
    if None in numbers and len(numbers) != n_clusters:
        raise UsageError(
            f"{source}: {len(numbers)} names for {n_clusters} clusters; give one for each cluster, "
            "or its number before each name, like '17: name'"
        )
    names: dict[int, str] = {}
    for place, (number, name) in enumerate(pairs):
        cluster = place if number is None else number
        if not -1 <= cluster < n_clusters:
            raise UsageError(
                f"{source}: cluster {cluster}, but the model has 0 to {n_clusters - 1}"
            )
        if cluster in names:
            raise UsageError(f"{source}: two names for cluster {cluster}")
        if name is not None:
            names[cluster] = " ".join(re.split(r"[\r\n\t]+", name)).strip()
    names.pop(-1, None)
    if not names:
        raise UsageError(f"{source}: no names in it")
    return names


def in_one_line(text: str) -> str:
    """Without control characters, and one blank between words."""
    return " ".join(_CONTROL.sub(" ", text).split())


def name_in_answer(text: str) -> str:
    """The one name in what a language model answered: on a line, or in JSON; without what it
    thought before. A UsageError for no name, several, or more than a name."""
    source = "the answer"
    text = _fenced(_THOUGHTS.sub("", text).splitlines(), source)
    pairs = _of_json(f"[{text}]", source) if text[:1] == "{" else _of_lines(text, source)
    names = [in_one_line(name) for _, name in pairs if name]
    name = "".join(names[:1])
    if len(names) > 1:
        problem = f"has {len(names)} lines, expected a name"
    elif not name:
        problem = "is empty"
    elif len(name) > _LONGEST_NAME:
        problem = f"has {len(name)} characters, expected a name"
    else:
        return name
    raise UsageError(f"{source} {problem}")


Pairs = list[tuple[int | None, str | None]]


def _fenced(lines: list[str], source: str) -> str:
    """What stands in a code fence, or all lines, without blanks around it."""
    fences = [i for i, line in enumerate(lines) if _FENCE.match(line)]
    if len(fences) > 2:
        raise UsageError(f"{source}: line {fences[2] + 1}: a second code fence; keep one of them")
    inside = lines[fences[0] + 1 : [*fences, len(lines)][1]] if fences else lines
    return "\n".join(inside).strip(" \t\n")


def _of_lines(text: str, source: str) -> Pairs:
    lines = {i: line for i, line in enumerate(text.split("\n"), 1) if not _RULE.fullmatch(line)}
    first = min(lines, default=0)
    if lines and _HEADER.fullmatch(lines[first]):
        del lines[first]
    matches = {i: _ANSWER.fullmatch(line) for i, line in lines.items()}
    if not any(matches.values()):
        return [(None, _plain(re.sub(r"^\s*[-*+•]\s+", "", line))) for line in lines.values()]
    pairs: Pairs = []
    for i, match in matches.items():
        if match is None:
            wrong = lines[i].strip()
            raise UsageError(
                f"{source}: line {i} is {wrong!r:.60}, not like '17: name' as others are"
            )
        pairs.append((_number(match), _plain(match["name"])))
    return pairs


def _plain(name: str) -> str:
    """A name without the cell, the quotes or the emphasis around it."""
    name = re.sub(r"\s*\|\s*$", "", name.strip())
    if match := re.fullmatch(r'(\*\*|__|[*_`])(.+)\1|"(.*)",?', name, re.DOTALL):
        name = match[2] or (match[3] or "").replace('""', '"')
    return name.strip()


def _number(match: re.Match[str]) -> int:
    return int(match["number"].replace("−", "-"))


class _Object(list):
    """An object of JSON as a list of pairs, so that a name that is there twice is seen."""


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_Object, parse_constant=_Object)


def _of_json(text: str, source: str) -> Pairs:
    try:
        document = _json(text)
    except ValueError as error:
        try:
            document = [_json(line) for line in text.split("\n")]  # an object a line
        except ValueError:
            raise UsageError(f"{source}: not JSON after all ({error})") from None
    while isinstance(document, _Object) and len(document) == 1:
        ((key, inner),) = document
        if not isinstance(inner, list) or _ANSWER.match(f"{key}:"):
            break
        document = inner  # {"clusters": [...]}
    if isinstance(document, _Object):
        return [_entry(key, value, f"{source}: {key!r}") for key, value in document]
    return [_entry(None, value, f"{source}: entry {i}") for i, value in enumerate(document)]


def _entry(key: str | None, value: Any, where: str) -> tuple[int | None, str | None]:
    """A number and a name from what stands at a key, or in a list."""
    if isinstance(value, _Object):
        fields = {name.casefold(): inner for name, inner in value}
        for name in _NUMBERS:
            if key is None and re.fullmatch(r"-?[0-9]{1,9}", str(fields.get(name))):
                key = str(fields.pop(name))
        value = next((fields[name] for name in _NAMES if name in fields), value)
    elif isinstance(value, list) and len(value) == 2 and key is None:
        key, value = str(value[0]), value[1]
    match = None if key is None else _ANSWER.fullmatch(f"{key}:")
    if key is not None and match is None:
        raise UsageError(f"{where}: expected the number of a cluster, not {key!r:.60}")
    if isinstance(value, (list, bool)):
        raise UsageError(f"{where} is {value!r:.60}, expected a name")
    number = None if match is None else _number(match)
    return number, None if value is None else str(value)
