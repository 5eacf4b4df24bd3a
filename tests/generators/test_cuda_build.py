"""The CUDA kernels compile, link and load where nvcc is installed, with or without a GPU."""

from __future__ import annotations

import pytest

from stylegan_inv.generators.ops import build, compilers, cuda

pytestmark = [
    pytest.mark.slow,  # the first time; later the cache has the libraries
    pytest.mark.skipif(compilers.find_nvcc() is None, reason="no nvcc: run `pip install stylegan_inv[cuda]`"),
    pytest.mark.skipif(
        compilers.find_host_compiler() is None or compilers.find_ninja() is None, reason="no C++ compiler or ninja"
    ),
]


@pytest.mark.parametrize("arch", ["80", "90"])
def test_compiles_links_and_loads(arch):
    path = build.build("cuda", arch)
    assert f"sm{arch}" in path.name
    assert f"sm_{arch}".encode() in path.read_bytes()  # the architecture of its machine code
    library = cuda.declare(build.open_library(path))
    # Without a GPU the functions return the runtime's error.
    assert library.modulate(cuda._Division(dtype=7), cuda._View(), cuda._View(), None, None) != 0
    assert build.build("cuda", arch) == path
