"""What people see of a finished room: one self-contained page, and a small server of such pages.

Belongs here: reading the files of a package and showing them. Does not belong here: what is in a package
(cv/package.py), where packages and artefacts lie (resources/), Dagster.
"""
