"""`python -m tests.cluster.images` builds the images of the Dockerfiles on the bases of the tests, and names them."""

from __future__ import annotations

import sys

from tests.cluster.images.build import DOCKERFILES, build_images, name

try:
    store = build_images()
except RuntimeError as error:
    sys.exit(f"make image: {error}")
for part in DOCKERFILES:
    print(f"{name(part)}  (buildah --root {store.root})")
