#!/bin/sh
# Copies the 3D viewer, as package-lock.json pins it, to where the console serves it from, with its licences.
set -eu
cd "$(dirname "$0")"
to=${1:-../../geomagic_dagster/console/scans/static/scans}
sed '/^\/\/# sourceMappingURL=/d' node_modules/@google/model-viewer/dist/model-viewer.min.js > "$to/model-viewer.js"
for package in @google/model-viewer three lit @monogrid/gainmap-js; do
  printf '==== %s\n\n' "$package"
  cat node_modules/$package/LICENSE
  printf '\n'
done > "$to/model-viewer.LICENSE"
