# The image that trains: `docker build . --build-arg BASE_IMAGE=… -t sdaa_resnet50`. It stands alone, so that a builder
# without BuildKit, which makes every stage of a file, asks for no other base. The operator's is operator.Dockerfile.
#   BASE_IMAGE  on real cards the vendor's image, which brings torch; a base without torch gets the locked one
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS training
USER root
RUN if ! command -v tini >/dev/null; then \
        apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*; \
    fi
# One environment in front of PATH, whatever the base: the vendor's conda environment where it has one (all of it: Python
# finds its libraries beside bin/). There `conda activate` works in every interactive shell, not in root's alone.
RUN set -eu; mkdir -p /opt/resnet; \
    conda=$(command -v conda || true); \
    for root in ${conda:+"$("$conda" info --base)"} /opt/conda /root/miniconda3 /root/anaconda3; do \
        if [ -x "$root/envs/torch_env/bin/python" ]; then environment="$root/envs/torch_env"; break; fi; \
    done; \
    if [ -n "${environment:-}" ]; then \
        case "$environment" in /root/*) chmod a+x /root ;; esac; \
        ln -s "$environment" /opt/resnet/environment; \
        echo "[ ! -e $root/etc/profile.d/conda.sh ] || . $root/etc/profile.d/conda.sh" >> /etc/bash.bashrc; \
    else \
        mkdir -p /opt/resnet/environment/bin; \
        command -v python >/dev/null || ln -s "$(command -v python3)" /opt/resnet/environment/bin/python; \
    fi
# A name and a home for the user below, where the base has none: shells and libraries ask for them.
RUN grep -q '^[^:]*:[^:]*:1000:' /etc/group || echo 'resnet:x:1000:' >> /etc/group; \
    grep -q '^[^:]*:[^:]*:1000:' /etc/passwd || echo 'resnet:x:1000:1000::/workspace:/bin/bash' >> /etc/passwd
ENV PATH=/opt/resnet/environment/bin:${PATH} PYTHONPATH=/opt/resnet PYTHONUNBUFFERED=1 PIP_BREAK_SYSTEM_PACKAGES=1
COPY requirements/torch.txt requirements/app.txt /opt/resnet/requirements/
RUN python -c 'import torch, torchvision' 2>/dev/null \
    || python -m pip install --no-cache-dir --require-hashes -r /opt/resnet/requirements/torch.txt
# --no-deps: the lock is complete without what the framework brings, which nothing may replace.
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r /opt/resnet/requirements/app.txt
# Where users of the ModelZoo image type their commands.
RUN mkdir -p /workspace/Classification/ResNet/run_scripts \
    && ln -s /opt/resnet/app/run_resnet.py /workspace/Classification/ResNet/run_scripts/run_resnet.py \
    && chown -R 1000:1000 /workspace
# Last: a change in app/ changes one small layer.
COPY pyproject.toml /opt/resnet/
COPY app /opt/resnet/app
WORKDIR /workspace/Classification/ResNet/run_scripts
USER 1000:1000
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "app.run_resnet", "--help"]
