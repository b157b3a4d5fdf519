"""Every error a user can meet: what was received, what was expected, what to do.

Enters: nothing. Leaves: nine exception classes. Does not know: anything else of the package.
"""


class DyninError(Exception):
    """Base of every error raised on purpose; the command line prints its message and exits with status 2."""


class ConfigError(DyninError, ValueError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class MediaError(DyninError, ValueError):
    """A picture, sound or video cannot be read, is outside the limits, or cannot be written."""


class VocabularyError(DyninError, ValueError):
    """An id or code is outside its range, or two vocabulary layouts disagree."""


class CheckpointError(DyninError, ValueError):
    """A weight file is missing, damaged, incomplete, or belongs to another model."""


class RequestError(DyninError, ValueError):
    """What was asked for cannot be done: ambiguous, out of limits, or not supported by this model."""


class DataError(DyninError, ValueError):
    """A row of training data is faulty, or a source of rows is missing, damaged, empty or made for another model."""


class TrainingError(DyninError, ArithmeticError):
    """A training cannot go on: its loss is no longer a number."""


class DecodingError(DyninError, ArithmeticError):
    """A decoding cannot go on: what the network says is no longer a number."""
