"""The one exception that a user is meant to read."""

LONGEST = 1200
"""Characters of a message: what was found may be a file's single line of a megabyte."""


class RequestError(Exception):
    """The request or the data is wrong.

    The message is one line that says what was found, where (file or flag), and what to do; of a long one the middle is
    left out. Jobs print it on stderr without a traceback and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        told = printable(" ".join(message.split()))
        super().__init__(told if len(told) <= LONGEST else f"{told[: LONGEST - 400]} ... {told[-395:]}")


def printable(text: str) -> str:
    """``text`` as a terminal may show it: the name of a file can hold characters that command the terminal."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
