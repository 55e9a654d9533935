"""The made-up room: furnished rooms from a seed, walked through with a phone, with the exact truth about them.

Belongs here: what a user of made-up rooms needs, by name. Does not belong here: real scans (../formats).

Paste this into a notebook:

    from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room

    room = make_room(seed=3, shape="l_shaped")
    print([piece.kind for piece in room.furniture], room.floor_area_m2, room.openings)
    made_up = scan_room(room, PHONE.but(frames=60))
    scan, truth = made_up.scan, made_up.truth

    scan.recording.rgb_hw3(0)               # what the phone saw: a picture to show with matplotlib
    scan.recording.depth_m_hw(0)            # what its depth sensor measured
    truth.depth_m_hw(0)                     # what is true
    truth.rgb_without_furniture_hw3(0)      # the same view of the empty room

    # How good is a mesh of the pipeline? (poses, mesh: the results of these stages)
    vertices = truth.to_world(mesh.vertices_world_m_v3, poses.world_T_scan_44)
    print("mean error in metres", truth.surface_distance_m(vertices).mean())
    seen = truth.sample_surface(20_000)     # true surface that the walk saw, for completeness

Two worlds: the truth stands in the true world (z up, floor at 0); the scan's poses in the device's world, which
starts at the first camera with any heading. `truth.world_T_scan_44` takes the device's to the true one.
Rays through the window give no depth (0), in the truth as in the scan; the door is shut.
"""

from geomagic_dagster.scans.made_up.furniture import Furniture, Material, Part
from geomagic_dagster.scans.made_up.room import Decal, Light, MadeUpRoom, Opening, Wall, make_room
from geomagic_dagster.scans.made_up.scan import CLEAN, PHONE, PHONE_DRIFTING, MadeUpScan, ScanOptions, scan_room
from geomagic_dagster.scans.made_up.truth import Truth

__all__ = [
    "CLEAN",
    "PHONE",
    "PHONE_DRIFTING",
    "Decal",
    "Furniture",
    "Light",
    "MadeUpRoom",
    "MadeUpScan",
    "Material",
    "Opening",
    "Part",
    "ScanOptions",
    "Truth",
    "Wall",
    "make_room",
    "scan_room",
]
