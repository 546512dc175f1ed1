"""Names of clusters, through the real command and by value."""

import json
import math
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLES

import dinkcli
from dinkcli.errors import UsageError
from dinkcli.insight.names import distinctive_terms, parse_names
from dinkcli.models.matching import match

STDLIB = SAMPLES / "stdlib.parquet"


def test_weights_are_those_of_class_based_tf_idf():
    texts = ["red", "red", "blue", "green", "blue", "blue", "green", "green"]
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    found = distinctive_terms(texts, labels, 2)
    mean, everywhere = 8 / 2, {"red": 2, "blue": 3, "green": 3}
    for label in range(2):
        here = [text for text, j in zip(texts, labels, strict=True) if j == label]
        weights = {t: here.count(t) * math.log(1 + mean / everywhere[t]) for t in set(here)}
        assert found[label] == sorted(weights, key=lambda t: (-weights[t], t))


def test_plurals_are_one_term_and_pairs_take_the_place_of_their_words():
    texts = ["event loops", "event loop", "the event loop", "classes", "class", "classes"]
    found = distinctive_terms(texts, [0, 0, 0, 1, 1, 1], 2)
    assert found == [["event loop"], ["classes"]]


@pytest.mark.parametrize(
    "text",
    [
        "0: a b\n2: c",
        "0: a b\r\n\r\n2: c\r\n",
        "cluster,name\n0,a b\n2,c",
        "Cluster\tName\n0\ta b\n2\tc",
        "- 0: a b\n- 2: c\n",
        "0. a b\n2. c",
        "0) a b\n2) c",
        "(0) a b\n(2) c",
        "[0] a b\n[2] c",
        "0 - a b\n2 - c",
        "0 – a b\n2 — c",
        "#0: a b\n#2: c",
        "**0**: a b\n**2**: c",
        "**0:** a b\n**2:** c",
        "* **Cluster 0**: a b\n* **Cluster 2**: c",
        "## Cluster 0: a b\n## Cluster 2: c",
        "0: **a b**\n2: `c`",
        '0,"a b"\n2,"c"',
        '"0": "a b",\n"2": "c"',
        "| Cluster | Name |\n|---|---|\n| 0 | a b |\n| 2 | c |",
        "-1: noise\n0: a b\n2: c",
        '{"-1": "noise", "0": "a b", "2": "c"}',
        '{"0": "a b", "2": "c"}',
        '{"Cluster 0": "a b", "cluster_2": "c"}'.replace("_", " "),
        '{"0": "a b", "1": null, "2": "c"}',
        '{"0": {"name": "a b", "why": "x"}, "2": {"name": "c", "why": "y"}}',
        '[{"cluster": 0, "name": "a b"}, {"cluster": 2, "name": "c"}]',
        '[{"id": "2", "label": "c"}, {"id": "0", "label": "a b"}]',
        '{"clusters": [{"cluster": 0, "name": "a b"}, {"cluster": 2, "name": "c"}]}',
        '{"cluster": 0, "name": "a b"}\n{"cluster": 2, "name": "c"}\n',
        '[[0, "a b"], [2, "c"]]',
        '["a b", null, "c"]',
        '```json\n{"0": "a b", "2": "c"}\n```\n',
        "Here are the names:\n\n```\n0: a b\n2: c\n```\nThey are short.\n",
        "~~~\n0: a b\n2: c",
    ],
)
def test_names_are_read_in_every_form(text):
    assert parse_names(text, 3, "f") == {0: "a b", 2: "c"}


@pytest.mark.parametrize(
    "text", ["a\nb\nc", '["a", "b", "c"]', "- a\n- b\n- c", "```\na\nb\nc\n```"]
)
def test_a_name_for_each_cluster_needs_no_number(text):
    assert parse_names(text, 3, "f") == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\f", "\x1c", "\v"])
def test_only_line_breaks_end_a_name(end):
    assert parse_names(f"a{end}b\nc\n", 2, "f") == {0: f"a{end}b", 1: "c"}
    assert parse_names(f"0: a{end}b\n1: c\n", 2, "f") == {0: f"a{end}b", 1: "c"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f: no names in it"),
        ("a\nb", "2 names for 3 clusters; give one for each cluster"),
        ("3: a", "cluster 3, but the model has 0 to 2"),
        ("-2: a", "cluster -2, but"),
        ("1. a\n2. b\n3. c", "cluster 3, but the model has 0 to 2"),
        ("0: a\n0: b", "two names for cluster 0"),
        ('{"0": "a", "0": "b"}', "two names for cluster 0"),
        ('["a"]', "1 names for 3 clusters"),
        ("{oops", "not JSON after all"),
        ("The names:\n0: a\n1: b", "line 1 is 'The names:', not like '17: name' as others are"),
        ("0: a\n\nb\n1: c", "line 3 is 'b'"),
        ("```\n0: a\n```\n```\n1: b\n```", "line 4: a second code fence"),
        ('{"zero": "a"}', "'zero': expected the number of a cluster"),
        ('{"0": ["a"]}', "'0' is ['a'], expected a name"),
        ('{"0": true}', "expected a name"),
        ('[{"cluster": 0}]', "expected a name"),
    ],
)
def test_other_files_are_refused(text, said):
    with pytest.raises(UsageError) as caught:
        parse_names(text, 3, "f")
    assert said in str(caught.value)


