"""The CUDA extension compiles, links and loads where nvcc is, with or without a GPU."""

from __future__ import annotations

import pytest

from stylegan_inv.generators.ops import build, cuda

pytestmark = [
    pytest.mark.slow,  # the first time: the libraries stay in the cache
    pytest.mark.skipif(build.find_nvcc() is None, reason="no nvcc here: `pip install stylegan_inv[cuda]` brings it"),
    pytest.mark.skipif(
        build.find_host_compiler() is None or build.find_ninja() is None, reason="no C++ compiler or ninja"
    ),
]


@pytest.mark.parametrize("arch", ["80", "90"])
def test_compiles_links_and_loads(arch):
    path = build.build("cuda", arch)
    assert f"sm{arch}" in path.name
    assert f"sm_{arch}".encode() in path.read_bytes()  # the architecture that its machine code is for
    library = cuda.declare(build.open_library(path))
    # without a GPU the functions still answer, with the runtime's error
    assert library.modulate(cuda._Division(dtype=7), cuda._View(), cuda._View(), None, None) != 0
    assert build.build("cuda", arch) == path
