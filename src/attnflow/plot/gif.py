"""Writing .gif files whose 256 colours serve both the shaded background and the few bright tokens."""

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.animation import AbstractMovieWriter
from matplotlib.figure import Figure
from PIL import Image

_RARE = 96  # palette entries kept for colours that few pixels have


class GifWriter(AbstractMovieWriter):
    """A matplotlib writer of .gif files, one palette per frame.

    Pillow's own choice (median cut) follows the pixel counts, so a handful of coloured tokens on a
    shaded globe turn grey; here part of the palette is spread over all colours that occur.
    """

    frames: list[Image.Image]

    @classmethod
    def isAvailable(cls) -> bool:  # noqa: N802, the name is matplotlib's
        """Pillow comes with matplotlib."""
        return True

    def setup(self, fig: Figure, outfile: str | Path, dpi: float | int | None = None) -> None:
        """Begin a file with no frames."""
        super().setup(fig, outfile, dpi=dpi)  # pyright: ignore[reportAbstractUsage]
        self.frames = []

    def grab_frame(self, **savefig_kwargs: object) -> None:
        """Keep the figure as it looks now."""
        buffer = BytesIO()
        self.fig.savefig(buffer, **{**savefig_kwargs, "format": "rgba", "dpi": self.dpi})
        image = Image.frombytes("RGBA", self.frame_size, buffer.getvalue())
        self.frames.append(_indexed(image.convert("RGB")))

    def finish(self) -> None:
        """Write the file; it repeats for ever."""
        first, *rest = self.frames
        milliseconds = round(1000 / self.fps)
        first.save(self.outfile, save_all=True, append_images=rest, duration=milliseconds, loop=0)


def _indexed(image: Image.Image) -> Image.Image:
    """An RGB image reduced to 256 colours, the first of them pure white."""
    usual = image.quantize(255 - _RARE, method=Image.Quantize.MEDIANCUT).getpalette() or []
    rare = image.quantize(_RARE, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    colors = [255, 255, 255, *usual[: 3 * (255 - _RARE)], *rare[: 3 * _RARE]]
    palette.putpalette(colors)
    indices = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))
    indices[(np.asarray(image) == 255).all(axis=-1)] = 0
    indexed = Image.fromarray(indices)
    indexed.putpalette(colors)
    return indexed
