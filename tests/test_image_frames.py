"""The frame of an image, its size and turn, out of its header; and masks and boxes that turn as the image does."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from turned_scenes import SIDES, saved, stored_scene

from ssl_backbones.data import frames
from ssl_backbones.data.decode import decode
from ssl_backbones.data.frames import Frame, frame_of, turned, turned_boxes
from ssl_backbones.data.upright import ORIENTATION, TURNS, UPRIGHT

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "MPO")


class TestHeaders:
    @pytest.mark.parametrize("format", FORMATS)
    @pytest.mark.parametrize("turn", TURNS)
    def test_the_frame_is_that_of_the_image_as_it_is_read(self, format: str, turn: int, tmp_path: Path) -> None:
        encoded = saved(stored_scene(), turn, format)
        (tmp_path / "image").write_bytes(encoded)
        for image in (encoded, tmp_path / "image"):
            frame = frame_of(image)
            assert frame == Frame(SIDES, turn)
            assert frame.upright == decode(image, "image").size

    @pytest.mark.parametrize("turn", TURNS)
    def test_exif_data_behind_the_pixels_of_a_png_count(self, turn: int) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        content = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = b"eXIf" + content
        late = len(content).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
        plain = saved(stored_scene(), 1)
        encoded = plain[:-12] + late + plain[-12:]
        assert frame_of(encoded) == Frame(SIDES, turn)
        assert decode(encoded, "image").size == Frame(SIDES, turn).upright

    def test_more_pixels_than_anybody_reads_are_not_decoded_for_their_notes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chunk = b"tEXta"
        plain = saved(stored_scene(), 1)
        encoded = plain[:-12] + (1).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4) + plain[-12:]
        monkeypatch.setattr(frames, "MAX_PIXELS", SIDES[0] * SIDES[1] - 1)
        monkeypatch.setattr(PngImageFile, "load", lambda image: pytest.fail("it was decoded"))
        assert frame_of(encoded) == Frame(SIDES)

    def test_no_pixel_is_decoded(self) -> None:
        whole = saved(stored_scene(), 6, "JPEG")
        start = whole[: whole.index(b"\xff\xda") + 16]  # the header of the scan, and no more
        assert frame_of(start) == Frame(SIDES, 6)
        with pytest.raises(OSError, match="cannot be read"):
            decode(start, "image")

    @pytest.mark.parametrize("encoded", [None, b"", b"torn", hostile.encode(hostile.noise(), "PNG")[:20]])
    def test_what_cannot_be_read_has_no_frame(self, encoded: bytes | None, tmp_path: Path) -> None:
        assert frame_of(encoded) is None
        assert frame_of(tmp_path / "gone.jpg") is None

    def test_an_image_of_any_size_has_a_frame(self) -> None:
        file = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(file, "PNG")
        assert frame_of(file.getvalue()) == Frame((20_000, 20_000))


@given(st.sampled_from(sorted(UPRIGHT)), st.integers(1, 9), st.integers(1, 9), st.data())
def test_masks_and_boxes_turn_as_pillow_turns_the_image(turn: int, width: int, height: int, data: Any) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 1
    expected = np.asarray(Image.fromarray(mask).transpose(UPRIGHT[turn]))
    assert (turned(mask, turn) == expected).all()
    assert (turned(np.stack([mask, 0 * mask]), turn)[0] == expected).all()
    frame = Frame((width, height), turn)
    ((left, top, right, bottom),) = turned_boxes(np.array([[left, top, right, bottom]], np.float32), frame).astype(int)
    drawn = np.zeros(frame.upright[::-1], np.uint8)
    drawn[top:bottom, left:right] = 1
    assert (drawn == expected).all()
