"""Ids on a model hub: what is fetched, which revision, nothing when offline, and never any code.

The hub's own client runs in a process of its own against a hub in miniature on this machine, since it reads the
environment when it is imported.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from model_hub import serve

from dynin import testing

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys
from dynin import checkpoint
from dynin.errors import DyninError
from dynin.pipeline.folder import load
answers = []
for call in json.loads(sys.argv[1]):
    try:
        if call["do"] == "load":
            answers.append(load(call["id"]).vocabulary.name)
        else:
            folder = checkpoint.resolve(call["id"], is_config_only=call["do"] == "config")
            answers.append(sorted(path.name for path in folder.iterdir()))
    except DyninError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A repository with two revisions, of which the first is of another family; both carry code."""
    root = tmp_path_factory.mktemp("hub")
    testing.tiny_published(root / "org" / "tiny" / "main", "llada")
    testing.tiny_published(root / "org" / "tiny" / "v1")
    for revision in (root / "org" / "tiny").iterdir():
        (revision / "modeling_dynin_omni.py").write_text("raise SystemExit('remote code was run')")
        (revision / "pytorch_model.bin").write_bytes(b"pickled")
    (root / "org" / "tiny" / "v1" / "merges.txt").write_text("#version: 0.2\n")
    (root / "org" / "pickled" / "main").mkdir(parents=True)
    shutil.copy(root / "org" / "tiny" / "v1" / "config.json", root / "org" / "pickled" / "main")
    (root / "org" / "pickled" / "main" / "pytorch_model.bin").write_bytes(b"pickled")
    return root


def ask(home, address, calls, **environment):
    """What a fresh process answers to calls such as `load org/name`."""
    told = [dict(zip(("do", "id"), call.split(), strict=True)) for call in calls]
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(told)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(home),
            "HF_ENDPOINT": address,
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_a_revision_is_fetched_without_code_and_read_again_offline(hub, tmp_path):
    with serve(hub) as (address, asked):
        calls = ["config org/tiny", "load org/tiny@v1", "files org/tiny@v1", "load org/tiny"]
        config, omni, files, text = ask(tmp_path, address, calls)
        assert config == ["config.json"]
        assert (omni, text) == ("published", "llada")
        assert {"config.json", "tokenizer.json", "merges.txt", "SHA256SUMS", "model.safetensors.index.json"} < set(
            files
        )
        assert not [line for line in asked if ".py" in line or ".bin" in line]
        asked.clear()
        answers = ask(tmp_path, address, ["load org/tiny@v1", "load org/other"], HF_HUB_OFFLINE="1")
        assert asked == []
    assert answers[0] == "published"
    assert "org/other: no such folder, and it could not be fetched" in answers[1]


def test_what_cannot_be_fetched_is_told(hub, tmp_path):
    with serve(hub) as (address, _):
        revision, repository, pickled = ask(
            tmp_path, address, ["load org/tiny@v9", "load org/none", "load org/pickled"]
        )
    assert "org/tiny@v9: no such folder, and it could not be fetched (RevisionNotFoundError)" in revision
    assert "org/none: no such folder, and it could not be fetched (RepositoryNotFoundError)" in repository
    assert "where only pickled ones are published (.bin), `dynin convert NAME FOLDER --from-pickle`" in pickled
