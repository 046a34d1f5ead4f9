"""The one exception that commands turn into a sentence and an exit status."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right.

    Args:
        message: What was wrong and what was found, one sentence without a full stop.
        hint: What to do about it.
        exit_status: 1 (it failed) or 2 (bad usage).
    """

    def __init__(self, message: str, *, hint: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_status = exit_status

    def __str__(self) -> str:
        return f"{self.args[0]}; {self.hint}"

    def __reduce__(self) -> tuple:
        # By default an exception is made anew from its positional arguments alone, in the process it is sent to.
        return _remade, (type(self), self.args), self.__dict__


def _remade(kind: type[UserError], arguments: tuple) -> UserError:
    return kind.__new__(kind, *arguments)
