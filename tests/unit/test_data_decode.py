import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from app.data.datasets import DATASETS, DatasetFacts
from app.data.decode import DRAWS, augment, decode, random_box, read_image
from app.data.sampler import Purpose, uniforms
from app.data.samples import BadImage
from app.resilience.exit_codes import ExitCode, TrainingError


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def photo(mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[0:40, 0:60]
    pixels = np.stack([x * 4, y * 6, 255 - x * 2 - y * 2], axis=-1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_every_colour_mode_become_rgb(mode: str) -> None:
    image = decode(encoded(photo(mode), "JPEG", quality=95), "x.jpeg")
    assert (image.mode, image.size) == ("RGB", (60, 40))
    expected = np.asarray(photo(mode).convert("RGB"), dtype=float)
    assert abs(np.asarray(image, dtype=float) - expected).mean() < 6


@pytest.mark.parametrize(
    ("format", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("WEBP", "RGB"), ("BMP", "L")],
)
def test_a_file_is_read_by_its_content_not_by_its_name(tmp_path: Path, format: str, mode: str) -> None:
    source = Image.fromarray(np.zeros((40, 60), np.uint16)) if mode == "I;16" else photo(mode)
    (tmp_path / "x.jpeg").write_bytes(encoded(source, format))
    image = read_image(str(tmp_path / "x.jpeg"))
    assert (image.mode, image.size) == ("RGB", (60, 40))


def test_the_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    content = encoded(photo(), "JPEG", exif=exif)
    assert Image.open(io.BytesIO(content)).getexif()[0x0112] == 6
    assert decode(content, "x").size == (60, 40)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        encoded(photo(), "JPEG")[:600],
        encoded(photo(), "PNG")[:60],
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        encoded(photo(), "GIF"),
    ],
    ids=["empty", "html", "cut jpeg", "cut png", "broken png", "postscript", "gif"],
)
def test_bytes_that_are_no_image_are_a_bad_image_with_name_and_reason(content: bytes) -> None:
    with pytest.raises(BadImage) as error:
        decode(content, "train/a/x.jpeg")
    assert error.value.name == "train/a/x.jpeg"
    assert error.value.why
    assert "\n" not in error.value.why


def test_a_file_that_went_away_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as error:
        read_image(str(tmp_path / "gone.jpeg"))
    assert error.value.code == ExitCode.DATA_MISSING
    assert error.value.message == f"{tmp_path}/gone.jpeg cannot be read: No such file or directory"


def test_an_io_error_is_the_volumes_fault() -> None:
    with pytest.raises(TrainingError) as error:  # nothing is mapped at address 0: the kernel answers EIO
        read_image("/proc/self/mem")
    assert error.value.code == ExitCode.VOLUME_IO
    assert error.value.message == "/proc/self/mem: the volume failed while it was read: Input/output error"


def area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def aspect(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])


@pytest.mark.parametrize("size", [(500, 375), (100, 100), (40, 400), (400, 30)])
@pytest.mark.parametrize("name", ["imagenet", "digits"])
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int], name: str) -> None:
    facts, number = DATASETS[name], 4000
    scale, ratio = facts.crop_scale, facts.crop_ratio
    draws = (iter(uniforms(1, 0, Purpose.AUGMENT, i, DRAWS)) for i in range(number))
    ours = np.array([random_box(*size, scale, ratio, drawn) for drawn in draws])
    torch.manual_seed(1)
    blank = Image.new("L", size)
    top, left, height, width = np.array(
        [RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(number)]
    ).T
    theirs = np.stack([left, top, left + width, top + height], axis=1)
    pairs = [*zip(ours.T, theirs.T, strict=True), (area(ours), area(theirs)), (aspect(ours), aspect(theirs))]
    for mine, other in pairs:
        # Kolmogorov-Smirnov: two samples of one distribution are further apart once in 10,000 draws of the seeds.
        grid = np.union1d(mine, other)
        cumulative = [np.searchsorted(np.sort(v), grid, side="right") / number for v in (mine, other)]
        assert abs(cumulative[0] - cumulative[1]).max() < 2.23 * math.sqrt(2 / number)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=DRAWS, max_size=DRAWS),
)
def test_a_box_never_leaves_the_image(width: int, height: int, draws: list[float]) -> None:
    left, top, right, bottom = random_box(width, height, (0.08, 1.0), (3 / 4, 4 / 3), iter(draws))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_the_draws_decide_the_pixels() -> None:
    draws = [uniforms(1, 0, Purpose.AUGMENT, i, DRAWS) for i in range(2)]
    one, again, other = (augment(photo(), 32, DATASETS["imagenet"], d) for d in (draws[0], draws[0], draws[1]))
    assert (one.dtype, one.shape) == (np.uint8, (32, 32, 3))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_whole_box_is_a_plain_bilinear_resize() -> None:
    facts = DatasetFacts(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)
    image = photo().crop((0, 0, 40, 40))
    ours = augment(image, 24, facts, [0.3] * DRAWS)
    np.testing.assert_array_equal(ours, np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)))


def test_only_data_sets_that_allow_it_are_flipped_and_those_half_of_the_time() -> None:
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    image = photo().crop((0, 0, 40, 40))
    plain = np.asarray(image)
    may, must_not = DatasetFacts(flip=True, **whole), DatasetFacts(flip=False, **whole)  # type: ignore[arg-type]
    flipped = 0
    for i in range(200):
        draws = uniforms(5, 0, Purpose.AUGMENT, i, DRAWS)
        pixels = augment(image, 40, may, draws)
        flipped += bool((pixels == plain[:, ::-1]).all())
        assert (pixels == plain).all() or (pixels == plain[:, ::-1]).all()
        assert (augment(image, 40, must_not, draws) == plain).all()
    assert 65 < flipped < 135


def test_warnings_about_odd_exif_stay_out_of_the_log() -> None:
    code = """if True:
        import io, sys, warnings
        from PIL import Image
        stream = io.BytesIO()
        exif = b"Exif\\0\\0MM\\0*\\0\\0\\0\\x08\\0\\x05\\x01\\x1a\\0\\x05\\0\\0\\0\\x01\\0\\0\\0"
        Image.new("RGB", (16, 16)).save(stream, format="JPEG", exif=exif)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            Image.open(stream).convert("RGB")
        print(len(said))
        from app.data.decode import decode
        decode(stream.getvalue(), "x")
        """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("1\n", "")
