"""One tiny model for all tests of the pipeline."""

import pytest

from dynin import testing
from dynin.pipeline.dynin import Dynin


@pytest.fixture(scope="session")
def tiny() -> Dynin:
    return testing.tiny()
