"""A walk through a made-up room with a phone: the scan, and the truth about it.

Belongs here: the options of a scan and their presets, and how a room and options become a `Scan`.
Does not belong here: the room (room.py), the path (walk.py), the errors of images (sensor.py).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from geomagic_dagster.cv.camera import invert_pose, scaled_intrinsics
from geomagic_dagster.cv.containers import EncodedImages, encode_jpeg, encode_png
from geomagic_dagster.cv.stage import Params
from geomagic_dagster.cv.types import Recording, Scan
from geomagic_dagster.scans.made_up import sensor, walk
from geomagic_dagster.scans.made_up.room import MadeUpRoom, scene_of
from geomagic_dagster.scans.made_up.truth import Truth, cast, radiance_hw3

F64 = NDArray[np.float64]


class ScanOptions(Params):
    """How the walk is recorded, and what is wrong with the recording. Without arguments nothing is wrong with it."""

    seed: int = Field(default=0, ge=0, description="Another seed: another walk and other noise in the same room.")
    frames: int = Field(default=150, ge=1, description="How many moments of the walk are recorded.")
    rate_hz: float = Field(default=5.0, gt=0, description="Recorded moments a second.")
    size_wh: tuple[int, int] = Field(default=(320, 240), description="Width and height of the colour images.")
    depth_size_wh: tuple[int, int] | None = Field(
        default=None, description="Of the depth images; None: as the colour images."
    )
    field_of_view_deg: float = Field(default=62.0, gt=10, lt=150, description="Horizontal.")

    depth_noise: float = Field(
        default=0.0, ge=0, description="Sigma as a fraction of depth; partly smooth over pixels."
    )
    flying_pixels: float = Field(
        default=0.0, ge=0, le=1, description="Fraction of pixels at depth edges that float between."
    )
    holes: float = Field(
        default=0.0, ge=0, le=1, description="Chance that depth is missing where it is dark, glancing or beyond 5 m."
    )
    blur: float = Field(default=0.0, ge=0, le=1, description="Fraction of frames with motion blur.")
    blur_exposure_s: float = Field(default=0.08, gt=0, description="Exposure of a blurred frame.")
    exposure_stops: float = Field(default=0.0, ge=0, description="How far the exposure wanders either way.")
    colour_noise: float = Field(default=0.0, ge=0, description="Sigma in grey levels.")

    corner: int | None = Field(
        default=None, ge=0, description="The walk stays before this corner and looks only there; None: all round."
    )

    pose_drift: float = Field(
        default=0.0,
        ge=0,
        description="Error of position at the end as a fraction of the walk's length; the heading goes with it.",
    )
    pose_noise_m: float = Field(
        default=0.0, ge=0, description="Sigma of each coordinate of each position, independent."
    )
    pose_noise_deg: float = Field(default=0.0, ge=0, description="Sigma of the rotation about each axis, independent.")
    jump: tuple[int, float] | None = Field(
        default=None,
        description="(frame, metres): from this frame on all positions are shifted, as by a relocalisation.",
    )
    device_yaw_deg: float | None = Field(default=None, description="Heading of the device's world; None: by the seed.")
    gravity_error_deg: float = Field(
        default=0.0, ge=0, lt=45, description="How far the gravity that the device reports is off the true one."
    )
    world_tilt_deg: float = Field(
        default=0.0, ge=0, lt=90, description="How far the device's z axis is off what it reports as upwards."
    )
    gravity_known: bool = Field(default=True, description="False: the scan says nothing of gravity.")

    @model_validator(mode="after")
    def _jump_is_in_the_walk(self) -> ScanOptions:
        if self.jump is not None and not 0 < self.jump[0] < self.frames:
            raise ValueError(f"jump: expected a frame from 1 to {self.frames - 1}; got {self.jump[0]}")
        return self

    def but(self, **changed: Any) -> ScanOptions:
        """The same options but for these: `PHONE.but(frames=60)`."""
        return ScanOptions(**{**self.model_dump(), **changed})


CLEAN = ScanOptions()
"""Nothing is wrong: exact poses, depth to the millimetre, sharp pictures (as JPEG)."""
PHONE = ScanOptions(
    depth_noise=0.004, flying_pixels=0.5, holes=0.8, blur=0.06, exposure_stops=0.3, colour_noise=2.0,
    pose_drift=0.001, pose_noise_m=0.001, pose_noise_deg=0.03,
)  # fmt: skip
"""A good phone with a depth sensor whose tracking closes its loops: a centimetre of drift after ten metres."""
PHONE_DRIFTING = PHONE.but(pose_drift=0.01)
"""The same where tracking never comes back to what it has seen: ten centimetres after ten metres."""


@dataclass(frozen=True, eq=False)
class MadeUpScan:
    """What the device recorded, and what was really there."""

    scan: Scan
    truth: Truth


def scan_room(room: MadeUpRoom, options: ScanOptions = CLEAN) -> MadeUpScan:
    """Walks through a room with a phone. The same room and options give the same bytes, on any number of threads.

    Raises: ValueError for a room without free floor (with `corner`: before that corner, or without that corner).
    """
    from numba import config

    walk_rng, error_rng, choice_rng = (np.random.default_rng([room.seed, options.seed, part]) for part in (1, 2, 3))
    if options.corner is None:
        world_T_cam_b44 = walk.walk_world_T_cam_b44(room, options.frames, walk_rng)
    else:
        world_T_cam_b44 = walk.corner_world_T_cam_b44(room, options.corner, options.frames, walk_rng)
    scan_T_world_44, down_scan_3 = _device_world(world_T_cam_b44[0], options, error_rng)
    believed_b44 = walk.believed_poses_b44(
        world_T_cam_b44, drift=options.pose_drift, noise_m=options.pose_noise_m,
        noise_rad=np.radians(options.pose_noise_deg), jump=options.jump, rng=error_rng,
    )  # fmt: skip
    K_rgb_33, K_depth_33, depth_size_wh = _intrinsics(options)
    truth = Truth(
        room=room, world_T_cam_b44=world_T_cam_b44, scan_T_world_44=scan_T_world_44,
        K_rgb_33=K_rgb_33, rgb_size_wh=options.size_wh, K_depth_33=K_depth_33, depth_size_wh=depth_size_wh,
        is_blurred_b=_choose(options.frames, options.blur, choice_rng),
    )  # fmt: skip
    stops_b = _exposure_stops_b(options, choice_rng)
    scene = scene_of(room)
    reflectance = scene.rgb_m3.mean(axis=1)
    materials = np.concatenate(
        (scene.wall_material_k, [scene.floor_material, scene.ceiling_material], scene.solid_material_p)
    )

    def record(frame: int) -> tuple[bytes, bytes, bytes]:
        rng = np.random.default_rng([room.seed, options.seed, 4, frame])
        pose = world_T_cam_b44[frame]
        radiance = radiance_hw3(scene, pose, K_rgb_33, options.size_wh)
        if truth.is_blurred_b[frame]:
            depth_m_hw = cast(scene, pose, K_rgb_33, options.size_wh).depth_m_hw
            velocity = _velocity_6(world_T_cam_b44, frame, options.rate_hz)
            radiance = sensor.motion_blur(radiance, depth_m_hw, K_rgb_33, velocity, rng, options.blur_exposure_s)
        rgb = sensor.to_srgb(radiance, stops_b[frame])
        if options.colour_noise:
            rgb = sensor.colour_noise(rgb, options.colour_noise, rng)
        met = cast(scene, pose, K_depth_33, depth_size_wh)
        risk_hw = sensor.risk(met.depth_m_hw, met.cosine_hw, reflectance[materials[met.surface_hw]])
        depth_mm, confidence = sensor.measure_depth(
            met.depth_m_hw, met.surface_hw, risk_hw, noise=options.depth_noise,
            flying_pixels=options.flying_pixels, holes=options.holes, rng=rng,
        )  # fmt: skip
        return encode_jpeg(rgb), encode_png(depth_mm), encode_png(confidence)

    threads_free: int = config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
    with ThreadPoolExecutor(threads_free) as threads:  # the kernels release the GIL
        images = list(threads.map(record, range(options.frames)))
    rgb, depth, confidence = (EncodedImages(column) for column in zip(*images, strict=True))
    scan = Scan(
        name=f"made-up-{room.shape}-{room.seed}",
        source_format="made-up",
        recording=Recording(
            rgb=rgb, depth=depth, depth_confidence=confidence,
            timestamp_s_b=np.arange(options.frames) / options.rate_hz,
            K_rgb_b33=np.tile(K_rgb_33, (options.frames, 1, 1)),
            K_depth_b33=np.tile(K_depth_33, (options.frames, 1, 1)),
        ),
        scan_T_cam_b44=scan_T_world_44 @ believed_b44,
        is_metric=True,
        down_scan_3=down_scan_3 if options.gravity_known else None,
        device="made-up",
        consent="research",
    )  # fmt: skip
    return MadeUpScan(scan, truth)


def _intrinsics(options: ScanOptions) -> tuple[F64, F64, tuple[int, int]]:
    """(K of colour, K of depth, size of depth): the same lens, pixel centres at integers."""
    width, height = options.size_wh
    focal = 0.5 * width / np.tan(0.5 * np.radians(options.field_of_view_deg))
    K_rgb_33 = np.array([[focal, 0.0, 0.5 * (width - 1)], [0.0, focal, 0.5 * (height - 1)], [0.0, 0.0, 1.0]])
    depth_size_wh = options.depth_size_wh or options.size_wh
    return K_rgb_33, scaled_intrinsics(K_rgb_33, depth_size_wh[0] / width, depth_size_wh[1] / height), depth_size_wh


def _device_world(
    world_T_cam_44: F64, options: ScanOptions, rng: np.random.Generator
) -> tuple[F64, tuple[float, float, float]]:
    """(scan_T_world_44, gravity as the device reports it): the device's origin is its first camera, as in ARKit."""
    yaw = rng.uniform(0.0, 2.0 * np.pi)
    if options.device_yaw_deg is not None:
        yaw = np.radians(options.device_yaw_deg)
    tilt_axis, error_axis = (np.array([np.cos(a), np.sin(a), 0.0]) for a in rng.uniform(0.0, 2.0 * np.pi, 2))
    tilt = walk.rotation_about(tilt_axis, np.radians(options.world_tilt_deg))
    error = walk.rotation_about(error_axis, np.radians(options.gravity_error_deg))
    scan_T_world_44 = np.eye(4)
    scan_T_world_44[:3, :3] = tilt @ error @ walk.rotation_about(np.array([0.0, 0.0, 1.0]), yaw)
    scan_T_world_44[:3, 3] = -scan_T_world_44[:3, :3] @ world_T_cam_44[:3, 3]
    x, y, z = tilt @ (0.0, 0.0, -1.0)
    return scan_T_world_44, (float(x), float(y), float(z))


