import pytest

from dynin.data.records.encoder import RowEncoder
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.testing import tiny


@pytest.fixture(scope="session")
def encoder() -> RowEncoder:
    """The side of a tiny model with random tokenizers."""
    model = tiny()
    return RowEncoder(
        tasks=EMBEDDED_TASKS,
        vocabulary=model.vocabulary,
        tokenizers=model.tokenizers,
        max_len=model.model.config.max_len,
    )
