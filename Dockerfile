# The images. `training` is the last stage, so that `docker build . --build-arg BASE_IMAGE=… -t sdaa_resnet50` makes it.
#   BASE_IMAGE           on real cards the vendor's image, which brings torch; a base without torch gets the locked one
#   OPERATOR_BASE_IMAGE  any image with Python 3.11
ARG BASE_IMAGE
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
ENTRYPOINT ["python3", "-m", "controller.cli"]

FROM ${BASE_IMAGE} AS training
USER root
RUN if ! command -v tini >/dev/null; then \
        apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*; \
    fi
# One bin directory in front of PATH, whatever the base: the vendor's conda environment where it has one.
RUN set -eu; mkdir -p /opt/resnet; \
    conda=$(command -v conda || true); \
    for root in ${conda:+"$("$conda" info --base)"} /opt/conda /root/miniconda3 /root/anaconda3; do \
        if [ -x "$root/envs/torch_env/bin/python" ]; then environment="$root/envs/torch_env"; break; fi; \
    done; \
    if [ -n "${environment:-}" ]; then \
        case "$environment" in /root/*) chmod a+x /root ;; esac; \
        ln -s "$environment/bin" /opt/resnet/bin; \
    else \
        mkdir /opt/resnet/bin; \
        command -v python >/dev/null || ln -s "$(command -v python3)" /opt/resnet/bin/python; \
    fi
ENV PATH=/opt/resnet/bin:${PATH} PYTHONPATH=/opt/resnet PYTHONUNBUFFERED=1 PIP_BREAK_SYSTEM_PACKAGES=1
COPY requirements/torch.txt requirements/app.txt /opt/resnet/requirements/
RUN python -c 'import torch, torchvision' 2>/dev/null \
    || python -m pip install --no-cache-dir --require-hashes -r /opt/resnet/requirements/torch.txt
# --no-deps: the lock is complete without what the framework brings, which nothing may replace.
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r /opt/resnet/requirements/app.txt
COPY app /opt/resnet/app
# Where users of the ModelZoo image type their commands.
RUN mkdir -p /workspace/Classification/ResNet/run_scripts \
    && ln -s /opt/resnet/app/run_resnet.py /workspace/Classification/ResNet/run_scripts/run_resnet.py \
    && chown -R 1000:1000 /workspace
WORKDIR /workspace/Classification/ResNet/run_scripts
USER 1000:1000
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "app.run_resnet", "--help"]
