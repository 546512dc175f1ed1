"""A few seconds of the campaign; ``make fuzz`` runs ten thousand inputs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import campaign
import pytest

pytestmark = pytest.mark.slow


def test_nothing_breaks_in_a_few_seconds():
    counts, findings = campaign.campaign(inputs=10_000, seconds=8)
    assert not findings
    assert sum(counts.values()) > 20
