"""Nets of any width: how many features a layer has when all of a net are scaled by one factor."""


def scaled(features: int, width: float, multiple: int = 1) -> int:
    """So many features: features · width, rounded to a multiple of `multiple`, and at least that.

    Args:
        features: of the net as its paper has it.
        width: the factor, above 0.
        multiple: such as the groups of a convolution, which must divide its features.

    Raises:
        ValueError: a width that is not above 0.

    Example:
        >>> scaled(96, 1), scaled(96, 0.05), scaled(96, 0.05, 2), scaled(96, 0.001, 2)
        (96, 5, 4, 2)
    """
    if not width > 0:
        raise ValueError(f"models: width must be above 0, got {width!r}")
    return multiple * max(1, round(features * width / multiple))
