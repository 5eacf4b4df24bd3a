"""The build of kernels, with real compilers, locks and killed processes, on sources of one line."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import build, compilers
from stylegan_inv.generators.ops.__main__ import main

pytestmark = pytest.mark.skipif(
    compilers.find_host_compiler() is None or compilers.find_ninja() is None, reason="no C++ compiler or no ninja"
)
EXPORT = 'extern "C" __attribute__((visibility("default")))'


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A source folder whose library returns 42, an empty cache, and a compiler that logs and can be paused.

    The compiler pauses while the file ``hold`` exists, and ``log`` gets a line for each compilation.
    """
    monkeypatch.setenv("STYLEGAN_INV_CACHE", str(tmp_path / "cache"))
    compiler = tmp_path / "logging compiler"  # with a space, on purpose
    (real,) = compilers.find_host_compiler()
    compiler.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *--version*) exec {real} "$@";; esac\n'
        f'case "$*" in *" -c "*) echo $$ >> "{tmp_path}/log";; esac\n'
        f'while [ -e "{tmp_path}/hold" ]; do sleep 0.05; done\n'
        f'exec {real} "$@"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", f"'{compiler}'")
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.cpp").write_text(f"{EXPORT} int answer() {{ return 42; }}\n")
    compilers.compiler_version.cache_clear()
    return folder


def answer(library: Path) -> int:
    # A copy, because the loader would return the library in memory for the same path.
    copy = shutil.copy(library, library.with_name(f"{time.monotonic_ns()}.so"))
    return ctypes.CDLL(copy).answer()