def _choose(frames: int, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """round(fraction * frames) of the frames."""
    chosen = np.zeros(frames, np.bool_)
    chosen[rng.permutation(frames)[: round(fraction * frames)]] = True
    return chosen


def _exposure_stops_b(options: ScanOptions, rng: np.random.Generator) -> F64:
    """A slow wandering between -exposure_stops and +exposure_stops, as of an automatic exposure."""
    phases = rng.uniform(0.0, 2.0 * np.pi, 2)
    seconds_b = np.arange(options.frames) / options.rate_hz
    slow, fast = (
        np.sin(2.0 * np.pi * seconds_b / period + phase) for period, phase in zip((7.0, 3.1), phases, strict=True)
    )
    return options.exposure_stops * (0.6 * slow + 0.4 * fast)


def _velocity_6(world_T_cam_b44: F64, frame: int, rate_hz: float) -> F64:
    """Turning (rad/s) and motion (m/s) of a camera in its own axes, from the frames before and after."""
    import cv2

    before, after = max(frame - 1, 0), min(frame + 1, len(world_T_cam_b44) - 1)
    if before == after:
        return np.zeros(6)
    before_T_after_44 = invert_pose(world_T_cam_b44[before]) @ world_T_cam_b44[after]
    turn, _ = cv2.Rodrigues(before_T_after_44[:3, :3])
    return np.concatenate((turn[:, 0], before_T_after_44[:3, 3])) * rate_hz / (after - before)
