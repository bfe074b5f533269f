import numpy as np
import pytest
from matplotlib.animation import FFMpegWriter
from PIL import Image

from attnflow import plot

TS = np.array([0.0, 0.5, 1.0, 2e4])


@pytest.fixture
def xs(rng):
    xs = rng.normal(size=(4, 5, 3))
    return xs / np.linalg.norm(xs, axis=-1, keepdims=True)


def finished(animation, tmp_path):
    """matplotlib warns about animations that nobody drew, so draw it."""
    plot.save_animation(animation, tmp_path / "drawn.gif", dpi=20)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_gif_has_one_frame_per_time(rng, tmp_path, d):
    x = rng.normal(size=(4, 5, d))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    animation = plot.animate(x, TS, labels=np.arange(5), weights=np.ones(5), tail=2)
    path = plot.save_animation(animation, tmp_path / "tokens.gif", fps=10, dpi=40)
    with Image.open(path) as image:
        assert image.n_frames == len(TS)
        assert image.info["duration"] == 100
        assert image.info["loop"] == 0


def test_gif_keeps_the_colours_of_few_tokens(tmp_path):
    """256 colours cannot hold all; 12 of 255 is far below the distance between two hues."""
    x = np.stack([np.eye(3)[:2], np.eye(3)[:2] + 0.01])
    animation = plot.animate(x, [0, 1], labels=[1, 2], size=90.0)
    with Image.open(plot.save_animation(animation, tmp_path / "a.gif", dpi=60)) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float).reshape(-1, 3)
    for color in plot.category_colors([1, 2])[:, :3] * 255:
        assert np.abs(pixels - color).max(axis=1).min() < 12
    assert (pixels[0] == 255).all()


def test_frames_show_the_tokens_and_the_time(xs, tmp_path):
    _, axes = plot.panels("a")
    animation = plot.animate(xs[..., :2], TS, ax=axes["a"])
    for i, title in enumerate(("$t = 0$", "$t = 0.5$", "$t = 1$", r"$t = 2 \times 10^{4}$")):
        animation._func(i)
        np.testing.assert_array_equal(axes["a"].collections[-1].get_offsets(), xs[i, :, :2])
        assert axes["a"].get_title("left") == title
    finished(animation, tmp_path)


def test_colours_and_areas_may_change_in_time(xs, tmp_path):
    _, axes = plot.panels("a")
    labels, weights = np.arange(20).reshape(4, 5), np.arange(1.0, 21).reshape(4, 5)
    animation = plot.animate(xs[..., :2], TS, labels=labels, weights=weights, ax=axes["a"])
    animation._func(2)
    scatter = axes["a"].collections[-1]
    np.testing.assert_allclose(scatter.get_facecolor(), plot.category_colors(labels[2, ::-1]))
    np.testing.assert_allclose(scatter.get_sizes(), 42 * weights[2, ::-1] / weights[2].mean())
    finished(animation, tmp_path)


def test_values_share_one_scale_over_time(xs, tmp_path):
    _, axes = plot.panels("a")
    values = np.repeat([[0.0], [1.0], [2.0], [4.0]], 5, axis=1)
    animation = plot.animate(xs[..., :2], TS, values=values, ax=axes["a"])
    seen = []
    for i in range(4):
        animation._func(i)
        seen.append(axes["a"].collections[-1].get_facecolor()[0])
    assert len(np.unique(seen, axis=0)) == 4
    finished(animation, tmp_path)


def test_mp4_without_ffmpeg_names_the_remedy(xs, tmp_path, monkeypatch):
    monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    animation = plot.animate(xs, TS)
    with pytest.raises(FileNotFoundError, match=r"Install ffmpeg, or end the path in \.gif\."):
        plot.save_animation(animation, tmp_path / "tokens.mp4")
    assert list(tmp_path.iterdir()) == []
    finished(animation, tmp_path)


@pytest.mark.skipif(not FFMpegWriter.isAvailable(), reason="ffmpeg is not installed")
def test_mp4(xs, tmp_path):
    path = plot.save_animation(plot.animate(xs, TS), tmp_path / "tokens.mp4", dpi=40)
    assert path.read_bytes()[4:8] == b"ftyp"


def test_bad_paths_and_rates(xs, tmp_path):
    animation = plot.animate(xs, TS)
    with pytest.raises(ValueError, match=r"must end in \.gif or \.mp4"):
        plot.save_animation(animation, tmp_path / "tokens.avi")
    with pytest.raises(ValueError, match="`fps` must be a whole number >= 1"):
        plot.save_animation(animation, tmp_path / "tokens.gif", fps=0)
    finished(animation, tmp_path)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda xs: plot.animate(xs[0], TS), "`xs` must have shape"),
        (lambda xs: plot.animate(xs[:3], TS), "t=4"),
        (lambda xs: plot.animate(xs[..., :1], TS), "d >= 2"),
        (lambda xs: plot.animate(xs, TS[::-1]), "`ts` must increase strictly"),
        (lambda xs: plot.animate(xs, TS, labels=[1]), "`labels` must have shape"),
        (lambda xs: plot.animate(xs, TS, labels=np.zeros((3, 5))), "`labels` must have shape"),
        (lambda xs: plot.animate(xs, TS, tail=-1), "`tail`"),
    ],
)
def test_bad_arguments(xs, call, words):
    with pytest.raises(ValueError, match=words):
        call(xs)
