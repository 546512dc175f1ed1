"""Reading ahead changes neither items, nor order, nor errors, and leaves no thread."""

import itertools
import threading
import time

import pytest

from dinkcli.data.dataset import read_ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "dink-read-ahead"]


def test_items_and_order():
    assert list(read_ahead(iter(range(1000)))) == list(range(1000))
    assert list(read_ahead(iter([]))) == []
    assert not threads()


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("row 3")

    found = []
    with pytest.raises(ValueError, match="row 3"):
        found.extend(read_ahead(items()))
    found = read_ahead(items())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="row 3"):
        next(found)
    assert not threads()


def test_no_more_than_the_depth_is_made_in_advance():
    made = []

    def items():
        for i in itertools.count():
            made.append(i)
            yield i

    ahead = read_ahead(items(), depth=2)
    assert next(ahead) == 0
    time.sleep(0.3)
    assert len(made) <= 4  # one taken, two waiting, one in hand
    ahead.close()
    assert not threads()
