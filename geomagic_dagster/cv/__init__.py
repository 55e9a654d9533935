"""The science: pure functions on arrays and tensors.

Belongs here: one file for each stage, named by the noun that it makes; `types` (the nouns),
`containers` (how large data is held), `camera` (shared mathematics), `stage` (what a stage is).
Does not belong here: Dagster, paths, the network, the environment, logging set-up.

A stage imports torch, kornia, cv2 and other heavy libraries inside its functions: the code location
then loads in a second and idles small. `make lint` says so where it is forgotten.
"""
