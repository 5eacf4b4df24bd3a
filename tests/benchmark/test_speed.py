"""Measurements of speed: arithmetic, compared forms and output. No test depends on the speed of the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.benchmark.speed.other_implementations import grouped, load_implementation
from stylegan_inv.benchmark.speed.synthesis_speed import convolution_flops
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.utils import timing


@pytest.mark.parametrize(("resolution", "gflop"), [(256, 90.24), (1024, 148.5)])
def test_operations_of_config_f(resolution, gflop):
    with torch.device("meta"):
        generator = Generator(resolution)
    # The reference values are those of the 3x3 convolutions; ToRGB adds 0.09 and 0.39.
    assert convolution_flops(generator) / 1e9 == pytest.approx(gflop, rel=5e-3)


def test_calls_alternate_and_medians_are_returned(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 0.0)
    order, seconds = [], {"a": iter([100, 3, 1, 2]), "b": iter([100, 30, 50, 10])}
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: now[0] / 2)

    def call(name):
        order.append(name)
        now[0] += next(seconds[name])
        next(clock)

    samples = timing.interleave({"a": lambda: call("a"), "b": lambda: call("b")}, repeats=3)
    assert order == ["a", "b"] * 4  # the first repetition is a warm-up
    assert samples["a"].seconds == 2 and samples["a"].cpu_seconds == 1
    assert samples["b"].seconds == 30 and samples["b"].spread == 40


def test_rows_and_bounds():
    limits = timing.Roofline(bytes_per_second=10.0, flops=100.0)
    assert limits.bound(flops=200, moved=5) == 2 and limits.bound(flops=20, moved=50) == 5
    row = timing.row("it", "forward", timing.Sample(4, 1, 3), timing.Sample(8, 1, 3), bound=2, peak=None)
    assert row["times_reference"] == 2 and row["of_roofline"] == 0.5
    measured = timing.roofline(torch.float32, repeats=1)
    assert 1e8 < measured.bytes_per_second < 1e13 and 1e9 < measured.flops < 1e14


# In a separate process and with mmap: the memory that malloc returns to the system depends on earlier allocations.
PEAK = """
import mmap
from stylegan_inv.utils import timing

def resident(megabytes):
    block = mmap.mmap(-1, megabytes * 10**6)
    block.write(bytes([1]) * len(block))
    return block

kept, made_once = resident(80), []

def call():
    for _ in range(2):  # one at a time: the peak includes one block and the bytes that fill it
        resident(30).close()
    if not made_once:
        made_once.append(resident(40))

print(timing.peak_memory(call))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="requires /proc")
def test_peak_memory():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(60, abs=8)


@pytest.mark.parametrize("clamp", [None, 0.5])
def test_grouped_form_is_the_same_network(clamp):
    torch.manual_seed(0)
    generator = Generator(32, z_dim=4, w_dim=6, mapping_layers=1, channel_base=256, channel_max=9, conv_clamp=clamp)
    for layer in generator.synthesis.layers():
        nn.init.normal_(layer.noise_strength)
        nn.init.normal_(layer.bias)
    generator.double().requires_grad_(False)
    w = torch.randn(3, generator.num_ws, 6, dtype=torch.float64)
    # The epsilon of the demodulation is scaled in only one of them.
    torch.testing.assert_close(grouped(generator)(w), generator.synthesis(w), rtol=1e-6, atol=1e-6)


ROSINALITY = """
import torch
from op import compiled
from stylegan_inv.generators import Generator as Ours, from_rosinality
class ModulatedConv2d(torch.nn.Module):
    fused = None
class Generator(torch.nn.Module):
    def __init__(self, size, style_dim, n_mlp, channel_multiplier):
        super().__init__()
        self.convolution = ModulatedConv2d()
        self.ours = Ours(size, w_dim=style_dim, z_dim=style_dim, mapping_layers=n_mlp,
                         channel_base=16384 * channel_multiplier)
    def load_state_dict(self, state):
        self.ours.load_state_dict({**from_rosinality(state), "mapping.w_avg": self.ours.w_avg})
    def forward(self, styles, input_is_latent, randomize_noise):
        assert input_is_latent and not randomize_noise
        self.ours.asked = self.convolution.fused
        return self.ours.synthesis(styles[0]) + self.convolution.fused, None
"""
NVIDIA = """
import torch
from stylegan_inv.generators import Generator as Ours, from_nvidia
class Generator(torch.nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, resolution, colours, mapping_kwargs, {arguments}):
        super().__init__()
        assert c_dim == 0 and {check}
        self.ours = Ours(resolution, z_dim=z_dim, w_dim=w_dim, mapping_layers=mapping_kwargs["num_layers"],
                         channel_base={base}, channel_max={most})
    def load_state_dict(self, state):
        assert any(key.endswith("resample_filter") for key in state)
        self.ours.load_state_dict(from_nvidia(state))
    def synthesis(self, w, noise_mode, fused_modconv=True):
        assert noise_mode == "const"
        return self.ours.synthesis(w) + fused_modconv
"""


