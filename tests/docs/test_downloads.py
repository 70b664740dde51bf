"""The page on real downloads names tests that exist, and every kind of defect that is counted."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/downloads.md").read_text()
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what")]


@pytest.mark.parametrize(("path", "test"), sorted(set(TESTS)))
def test_a_test_that_is_named_exists(path, test):
    defined = {
        node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)
    }
    assert test in defined


def test_every_row_names_its_test():
    assert len(ROWS) == len(TESTS) > 50


def counted_kinds():
    """Texts under which the loaders and stages count defects."""
    for path in sorted((ROOT / "ccim_ray").rglob("*.py")):
        source = path.read_text()
        constants = dict(re.findall(r'^([A-Z_]+) = "([^"]+)"$', source, re.MULTILINE))
        yield from re.findall(r'defects\.add\("([^"]+)"', source)
        yield from (constants[name] for name in re.findall(r"defects\.add\(([A-Z_]+),", source) if name in constants)
        yield from re.findall(r'UnreadableImage\(path, "([^"]+)"\)', source)
        yield from (constants[name] for name in ("MISSING_VIDEO", "UNDECODABLE") if name in constants)


def test_every_kind_that_is_counted_is_on_the_page():
    kinds = set(counted_kinds()) - {"subject of the truth that could not be read"}  # the embedded world alone
    assert len(kinds) > 25
    assert {kind for kind in kinds if f'"{kind}"' not in PAGE} == set()
