"""Optional packages are imported without a word, and a missing one stays Python's own error."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynin.optional import import_quietly, quietly

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_module_stays_an_import_error():
    with pytest.raises(ImportError):
        import_quietly("dynin.nothing")


def test_loggers_speak_again_afterwards():
    logger = logging.getLogger("torchao")
    before = logger.level
    with quietly():
        assert logger.level == logging.ERROR
    assert logger.level == before


def test_building_the_published_speech_tokenizer_says_nothing():
    pytest.importorskip("transformers")
    script = "from narrow_emova import emova\nemova()"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
