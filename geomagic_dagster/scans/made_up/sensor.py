"""What a phone makes of a true picture: exposure, motion blur, depth noise, flying pixels, holes, confidence.

Belongs here: functions from true images to measured ones. Does not belong here: geometry (ray_kernels.py)
and which errors a scan has (scan.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

FAR_M = 5.0
"""Phones' depth sensors give nothing beyond."""
GLANCING_COSINE = (0.17, 0.26)
"""Rays flatter than the first (80 degrees off the normal) come back badly; steeper than the second (75) well."""
DARK = (0.03, 0.06)
"""Linear reflectance: the same for black surfaces."""
EDGE_M = 0.05
"""A step of depth between two surfaces that makes an edge."""
WHITE_SHARE = 0.8
"""Of the noise's sigma is independent from pixel to pixel; the rest, sqrt(1 - 0.8^2) = 0.6, is smooth."""
_SHAKE_RAD_S = 0.5  # a blurred frame comes from a shaken hand


def to_srgb(radiance_hw3: F32, stops: float = 0.0) -> NDArray[np.uint8]:
    """Linear radiance (1: white paper in good light) to sRGB bytes; a film-like shoulder keeps sunlit spots."""
    linear = 1.0 - np.exp(np.float32(-1.9 * 2.0**stops) * radiance_hw3)
    table = np.arange(4097) / 4096.0
    table = np.where(table <= 0.0031308, 12.92 * table, 1.055 * table ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    return np.rint(255.0 * table).astype(np.uint8)[(4096.0 * linear + 0.5).astype(np.int64)]


def motion_blur(
    radiance_hw3: F32, depth_m_hw: F64, K_33: F64, velocity_6: F64, rng: np.random.Generator, exposure_s: float
) -> F32:
    """The picture averaged along the image motion during the exposure, from depth and the camera's velocity.

    Args: velocity_6: the camera's turning (rad/s) and motion (m/s) in its own axes; a shaking hand comes on top.
    """
    import cv2

    turn, shift = velocity_6[:3] + _random_direction(rng) * _SHAKE_RAD_S, velocity_6[3:]
    height, width = depth_m_hw.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    u, v = (x - K_33[0, 2]) / K_33[0, 0], (y - K_33[1, 2]) / K_33[1, 1]
    nearness = 1.0 / np.where(depth_m_hw > 0, depth_m_hw, 20.0)
    # image motion of a static point (Longuet-Higgins and Prazdny 1980)
    flow_u = (u * shift[2] - shift[0]) * nearness + u * v * turn[0] - (1 + u * u) * turn[1] + v * turn[2]
    flow_v = (v * shift[2] - shift[1]) * nearness + (1 + v * v) * turn[0] - u * v * turn[1] - u * turn[2]
    flow_x, flow_y = flow_u * K_33[0, 0] * exposure_s, flow_v * K_33[1, 1] * exposure_s
    total = np.zeros_like(radiance_hw3)
    moments = np.linspace(-0.5, 0.5, 11)
    for moment in moments:
        at_x, at_y = (x - moment * flow_x).astype(np.float32), (y - moment * flow_y).astype(np.float32)
        total += cv2.remap(radiance_hw3, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return total / np.float32(len(moments))


def _random_direction(rng: np.random.Generator) -> F64:
    """Of length 1, about the image's two axes."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    return np.array([np.cos(angle), np.sin(angle), 0.0])


def colour_noise(rgb_hw3: NDArray[np.uint8], sigma: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Independent noise of `sigma` grey levels."""
    noise = rng.standard_normal(rgb_hw3.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(np.rint(rgb_hw3 + noise), 0, 255).astype(np.uint8)


def smooth_noise(shape: tuple[int, int], sigma_px: float, rng: np.random.Generator) -> F32:
    """Normal noise of variance 1 that varies over `sigma_px` pixels."""
    import cv2

    field = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), sigma_px)
    return np.asarray(field / field.std(), np.float32)


def edges(depth_m_hw: F64, surface_hw: NDArray[np.int32]) -> tuple[NDArray[np.bool_], F64, F64]:
    """Where depth steps from one surface to another within 3x3 pixels; and there the nearest and farthest depth."""
    import cv2

    kernel = np.ones((3, 3), np.uint8)
    near = np.asarray(cv2.erode(depth_m_hw, kernel), np.float64)
    far = np.asarray(cv2.dilate(depth_m_hw, kernel), np.float64)
    number = surface_hw.astype(np.float32)
    is_edge = (cv2.erode(number, kernel) != cv2.dilate(number, kernel)) & (far - near > EDGE_M) & (near > 0)
    return is_edge, near, far


def risk(depth_m_hw: F64, cosine_hw: F32, reflectance_hw: F64) -> F64:
    """How likely each pixel is to stay without depth, 0 to 1: too far, too glancing or too dark."""
    glancing = (GLANCING_COSINE[1] - cosine_hw) / (GLANCING_COSINE[1] - GLANCING_COSINE[0])
    dark = (DARK[1] - reflectance_hw) / (DARK[1] - DARK[0])
    return np.clip(np.maximum(np.maximum(glancing, dark), np.where(depth_m_hw > FAR_M, 1.0, 0.0)), 0.0, 1.0)


def measure_depth(
    depth_m_hw: F64,
    surface_hw: NDArray[np.int32],
    risk_hw: F64,
    *,
    noise: float,
    flying_pixels: float,
    holes: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """(depth in millimetres, confidence 0, 1 or 2) of true depth; ScanOptions says what the settings mean."""
    from scipy.special import ndtr

    shape = depth_m_hw.shape
    is_edge, near, far = edges(depth_m_hw, surface_hw)
    measured = depth_m_hw.copy()
    flies = is_edge & (rng.random(shape) < flying_pixels)
    measured[flies] = (near + rng.uniform(0.1, 0.9, shape) * (far - near))[flies]
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = smooth_noise(shape, shape[1] / 40, rng)
    measured *= 1.0 + noise * (WHITE_SHARE * white + np.sqrt(1.0 - WHITE_SHARE**2) * smooth)
    lost = ndtr(smooth_noise(shape, 2.0, rng)) < holes * risk_hw  # blobs, not salt and pepper
    measured[lost | (depth_m_hw <= 0)] = 0.0
    depth_mm = np.clip(np.rint(1000.0 * measured), 0, 65535).astype(np.uint16)
    confidence = np.where(is_edge | (risk_hw > 0.4), 1, 2).astype(np.uint8)
    confidence[depth_mm == 0] = 0
    return depth_mm, confidence
