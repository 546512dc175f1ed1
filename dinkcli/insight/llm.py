"""Names of clusters from a language model behind a server that speaks OpenAI's chat completions
(vLLM, llama.cpp, ollama and others do): one request a cluster.

Answers are kept in a file as they come, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dinkcli.errors import OutputError, RunError, UsageError
from dinkcli.insight.names import clusters_of, in_one_line, name_in_answer
from dinkcli.models.tree import squared_distances

if TYPE_CHECKING:
    from dinkcli.insight.inspect import Exemplar, Seen
    from dinkcli.models.model import Model

KEY_VARIABLE = "OPENAI_API_KEY"
_WAITS = (1.0, 4.0, None)  # seconds after each try of a request that the server is too busy for
_LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
_TOO_SLOW = 3  # answers in a row that do not come in time: the server is not there for us
_MOST_MEMBERS = 50  # names of clusters in the question for a group of them
_NEIGHBOURS = 3  # clusters that a name should tell apart
_OF_GROUP = "Names of what the group is made of, the largest first:"
_ASK = (
    "You name groups of texts. Answer with one name of two to five words for the group below, "
    "in the language of its texts, that tells it from the groups beside it. "
    "Answer with the name alone: no quotes, no number, no explanation."
)


@dataclass(frozen=True)
class Server:
    """Where to ask."""

    url: str  # up to what comes before ``/chat/completions``, as http://localhost:8000/v1
    model: str  # its name there
    seconds: float = 120.0  # to wait for one answer

    def __post_init__(self) -> None:
        if not self.url.lower().startswith(("http://", "https://")):
            raise UsageError(
                f"llm {self.url}: expected an address such as http://localhost:8000/v1"
            )

    def answer(self, prompt: str) -> str:
        """What the model says. A TimeoutError is no answer in time, a RunError a server that is not
        there, refuses, or does not speak this protocol."""
        for wait in _WAITS:
            status, headers, body = self._post(prompt)
            if status == 200:
                break
            if wait is None or (status != 429 and status < 500):
                hint = "; give the address up to /v1" if status == 404 else ""
                raise RunError(f"{self.url}: the server says {status}: {_reason(body)}{hint}")
            with contextlib.suppress(ValueError):
                wait = float(headers.get("Retry-After", ""))
            time.sleep(min(max(wait, 0.0), _LONGEST_WAIT))
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise RunError(
                f"{self.url}: expected the answer of a chat completion, not {_reason(body)}"
            ) from None
        return content if isinstance(content, str) else ""

    def _post(self, prompt: str) -> tuple[int, Message, bytes]:
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        messages = [{"role": "system", "content": _ASK}, {"role": "user", "content": prompt}]
        document = {"model": self.model, "messages": messages, "stream": False}
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        url = self.url.rstrip("/") + "/chat/completions"
        request = Request(url, json.dumps(document).encode(), headers)
        try:
            with urlopen(request, timeout=self.seconds) as response:
                return response.status, response.headers, response.read()
        except HTTPError as error:
            with error:
                return error.code, error.headers, error.read()
        except (URLError, HTTPException, ConnectionError) as error:
            if isinstance(reason := getattr(error, "reason", None), TimeoutError):
                raise reason from None
            said = f"no server there ({reason})" if reason else f"the server broke off ({error!r})"
            raise RunError(f"{self.url}: {said}") from error


class Reply(NamedTuple):
    """What became of a question: its number, the name, and where there is none why the answer
    cannot be used."""

    number: int
    name: str | None
    problem: str


class Answers:
    """Names by question, in a file that grows by a line for each, or in memory."""

    def __init__(self, path: str | os.PathLike[str] | None):
        self.path = path
        self.names: dict[str, str] = {}
        if path is None or not os.path.exists(path):
            return
        with open(path, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError, LookupError, TypeError):  # half a line
                    entry = json.loads(line)
                    self.names[entry["question"]] = str(entry["name"])

    def keep(self, question: str, name: str) -> None:
        self.names[question] = name
        if self.path is None:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"question": question, "name": name}) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error

    @property
    def advice(self) -> str:
        """What to do after a run that was stopped, as the end of a sentence."""
        if self.path is None or not self.names:
            return ""
        kept = f"; answers kept in {self.path}: {len(self.names)}"
        return f"{kept}; the same command goes on from there"


def prompt(seen: Seen) -> str:
    """What to ask a language model, or a colleague: rows and terms of each cluster. The answers,
    one line each, are what ``names.parse_names`` reads."""
    lines = [
        "Name each of the following clusters in two to five words that tell it from the others.",
        "Answer with one line for each cluster and nothing else: its number, a colon, its name.",
    ]
    for j, (terms, rows) in enumerate(zip(seen.terms, seen.nearest, strict=True)):
        lines += ["", f"## cluster {j}", "terms: " + ", ".join(terms), "typical rows:"]
        lines += [f"- {text}" for text in typical_texts(rows)]
    return "\n".join(lines) + "\n"


def typical_texts(rows: list[Exemplar]) -> list[str]:
    """What ``rows`` carry, a short line each."""
    texts = [" ".join(str(v) for v in row.carried.values() if v is not None) for row in rows]
    return [in_one_line(text)[:300] for text in texts]


def questions(model: Model, seen: Seen) -> dict[int, str]:
    """What to ask, by cluster; of clusters without texts nothing."""
    apart = squared_distances(model.cluster_centers, model.cluster_centers)
    np.fill_diagonal(apart, np.inf)
    apart[:, [j for j, terms in enumerate(seen.terms) if not terms]] = np.inf
    result = {}
    for j, (terms, rows) in enumerate(zip(seen.terms, seen.nearest, strict=True)):
        near = [i for i in apart[j].argsort()[:_NEIGHBOURS].tolist() if np.isfinite(apart[j, i])]
        lines = ["Words of the group: " + ", ".join(terms), "Typical texts of it:"]
        lines += [f"- {text}" for text in typical_texts(rows)]
        lines += ["Words of the groups beside it:"] * bool(near)
        lines += ["- " + ", ".join(seen.terms[i]) for i in near]
        if rows:
            result[j] = "\n".join(lines)
    return result


def group_questions(model: Model, groups: np.ndarray) -> dict[int, str]:
    """What to ask for the ``groups`` (K,) that have several clusters, by group."""
    result = {}
    for group, clusters in clusters_of(groups).items():
        if len(clusters) > 1:
            largest = sorted(clusters, key=lambda j: -model.cluster_sizes[j])[:_MOST_MEMBERS]
            names = [f"- {model.all_names[j]}" for j in largest if model.all_names[j]]
            result[group] = "\n".join([_OF_GROUP, *names])
    return result


def ask(
    server: Server,
    asked: Mapping[int, str],
    answers: Answers,
    on_reply: Callable[[int, int, Reply], None],
) -> dict[int, str]:
    """The names that a server gives to questions by number, none where its answer is no name; each
    is kept in ``answers``. ``on_reply`` is called with the number of answers so far and of
    questions, and the answer. Several in a row that come too late are a RunError."""
    names: dict[int, str] = {}
    slow = 0
    for done, (number, prompt) in enumerate(asked.items(), 1):
        question = hashlib.sha256(f"{server.model}\n{prompt}".encode()).hexdigest()[:16]
        name, problem = answers.names.get(question), ""
        try:
            if name is None:
                name = name_in_answer(server.answer(prompt))
                answers.keep(question, name)
            slow = 0
        except TimeoutError:
            slow += 1
            problem = f"no answer in {server.seconds:g} s"
            if slow == _TOO_SLOW:
                said = f"{server.url}: {problem}, {slow} times in a row"
                raise RunError(f"{said}{answers.advice}") from None
        except RunError as error:
            raise RunError(f"{error}{answers.advice}") from error
        except UsageError as error:
            problem, slow = str(error), 0
        if name is not None:
            names[number] = name
        on_reply(done, len(asked), Reply(number, name, problem))
    return names


def _reason(body: bytes) -> str:
    """What a server says in an error, in one line."""
    text: Any = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, LookupError, TypeError):
        text = json.loads(body)["error"]
        text = text["message"] if isinstance(text, dict) else text
    return " ".join(str(text).split())[:200] or "nothing"