def start(sources: Path, **popen) -> subprocess.Popen:
    """Starts a process that builds."""
    code = "import sys; from pathlib import Path; from stylegan_inv.generators.ops import build\n"
    code += "print(build.build('cpu', sources=Path(sys.argv[1])))"
    return subprocess.Popen([sys.executable, "-c", code, str(sources)], stdout=subprocess.PIPE, text=True, **popen)


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def compilations(sources: Path) -> int:
    log = sources.with_name("log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_builds_once_and_again_after_a_change(sources):
    first = build.build("cpu", sources=sources)
    assert answer(first) == 42
    assert build.build("cpu", sources=sources) == first and compilations(sources) == 1
    (sources / "answer.cpp").write_text((sources / "answer.cpp").read_text().replace("42", "43"))
    second = build.build("cpu", sources=sources)
    assert second != first and answer(second) == 43 and answer(first) == 42
    (sources / "table.h").write_text("// headers count\n")
    assert build.build("cpu", sources=sources) != second
    assert not list(build.cache_folder().glob("*.tmp-*"))


def test_name_depends_on_compiler_torch_cuda_and_processor(sources, monkeypatch):
    names = [build.plan("cpu", sources=sources).name]
    for target, value in [("torch.__version__", "9.9"), ("torch.version.cuda", "99.9")]:
        monkeypatch.setattr(target, value)
        names.append(build.plan("cpu", sources=sources).name)
    monkeypatch.setattr(compilers, "cpu_description", lambda: "another processor")
    names.append(build.plan("cpu", sources=sources).name)
    monkeypatch.setattr(compilers, "compiler_version", lambda compiler: "another compiler")
    names.append(build.plan("cpu", sources=sources).name)
    assert len(set(names)) == len(names)


def test_flags_of_a_source(sources):
    text = '// flags: -DANSWER=7 "-DTEXT=\\"$a b\\""\n'
    text += f"{EXPORT} int answer() {{ return ANSWER + sizeof(TEXT); }}\n"
    (sources / "answer.cpp").write_text(text)
    assert answer(build.build("cpu", sources=sources)) == 7 + len("$a b") + 1


def test_two_processes_build_once(sources):
    hold = sources.with_name("hold")
    hold.touch()
    processes = [start(sources), start(sources)]
    wait_for(lambda: compilations(sources) == 1)
    time.sleep(0.5)  # long enough for the second one to start, if nothing prevented it
    assert not list(build.cache_folder().glob("*.so")), "an unfinished library is visible"
    hold.unlink()
    paths = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert compilations(sources) == 1 and len(paths) == 1
    assert answer(Path(paths.pop())) == 42


def test_a_killed_build_is_repeated(sources):
    hold = sources.with_name("hold")
    hold.touch()
    process = start(sources, start_new_session=True)
    wait_for(lambda: compilations(sources) == 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (lock,) = build.cache_folder().glob("*.lock")
    assert lock.read_text().startswith(str(process.pid))  # it leaves its process id and an unfinished build
    assert len(list(build.cache_folder().glob("*.tmp-*"))) == 1
    hold.unlink()
    assert answer(build.build("cpu", sources=sources, wait_seconds=0.2)) == 42
    assert not list(build.cache_folder().glob("*.tmp-*"))
    assert lock.read_text().startswith(str(os.getpid()))


def test_waiting_for_a_lock_ends(sources):
    build.cache_folder().mkdir(parents=True)
    lock = build.cache_folder() / f"{build.plan('cpu', sources=sources).name}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("12345 on elsewhere")
        file.flush()
        with pytest.raises(compilers.BuildError, match="process 12345 on elsewhere has been building"):
            build.build("cpu", sources=sources, wait_seconds=0.2)
    # The file still exists, but its owner has ended.
    assert answer(build.build("cpu", sources=sources, wait_seconds=0.2)) == 42


def test_a_file_system_without_locks(sources, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    other = build.cache_folder() / f"{build.plan('cpu', sources=sources).name}.tmp-other"
    other.mkdir(parents=True)  # another process may use it
    assert answer(build.build("cpu", sources=sources)) == 42 and other.is_dir()


def test_errors_quote_the_compiler(sources):
    (sources / "answer.cpp").write_text("int answer( {\n")
    with pytest.raises(compilers.BuildError, match=r"failed: .*answer\.cpp:1.*error") as info:
        build.build("cpu", sources=sources)
    assert "CXX" in info.value.cure and "\n" not in str(info.value)
    assert not list(build.cache_folder().glob("*.tmp-*")) and not list(build.cache_folder().glob("*.so"))


def test_no_compiler(sources, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(compilers.BuildError, match=r"no C\+\+ compiler was found"):
        build.build("cpu", sources=sources)
    monkeypatch.setenv("CXX", "/bin/false")
    with pytest.raises(compilers.BuildError, match="false failed"):
        build.build("cpu", sources=sources)


def test_no_nvcc(sources, monkeypatch, tmp_path):
    (sources / "kernel.cu").write_text("")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nothing"))
    with pytest.raises(compilers.BuildError, match=r"\(nvcc\) was found.*pip install stylegan_inv\[cuda\]"):
        build.build("cuda", "90", sources=sources)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    (tmp_path / "toolkit" / "bin").mkdir(parents=True)
    nvcc = tmp_path / "toolkit" / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho \"nvcc fatal   : Unsupported gpu architecture 'compute_90'\"; exit 1\n")
    nvcc.chmod(0o755)
    with pytest.raises(compilers.BuildError, match="Unsupported gpu architecture.*toolkit that does"):
        build.build("cuda", "90", sources=sources)
    with pytest.raises(UserError, match="'sm_90' is not a GPU architecture"):
        build.build("cuda", "sm_90", sources=sources)


def test_no_ninja(sources, monkeypatch):
    monkeypatch.setattr(compilers, "find_ninja", lambda: None)
    with pytest.raises(compilers.BuildError, match="pip install ninja"):
        build.build("cpu", sources=sources)


def test_ninja_need_not_be_on_the_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(compilers.sysconfig, "get_path", lambda name: str(tmp_path))
    assert compilers.find_ninja() is None
    (tmp_path / "ninja").write_text("#!/bin/sh\n")
    (tmp_path / "ninja").chmod(0o755)
    assert compilers.find_ninja() == str(tmp_path / "ninja")


# Root may write anywhere; without its capabilities it is an ordinary user.
DROP_PRIVILEGES = """
import ctypes
ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops Linux capabilities")
def test_read_only_cache(sources):
    cache = build.cache_folder()
    cache.mkdir(parents=True)
    cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code = "import sys; from pathlib import Path; from stylegan_inv.generators.ops import build" + DROP_PRIVILEGES
    code += "build.SOURCES = Path(sys.argv[1])\nprint(build.load('cpu'), build.load('cpu'))"
    (sources / "cpu").mkdir()
    shutil.move(sources / "answer.cpp", sources / "cpu")
    command = [sys.executable, "-c", code, str(sources)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["None", "None"], done.stderr
    assert done.stderr.count("RuntimeWarning") == 1  # one warning for two calls
    assert f"cannot write to the cache folder {cache} (Permission denied)" in done.stderr
    assert "STYLEGAN_INV_CACHE" in done.stderr
    # A library that another user built there is used.
    cache.chmod(stat.S_IRWXU)
    built = build.build("cpu", sources=sources / "cpu")
    cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
    done = subprocess.run(command, capture_output=True, text=True)
    assert str(built) in done.stdout and not done.stderr
    cache.chmod(stat.S_IRWXU)


def test_libraries_of_others_are_built_anew(sources, caplog, monkeypatch):
    """A library is executed when it is loaded, so only its user, or root, may have written it."""
    library = build.build("cpu", sources=sources)
    assert not library.stat().st_mode & 0o022 and not library.parent.stat().st_mode & 0o022
    for change in (
        lambda: library.chmod(0o775),
        lambda: library.chmod(0o757),
        lambda: library.parent.chmod(0o777),
        lambda: (library.rename(library.with_suffix(".other")), library.symlink_to(library.with_suffix(".other"))),
    ):
        caplog.clear()
        before = compilations(sources)
        change()
        assert answer(build.build("cpu", sources=sources)) == 42
        rebuilt = compilations(sources) - before
        assert rebuilt == (1 if "building it anew" in caplog.text else 0)
        assert not library.is_symlink() and not library.stat().st_mode & 0o022
        assert not library.parent.stat().st_mode & 0o022
    assert compilations(sources) == 4

    monkeypatch.setattr(build.os, "getuid", lambda: 12345)  # the files are of another user now, unless they are root's
    if library.stat().st_uid == 0:
        monkeypatch.setattr(build, "_is_own", lambda path: False)
    with pytest.raises(build.BuildError, match="belongs to another user"):
        build.build("cpu", sources=sources)


def test_one_warning_names_cause_and_cure(sources, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(build, "SOURCES", sources.parent)
    sources.rename(sources.with_name("cpu"))
    build.load.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert build.load("cpu") is None and build.load("cpu") is None
    build.load.cache_clear()
    (warning,) = caught
    assert "no C++ compiler was found" in str(warning.message) and "apt install g++" in str(warning.message)


def test_a_library_that_does_not_load(tmp_path):
    (tmp_path / "broken.so").write_text("not a library")
    with pytest.raises(compilers.BuildError, match="does not load"):
        build.open_library(tmp_path / "broken.so")


def test_nvcc_of_the_python_package_is_found(tmp_path, monkeypatch):
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("torch.version.cuda", "13.2")
    for home in ("cu12", "cu13", "cu14"):
        nvcc = tmp_path / "nvidia" / home / "bin" / "nvcc"
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text("#!/bin/sh\n")
        nvcc.chmod(0o755)
    assert compilers.find_nvcc() == str(tmp_path / "nvidia" / "cu13" / "bin" / "nvcc")


def test_diagnosis(sources, monkeypatch, capsys):
    monkeypatch.setattr(build, "SOURCES", sources.parent)
    sources.rename(sources.with_name("cpu"))
    main([])
    text = capsys.readouterr().out
    assert "CPU kernels   not built yet" in text and str(build.cache_folder()) in text
    assert "On the CPU, the kernels run." in text
    assert ("On the GPU, " in text) == torch.cuda.is_available()
    main(["--build", "cpu"])
    (built,) = build.cache_folder().glob("*.so")
    assert str(built) in capsys.readouterr().out
    main([])
    assert f"ready ({built.name})" in capsys.readouterr().out
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit, match="1"):
        main(["--build", "cpu"])
    assert "no C++ compiler was found" in capsys.readouterr().err
    main([])
    text = capsys.readouterr().out
    assert "cannot be built: no C++ compiler was found" in text and "On the CPU, plain PyTorch runs." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--build", "cpu", "--arch", "90"], "error: --arch requires --build cuda"),
        (["--build", "cuda", "--arch", "ninety"], "error: 'ninety' is not a GPU architecture"),
    ],
)
def test_architectures_belong_to_cuda(arguments, message, monkeypatch, tmp_path, capsys):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "nvcc").chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.startswith(message)
