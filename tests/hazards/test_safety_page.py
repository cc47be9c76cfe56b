"""tools/safety.py, and the page that it has written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hazards import HAZARDS
from support.processes import Ending, finish

CHECKOUT = Path(__file__).parents[2]
RECORD = {
    "number": "5",
    "name": "by-the-test",
    "title": "A title",
    "evidence": [],
    "python": "3.11.7",
    "stock": "dies by SIGSEGV",
    "moored": "lives",
}


def safety(*words: str | Path) -> Ending:
    return finish(sys.executable, CHECKOUT / "tools" / "safety.py", "--check", *words)


def test_the_page_has_every_hazard():
    page = (CHECKOUT / "docs" / "measure" / "safety.md").read_text()
    missing = [one.identity for one in HAZARDS if f"**{one.number}.** {one.title}" not in page]
    assert not missing, "run `make safety`"


def test_names_of_hazards_are_unique():
    assert len({hazard.identity for hazard in HAZARDS}) == len(HAZARDS)


def test_a_page_that_differs_is_noticed(tmp_path):
    (tmp_path / "5.json").write_text(json.dumps(RECORD))
    done = safety("--records", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "moored: docs/measure/safety.md is not what the tests saw; run `make safety`\n"
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "moored: no records in"),
        ("{", "moored: cannot read the records in"),
        ('{"number": "5"}', "moored: cannot read the records in"),
        ("[]", "moored: cannot read the records in"),
    ],
)
def test_bad_records_are_one_clear_line(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "5.json").write_text(content)
    done = safety("--records", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(complaint)
    assert done.err.count("\n") == 1
