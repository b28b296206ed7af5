"""The cases of ONNX that handgrad is not asked, by name, and why."""

REASONS: dict[str, tuple[str, ...]] = {
    "whole numbers, which wrap when a sum or product is too large: another op; ours takes floats, and says so": (
        "test_add_int8",
        "test_add_int16",
        "test_add_uint8",
        "test_add_uint16",
        "test_add_uint32",
        "test_add_uint64",
        "test_mul_int8",
        "test_mul_int16",
        "test_mul_uint8",
        "test_mul_uint16",
        "test_mul_uint32",
        "test_mul_uint64",
    ),
    "cubic interpolation: no net of this library uses it, and upsample has no such method": (
        "test_resize_upsample_scales_cubic",
        "test_resize_upsample_scales_cubic_align_corners",
        "test_resize_upsample_scales_cubic_asymmetric",
        "test_resize_upsample_scales_cubic_A_n0p5_exclude_outside",
        "test_resize_upsample_sizes_cubic",
        "test_resize_downsample_scales_cubic",
        "test_resize_downsample_scales_cubic_align_corners",
        "test_resize_downsample_scales_cubic_A_n0p5_exclude_outside",
        "test_resize_downsample_scales_cubic_antialias",
        "test_resize_downsample_sizes_cubic",
        "test_resize_downsample_sizes_cubic_antialias",
    ),
    "antialiasing, a blur before making smaller: upsample takes values and averages none": (
        "test_resize_downsample_scales_linear_antialias",
        "test_resize_downsample_sizes_linear_antialias",
    ),
    "crop and resize in one, as detectors want it: upsample has no box": (
        "test_resize_tf_crop_and_resize",
        "test_resize_tf_crop_and_resize_extrapolation_value",
        "test_resize_tf_crop_and_resize_axes_2_3",
        "test_resize_tf_crop_and_resize_axes_3_2",
    ),
    "half_pixel_symmetric coordinates: they differ from half_pixel only where a factor does not give whole sizes": (
        "test_resize_downsample_scales_linear_half_pixel_symmetric",
        "test_resize_upsample_scales_linear_half_pixel_symmetric",
    ),
    "ONNX walks the corners by the size before it is rounded, 0.6 * 4 = 2.4, so that they do not meet; we and PyTorch "
    "by the size there is, 2": ("test_resize_downsample_scales_linear_align_corners",),
}
LEFT_OUT = {name: reason for reason, names in REASONS.items() for name in names}