def checkout(folder, kind):
    """Writes a package with the interface of a public implementation and our generator inside."""
    folder.mkdir()
    if kind == "rosinality":
        (folder / "op").mkdir()
        (folder / "op" / "__init__.py").write_text(
            "from torch.utils.cpp_extension import load\ncompiled = load('upfirdn2d', sources=['no such file'])\n"
        )
        (folder / "model.py").write_text(ROSINALITY)
        return folder
    for name in ("training", "dnnlib"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    if kind == "ada":
        code = NVIDIA.format(
            arguments="synthesis_kwargs",
            check="synthesis_kwargs['num_fp16_res'] == 0",
            base="synthesis_kwargs['channel_base']",
            most="synthesis_kwargs['channel_max']",
        )
        (folder / "training" / "networks.py").write_text(code)
    else:
        arguments = "channel_base, channel_max, num_fp16_res, conv_clamp"
        code = NVIDIA.format(arguments=arguments, check="num_fp16_res == 0", base="channel_base", most="channel_max")
        (folder / "training" / "networks_stylegan2.py").write_text(code)
    return folder


@pytest.mark.parametrize("kind", ["rosinality", "ada", "stylegan3"])
def test_other_implementations_get_our_weights(kind, tmp_path):
    torch.manual_seed(0)
    generator = Generator(8, z_dim=8, w_dim=8, mapping_layers=2, channel_base=16384, channel_max=512)
    w = torch.randn(1, generator.num_ws, 8)
    before = set(sys.modules), list(sys.path)
    try:
        found = load_implementation(checkout(tmp_path / "other", kind), generator)
        (fused, first), (unfused, second) = found.items()
        assert unfused == f"{fused}, not fused"
        with torch.no_grad():
            want = generator.synthesis(w)
            torch.testing.assert_close(first(w), want + 1)
            torch.testing.assert_close(second(w), want)
            torch.testing.assert_close(first(w), want + 1)
        assert not any(entry.startswith(str(tmp_path)) for entry in sys.path)  # torch may add entries of its own
    finally:
        for name in set(sys.modules) - before[0]:
            if name.split(".")[0] in ("model", "op", "training", "dnnlib"):
                del sys.modules[name]


def test_other_folders_are_rejected(tmp_path, capsys):
    generator = Generator(8, z_dim=4, w_dim=4, mapping_layers=1, channels={4: 2, 8: 2})
    with pytest.raises(UserError, match="neither a checkout"):
        load_implementation(tmp_path, generator)
    (tmp_path / "op").mkdir()
    (tmp_path / "model.py").write_text("import there_is_no_such_module_anywhere")
    with pytest.raises(UserError, match="does not run here: ModuleNotFoundError: .*no_such_module"):
        load_implementation(tmp_path, generator)
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["generator", "--resolution", "8", "--repeats", "1", "--against", str(tmp_path / "op")])
    assert stop.value.code == 2 and "neither a checkout" in capsys.readouterr().err


@pytest.mark.long
def test_generator_table_and_json(tmp_path, capsys):
    path = tmp_path / "generator.json"
    threads = str(torch.get_num_threads())
    options = ["--resolution", "8", "--channel-base", "64", "--batch", "2", "--repeats", "1", "--threads", threads]
    benchmark.main(["generator", *options, "--json", str(path)])
    text = capsys.readouterr().out
    assert "8 px, batch 2, float32" in text and "GFLOP/s" in text and "grouped" in text
    result = json.loads(path.read_text())
    rows = result["rows"]
    forms = {row["what"] for row in rows}
    new = {f"frozen, {argument}" for argument in ("features", "returned", "styles", "weights")}
    assert forms == {"frozen", "frozen, no C++", "modules", "grouped"} | new
    assert "x frozen" in text and all(row["times_frozen"] == 1 for row in rows if row["what"] == "frozen")
    assert len(rows) == 16 and {row["pass"] for row in rows} == {"forward", "with backward"}
    assert all(row["seconds"] > 0 and row["of_roofline"] > 0 for row in rows)
    assert all(row["difference"] < 1e-5 for row in rows)
    assert all(row["times_reference"] == 1 for row in rows if row["what"] == "modules")
    assert result["options"]["batch"] == 2 and result["machine"]["bytes_per_second"] > 0
    benchmark.main(["generator", *options, "--only", "frozen", "--dtype", "bfloat16", "--json", str(path)])
    assert {row["what"] for row in json.loads(path.read_text())["rows"]} == {
        "frozen",
        "frozen, no C++",
        "modules",
    } | new
    benchmark.main(["generator", *options, "--only", "grouped", "--json", str(path)])
    assert all(row["times_frozen"] is None for row in json.loads(path.read_text())["rows"])


@pytest.mark.long
def test_operations_table(tmp_path, capsys):
    path = tmp_path / "ops.json"
    threads = str(torch.get_num_threads())
    benchmark.main(
        ["ops", "--resolution", "8", "--channel-base", "64", "--repeats", "1", "--threads", threads]
        + ["--json", str(path)]
    )
    names = {row["what"] for row in json.loads(path.read_text())["rows"]}
    assert {"blur, ref", "blur, fast", "layer, up 2, ref", "layer, up 1, frozen, no C++"} <= names
    assert "layer, up 1, ref" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["ops", "--repeats", "0"], ["generator", "--batch", "0"]])
def test_invalid_options(arguments):
    with pytest.raises(UserError, match="=0: expected a whole number from 1 to"):
        benchmark.options(arguments)
