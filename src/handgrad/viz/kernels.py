"""A convolution's kernels as small pictures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from handgrad.insight.leaves import path_text
from handgrad.viz.canvas import INK, canvas, described, without_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 32, 128  # input channels and features that are drawn


def kernels(params_or_kernel: Any, layer: str | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw a two-dimensional convolution's kernels in a grid: red is positive, blue negative, white 0.

    One scale holds for all kernels, so that weak ones are pale. With 1 channel each feature is a picture, with 3
    channels a picture in RGB, grey being 0; else each feature is a column and each channel a row.

    Args:
        params_or_kernel: a net's params, or one kernel (H, W, C, O).
        layer: whose kernel, such as `conv2` or `residual1/body/conv1`; None takes the first one that has four axes.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: no such layer, or a kernel of other than four axes.

    Example:
        >>> import handgrad as hg
        >>> params, state = hg.Chain(hg.Conv(6, 3)).init(jax.random.key(0), (8, 8, 1))
        >>> kernels(params).get_title()
        'conv1: 6 kernels of 3x3'
    """
    name, kernel = _kernel(params_or_kernel, layer)
    height, width, channels, features = kernel.shape
    shown = kernel[:, :, : MOST[0], : MOST[1]]
    finite = np.isfinite(shown)
    limit = float(np.abs(shown[finite]).max(initial=0)) or 1.0
    if channels == 3:
        tiles = np.moveaxis(0.5 + 0.5 * shown / limit, 3, 0)  # O H W 3
        picture = grid(tiles, columns_for(len(tiles)))
    else:
        tiles = shown.transpose(2, 3, 0, 1).reshape(-1, height, width)  # (C O) H W
        picture = grid(tiles, columns_for(len(tiles)) if channels == 1 else shown.shape[3])
    rows, columns = picture.shape[0] / (height + 1), picture.shape[1] / (width + 1)
    size = min(0.5, 12 / columns)
    ax = canvas(ax, max(columns * size + 0.9, 3.2), rows * size * height / width + 0.6)
    image = ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    without_axis(ax)
    left_out = " (the first of them)" if shown.shape != kernel.shape else ""
    size = f"{height}x{width}{f'x{channels}' if channels > 1 else ''}"
    ax.set_title(f"{name}: {features} kernels of {size}{left_out}{not_finite(finite, 'weight')}")
    if channels != 3:
        scale_bar(ax, image, [(-limit, f"−{limit:.2g}"), (0, "0"), (limit, f"{limit:.2g}")], "weight")
    return described(ax, f"Kernels as small pictures, weights from −{limit:.2g} to {limit:.2g}")


def _kernel(given: Any, layer: str | None) -> tuple[str, np.ndarray]:
    """The name of the layer and its kernel."""
    if not isinstance(given, Mapping):
        found = {layer or "kernel": given}
    else:
        found = {path_text(path): leaf for path, leaf in jax.tree.leaves_with_path(given)}
        found = {name.removesuffix("/kernel"): leaf for name, leaf in found.items() if name.endswith("/kernel")}
        if layer is None:
            found = {name: leaf for name, leaf in found.items() if np.ndim(leaf) == 4}
            layer = next(iter(found), None)
        if layer not in found:
            wanted = "a layer with a kernel (H, W, C, O)" if layer is None else f"a layer {layer!r} with a kernel"
            raise ValueError(f"kernels: params must have {wanted}, those here are {list(found)}")
        found = {layer: found[layer]}
    ((name, kernel),) = found.items()
    kernel = np.asarray(kernel, np.float32)
    if kernel.ndim != 4 or kernel.size == 0:
        raise ValueError(f"kernels: {name} must be a kernel (H, W, C, O), got shape {kernel.shape}")
    return name, kernel


def scale_bar(ax: "Axes", image: Any, ticks: list[tuple[float, str]], label: str) -> None:
    """A bar beside a picture that says which colour is which number."""
    colour = ax.title.get_color()
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.9, aspect=12, pad=0.03, ticks=[place for place, _ in ticks])
    bar.ax.set_yticklabels([text for _, text in ticks])
    bar.ax.tick_params(colors=colour, labelsize=8)
    bar.set_label(label, color=colour, fontsize=9)
    bar.outline.set(color=INK, linewidth=0.5)


def not_finite(finite: np.ndarray, thing: str) -> str:
    """How many are NaN or infinite, which have no colour, as a line of a title; nothing where none is."""
    count = int(finite.size - finite.sum())
    return f",\n{count:,} {thing}{'' if count == 1 else 's'} not finite" if count else ""


def columns_for(tiles: int) -> int:
    """About twice as wide as high, and without a gap at the end where that is near."""
    wanted = int(np.ceil(np.sqrt(2 * tiles)))
    return next((n for n in range(wanted, min(2 * wanted, tiles) + 1) if tiles % n == 0), min(wanted, tiles))


def grid(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (n, H, W) or (n, H, W, 3) side by side, row after row, with one pixel of nothing around each.

    So is a pixel of a colour that is not finite.
    """
    n, height, width = tiles.shape[:3]
    rows = -(-n // columns)
    colours = tiles.ndim == 4
    picture = np.full(
        (rows * (height + 1), columns * (width + 1), *((4,) if colours else ())), 0.0 if colours else np.nan
    )
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        if colours:
            shown = np.isfinite(tile).all(-1, keepdims=True)
            tile = np.concatenate([np.where(shown, tile, 0), shown], -1)
        picture[top : top + height, left : left + width] = tile
    return picture
