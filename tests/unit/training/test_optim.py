"""Optimizers and the average: quicker ways to the numbers of PyTorch's own."""

import copy
import shutil

import pytest
import torch

from dynin.errors import CheckpointError, ConfigError
from dynin.training import optim, parallel, processes, state
from dynin.training.config import OptimizerConfig
from tests.unit.training.test_loop import CHANGED, run, small_model

EIGHT = OptimizerConfig(learning_rate=5e-3, matrix_rate=0.0, warmup_steps=2, state_bits=8)
has_compiler = pytest.mark.skipif(not any(map(shutil.which, parallel.COMPILERS)), reason="needs a C++ compiler")


@pytest.fixture
def eight():
    """States in 8 bits without compiling: the same arithmetic, and no minute of waiting."""
    pytest.importorskip("torchao")
    with torch.compiler.set_stance("force_eager"):
        yield


def with_gradients(model, seed):
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw) * 1e-3


def matrices(model):
    return [value for name, value in model.named_parameters() if name.startswith("blocks.") and value.ndim == 2]


@pytest.mark.parametrize("room", [1, 10_000, 2**26], ids=["one by one", "a few", "all"])
def test_muon_of_many_matrices_moves_each_as_pytorch_moves_one(monkeypatch, room):
    monkeypatch.setattr(optim, "TURNED_BYTES", room)
    model, other = small_model(), small_model()
    config = OptimizerConfig(matrix_rate=2e-2, weight_decay=0.1)
    ours = optim.build(model, config)[1]
    theirs = torch.optim.Muon(matrices(other), lr=2e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        with_gradients(model, step)
        with_gradients(other, step)
        matrices(model)[2].grad = matrices(other)[2].grad = None  # as where a part is frozen
        ours.step()
        theirs.step()
    for one, another, start in zip(matrices(model), matrices(other), matrices(small_model()), strict=True):
        assert (one - another).norm() <= 1e-3 * (another - start).norm()
    assert torch.equal(matrices(model)[2], matrices(small_model())[2])


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 8), (2, 8, 24)])
def test_turning_brings_every_singular_value_near_one(shape):
    draw = torch.Generator().manual_seed(0)
    turned = optim.orthogonalized(torch.randn(shape, generator=draw) * 1e-3, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    assert turned.shape == shape
    values = torch.linalg.svdvals(turned.float())
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_the_average_follows_as_its_formula_says():
    model = small_model()
    average = optim.Average(model, 0.9)
    model.norm.weight.requires_grad_(False)
    wanted = {name: value.clone() for name, value in average.tensors.items()}
    for step in (0, 5, 500):
        for parameter in model.parameters():
            parameter.data += 1
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            wanted[name] = decay * wanted[name] + (1 - decay) * parameter.detach()
    for name, value in average.tensors.items():
        assert torch.allclose(value, wanted[name], atol=1e-6), name


def test_parameters_that_do_not_learn_have_no_average():
    model = copy.deepcopy(small_model())
    model.embed.weight.requires_grad_(False)
    average = optim.Average(model, 0.9)
    assert "embed.weight" not in average.tensors
    average.update(model, 0)


@has_compiler
def test_states_in_eight_bits_are_a_quarter_as_large_and_move_alike(eight):
    models, sizes = [], []
    for bits in (32, 8):
        model = small_model()
        (adamw,) = optim.build(model, OptimizerConfig(matrix_rate=0.0, state_bits=bits))
        for step in range(3):
            with_gradients(model, step)
            optim.set_rates([adamw], 0.5)
            adamw.step()
        entry = adamw.state[model.embed.weight]
        held = [part for key in ("exp_avg", "exp_avg_sq") for part in optim.plain(key, entry[key]).values()]
        sizes.append(sum(part.nbytes for part in held))
        models.append(model)
    assert sizes[1] < 0.26 * sizes[0]
    start = small_model().embed.weight
    moved = (models[0].embed.weight - start).norm()
    assert (models[0].embed.weight - models[1].embed.weight).norm() < 0.1 * moved


@has_compiler
def test_a_resumed_run_in_eight_bits_equals_an_unbroken_one_bit_for_bit(tmp_path, eight):
    whole, _ = run(tmp_path / "whole", 8, optimizer=EIGHT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 8, stop_at=5, optimizer=EIGHT, log_every=1, save_every=4)
    names = state.read_tensors(tmp_path / "broken" / "run" / "state", "optimizer")
    assert names["embed.weight.exp_avg.codes"].dtype == torch.uint8
    resumed, _ = run(tmp_path / "broken", 8, optimizer=EIGHT, log_every=1, save_every=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@has_compiler
def test_states_of_other_bits_are_refused(tmp_path, eight):
    run(tmp_path, 5, optimizer=EIGHT)
    more = OptimizerConfig(learning_rate=5e-3, matrix_rate=0.0)
    with pytest.raises(CheckpointError, match=r"cannot be resumed with these settings: optimizer\..*is missing"):
        run(tmp_path, 8, resuming=CHANGED, optimizer=more)


def test_states_in_eight_bits_say_what_they_need(monkeypatch):
    with pytest.raises(ConfigError, match=r"'optimizer\.state_bits' is 4; expected 32 or 8"):
        OptimizerConfig(state_bits=4)
    monkeypatch.setattr(parallel, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(ConfigError, match="'optimizer.state_bits' compiles, but none of the compilers no-such"):
        optim.build(small_model(), EIGHT)
    monkeypatch.setattr(parallel, "COMPILERS", ("python3", "sh"))

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(optim, "import_quietly", missing)
    with pytest.raises(ConfigError, match=r"needs the package torchao; run: pip install 'dynin\[quantize\]'"):
        optim.build(small_model(), EIGHT)
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ConfigError, match="there are 2 processes, which share the states out already"):
        optim.build(small_model(), EIGHT)
