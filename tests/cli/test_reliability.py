"""Every test that docs/reliability.md names exists."""

import re

from conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_tests_behind_the_promises_exist():
    named = 0
    for line in PAGE.splitlines():
        for file, tests in re.findall(r"`([a-z_/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", line):
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
            for test in re.findall(r"`(test_\w+)`", tests):
                assert f"def {test}(" in source, (file, test)
                named += 1
    assert named >= 40
    for path in re.findall(r"`(benchmarks/\w+\.py|fuzz/\w+\.py)`", PAGE):
        assert (ROOT / path).exists() or (ROOT / "tests" / path).exists(), path
