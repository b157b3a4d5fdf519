"""Where each process of a run computes, and how they meet."""

import pytest
import torch
import torch.distributed as dist

from dynin.errors import ConfigError
from dynin.training import parallel, processes


@pytest.fixture
def joined(monkeypatch) -> dict[str, object]:
    """What `join` asks for, of a machine whose accelerators are only named."""
    asked: dict[str, object] = {}
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: asked.update(device=index))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: asked.update(backend=backend))
    return asked


@pytest.mark.parametrize(
    ("num_devices", "num_processes", "rank", "device", "backend"),
    [(1, 8, 5, 0, "gloo"), (2, 3, 2, 0, "gloo"), (2, 2, 1, 1, None), (4, 2, 1, 1, None), (0, 2, 1, None, None)],
)
def test_more_processes_than_accelerators_share_them(
    monkeypatch, joined, num_devices, num_processes, rank, device, backend
):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: num_devices > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: num_devices)
    for name, value in {"WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, str(value))
    processes.join()
    assert joined.get("device") == device
    assert joined["backend"] == backend


def test_weights_are_not_split_over_processes_that_share_an_accelerator(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    root = torch.nn.Linear(2, 2, device="meta")  # any device that is no processor
    with pytest.raises(ConfigError, match="8 processes share fewer accelerators"):
        parallel.shard(root, [], is_frugal=False)


def test_one_process_meets_nobody(monkeypatch, joined):
    monkeypatch.setenv("WORLD_SIZE", "1")
    processes.join()
    assert joined == {}
