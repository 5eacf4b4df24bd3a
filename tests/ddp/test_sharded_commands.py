"""invert and evaluate with several processes: the result of one process, each image once, even if a process dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.saved_codes import read_latents
from stylegan_inv.methods.common.base import Inversion
from tests.cli import run_cli
from tests.fake_run import RESOLUTION, TwoSteps, make_run, write_config
from tests.forks import join, launch

IMAGES, BATCH, BROKEN, SMALL = 17, 2, 5, 9
SLURM = {"SLURM_PROCID": "{rank}", "SLURM_NTASKS": "{count}", "SLURM_LOCALID": "{rank}", "SLURM_JOB_NAME": "invert"}
TORCHRUN = {"RANK": "{rank}", "WORLD_SIZE": "{count}", "LOCAL_RANK": "{rank}"}


class Recording(TwoSteps):
    """Records every image that it inverts; the rank ``DIES`` is killed at its batch ``AT`` (default: the third)."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.calls = 0

    def invert(self, images: Tensor) -> Inversion:
        self.calls += 1
        if os.environ.get("DIES") == os.environ.get("RANK", "0") and self.calls == int(os.environ.get("AT", 3)):
            os.kill(os.getpid(), signal.SIGKILL)
        with open(os.environ["INVERTED"], "a") as record:
            record.writelines(f"{value:.6f}\n" for value in images.mean((1, 2, 3)).tolist())
        # Random numbers must not depend on the process either.
        found = super().invert(images)
        return Inversion(found.w + torch.randn(1) * 1e-3, found.image, steps=found.steps)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, photographs of which one is broken and one is small, and their inversion by one process."""
    folder = tmp_path_factory.mktemp("many ranks")
    run = make_run(folder / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["method"]["_target_"] = "tests.ddp.test_sharded_commands.Recording"
    config["dataset"] = {
        "_target_": "stylegan_inv.data.SynthFacesDataModule", "resolution": 64, "test_size": 5, "val_batch_size": 2,
        "obstacles": 1.0,
    }  # fmt: skip
    write_config(run, config)
    torch.save({"state_dict": {"scale": torch.ones(1)}, "method": "Recording"}, run / "checkpoints" / "last.ckpt")
    generator = torch.Generator().manual_seed(0)
    (folder / "photos").mkdir()
    for number in range(IMAGES):
        side = 12 if number == SMALL else 20
        pixels = torch.randint(0, 256, (side, side, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / "photos" / f"{number}.png")
    (folder / "photos" / f"{BROKEN}.png").write_bytes(b"")
    (folder / "three").mkdir()
    for number in range(3):
        shutil.copy(folder / "photos" / f"{number}.png", folder / "three")
    assert join([start(folder, "invert", *inversion(folder, "alone"))], 300) == [0], (folder / "log.0").read_text()
    # What several processes find is compared with this, as the other files are.
    warnings = json.loads((folder / "alone" / "warnings.json").read_text())
    assert [image["name"] for image in warnings["small_image"]["images"]] == [f"{SMALL}.png"]
    return folder


def inversion(folder: Path, output: str, *more: str) -> tuple[str, ...]:
    return (
        f"run={folder}/run", f"input={folder}/photos", f"output={folder}/{output}", f"batch_size={BATCH}",
        "on_bad_image=skip", f"resolution={RESOLUTION}", *more,
    )  # fmt: skip


def command(module: str, *arguments: str) -> None:
    sys.argv = [module, *arguments]
    {"invert": invert, "evaluate": evaluate}[module].main()


def start(folder: Path, module: str, *arguments: str, rank: int = 0, count: int = 1, **more: str):
    """Starts one rank in a fork; its output goes to ``log.<rank>``."""
    variables = {} if count == 1 else SLURM if more.pop("SLURM", "") else TORCHRUN
    environment = {name: text.format(rank=rank, count=count) for name, text in variables.items()}
    record = str(folder / "inverted")
    return launch(command, module, *arguments, log=folder / f"log.{rank}", **environment, INVERTED=record, **more)


def all_ranks(folder: Path, module: str, *arguments: str, count: int, **more: str) -> list[int | None]:
    for log in folder.glob("log.*"):
        log.unlink()
    return join([start(folder, module, *arguments, rank=r, count=count, **more) for r in range(count)], 300)


def recorded(folder: Path) -> Counter[str]:
    """How often each image was inverted since the last call."""
    counts = Counter((folder / "inverted").read_text().split())
    (folder / "inverted").unlink()
    return counts


def assert_same_folder(one: Path, other: Path) -> None:
    """Every file of two results is the same, the codes as tensors."""
    first, second = read_latents(one), read_latents(other)
    assert torch.equal(first.w, second.w) and first.names == second.names and first.metadata == second.metadata
    files = [{p.relative_to(f) for p in f.rglob("*") if p.is_file() and "latents" not in p.name} for f in (one, other)]
    assert files[0] == files[1]
    for file in files[0]:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_inversion_on_several_ranks_is_that_of_one(world: Path) -> None:
    (world / "inverted").unlink(missing_ok=True)
    name, count = "together", 3
    assert all_ranks(world, "invert", *inversion(world, name), count=count) == [0] * count
    assert set(recorded(world).values()) == {1}
    assert_same_folder(world / "alone", world / name)
    logs = [(world / f"log.{rank}").read_text() for rank in range(count)]
    assert sum("16 images inverted, mean squared error" in log for log in logs) == 1
    assert sum(f"1 of {IMAGES} files cannot be read" in log for log in logs) == 1
    own = [int(log.split(f"of {count}: ")[1].split()[0]) for log in logs]
    assert sum(own) == IMAGES - 1 and max(own) - min(own) <= 2 * BATCH


def test_a_killed_rank_is_continued_by_another_number_of_ranks(world: Path) -> None:
    """Two ranks of torchrun, of which one is killed; then three of SLURM; then a single process."""
    (world / "inverted").unlink(missing_ok=True)
    codes = all_ranks(world, "invert", *inversion(world, "killed"), count=2, DIES="1")
    assert codes == [0, -signal.SIGKILL]
    assert "other ranks are still working" in (world / "log.0").read_text()
    assert len(list((world / "killed" / "unfinished").glob("part_*"))) == 5 + 2
    (world / "killed" / "unfinished" / ".part_00003.0000.partial.safetensors").write_bytes(b"cut short")
    before = recorded(world)
    assert all_ranks(world, "invert", *inversion(world, "killed"), count=3, SLURM="yes") == [0, 0, 0]
    assert set((before + recorded(world)).values()) == {1}, "nothing twice, nothing left out"
    assert_same_folder(world / "alone", world / "killed")
    assert all_ranks(world, "invert", *inversion(world, "killed"), count=1) == [0]
    assert "finished before" in (world / "log.0").read_text() and not (world / "inverted").exists()


def test_more_ranks_than_images_and_codes_in_shards(world: Path) -> None:
    arguments = [*inversion(world, "few"), f"input={world}/three", "shard_images=2", "batch_size=1"]
    assert all_ranks(world, "invert", *arguments, count=4) == [0] * 4
    shards = sorted(path.name for path in (world / "few").glob("latents*"))
    assert shards == ["latents-00001-of-00002.safetensors", "latents-00002-of-00002.safetensors"]
    assert read_latents(world / "few").names == ["0.png", "1.png", "2.png"]
    assert read_latents(world / "few" / shards[1]).names == ["2.png"]
    (world / "few" / shards[0]).unlink()
    with pytest.raises(UserError, match="1 of 2 files of codes"):
        read_latents(world / "few")


def test_another_command_is_not_mixed_in(world: Path) -> None:
    codes = all_ranks(world, "invert", *inversion(world, "other"), count=2, DIES="0")
    assert codes == [-signal.SIGKILL, 0], [log.read_text() for log in sorted(world.glob("log.*"))]
    assert all_ranks(world, "invert", *inversion(world, "other", "mode=fit"), count=1) == [2]
    log = (world / "log.0").read_text()
    assert log.startswith("error: output=") and "beginning of another command" in log
    assert join([start(world, "invert", *inversion(world, "other", "mode=fit", "overwrite=true"))], 300) == [0]
    assert len(read_latents(world / "other").names) == IMAGES - 1


def test_the_rank_whose_shard_has_a_broken_image_reports_it(world: Path) -> None:
    arguments = [*inversion(world, "strict"), "on_bad_image=error"]
    rank = BROKEN // BATCH % 3
    codes = all_ranks(world, "invert", *arguments, count=3)
    assert codes == [2 if r == rank else 0 for r in range(3)]
    assert f"error: rank {rank} of 3: {world}/photos/{BROKEN}.png: empty file" in (world / f"log.{rank}").read_text()


# -- evaluate ----------------------------------------------------------------------------------------------------------


def scores(folder: Path) -> tuple[dict, str]:
    found = json.loads((folder / "metrics.json").read_text())
    del found["protocol"]["computed by"], found["seconds"]
    return found, (folder / "per_image.csv").read_text()


@pytest.mark.parametrize("count", [2, 4])
def test_evaluation_on_several_ranks_is_that_of_one(world: Path, count: int) -> None:
    """Five images in three batches: shards of three and two images, or of two, two, one and none."""
    arguments = [f"run={world}/run", "speed.seconds=0", "seed=3"]
    if not (world / "scores").exists():
        assert join([start(world, "evaluate", *arguments, f"output={world}/scores")], 300) == [0]
    output = world / f"scores{count}"
    more = {"DIES": "0", "AT": "2"} if count == 2 else {}
    codes = all_ranks(world, "evaluate", *arguments, f"output={output}", count=count, **more)
    if more:
        assert codes == [-signal.SIGKILL, 0] and not (output / "metrics.json").exists()
        codes = all_ranks(world, "evaluate", *arguments, f"output={output}", count=count)
        assert "images scored" not in (world / "log.1").read_text(), "its scores were kept"
    assert codes == [0] * count
    found, rows = scores(output)
    assert (found, rows) == scores(world / "scores"), "every digit"
    assert found["counts"]["images"] == 5 and {"frechet_embedded", "kernel_embedded"} <= set(found["sets"])
    assert sorted(p.name for p in output.iterdir()) == ["metrics.json", "per_image.csv", "table.md"]
    assert sum("metric" in (world / f"log.{rank}").read_text() for rank in range(count)) == 1


def test_image_files_with_unreadable_targets(world: Path) -> None:
    folders = [f"images={world}/three", f"targets={world}/photos", "on_missing=skip", "batch_size=2", "resolution=20"]
    for count in (1, 2):
        arguments = [*folders, f"output={world}/pairs{count}", "metrics=image"]
        assert all_ranks(world, "evaluate", *arguments, count=count) == [0] * count
    assert scores(world / "pairs1") == scores(world / "pairs2")


# -- starting processes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_devices_start_processes_and_a_killed_one_is_named(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVERTED", str(world / "inverted"))
    monkeypatch.setenv("DIES", "1")
    arguments = inversion(world, "devices", "devices=2")
    result = run_cli("invert", *arguments, cwd=world)
    assert result.returncode == 2 and "8 images" in result.stdout, result.stderr
    assert result.stderr.strip().splitlines()[-1] == (
        "error: rank 1 of 2 was killed by SIGKILL (out of memory?); "
        "finished parts are kept, and the same command continues"
    )
    assert join([start(world, "invert", *inversion(world, "devices"))], 300) == [0]
    assert_same_folder(world / "alone", world / "devices")
