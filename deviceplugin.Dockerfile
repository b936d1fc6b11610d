# The image of the device plugin:
# `docker build . -f deviceplugin.Dockerfile -t localhost/resnet-operator-device-plugin:<version>`.
#   DEVICE_PLUGIN_BASE_IMAGE  any image with Python 3.11
ARG DEVICE_PLUGIN_BASE_IMAGE=python:3.11-slim-bookworm

FROM ${DEVICE_PLUGIN_BASE_IMAGE} AS device-plugin
WORKDIR /opt/resnet
COPY requirements/deviceplugin.txt requirements/
RUN python3 -m pip install --no-cache-dir --break-system-packages --require-hashes -r requirements/deviceplugin.txt
COPY pyproject.toml ./
# Version, exit codes and the command line's; the rest of app/ is not imported.
COPY app/__init__.py app/arguments.py app/version.py app/modules.py app/
COPY app/resilience/__init__.py app/resilience/exit_codes.py app/resilience/
COPY deviceplugin deviceplugin
# The root is read-only.
RUN python3 -m compileall -q app deviceplugin
# gRPC says in C++ what the plugin says in one line.
ENV PYTHONPATH=/opt/resnet PYTHONUNBUFFERED=1 GRPC_VERBOSITY=NONE
# The kubelet's directories are root's alone.
USER 0:0
ENTRYPOINT ["python3", "-m", "deviceplugin"]
