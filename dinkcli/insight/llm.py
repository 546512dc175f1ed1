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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import numpy as np

from dinkcli.errors import OutputError, RunError, UsageError
from dinkcli.insight.inspect import typical_texts
from dinkcli.insight.names import name_in_answer
from dinkcli.models.model import OUTLIER
from dinkcli.models.tree import squared_distances

if TYPE_CHECKING:
    from dinkcli.insight.inspect import Seen
    from dinkcli.models.model import Model

KEY_VARIABLE = "OPENAI_API_KEY"
_TRIES = 3  # of a request that the server is too busy for
_LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
_TOO_SLOW = 3  # answers in a row that do not come in time: the server is not there for us
_MOST_MEMBERS = 50  # names of clusters in the question for a group of them
_NEIGHBOURS = 3  # clusters that a name should tell apart
_ASK = (
    "You name groups of texts. Answer with one name of two to five words for the group below, "
    "in the language of its texts, that tells it from the groups beside it. "
    "Answer with the name alone: no quotes, no number, no explanation."
)


@dataclass(frozen=True)
class Server:
    """Where to ask.

    Attributes:
        url: up to what comes before ``/chat/completions``, as http://localhost:8000/v1.
        model: its name there.
        seconds: to wait for one answer.
    """

    url: str
    model: str
    seconds: float = 120.0

    def __post_init__(self) -> None:
        if not self.url.lower().startswith(("http://", "https://")):
            raise UsageError(
                f"llm {self.url}: expected an address such as http://localhost:8000/v1"
            )

    def answer(self, prompt: str) -> str:
        """What the model says.

        Raises:
            TimeoutError: no answer in time.
            RunError: the server is not there, refuses, or does not speak this protocol.
        """
        wait = 1.0
        for last in (*[False] * (_TRIES - 1), True):
            status, headers, body = self._post(prompt)
            if status == 200:
                return self._content(body)
            if last or (status != 429 and status < 500):
                hint = "; give the address up to /v1" if status == 404 else ""
                raise RunError(f"{self.url}: the server says {status}: {_reason(body)}{hint}")
            with contextlib.suppress(ValueError):
                wait = float(headers.get("Retry-After", ""))
            time.sleep(min(max(wait, 0.0), _LONGEST_WAIT))
            wait *= 4
        raise AssertionError

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
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise error.reason from None
            raise RunError(f"{self.url}: no server there ({error.reason})") from error
        except (HTTPException, ConnectionError) as error:
            raise RunError(f"{self.url}: the server broke off ({error!r})") from error

    def _content(self, body: bytes) -> str:
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise RunError(
                f"{self.url}: expected the answer of a chat completion, not {_reason(body)}"
            ) from None
        return content if isinstance(content, str) else ""


@dataclass(frozen=True)
class Reply:
    """What became of one question.

    Attributes:
        name: None where the answer cannot be used.
        problem: why it cannot.
        kept: it was answered by an earlier run.
    """

    number: int
    name: str | None
    problem: str = ""
    kept: bool = False


class Answers:
    """Names by question, in a file that grows by a line for each, or in memory."""

    def __init__(self, path: str | None):
        self.path = path
        self._names: dict[str, str] = {}
        if path is None:
            return
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError, LookupError, TypeError):  # half a line
                    entry = json.loads(line)
                    self._names[entry["question"]] = str(entry["name"])

    def __len__(self) -> int:
        return len(self._names)

    def get(self, question: str) -> str | None:
        return self._names.get(question)

    def keep(self, question: str, name: str) -> None:
        self._names[question] = name
        if self.path is None:
            return
        line = json.dumps({"question": question, "name": name})
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error

    @property
    def advice(self) -> str:
        """What to do after a run that was stopped, as the end of a sentence."""
        if self.path is None or not self._names:
            return ""
        return f"; answers kept in {self.path}: {len(self)}; the same command goes on from there"


def questions(model: Model, seen: Seen) -> dict[int, str]:
    """What to ask, by cluster; of clusters without texts nothing."""
    apart = squared_distances(model.cluster_centers, model.cluster_centers)
    np.fill_diagonal(apart, np.inf)
    apart[:, [j for j, terms in enumerate(seen.terms) if not terms]] = np.inf
    result = {}
    for j, (terms, rows) in enumerate(zip(seen.terms, seen.nearest, strict=True)):
        if not (texts := typical_texts(rows)):
            continue
        near = [i for i in apart[j].argsort()[:_NEIGHBOURS].tolist() if np.isfinite(apart[j, i])]
        lines = ["Words of the group: " + ", ".join(terms), "Typical texts of it:"]
        lines += [f"- {text}" for text in texts]
        if near:
            lines += ["Words of the groups beside it:"]
            lines += ["- " + ", ".join(seen.terms[i]) for i in near]
        result[j] = "\n".join(lines)
    return result


def group_questions(model: Model, groups: np.ndarray) -> dict[int, str]:
    """What to ask for the ``groups`` (K,) that have several clusters, by group."""
    result = {}
    for group in np.unique(groups[groups != OUTLIER]).tolist():
        inside = np.flatnonzero(groups == group)
        if len(inside) > 1:
            largest = inside[np.argsort(-model.cluster_sizes[inside], kind="stable")]
            names = [model.all_names[j] for j in largest[:_MOST_MEMBERS].tolist()]
            lines = ["Names of what the group is made of, the largest first:"]
            result[group] = "\n".join(lines + [f"- {name}" for name in names if name])
    return result


def ask(server: Server, asked: Mapping[int, str], answers: Answers) -> Iterator[Reply]:
    """Asks one question after another, by number, and keeps each name that can be used.

    Raises:
        RunError: the server is not there, refuses, or is too slow several times in a row.
    """
    slow = 0
    for number, prompt in asked.items():
        question = hashlib.sha256(f"{server.model}\n{prompt}".encode()).hexdigest()[:16]
        if (known := answers.get(question)) is not None:
            yield Reply(number, known, kept=True)
            continue
        try:
            name = name_in_answer(server.answer(prompt))
        except TimeoutError:
            slow += 1
            problem = f"no answer in {server.seconds:g} s"
            if slow == _TOO_SLOW:
                raise RunError(f"{server.url}: {problem}, {slow} times in a row") from None
            yield Reply(number, None, problem)
            continue
        except UsageError as error:
            yield Reply(number, None, str(error))
        else:
            answers.keep(question, name)
            yield Reply(number, name)
        slow = 0


def _reason(body: bytes) -> str:
    """What a server says in an error, in one line."""
    text: Any = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, LookupError, TypeError):
        text = json.loads(body)["error"]
        text = text["message"] if isinstance(text, dict) else text
    return " ".join(str(text).split())[:200] or "nothing"
