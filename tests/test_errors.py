"""The line that a user reads."""

import pickle

from ccim_ray.errors import LONGEST, RequestError


def test_a_message_is_one_line_that_ends_with_what_to_do():
    error = RequestError(f"file.csv: {'x' * 1_000_000!r} found;\n  correct it")
    assert str(error).startswith("file.csv: 'xxx")
    assert str(error).endswith("xxx' found; correct it")
    assert len(str(error)) <= LONGEST
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(RequestError("short: it stays as it is")) == "short: it stays as it is"


def test_what_commands_a_terminal_is_not_printed():
    error = RequestError("a\x1b]0;owned\x07\x1b[2J\u202egnp.exe: é☃ is \ud800 fine\x00")
    assert str(error).isprintable()
    assert "\x1b" not in str(error)
    assert "é☃" in str(error)
    str(error).encode()
