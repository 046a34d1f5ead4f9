"""Which shapes of images the method's image sets have."""

from __future__ import annotations

from profiler.errors import UserError


def check_image_shape(shape: tuple[int, int, int]) -> None:
    """Raise UserError unless images of that shape (channels, height, width) have the sets' 3 channels."""
    if shape[0] != 3:
        raise UserError(
            f"the images have 3 channels, --input asks for {shape[0]}",
            hint="give --input 3xHEIGHTxWIDTH",
            exit_status=2,
        )
