"""Which files of tests begin first where several processes share them: those that take longest.

Belongs here: the order, as it was measured (pytest --durations=60 on two cores, longest first). It need not be exact,
and files that are not named come behind. Does not belong here: what is not run by default (the mark `slow`).
"""

from __future__ import annotations

LONGEST_FIRST = (
    "tests/drill/test_story.py",
    "tests/releases/test_install.py",
    "tests/releases/test_other_dagster.py",
    "tests/releases/test_side_by_side.py",
    "tests/releases/test_cut.py",
    "tests/journey/test_accuracy.py",
    "tests/cv/test_furniture_made_up.py",
    "tests/jobs/test_process_scan.py",
    "tests/drill/test_drill.py",
    "tests/cv/test_layout_of_made_up_rooms.py",
    "tests/cv/test_room_from_depth_alone.py",
    "tests/journey/test_determinism.py",
    "tests/journey/test_real_scans.py",
    "tests/test_cli.py",
    "tests/launching/test_installation.py",
    "tests/browser/test_ui.py",
    "tests/monitoring/test_exporter.py",
    "tests/cv/test_layout_of_a_corner.py",
    "tests/flighting/test_watch.py",
    "tests/console/test_in_browser.py",
    "tests/console/test_browser.py",
    "tests/viewer/test_in_browser.py",
    "tests/console/test_gate.py",
    "tests/console/scans/test_real_server.py",
    "tests/console/scans/test_installation.py",
    "tests/console/test_databases.py",
    "tests/releases/test_dark_check.py",
    "tests/jobs/test_upload_sensor.py",
    "tests/scans/test_made_up.py",
    "tests/scans/test_convert.py",
    "tests/console/test_staging.py",
    "tests/cv/test_package.py",
    "tests/flighting/test_compare.py",
)