def test_names_are_stored_shown_written_and_kept(dink, tmp_path):
    dink("train", STDLIB, "-k", 12, "-q", "-o", "m.safetensors", "--texts", "id")
    model = dinkcli.load(tmp_path / "m.safetensors")
    assert len(model.names) == 12 and all(model.names)
    assert all(
        name.split(", ")[0] in terms for name, terms in zip(model.names, model.terms, strict=True)
    )
    shown = json.loads(dink("inspect", "m.safetensors", "--json").stdout)["clusters"]
    assert [cluster["name"] for cluster in shown] == model.names
    assert model.names[0] in dink("inspect", "m.safetensors").stdout

    answers = dink("name", "m.safetensors", STDLIB, "--texts", "id", "--prompt").stdout
    assert answers.count("## cluster ") == 12
    (tmp_path / "answers.txt").write_text("\n".join(f"{j}: Group {j}" for j in range(12)))
    dink("name", "m.safetensors", "--names", "answers.txt")
    assert dinkcli.load(tmp_path / "m.safetensors").names == [f"Group {j}" for j in range(12)]

    common = ("-q", "--match", "m.safetensors")
    dink("train", STDLIB, "-k", 12, "--seed", 5, "-o", "n.safetensors", *common)
    old, new = (dinkcli.load(tmp_path / f"{name}.safetensors") for name in "mn")
    for entry in match(old, new).drift:
        if entry.fate in ("kept", "split"):
            assert new.names[entry.id] == f"Group {entry.id}"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow", "npy"])
def test_every_output_has_the_names(suffix, invoke, tmp_path):
    model = dinkcli.train(np.load(SAMPLES / "digits.npy"), 10, seed=0)
    model.names = [f"näme, {j}" for j in range(10)]
    model.save(tmp_path / "m.safetensors")
    out = tmp_path / f"out.{suffix}"
    invoke(
        *("assign", "m.safetensors", SAMPLES / "digits.npy", "--with-names", "-q", "-o", out),
        *("--max-distance", 1.5),
    )
    if suffix == "npy":
        found = [(int(row["cluster"]), str(row["name"])) for row in np.load(out)]
    elif suffix == "jsonl":
        rows = map(json.loads, out.read_text(encoding="utf-8").splitlines())
        found = [(row["cluster"], row["name"]) for row in rows]
    else:
        import pandas

        readers = {"csv": pandas.read_csv, "parquet": pandas.read_parquet}
        table = readers.get(suffix, pandas.read_feather)(out)
        found = list(zip(table["cluster"], table["name"].fillna(""), strict=True))
    labels = {label for label, _ in found}
    assert -1 in labels and len(labels) > 5
    assert all(name == ("" if label < 0 else f"näme, {label}") for label, name in found)


def test_a_model_without_names_says_how_to_get_them(invoke, tmp_path):
    dinkcli.train(np.load(SAMPLES / "digits.npy"), 5, seed=0).save(tmp_path / "m.safetensors")
    result = invoke("assign", "m.safetensors", SAMPLES / "digits.npy", "--with-names", code=2)
    assert "dink name" in result.stderr
    assert invoke("name", "m.safetensors", code=2).stderr.count("--texts") == 1


def test_python_programmers_know_the_names_of_the_standard_library(tmp_path):
    """A name is known where one of its words is a module of most rows nearest to the centre."""
    table = pq.read_table(STDLIB)
    z = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
    model = dinkcli.train(z, 40, seed=0)
    labels = dinkcli.assign(model, z)
    terms = distinctive_terms(table["id"].to_pylist(), labels.tolist(), 40)
    modules = np.array(table["module"].to_pylist())
    known = 0
    for j in range(40):
        here, counts = np.unique(modules[labels == j], return_counts=True)
        words = {part for name in here[(-counts).argsort()][:3] for part in name.split(".")}
        known += any(set(term.split()) & words for term in terms[j][:3])
    assert known >= 35


def test_labels_name_clusters(invoke, tmp_path):
    """The commonest labels, until four of five rows have one of them."""
    rows, truth = np.load(SAMPLES / "digits.npy"), np.load(SAMPLES / "digits_labels.npy")
    model = dinkcli.train(rows, 10, seed=0)
    model.terms = [["ink"]] * 10
    model.save(tmp_path / "m.safetensors")
    labels = ("--labels", SAMPLES / "digits_labels.npy")
    invoke("name", "m.safetensors", SAMPLES / "digits.npy", *labels)
    found = dinkcli.load(tmp_path / "m.safetensors")
    clusters = dinkcli.assign(model, rows)
    for j, name in enumerate(found.names):
        shares = np.bincount(truth[clusters == j], minlength=10) / (clusters == j).sum()
        order = np.argsort(-shares, kind="stable")
        number = min(3, int((np.cumsum(shares[order]) < 0.8).sum()) + 1)
        assert name == ", ".join(map(str, order[:number]))
    assert found.terms == model.terms

    shown = json.loads(
        invoke("evaluate", "m.safetensors", SAMPLES / "digits.npy", *labels, "--json").stdout
    )
    assert shown["names"] == found.names
    text = invoke("evaluate", "m.safetensors", SAMPLES / "digits.npy", *labels).stdout
    counts, own = np.array(shown["confusion"]["counts"]), shown["agreement"]["matching"]
    listed = re.findall(r"^ +(\d+) +(\d) +(\d) (\S.*?)  +(\d) (\S.*?) *$", text, re.MULTILINE)
    assert len(listed) == 20
    for n, digit, j, name, other, its in listed:
        assert int(n) == counts[int(digit), int(other)] and int(other) != int(j)
        assert int(j) == own[int(digit)]
        assert (name, its) == (found.names[int(j)], found.names[int(other)])
    outside = sorted((counts[i, j] for i in range(10) for j in range(10) if j != own[i]), key=int)
    assert [int(n) for n, *_ in listed] == outside[::-1][:20]
    weakest = np.argsort(shown["cluster_silhouette"], kind="stable")[:5]
    rows = re.findall(r"^ +(\d+) +.* ([\d.]+) $", text.partition("least apart")[2], re.MULTILINE)
    assert [int(j) for j, _ in rows] == weakest.tolist()
