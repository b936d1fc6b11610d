#!/usr/bin/env bash
# Locks every extra of pyproject.toml with hashes. What a framework brings (torch.txt) is in no lock of an image,
# so that nothing is ever installed over a vendor's torch. dev.txt is all of it together.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
compile() {
    "$uv" pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@"
}
compile requirements/torch.in --python-version 3.11 --output-file requirements/torch.txt
without_framework=$(sed -nE 's/^([a-z0-9._-]+)==.*/--no-emit-package \1/p' requirements/torch.txt)
# The framework for Python 3.10 asks for one package more than the locked one.
# shellcheck disable=SC2086
compile pyproject.toml --extra app --universal --python-version 3.10 --no-emit-package nvidia-curand $without_framework \
    --output-file requirements/app.txt
compile pyproject.toml --extra controller --python-version 3.11 --output-file requirements/controller.txt
compile pyproject.toml --extra deviceplugin --python-version 3.11 -c requirements/app.txt \
    --output-file requirements/deviceplugin.txt
compile pyproject.toml --extra app --extra controller --extra deviceplugin --extra dev --python-version 3.11 \
    -c requirements/torch.txt -c requirements/app.txt -c requirements/controller.txt -c requirements/deviceplugin.txt \
    --output-file requirements/dev.txt
# torch 2.4 imports on a machine without a GPU as it is, but for nothing that is compiled: triton stays away.
compile requirements/compat.in pyproject.toml --extra app --extra controller --extra dev --python-version 3.11 \
    -c requirements/app.txt -c requirements/controller.txt --no-emit-package triton --output-file requirements/compat.txt
# The peers of benches; nothing of the project needs them.
compile requirements/peers.in -c requirements/dev.txt --python-version 3.11 --output-file requirements/peers.txt
echo uv | compile - -c requirements/dev.txt --output-file requirements/uv.txt
