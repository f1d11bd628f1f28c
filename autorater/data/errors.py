"""Errors that a user can fix: a script prints them in one line and exits with status 2."""


class UserError(ValueError):
    """A mistake in a user's data, options, files or servers; the message says what was got and what was expected."""


class DataError(UserError):
    """Data that is not as described; the message names the file, the line, the column and the value."""


class DataWarning(Warning):
    """Unusual data that was read all the same; the message says what and how many."""


class AlreadyFinished(Exception):
    """There is nothing left to do; the message says why. A script prints it and exits with status 0."""
