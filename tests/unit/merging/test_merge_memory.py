"""A merge holds one shard of the result and little else, whatever the size of the models."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dynin import testing
from dynin.model.config import PUBLISHED_8B
from dynin.model.convert import expected_shapes, published_names
from dynin.repository import INDEX

MIB = 2**20
WIDE = replace(PUBLISHED_8B, d_model=256, num_heads=2, num_kv_heads=2, num_layers=4, mlp_dim=8192)
SHARD = 72 * MIB
MERGE = """
import json, sys
from pathlib import Path
from dynin.merging import merge, recipe

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))

base, other, place, method, shard = sys.argv[1:]
told = recipe.Recipe(name="x", method=method, density=(0.5,) if method == "dare_linear" else (1.0,))
prepared = merge.prepare(merge.Request(base=base, others=(other,), recipe=told, max_shard_bytes=int(shard)))
seen = [own()]
merge.write(prepared, told, Path(place), lambda done, total: seen.append(own()))
print(json.dumps([seen[0], max(seen)]))
"""


def hollow(folder):
    """A model of one shard, whose numbers are a hole in a file and so all 0."""
    testing.tiny_published(folder)
    for path in [*folder.glob("*.safetensors"), folder / INDEX, folder / "SHA256SUMS"]:
        path.unlink()
    values = json.loads((folder / "config.json").read_text())
    values |= {"d_model": WIDE.d_model, "n_layers": WIDE.num_layers, "mlp_hidden_size": WIDE.mlp_dim}
    (folder / "config.json").write_text(json.dumps(values))
    shapes, header, start = expected_shapes(WIDE), {}, 0
    for theirs, ours in published_names(WIDE).items():
        stop = start + 2 * math.prod(shapes[ours])
        header[theirs] = {"dtype": "BF16", "shape": list(shapes[ours]), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)
    return start


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux alone")
@pytest.mark.parametrize("method", ["dare_linear"])
def test_a_merge_holds_one_shard_of_the_result(tmp_path, method):
    size = hollow(tmp_path / "base")
    hollow(tmp_path / "other")
    arguments = [str(tmp_path / name) for name in ("base", "other", "new")] + [method, str(SHARD)]
    done = subprocess.run([sys.executable, "-c", MERGE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, most = json.loads(done.stdout)
    assert size > 2.5 * SHARD
    assert most - before < SHARD / MIB + 50
    assert sum(path.stat().st_size for path in (tmp_path / "new").glob("*.safetensors")) >= size
