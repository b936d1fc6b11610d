# The image of the operator: `docker build . -f operator.Dockerfile -t localhost/resnet-operator-operator:<version>`.
#   OPERATOR_BASE_IMAGE  any image with Python 3.11
ARG OPERATOR_BASE_IMAGE=python:3.11-slim-bookworm

FROM ${OPERATOR_BASE_IMAGE} AS operator
WORKDIR /opt/resnet
COPY requirements/controller.txt requirements/
RUN python3 -m pip install --no-cache-dir --break-system-packages --require-hashes -r requirements/controller.txt
COPY pyproject.toml ./
COPY manifests manifests
COPY app app
COPY controller controller
ENV PYTHONPATH=/opt/resnet PYTHONUNBUFFERED=1
USER 1000:1000
ENTRYPOINT ["python3", "-m", "controller"]
