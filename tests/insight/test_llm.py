"""Names from a language model, through the real command and a small server of our own."""

import contextlib
import json
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import environment, python

import dinkcli
from dinkcli.errors import RunError
from dinkcli.insight.llm import Answers, Server, ask
from dinkcli.insight.names import name_in_answer

TOPICS = ("card", "loan", "rent")


class Handler(BaseHTTPRequestHandler):
    """Answers by ``server.reply(prompt) -> (status, content or document)`` and keeps requests."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        status, content = self.server.reply(body["messages"][-1]["content"])
        document = content
        if isinstance(content, str):
            document = {"choices": [{"message": {"role": "assistant", "content": content}}]}
        payload = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who asked waits no longer
            self.wfile.write(payload)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.requests = []
        server.reply = lambda prompt: (200, f'"{topic_of(prompt).title()} questions"')
        server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def topic_of(prompt):
    texts = prompt.split("Words of the groups beside it:")[0]
    return max(TOPICS, key=texts.count)


@pytest.fixture
def model(tmp_path):
    """Three clusters of texts about three topics, far apart; cluster 1 is named by hand."""
    rng = np.random.default_rng(0)
    topic = np.arange(60) % 3
    rows = (np.eye(3)[topic] * 10 + rng.normal(0, 0.1, (60, 3))).astype(np.float32)
    texts = [f"a question about my {TOPICS[t]}\nnumber {i}" for i, t in enumerate(topic)]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3)
    pq.write_table(pa.table({"v": vectors, "text": texts}), tmp_path / "d.parquet")
    dinkcli.train(rows, 3).save(tmp_path / "m.safetensors")
    return dinkcli.load(tmp_path / "m.safetensors")


def right_names(model, suffix):
    return [f"{TOPICS[j].title()} {suffix}" for j in model.cluster_centers.argmax(1)]


def named(dink, server, *more, **options):
    command = ("name", "m.safetensors", "d.parquet", "--texts", "text", "--llm", server.url)
    return dink(*command, "--llm-model", "small", *more, **options)


def test_each_cluster_is_one_request_and_gets_its_name(dink, server, model, tmp_path):
    env = environment() | {"OPENAI_API_KEY": "secret"}
    shown = named(dink, server, "--json", env=env)
    assert [each["name"] for each in json.loads(shown.stdout)] == right_names(model, "questions")
    assert len(server.requests) == 3
    for path, headers, body in server.requests:
        assert path == "/v1/chat/completions" and body["model"] == "small"
        assert headers["Authorization"] == "Bearer secret"
        own, beside = body["messages"][-1]["content"].split("Words of the groups beside it:")
        assert sum(topic in own for topic in TOPICS) == 1
        assert sum(topic in beside for topic in TOPICS) == 2
        assert "\nnumber" not in own  # a text is one line
    assert not list(tmp_path.glob("*.jsonl"))


def test_groups_of_a_level_get_names_and_assign_writes_them(dink, server, model, tmp_path):
    """By the words of their clusters, then by the language model, which sees their names."""
    groups = model.groups(2)
    pair = int(np.bincount(groups).argmax())
    alone = int(np.flatnonzero(np.bincount(groups, minlength=3) == 1)[0])

    def written():
        dink("assign", "m.safetensors", "d.parquet", "--with-names", "--levels", 2, "-o", "a.csv")
        table = pd.read_csv(tmp_path / "a.csv")
        assert (table.level_2 == groups[table.cluster]).all()
        assert (
            table[table.level_2 == alone].level_2_name == table[table.level_2 == alone].name
        ).all()
        return set(table[table.level_2 == pair].level_2_name)

    dink("name", "m.safetensors", "d.parquet", "--texts", "text", "--levels", 2)
    (by_words,) = written()
    inside = {TOPICS[j] for j in model.cluster_centers[groups == pair].argmax(1)}
    assert inside <= set(by_words.replace(",", "").split())

    def reply(prompt):
        if "Names of what the group is made of" in prompt:
            assert all(f"- {topic.title()} questions" in prompt for topic in inside)
            return 200, "Both"
        return 200, f"{topic_of(prompt).title()} questions"

    server.reply = reply
    shown = json.loads(named(dink, server, "--levels", 2, "--json").stdout)
    assert len(server.requests) == 4 and written() == {"Both"}
    clusters = np.flatnonzero(groups == pair).tolist()
    assert {"level": 2, "group": pair, "clusters": clusters, "name": "Both"} in shown


def test_a_name_given_by_hand_stays_and_is_not_asked_for(dink, server, model, tmp_path):
    dinkcli.rename(model, 1, "mine").save(tmp_path / "m.safetensors")
    named(dink, server)
    names = dinkcli.load(tmp_path / "m.safetensors").names
    assert names[1] == "mine" and len(server.requests) == 2
    named(dink, server, "--force")
    assert dinkcli.load(tmp_path / "m.safetensors").names == right_names(model, "questions")


def test_an_answer_that_is_no_name_is_said_and_the_words_stay(dink, server, model, tmp_path):
    long = "Sure! Here is a name for the group:\n\nCard questions\n\nI chose it since"
    server.reply = lambda prompt: (200, long if "card" in topic_of(prompt) else "fine")
    shown = named(dink, server)
    loaded = dinkcli.load(tmp_path / "m.safetensors")
    card = int(np.flatnonzero(loaded.cluster_centers.argmax(1) == 0)[0])
    assert (
        f"cluster {card}: the answer has 3 lines, expected a name; its words stay" in shown.stderr
    )
    assert "card" in loaded.names[card] and sorted(loaded.names).count("fine") == 2


def test_a_stopped_run_goes_on_where_it_was(dink, server, model, tmp_path):
    """The server breaks at the second question, and is asked for two names in the second run."""
    server.reply = lambda prompt: (
        (200, "first") if len(server.requests) < 2 else (500, {"error": "out"})
    )
    shown = named(dink, server, code=1)
    assert (
        "500: out; answers kept in m.safetensors.answers.jsonl: 1; the same command goes on"
        in shown.stderr
    )
    assert not dinkcli.load(tmp_path / "m.safetensors").names
    kept = tmp_path / "m.safetensors.answers.jsonl"
    kept.write_text(kept.read_text() + '{"question": "half a li')
    server.requests.clear()
    server.reply = lambda prompt: (200, "second")
    named(dink, server)
    assert dinkcli.load(tmp_path / "m.safetensors").names == ["first", "second", "second"]
    assert len(server.requests) == 2 and not kept.exists()


def test_ctrl_c_keeps_the_answers(server, model, tmp_path):
    waits = threading.Event()

    def reply(prompt):
        if len(server.requests) > 1:
            waits.wait(20)
        return 200, "first"

    server.reply = reply
    command = [python(), "-m", "dinkcli", "name", "m.safetensors", "d.parquet", "--texts", "text"]
    command += ["--llm", server.url, "--llm-model", "small"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=pipe, text=True) as run:
        until = time.monotonic() + 60
        while len(server.requests) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    waits.set()
    assert run.returncode == 130
    assert "answers kept in m.safetensors.answers.jsonl: 1;" in said
    assert (tmp_path / "m.safetensors.answers.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize(
    "reply, message",
    [
        ((401, {"error": {"message": "no such key"}}), "the server says 401: no such key"),
        (
            (404, {"detail": "Not Found"}),
            'says 404: {"detail": "Not Found"}; give the address up to /v1',
        ),
        ((200, {"choices": []}), "expected the answer of a chat completion, not"),
        ((429, {"error": "busy"}), "the server says 429: busy"),
    ],
)
def test_a_server_that_refuses_is_one_line(dink, server, model, reply, message):
    server.reply = lambda prompt: reply
    assert message in named(dink, server, code=1).stderr
    assert len(server.requests) == (3 if reply[0] == 429 else 1)  # busy ones are asked again


def test_no_server_is_one_line(dink, server, model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    assert f"{server.url}: no server there (" in named(dink, server, code=1).stderr
    server.url = "localhost:8000"
    assert (
        "expected an address such as http://localhost:8000/v1" in named(dink, server, code=2).stderr
    )


def test_slow_answers_are_left_out_until_they_are_too_many(server, tmp_path):
    def reply(prompt):
        if prompt != "quick":
            time.sleep(2)
        return 200, "name"

    server.reply = reply
    slow = Server(server.url, "small", 0.7)
    answers = Answers(str(tmp_path / "answers"))
    replies = []
    questions = {0: "a", 1: "quick", 2: "b", 3: "c"}
    assert ask(slow, questions, answers, lambda *said: replies.append(said)) == {1: "name"}
    assert [(done, total) for done, total, _ in replies] == [(i, 4) for i in (1, 2, 3, 4)]
    assert replies[0][2].problem == "no answer in 0.7 s"
    with pytest.raises(RunError, match="3 times in a row"):
        ask(slow, {0: "a", 1: "b", 2: "c"}, answers, lambda *said: None)


@pytest.mark.parametrize(
    "text",
    [
        "Card fees",
        ' "Card fees"\n',
        "**Card fees**",
        "Card\x1b fees",
        "17: Card fees",
        "```\nCard fees\n```",
        '```json\n{"name": "Card fees"}\n```',
        '{"cluster": 3, "title": "Card fees"}',
        "<think>\nIs it cards?\nYes: fees.\n</think>\n\nCard fees",
    ],
)
def test_a_name_is_found_in_what_models_write(text):
    assert name_in_answer(text) == "Card fees"
