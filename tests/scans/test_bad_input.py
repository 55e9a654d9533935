"""Every bad input of reading and checking ends in one sentence: place, what was expected, what came, what to do.

A case is a good scan with one thing spoilt. Archives and folders that must not be trusted are in test_files.py too.
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from geomagic_dagster.cv.containers import encode_jpeg, encode_png
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.check import check_path, raise_errors
from geomagic_dagster.scans.reader import read_scan

Layouts = Mapping[str, Callable[[Scan, Path], None]]
Spoil = Callable[[Path], Path | None]
DEPTH = "depth/000004.png"
COLOUR = "color/000004.jpg"


def manifest(change: Callable[[dict], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / "scan.json").read_text())
        change(content)
        (folder / "scan.json").write_text(json.dumps(content))

    return spoil


def frame(number: int, key: str, value: object) -> Spoil:
    return manifest(lambda content: content["frames"][number].update({key: value}))


def every_frame(change: Callable[[dict], object]) -> Spoil:
    return manifest(lambda content: [change(each) for each in content["frames"]])


def frames(*numbers: int) -> Spoil:
    return manifest(lambda content: content.update(frames=[content["frames"][i] for i in numbers]))


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def every_depth(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(folder: Path) -> None:
        from geomagic_dagster.cv.containers import decode_image

        for image in (folder / "depth").iterdir():
            image.write_bytes(encode_png(change(decode_image(image.read_bytes()))))

    return spoil


def line(name: str, number: int, text: str) -> Spoil:
    def spoil(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines()
        lines[number - 1] = text
        (folder / name).write_text("\n".join(lines))

    return spoil


def all_lines(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(f"{text}\n" * 12) and None


def turn_around(content: dict) -> None:
    """Two frames from one spot, looking in opposite directions."""
    first, second = content["frames"][:2]
    pose = np.array(first["scan_T_cam_44"])
    second["scan_T_cam_44"] = (pose @ np.diag([-1.0, 1, -1, 1])).tolist()
    content["frames"] = [first, second]


def scaled_K(each: dict, factor: float) -> None:
    K = each["K_rgb_33"]
    each["K_rgb_33"] = [[factor * K[0][0], 0, factor * K[0][2]], [0, factor * K[1][1], factor * K[1][2]], [0, 0, 1]]


def zip_that_claims_4_gb(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scan.json", "{}")
    raw = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = raw.index(magic) + offset
        raw[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(raw)
    return path


def zip_with(name: str) -> Spoil:
    def spoil(folder: Path) -> Path:
        path = Path(shutil.make_archive(str(folder), "zip", folder))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, "x")
        return path

    return spoil


def symlink_in_tar(folder: Path) -> Path:
    (folder / COLOUR).unlink()
    (folder / COLOUR).symlink_to("/etc/passwd")
    return Path(shutil.make_archive(str(folder), "gztar", folder))


def symlink_in_folder(folder: Path) -> None:
    (folder / COLOUR).rename(folder.parent / "outside.jpg")
    (folder / COLOUR).symlink_to(folder.parent / "outside.jpg")


def written(name: str, content: str | bytes) -> Spoil:
    encoded = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(encoded) and None


def without(pattern: str) -> Spoil:
    return lambda folder: [path.unlink() for path in list(folder.glob(pattern))] and None


def renamed(pattern: str, change: Callable[[Path], Path]) -> Spoil:
    return lambda folder: [path.rename(change(path)) for path in sorted(folder.glob(pattern))] and None


def without_keys(pattern: str, *keys: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for path in folder.glob(pattern):
            content = json.loads(path.read_text())
            path.write_text(json.dumps({key: value for key, value in content.items() if key not in keys}))

    return spoil


def odometry_from_column(first: int) -> Spoil:
    def spoil(folder: Path) -> None:
        lines = (folder / "odometry.csv").read_text().splitlines()
        (folder / "odometry.csv").write_text("\n".join(", ".join(each.split(", ")[first:]) for each in lines))

    return spoil


def video_of_11_frames(folder: Path) -> None:
    from geomagic_dagster.scans.video import write_video

    (folder / "rgb.mp4").unlink()
    write_video(folder / "rgb.mp4", [np.zeros((48, 64, 3), np.uint8)] * 11, 10.0)


def video_cut_behind_its_index(folder: Path) -> None:
    """A streamable video of 40 frames, its index in front, whose upload stopped."""
    source = Path(__file__).with_name("hevc_uneven_times.mp4").read_bytes()
    (folder / "rgb.mp4").write_bytes(source[:-400])
    lines = (folder / "odometry.csv").read_text().splitlines()
    rows = [f"{i / 10}, {i:06d}, {lines[1 + i % 12].split(', ', 2)[2]}" for i in range(40)]
    (folder / "odometry.csv").write_text("\n".join(rows))
    for i in range(12, 40):
        for kind in ("depth", "confidence"):
            shutil.copy(folder / f"{kind}/{i % 12:06d}.png", folder / f"{kind}/{i:06d}.png")


def half_of_the_members(folder: Path) -> None:
    for i in range(12):
        (folder / f"rgbd/{i}.{'jpg' if i % 2 else 'depth'}").unlink()


def in_sens_header(at: int, layout: str, value: float) -> Spoil:
    """Another value in the header of a .sens, counted from behind its matrices."""
    start, new = 12 + len("StructureSensor") + 256 + at, struct.pack(layout, value)
    return bytes_of(SENS, lambda b: b[:start] + new + b[start + len(new) :])


def colmap_binary(cameras: bytes, images: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "sparse/0/cameras.bin").write_bytes(cameras)
        (folder / "sparse/0/images.bin").write_bytes(images)

    return spoil


def images_without_points(folder: Path) -> None:
    path = folder / "sparse/0/images.txt"
    path.write_text("\n".join(path.read_text().splitlines()[1::2]))


SENS = "scene0000_00.sens"
SKY = "video_id,sky_direction\n{},{}\n"
PINHOLE = struct.pack("<QiiQQ4d", 1, 1, 1, 64, 48, 52, 52, 32, 24)
FIRST_CAMERA = "keyframes/corrected_cameras/333333333333.json"


def no_scan(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "letter.docx").write_text("Dear all")


def no_file_at_all(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


UPLOAD = "Upload it again, and wait until the upload has ended."
PACK = "Pack the scan again from its folder"
POSE = "a rotation and a translation, last row 0 0 0 1"

CASES = {  # what is wrong: layout, how to spoil it, words of the place, what was expected, what came, what to do
    # images
    "truncated depth": (
        "canonical",
        bytes_of(DEPTH, lambda b: b[:-30]),
        DEPTH,
        "a whole 16-bit PNG",
        "a PNG that is cut short",
        UPLOAD,
    ),
    "truncated PNG colour": (
        "canonical",
        bytes_of(COLOUR, lambda b: encode_png(np.zeros((48, 64, 3), np.uint8))[:-9]),
        COLOUR,
        "a whole PNG or JPEG",
        "a PNG that is cut short",
        UPLOAD,
    ),
    "truncated JPEG": (
        "canonical",
        bytes_of(COLOUR, lambda b: b[: len(b) // 2]),
        COLOUR,
        "a whole PNG or JPEG",
        "a JPEG that is cut short",
        UPLOAD,
    ),
    "JPEG without its last bytes": (
        "canonical",
        bytes_of(COLOUR, lambda b: b[:-20]),
        COLOUR,
        "a whole PNG or JPEG",
        "a JPEG that is cut short",
        UPLOAD,
    ),
    "header of an image only": (
        "canonical",
        bytes_of(DEPTH, lambda b: b[:10]),
        DEPTH,
        "a whole 16-bit PNG",
        "10 bytes that begin with",
        UPLOAD,
    ),
    "zero-byte colour": (
        "canonical",
        bytes_of(COLOUR, lambda b: b""),
        COLOUR,
        "a whole PNG or JPEG",
        "an empty file (0 bytes)",
        UPLOAD,
    ),
    "zero-byte depth": (
        "canonical",
        bytes_of(DEPTH, lambda b: b""),
        DEPTH,
        "a whole 16-bit PNG",
        "an empty file (0 bytes)",
        UPLOAD,
    ),
    "an image of zeros": (
        "canonical",
        bytes_of(COLOUR, lambda b: bytes(len(b))),
        COLOUR,
        "a whole PNG or JPEG",
        "nothing but zeros",
        UPLOAD,
    ),
    "wrong magic: GIF": (
        "canonical",
        bytes_of(COLOUR, lambda b: b"GIF89a" + b),
        COLOUR,
        "a whole PNG or JPEG",
        "a GIF",
        UPLOAD,
    ),
    "wrong magic: HEIC": (
        "canonical",
        bytes_of(COLOUR, lambda b: b"\0\0\0\x18ftypheic" + b),
        COLOUR,
        "a whole PNG or JPEG",
        "a HEIC picture",
        UPLOAD,
    ),
    "wrong magic: web page": (
        "canonical",
        bytes_of(COLOUR, lambda b: b"<html>404"),
        COLOUR,
        "a whole PNG or JPEG",
        "a web page",
        UPLOAD,
    ),
    "wrong magic: no image": (
        "canonical",
        bytes_of(DEPTH, lambda b: b"hello world"),
        DEPTH,
        "a whole 16-bit PNG",
        "11 bytes that begin with b'hello",
        UPLOAD,
    ),
    "depth with 8 bits": (
        "canonical",
        bytes_of(DEPTH, lambda b: encode_png(np.ones((48, 64), np.uint8))),
        DEPTH,
        "a whole 16-bit PNG",
        "a PNG of 1 channel of 8 bits",
        UPLOAD,
    ),
    "depth as a picture": (
        "canonical",
        bytes_of(DEPTH, lambda b: encode_jpeg(np.ones((48, 64, 3), np.uint8))),
        DEPTH,
        "a whole 16-bit PNG",
        "a JPEG of 3 channels of 8 bits",
        UPLOAD,
    ),
    "a pixel bomb": (
        "canonical",
        bytes_of(
            COLOUR,
            lambda b: encode_png(np.zeros((9, 9, 3), np.uint8)).replace(
                struct.pack(">II", 9, 9), struct.pack(">II", 60000, 60000)
            ),
        ),
        COLOUR,
        "a whole PNG or JPEG",
        "a PNG that claims 60000x60000 pixels",
        UPLOAD,
    ),
    "one image of another size": (
        "canonical",
        bytes_of(DEPTH, lambda b: encode_png(np.full((40, 64), 2000, np.uint16))),
        DEPTH,
        "64x48 like most",
        "64x40; 1 of 12 images differ",
        "of one recording, all of one size",
    ),
    # poses
    "a NaN pose (lost tracking) in all frames": (
        "canonical",
        every_frame(lambda each: each.update(scan_T_cam_44=[[float("nan")] * 4] * 4)),
        "scan.json: scan_T_cam_44",
        "poses of finite numbers",
        "NaN or infinite ones for all 12 frames",
        "scan again, slowly, in better light",
    ),
    "inf poses in all frames": (
        "hololens",
        all_lines("poses.txt", "-inf " * 16),
        "poses.txt",
        "poses of finite numbers",
        "for all 12 frames",
        "scan again, slowly",
    ),
    "NaN quaternions in all frames": (
        "tum_rgbd",
        all_lines("groundtruth.txt", "333333.3 0 0 0 nan nan nan nan"),
        "groundtruth.txt",
        "poses of finite numbers",
        "for all 12 frames",
        "scan again",
    ),
    "a word for a pose": (
        "hololens",
        line("poses.txt", 3, "lost " * 16),
        "poses.txt line 3",
        "16 numbers",
        "could not convert string to float: 'lost'",
        UPLOAD,
    ),
    "half a pose": ("hololens", line("poses.txt", 3, "1 0 0 0 0 1"), "poses.txt line 3", "16 numbers", "6", UPLOAD),
    "non-rotation": (
        "canonical",
        frame(4, "scan_T_cam_44", np.diag([1.3, 1.3, 1.3, 1]).tolist()),
        f"pose of frame 4 ({COLOUR})",
        POSE,
        "no rotation (det R = 2.2",
        "Export the poses again.",
    ),
    "mirrored pose": (
        "canonical",
        frame(4, "scan_T_cam_44", np.diag([1.0, -1, 1, 1]).tolist()),
        "pose of frame 4",
        POSE,
        "a mirrored one (det R = -1",
        "Negate the axis",
    ),
    "pose of zeros": (
        "canonical",
        frame(4, "scan_T_cam_44", np.zeros((4, 4)).tolist()),
        "pose of frame 4",
        POSE,
        "the last row [0.0, 0.0, 0.0, 0.0]",
        "Export the poses again.",
    ),
    "no poses": (
        "canonical",
        every_frame(lambda each: each.pop("scan_T_cam_44")),
        "poses",
        "a camera pose for each frame",
        "none",
        "Export the scan with its poses.",
    ),
    # times and index
    "time going backwards": (
        "canonical",
        frame(4, "timestamp_s", 333333.0),
        f"time of frame 4 ({COLOUR})",
        "later than frame 3, at 333333.6",
        "333333.000000 s; time does not rise at 1 frame",
        "Put the frames in the order",
    ),
    "time standing still": (
        "canonical",
        every_frame(lambda each: each.update(timestamp_s=5.0)),
        "time of frame 1",
        "later than frame 0",
        "does not rise at 11 frames",
        "Put the frames in the order",
    ),
    "NaN time": (
        "canonical",
        frame(4, "timestamp_s", float("nan")),
        "time of frame 4",
        "a number of seconds",
        "nan",
        UPLOAD,
    ),
    "missing file named in scan.json": (
        "canonical",
        lambda folder: (folder / DEPTH).unlink(),
        "scan.json: depth",
        f"the file {DEPTH}",
        "none of this name",
        UPLOAD,
    ),
    "missing file named in rgb.txt": (
        "tum_rgbd",
        lambda folder: (folder / "rgb/3.jpg").unlink(),
        "rgb.txt line 5",
        "the file rgb/3.jpg in the upload",
        "none of this name",
        UPLOAD,
    ),
    "missing file named in transforms.json": (
        "nerfstudio",
        lambda folder: (folder / "images/0011.jpg").unlink(),
        "transforms.json: frames[0]",
        "the file images/0011.jpg",
        "none of this name",
        UPLOAD,
    ),
    "missing image among poses": (
        "hololens",
        lambda folder: (folder / "images/00009.jpg").unlink(),
        "poses.txt",
        "a line for each of the 11 images",
        "12 lines",
        "Upload all images",
    ),
    "index that is no text": (
        "tum_rgbd",
        bytes_of("rgb.txt", lambda b: b"\xff\xfe\x00"),
        "rgb.txt",
        "plain text (UTF-8)",
        "other bytes",
        UPLOAD,
    ),
    "half a JSON": (
        "nerfstudio",
        bytes_of("transforms.json", lambda b: b[:200]),
        "transforms.json",
        "a JSON object",
        "text that is none",
        UPLOAD,
    ),
    "a JSON of brackets": (
        "nerfstudio",
        bytes_of("transforms.json", lambda b: b"[" * 100_000),
        "transforms.json",
        "a JSON object",
        "text that is none",
        UPLOAD,
    ),
    "no depth at all": (
        "canonical",
        every_frame(lambda each: (each.pop("depth"), each.pop("K_depth_33"), each.pop("depth_confidence"))),
        "depth",
        "depth images",
        "colour images only",
        "a phone that measures depth",
    ),
    # intrinsics
    "intrinsics of another resolution": (
        "canonical",
        every_frame(lambda each: scaled_K(each, 30)),
        "K of the colour images",
        "one for 64x48",
        "times that, about 1891x1411",
        "Multiply fx, fy, cx, cy by",
    ),
    "intrinsics of zeros": (
        "canonical",
        every_frame(lambda each: each.update(K_depth_33=[[0] * 3] * 3)),
        "K of the depth images",
        "fx and fy above 0",
        "[[0.0, 0.0, 0.0]",
        "Export the camera's intrinsics again.",
    ),
    # depth values
    "depth in metres": (
        "canonical",
        every_depth(lambda d: np.rint(d / 1000).astype(np.uint16)),
        "depth unit",
        "a median depth of 1 to 5 m",
        "0.002 m (one unit taken as 0.001 m); looks like metres stored where millimetres belong: 1000 times",
        "multiply by 1000",
    ),
    "depth unit of metres for millimetres": (
        "canonical",
        manifest(lambda m: m.update(metres_per_depth_unit=1.0)),
        "depth unit",
        "a median depth of 1 to 5 m",
        "looks like millimetres taken for metres: 0.001 times",
        "multiply by 0.001",
    ),
    "65535 everywhere": (
        "canonical",
        every_depth(lambda d: np.full_like(d, 65535)),
        "depth values",
        "distances to what the camera sees",
        "65535 (no depth) in 100% of the pixels",
        "Export the depth again",
    ),
    "0 everywhere": (
        "canonical",
        every_depth(np.zeros_like),
        "depth values",
        "distances to what the camera sees",
        "0 in 100%",
        "Export the depth again",
    ),
    # phones and data sets
    "Stray: odometry with another number of lines than depth files": (
        "stray_scanner",
        without("depth/000003.png"),
        "odometry.csv",
        "a line for each of the 11 depth images",
        "12 lines",
        "Upload all files of the recording",
    ),
    "Stray: odometry of other columns": (
        "stray_scanner",
        odometry_from_column(4),
        "odometry.csv",
        "lines of timestamp, frame, x, y, z, qx, qy, qz, qw",
        "lines of 5 columns",
        UPLOAD,
    ),
    "Stray: odometry without a line": (
        "stray_scanner",
        written("odometry.csv", "timestamp, frame, x, y, z, qx, qy, qz, qw\n"),
        "odometry.csv",
        "lines of timestamp, frame",
        "no line",
        UPLOAD,
    ),
    "Stray: frame numbers of another recording": (
        "stray_scanner",
        renamed("depth/000003.png", lambda path: path.with_stem("000033")),
        "odometry.csv: frame of row 3",
        "4, the number of depth/000004.png",
        "3",
        "as the app wrote them",
    ),
    "Stray: cut video": (
        "stray_scanner",
        bytes_of("rgb.mp4", lambda b: b[:-400]),
        "rgb.mp4",
        "a whole video (HEVC or H.264 in MP4)",
        "cut short or of another kind",
        UPLOAD,
    ),
    "Stray: video cut behind its index": (
        "stray_scanner",
        video_cut_behind_its_index,
        "rgb.mp4 frame 3",
        "40 whole frames",
        "a video that ends or is damaged after 3",
        UPLOAD,
    ),
    "Stray: video of another length": (
        "stray_scanner",
        video_of_11_frames,
        "rgb.mp4",
        "12 frames, one for each line of odometry.csv",
        "11",
        "leave it out, and the scan is processed without colour",
    ),
    "Stray: K of two rows": (
        "stray_scanner",
        written("camera_matrix.csv", "52, 0, 31.5\n0, 52, 23.5\n"),
        "camera_matrix.csv",
        "9 numbers",
        "6",
        UPLOAD,
    ),
    "Stray: old depth that is no array": (
        "stray_scanner",
        renamed("depth/*.png", lambda path: path.with_suffix(".npy")),
        "depth/000000.npy",
        "a numpy array",
        "a PNG",
        UPLOAD,
    ),
    "Record3D: no poses": (
        "record3d",
        without_keys("metadata", "poses"),
        "metadata: poses",
        "a list of qx qy qz qw tx ty tz",
        "None",
        "Export the recording again",
    ),
    "Record3D: no K": ("record3d", without_keys("metadata", "K"), "metadata: K", "9 numbers", "0", UPLOAD),
    "Record3D: no size": ("record3d", without_keys("metadata", "w"), "metadata: w", "1 numbers", "NoneType", UPLOAD),
    "Record3D: neither times nor fps": (
        "record3d",
        without_keys("metadata", "frameTimestamps", "fps"),
        "metadata: fps",
        "1 numbers",
        "NoneType",
        UPLOAD,
    ),
    "Record3D: no frame has all members": (
        "record3d",
        half_of_the_members,
        "rgbd/",
        "poses, colour, depth, confidence of each frame",
        "not one frame that has all",
        UPLOAD,
    ),
    "Record3D: no depth": (
        "record3d",
        without("rgbd/*.depth"),
        "depth",
        "depth images",
        "colour images only",
        "a phone that measures depth",
    ),
    "Record3D: depth cut short": (
        "record3d",
        bytes_of("rgbd/4.depth", lambda b: b[:-20]),
        "rgbd/4.depth",
        "whole LZFSE, as Record3D writes it",
        "cut short or damaged",
        UPLOAD,
    ),
    "Record3D: depth that is not packed": (
        "record3d",
        bytes_of("rgbd/4.depth", lambda b: bytes(64 * 48 * 4)),
        "rgbd/4.depth",
        "whole LZFSE",
        "that begin with b'\\x00",
        UPLOAD,
    ),
    "Record3D: confidence in the place of depth": (
        "record3d",
        lambda folder: shutil.copy(folder / "rgbd/4.conf", folder / "rgbd/4.depth") and None,
        "rgbd/4.depth",
        "12288 bytes when unpacked",
        "3072",
        UPLOAD,
    ),
    "Record3D: depth of another size": (
        "record3d",
        without_keys("metadata", "dw", "dh"),
        "rgbd/0.depth",
        "depth of 192x256 or 480x640, or dw and dh in metadata",
        "3072 pixels",
        UPLOAD,
    ),
    "Polycam: camera without a pose": (
        "polycam",
        without_keys("keyframes/corrected_cameras/*.json", "t_13"),
        FIRST_CAMERA,
        "12 numbers",
        "NoneType",
        UPLOAD,
    ),
    "Polycam: camera without K": (
        "polycam",
        without_keys("keyframes/corrected_cameras/*.json", "fx"),
        FIRST_CAMERA,
        "4 numbers",
        "NoneType",
        UPLOAD,
    ),
    "Polycam: depth of another walk": (
        "polycam",
        renamed("keyframes/depth/*", lambda path: path.with_stem(path.stem + "0")),
        "keyframes/",
        "cameras, images, depth, confidence of each frame",
        "not one frame that has all",
        UPLOAD,
    ),
    "3D Scanner App: no pose": (
        "scanner_3d_app",
        without_keys("frame_00003.json", "cameraPoseARFrame"),
        "frame_00003.json: cameraPoseARFrame",
        "16 numbers",
        "0",
        UPLOAD,
    ),
    "3D Scanner App: no time": (
        "scanner_3d_app",
        without_keys("frame_00003.json", "time"),
        "frame_00003.json: time",
        "1 numbers",
        "NoneType",
        UPLOAD,
    ),
    "3D Scanner App: no depth": (
        "scanner_3d_app",
        without("depth_*.png"),
        "depth",
        "depth images",
        "colour images only",
        "a phone that measures depth",
    ),
    "ARKitScenes: a sky_direction that is none": (
        "arkitscenes",
        written("metadata.csv", SKY.format(41069021, "Sideways")),
        "metadata.csv: sky_direction",
        "one of Up, Left, Right, Down in the line of video_id 41069021",
        "Sideways",
        "or leave it out",
    ),
    "ARKitScenes: a walk that metadata.csv does not know": (
        "arkitscenes",
        written("metadata.csv", SKY.format(7, "Up")),
        "metadata.csv: sky_direction",
        "in the line of video_id 41069021",
        "no such line",
        "or leave it out",
    ),
    "ARKitScenes: no intrinsics": (
        "arkitscenes",
        without("lowres_wide_intrinsics/*"),
        "lowres_wide_intrinsics/",
        "files named <id>_<t>.pincam",
        "none",
        UPLOAD,
    ),
    "ARKitScenes: intrinsics of another time": (
        "arkitscenes",
        renamed("lowres_wide_intrinsics/*", lambda path: path.with_name(path.name.replace("_333", "_444"))),
        "lowres_wide_intrinsics/",
        "intrinsics within 0.001 s of an image",
        "none",
        UPLOAD,
    ),
    "ARKitScenes: poses of another time": (
        "arkitscenes",
        all_lines("lowres_wide.traj", "1.0 0 0 0 0 0 0"),
        "lowres_wide.traj",
        "poses of finite numbers",
        "for all 12 frames",
        "scan again",
    ),
    "ARKitScenes: half a pose": (
        "arkitscenes",
        line("lowres_wide.traj", 2, "333333.4 0 0 0"),
        "lowres_wide.traj line 2",
        "7 numbers",
        "4",
        UPLOAD,
    ),
    "ScanNet: no intrinsics": (
        "scannet",
        without("intrinsic/intrinsic_depth.txt"),
        "intrinsic/intrinsic_depth.txt",
        "a file of this name",
        "none in the upload",
        UPLOAD,
    ),
    "ScanNet: no depth": (
        "scannet",
        renamed("depth/*.png", lambda path: path.with_suffix(".bak")),
        "room",
        "files of depth",
        "none",
        UPLOAD,
    ),
    "ScanNet: lost throughout": (
        "scannet",
        lambda folder: [path.write_text("-inf " * 16) for path in (folder / "pose").iterdir()] and None,
        "poses",
        "poses of finite numbers",
        "for all 12 frames",
        "scan again",
    ),
    "two files of one number": (
        "scannet",
        written("color/03.jpg", b"x"),
        "color/3.jpg",
        "one file of this number",
        "color/03.jpg too",
        "one recording at a time",
    ),
    ".sens cut short": (
        "scannet_sens",
        bytes_of(SENS, lambda b: b[:-3000]),
        "scene0000_00.sens: frame",
        "a whole recording",
        "a file that ends at byte",
        UPLOAD,
    ),
    ".sens cut inside of the last image": (
        "scannet_sens",
        bytes_of(SENS, lambda b: b[:-10]),
        "scene0000_00.sens: frame 11 of 12",
        "a whole recording",
        "a file that ends at byte",
        UPLOAD,
    ),
    ".sens cut inside of its header": (
        "scannet_sens",
        bytes_of(SENS, lambda b: b[:100]),
        "scene0000_00.sens: header",
        "a whole recording",
        "a file that ends at byte 100",
        UPLOAD,
    ),
    ".sens of another version": (
        "scannet_sens",
        bytes_of(SENS, lambda b: b"\x03" + b[1:]),
        "scene0000_00.sens: version",
        "4, and the sensor's name",
        "3, and a name of 15 bytes",
        UPLOAD,
    ),
    ".sens of raw colour": (
        "scannet_sens",
        in_sens_header(0, "<i", 0),
        "scene0000_00.sens: compression of colour",
        "1 (PNG) or 2 (JPEG)",
        "0",
        "SensReader",
    ),
    ".sens of depth packed otherwise": (
        "scannet_sens",
        in_sens_header(4, "<i", 2),
        "scene0000_00.sens: compression of depth",
        "0 (none) or 1 (zlib)",
        "2",
        "SensReader",
    ),
    ".sens that claims a billion frames": (
        "scannet_sens",
        in_sens_header(28, "<Q", 10**9),
        "scene0000_00.sens: header",
        "a number of frames above 0",
        "1000000000 frames",
        "SensReader",
    ),
    ".sens of another size of depth": (
        "scannet_sens",
        in_sens_header(20, "<I", 49),
        "scene0000_00.sens frame 0",
        "depth of 6272 bytes",
        "6144 bytes",
        UPLOAD,
    ),
    "two .sens": (
        "scannet_sens",
        written("other.sens", b"x"),
        "room",
        "one .sens file",
        "other.sens, scene0000_00.sens",
        "one room at a time",
    ),
    "COLMAP: binary images cut short": (
        "colmap",
        colmap_binary(PINHOLE, struct.pack("<Qi", 12, 1)),
        "sparse/0/images.bin",
        "as many cameras or images as its first bytes say",
        "a file that ends too early, after 12 bytes",
        UPLOAD,
    ),
    "COLMAP: binary name without an end": (
        "colmap",
        colmap_binary(PINHOLE, struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"a.j"),
        "sparse/0/images.bin",
        "as many cameras or images",
        "a file that ends too early",
        UPLOAD,
    ),
    "COLMAP: binary cameras cut short": (
        "colmap",
        colmap_binary(PINHOLE[:40], b""),
        "sparse/0/cameras.bin",
        "as many cameras or images",
        "after 40 bytes",
        UPLOAD,
    ),
    "COLMAP: binary fisheye": (
        "colmap",
        colmap_binary(struct.pack("<QiiQQ8d", 1, 7, 5, 64, 48, *[1.0] * 8), b""),
        "sparse/0/cameras.bin camera 7",
        "a pinhole camera (SIMPLE_PINHOLE",
        "model 5",
        "image_undistorter",
    ),
    "COLMAP: fisheye": (
        "colmap",
        written("sparse/0/cameras.txt", "1 OPENCV_FISHEYE 64 48 1 1 1 1 0 0 0 0"),
        "sparse/0/cameras.txt line 1",
        "a pinhole camera",
        "model OPENCV_FISHEYE",
        "image_undistorter",
    ),
    "COLMAP: too few parameters": (
        "colmap",
        written("sparse/0/cameras.txt", "1 OPENCV 64 48 52 52 32 24"),
        "sparse/0/cameras.txt line 1",
        "8 parameters of OPENCV",
        "4",
        UPLOAD,
    ),
    "COLMAP: an image of no camera": (
        "colmap",
        written("sparse/0/cameras.txt", "2 PINHOLE 64 48 52 52 32 24"),
        "sparse/0/images.txt line 2",
        "a camera of the model",
        "camera 1, which cameras.txt does not have",
        UPLOAD,
    ),
    "COLMAP: images without their lines of points": (
        "colmap",
        images_without_points,
        "sparse/0/images.txt line 2",
        "the points of the image above",
        "an image",
        "Write an empty line",
    ),
    "COLMAP: a missing image": (
        "colmap",
        without("images/0003.jpg"),
        "sparse/0/images.txt line 8",
        "the file images/0003.jpg in the upload",
        "none of this name",
        UPLOAD,
    ),
    "Replica: depth unit of zero": (
        "replica",
        written("cam_params.json", '{"camera": {"fx": 5, "fy": 5, "cx": 3, "cy": 2, "scale": 0}}'),
        "cam_params.json: scale",
        "units of depth a metre, above 0",
        "0",
        "Write 6553.5",
    ),
    "Replica: camera without K": (
        "replica",
        written("cam_params.json", '{"camera": [1]}'),
        "cam_params.json: camera: fx fy cx cy scale",
        "5 numbers",
        "NoneType",
        UPLOAD,
    ),
    "Replica: half a pose": ("replica", line("traj.txt", 3, "1 0 0"), "traj.txt line 3", "16 numbers", "3", UPLOAD),
    "Redwood: a log of other lines": (
        "redwood",
        written("trajectory.log", "0 0 1\n1 0 0 0\n0 1 0 0\n"),
        "trajectory.log",
        "five lines for each frame",
        "3 lines",
        UPLOAD,
    ),
    "Redwood: a log of another walk": (
        "redwood",
        line("trajectory.log", 6, "17 17 18"),
        "trajectory.log line 6",
        "the number of a frame, 0 to 11, each once",
        "17",
        "Upload all images",
    ),
    "Redwood: a frame twice": (
        "redwood",
        line("trajectory.log", 6, "0 0 1"),
        "trajectory.log line 6",
        "each once",
        "0",
        "Upload all images",
    ),
    "Redwood: depth of some frames only": (
        "redwood",
        without("depth/00003.png"),
        "depth/",
        "a depth image for each of the 12 colour images",
        "11",
        "Upload all images",
    ),
    # frames
    "one frame": ("canonical", frames(4), "frames", "at least two frames", "1 frame", "walk once around the room"),
    "two frames with no overlap": (
        "canonical",
        manifest(turn_around),
        "poses",
        "neighbouring frames that see the same surfaces",
        "frames without overlap",
        "Walk slowly",
    ),
    # archives and folders
    "4 GB claimed by a 1 kB zip": (
        "canonical",
        zip_that_claims_4_gb,
        "room.zip",
        "an archive that unpacks to at most 200 times its",
        "one that claims at least 3 GiB",
        PACK,
    ),
    "../ in an archive": (
        "canonical",
        zip_with("../../.ssh/authorized_keys"),
        "room.zip",
        "names of files inside the scan",
        "'../../.ssh/authorized_keys', which points elsewhere",
        PACK,
    ),
    "absolute name in an archive": (
        "canonical",
        zip_with("/etc/cron.d/x"),
        "room.zip",
        "names of files inside the scan",
        "'/etc/cron.d/x'",
        PACK,
    ),
    "symlink in an archive": (
        "canonical",
        symlink_in_tar,
        COLOUR,
        "ordinary files in the tar",
        "a symbolic link",
        "--dereference",
    ),
    "symlink out of the folder": (
        "canonical",
        symlink_in_folder,
        COLOUR,
        "files that lie in the scan's own folder",
        "a symbolic link to",
        "Put the file itself in its place",
    ),
    "a folder that is no scan": (
        "canonical",
        no_scan,
        "room",
        "a room scan",
        "a folder of no known format, 1 in all: letter.docx",
        "canonical: scan.json",
    ),
    "an empty folder": ("canonical", no_file_at_all, "room", "a room scan", "a folder without any file in it", UPLOAD),
    "a path that is not there": (
        "canonical",
        lambda folder: folder / "nope",
        "nope",
        "a folder, zip or tar with a room scan",
        "nothing at",
        "spelling",
    ),
}


@pytest.mark.parametrize(
    ("layout", "spoil", "place", "expected", "received", "do"),
    [pytest.param(*case, id=name) for name, case in CASES.items()],
)
def test_bad_input_ends_in_a_sentence(
    layout: str, spoil: Spoil, place: str, expected: str, received: str, do: str,
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path,
) -> None:  # fmt: skip
    layouts[layout](box_room(), tmp_path / "room")
    changed = spoil(tmp_path / "room")
    path = changed if isinstance(changed, Path) else tmp_path / "room"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ScanRejected) as refusal:
        raise_errors(check_path(path))
    said = refusal.value
    assert said.place.startswith(place)
    assert expected in said.expected
    assert received in said.received
    assert do in said.do
    assert str(said) == f"{said.place}: expected {said.expected}; got {said.received}. {said.do}"
    assert "\n" not in str(said), "one sentence, one line"
    assert str(tmp_path) not in said.place
    assert sorted(tmp_path.rglob("*")) == before, "something was written"


@pytest.mark.parametrize("packed", ["folder", "zip", "tar", "gztar"])
def test_names_with_spaces_and_umlauts_work(
    packed: str, layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    path = tmp_path / "Müllers große Küche (2)"
    layouts["nerfstudio"](box_room(), path)
    (path / "images").rename(path / "Bilder für Oma")
    index = (path / "transforms.json").read_text().replace("./images", "./Bilder für Oma")
    (path / "transforms.json").write_text(index, encoding="utf-8")
    if packed != "folder":
        path = Path(shutil.make_archive(str(tmp_path / "Küche mit Archiv"), packed, path.parent, path.name))
    report = check_path(path)
    assert report.errors == ()
    assert report.frames == 12
    assert read_scan(path).recording.rgb_hw3(3).shape == (48, 64, 3)


def test_an_index_may_name_files_with_spaces_and_umlauts(
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts["tum_rgbd"](box_room(), tmp_path / "room")
    (tmp_path / "room" / "rgb").rename(tmp_path / "room" / "Fläche, 2 Bilder")
    index = (tmp_path / "room" / "rgb.txt").read_text().replace(" rgb/", " Fläche, 2 Bilder/")
    (tmp_path / "room" / "rgb.txt").write_text(index, encoding="utf-8")
    assert check_path(tmp_path / "room").errors == ()


def test_single_lost_frames_are_kept_out_and_told(
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts["hololens"](box_room(), tmp_path / "room")
    line("poses.txt", 3, "-inf " * 16)(tmp_path / "room")
    line("poses.txt", 7, "nan " * 16)(tmp_path / "room")
    report = check_path(tmp_path / "room")
    assert report.errors == ()
    assert report.frames == 10
    (warning,) = (f for f in report.findings if f.severity == "warning")
    assert warning.received == (
        "2 of 12 without a finite pose (tracking lost), left out: images/00006.jpg, images/00018.jpg"
    )


def test_several_bad_images_are_one_finding_that_counts_them(
    layouts: Layouts, box_room: Callable[..., Scan], tmp_path: Path
) -> None:
    layouts["canonical"](box_room(), tmp_path / "room")
    for i in range(2, 9):
        (tmp_path / "room" / "color" / f"{i:06d}.jpg").write_bytes(b"")
    (error,) = check_path(tmp_path / "room").errors
    assert error.place == "color/000002.jpg"
    assert error.received == (
        "an empty file (0 bytes) (7 of 12 images: color/000002.jpg, color/000003.jpg, color/000004.jpg and 4 more)"
    )
