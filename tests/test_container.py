"""Reading files: every format people upload, and what happens to broken ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from deployments.container import Limits, Probe, probe
from deployments.decode import decode_audio, decode_segment
from deployments.errors import NotAVideo, NotFound, TooLarge, UnreadableVideo
from deployments.media import NATIVE, Clip, Frames, View, plan_segments, plan_spans
from tests.clips import draw, sound, write

SMALL = View(8.0, short_side=96)
TINY = View(NATIVE, exact=(48, 27))


def moving(frames: int, width: int = 160, height: int = 284) -> list[draw.Picture]:
    picture = draw.texture(3, width + 100, height + 100)
    return [draw.camera(picture, width, height, x=(k % 50) - 25) for k in range(frames)]


def flat(frames: int, color: tuple[int, int, int], width: int = 160, height: int = 284) -> list[draw.Picture]:
    return [np.full((height, width, 3), color, np.uint8)] * frames


def decoded(
    path: Path, views: Sequence[View] = (SMALL, TINY), segment_s: float = 600.0, context_s: float = 1.0
) -> tuple[Probe, list[Clip]]:
    found = probe(path)
    segments = plan_segments(found.info, list(found.keyframes), context_s, segment_s)
    return found, [decode_segment(path, found, views, s) for s in segments]


def answered(clips: list[Clip], view: View) -> Frames:
    runs = [s.cut(c)[s.start : s.stop] for c in clips for s in plan_spans(c, view, 50, 4)]
    return Frames(np.concatenate([r.pixels for r in runs]), np.concatenate([r.t for r in runs]))


FORMATS = [
    ("h264.mp4", "libx264", "yuv420p"),
    ("h264.mov", "libx264", "yuv420p"),
    ("ten_bit.mkv", "libx265", "yuv420p10le"),
    ("hevc.mp4", "libx265", "yuv420p"),
    ("vp8.webm", "libvpx", "yuv420p"),
    ("vp9.webm", "libvpx-vp9", "yuv420p"),
    ("av1.mp4", "libsvtav1", "yuv420p"),
    ("full_range.mp4", "libx264", "yuvj420p"),
    ("mpeg4.avi", "mpeg4", "yuv420p"),
]


@pytest.mark.parametrize(("name", "codec", "pixel_format"), FORMATS)
def test_formats(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    frames = moving(30)
    found, clips = decoded(
        write(
            tmp_path / name,
            frames,
            30.0,
            None if name.endswith("avi") else sound.tone(440, 1.0),
            codec=codec,
            pixel_format=pixel_format,
        )
    )
    assert found.info.frames == 30
    assert found.info.duration == pytest.approx(1.0, abs=0.04)
    assert found.info.pixel_format == pixel_format
    full, _ = View(8.0, short_side=160), None
    shown = decode_segment(tmp_path / name, found, [full], clips[0].segment).views[full].pixels
    tolerance = 14 if pixel_format == "yuvj420p" else 6  # our encoder call does not stretch to full range
    assert np.abs(shown[0].astype(int) - frames[0]).mean() < tolerance
    assert clips[0].frames_decoded == 30
    assert clips[0].warnings == ()


@pytest.mark.parametrize("color", [(200, 30, 40), (30, 180, 60), (20, 60, 200), (128, 128, 128)])
@pytest.mark.parametrize("size", [(160, 284), (720, 720)])
def test_colours_survive_both_yuv_matrices(tmp_path: Path, color: tuple[int, int, int], size: tuple[int, int]) -> None:
    _, clips = decoded(write(tmp_path / "c.mp4", flat(4, color, *size), 30.0))
    assert np.abs(clips[0].views[SMALL].pixels[0].mean(axis=(0, 1)) - color).max() < 4


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_flags_are_followed(tmp_path: Path, rotation: int) -> None:
    upright = draw.fit(draw.photo("astronaut"), 160, 284)
    turned = np.ascontiguousarray(np.rot90(upright, -(rotation // 90)))
    found, clips = decoded(
        write(tmp_path / "r.mp4", [turned] * 5, 30.0, rotation=rotation), [View(8.0, short_side=160)]
    )
    assert (found.info.width, found.info.height, found.info.rotation) == (160, 284, rotation)
    pixels = clips[0].views[View(8.0, short_side=160)].pixels[0]
    assert np.abs(pixels.astype(int) - upright).mean() < 8


@pytest.mark.parametrize("size", [(161, 285), (101, 77), (640, 34), (34, 640), (16, 16)])
def test_odd_and_extreme_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    found, clips = decoded(write(tmp_path / "o.mkv", moving(5, *size), 30.0, codec="ffv1", pixel_format="bgr0"))
    assert (found.info.width, found.info.height) == size
    assert len(clips[0].views[TINY]) == 5


def test_variable_rate_times_are_the_files_own(tmp_path: Path) -> None:
    times = [0.0, 0.033, 0.5, 0.533, 1.4, 1.433, 1.466, 2.0]
    found, clips = decoded(write(tmp_path / "v.mp4", moving(8), times=times))
    assert found.info.variable_rate
    assert np.allclose(clips[0].views[TINY].t, times, atol=2e-3)
    sampled = clips[0].views[SMALL]
    assert np.allclose(sampled.t, np.arange(len(sampled.t)) / 8)
    # What is on screen at 1.25 s is the frame shown since 0.533 s.
    native = decode_segment(tmp_path / "v.mp4", found, [View(NATIVE, short_side=96)], clips[0].segment).views[
        View(NATIVE, short_side=96)
    ]
    assert np.array_equal(sampled.pixels[10], native.pixels[3])


@pytest.mark.parametrize("fps", [10.0, 24.0, 25.0, 29.97, 50.0, 60.0])
def test_sampled_frames_are_those_on_screen(tmp_path: Path, fps: float) -> None:
    frames = [np.full((64, 64, 3), 5 * k % 250, np.uint8) for k in range(int(2 * fps))]
    _, clips = decoded(write(tmp_path / "f.mp4", frames, fps, options={"crf": "1", "preset": "veryfast"}), [SMALL])
    view = clips[0].views[SMALL]
    expected = [5 * int((t + 1e-3) * fps) % 250 for t in view.t]
    assert np.abs(view.pixels.mean(axis=(1, 2, 3)) - expected).max() < 3


def test_one_frame(tmp_path: Path) -> None:
    found, clips = decoded(write(tmp_path / "one.mp4", moving(1), 30.0))
    assert found.info.frames == 1
    assert found.info.duration == pytest.approx(1 / 30, abs=0.02)
    assert [len(v) for v in clips[0].views.values()] == [1, 1]


def test_segments_give_the_same_frames_as_one_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "s.mp4", moving(300), 30.0, keyframe_every=45)
    _, whole = decoded(path)
    _, parts = decoded(path, segment_s=3.0)
    assert len(parts) > 2
    for view in (SMALL, TINY):
        one, many = answered(whole, view), answered(parts, view)
        assert np.allclose(one.t, many.t)
        assert np.array_equal(one.pixels, many.pixels)
    overlap = sum(c.frames_decoded for c in parts) - 300
    assert overlap <= 2 * 30 * (len(parts) - 1) * 1.1  # twice the context of 1 s at each joint, nothing more


def test_a_file_with_one_key_frame_is_cut_too(tmp_path: Path) -> None:
    path = write(tmp_path / "k.mp4", moving(240), 30.0, keyframe_every=1000)
    _, whole = decoded(path)
    _, parts = decoded(path, segment_s=2.0)
    assert len(parts) > 1
    assert np.array_equal(answered(whole, SMALL).pixels, answered(parts, SMALL).pixels)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.3, 2.9), (2.5, 99.0), (0.5, 0.53)])
def test_start_and_end_keep_the_clips_own_times(tmp_path: Path, start: float, end: float) -> None:
    path = write(tmp_path / "t.mp4", moving(90), 30.0)
    found = probe(path, None, start, end)
    clip = decode_segment(path, found, [SMALL, TINY], plan_segments(found.info, [], 0.0)[0])
    times = answered([clip], TINY).t
    assert found.info.end == pytest.approx(min(end, 3.0), abs=0.01)
    assert np.allclose(times, [k / 30 for k in range(90) if start - 1e-3 <= k / 30 < end - 1e-3], atol=2e-3)


def test_sound_lies_on_the_videos_clock(tmp_path: Path) -> None:
    click = np.zeros(48_000, np.float32)
    click[24_000:24_100] = 0.8
    for name, start in (("a.mp4", 0.0), ("b.mkv", 0.4)):
        path = write(tmp_path / name, moving(60), 30.0, click, audio_start=start)
        audio = decode_audio(path, probe(path))
        assert audio is not None
        assert abs(int(np.abs(audio.mono).argmax()) / 16_000 - (0.5 + start)) < 0.02
        assert audio.duration == pytest.approx(2.0, abs=0.03)
        assert audio.end == pytest.approx(1.0 + start, abs=0.08)


def test_sound_longer_than_the_picture_is_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "l.mp4", moving(30), 30.0, sound.tone(440, 3.0))
    audio = decode_audio(path, probe(path))
    assert audio is not None
    assert audio.duration == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_sound_is_resampled_truly(tmp_path: Path, rate: int) -> None:
    samples = (0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.float32)
    path = write(
        tmp_path / "r.mkv", moving(60), 30.0, np.stack([samples, samples], 1), audio_rate=rate, audio_codec="pcm_s16le"
    )
    audio = decode_audio(path, probe(path))
    assert audio is not None
    assert audio.native.shape[1] == 2
    assert audio.native_rate == rate
    spectrum = np.abs(np.fft.rfft(audio.mono[:16_000]))
    assert spectrum.argmax() == 440
    assert np.abs(audio.mono[1000:-1000]).max() == pytest.approx(0.5, abs=0.02)


def test_no_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "n.mp4", moving(10), 30.0)
    found = probe(path)
    assert found.info.audio is None
    assert decode_audio(path, found) is None


@pytest.mark.parametrize("name", ["t.mkv", "t.webm", "t.ts"])
def test_a_truncated_tail_is_read_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    codec = "libvpx" if name.endswith("webm") else "libx264"
    path = write(tmp_path / name, moving(150), 30.0, codec=codec, keyframe_every=15)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    found, clips = decoded(path)
    assert 40 < found.info.frames < 140
    assert clips[0].frames_decoded > 40
    assert found.info.duration < 4.8


def test_a_truncated_mp4_with_its_index_first_says_where_it_ended(tmp_path: Path) -> None:
    whole = write(tmp_path / "w.mp4", moving(150), 30.0, keyframe_every=15)
    fast = tmp_path / "fast.mp4"
    with av.open(str(whole)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = fast.read_bytes()
    fast.write_bytes(data[: int(len(data) * 0.6)])
    found, clips = decoded(fast)
    assert clips[0].frames_decoded > 40
    assert found.info.duration < 4.5 or any("only until" in w for w in clips[0].warnings)


def test_a_hole_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "h.mkv", moving(150), 30.0, keyframe_every=15)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8))
    path.write_bytes(bytes(data))
    _, clips = decoded(path)
    assert clips[0].frames_decoded > 75
    assert np.all(np.diff(answered(clips, TINY).t) > 0)


def test_a_truncated_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mp4", moving(60), 30.0)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(NotAVideo, match="send it again"):
        probe(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("text.mp4", b"hello " * 500),
        ("noise.mp4", bytes(range(256)) * 40),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nother.ts\n"),
        ("c.txt", b"ffconcat version 1.0\nfile other.mp4\n"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAVideo):
        probe(tmp_path / name)


def test_a_picture_and_a_song_are_no_videos(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "p.png"), moving(1)[0])
    with pytest.raises(NotAVideo, match="not a video"):
        probe(tmp_path / "p.png")
    song = tmp_path / "song.mka"
    with av.open(str(song), "w", format="matroska") as out:
        stream = out.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(NotAVideo, match="no video stream"):
        probe(song)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.mp4", tmp_path):
        with pytest.raises(NotFound, match="upload the file"):
            probe(path)


def test_start_behind_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "s.mp4", moving(30), 30.0)
    with pytest.raises(UnreadableVideo, match=r"lasts 1\.00 s"):
        probe(path, None, 5.0)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(max_bytes=1000), "bytes"),
        (Limits(max_duration_s=0.5), "lasts 2 s"),
        (Limits(max_pixels=1000), "pixels"),
        (Limits(max_frames=10), "frames"),
        (Limits(max_streams=1), "streams"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, says: str) -> None:
    path = write(tmp_path / "big.mp4", moving(60), 30.0, sound.tone(440, 2.0))
    with pytest.raises(TooLarge, match=says):
        probe(path, limits)


def test_what_is_decoded_is_read_only(tmp_path: Path) -> None:
    path = write(tmp_path / "ro.mp4", moving(10), 30.0, sound.tone(440, 0.3))
    found, clips = decoded(path)
    audio = decode_audio(path, found)
    assert audio is not None
    for array in (clips[0].views[SMALL].pixels, clips[0].views[TINY].t, audio.mono, audio.native):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_real_clips(media: Path) -> None:
    found, clips = decoded(media / "psd_issue-134-rotate.mp4")
    assert (found.info.rotation, found.info.width, found.info.height) == (270, 544, 1280)
    assert clips[0].frames_decoded == 240
    assert probe(media / "psd_goldeneye-vfr-drop3.mp4").info.variable_rate
    assert probe(media / "bbb_0_30.webm").info.video_codec == "vp8"
