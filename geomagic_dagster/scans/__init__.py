"""A room scan on disk: reading it, checking it, making one up.

`reader.read_scan(path)` gives a scan whatever its format; `check.check_path(path)` says what is
wrong with it. Does not belong here: anything that changes a scan (the stages of cv/ do that).
"""
