"""The one exception that a user is meant to read."""


class RequestError(Exception):
    """The request or the data is wrong.

    The message is one line that says what was found, where (file or flag), and what to do. Jobs print it on
    stderr without a traceback and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
