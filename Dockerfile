# The service in a container; docs/serving.md says how to run it.
#   docker build --tag cellbundle .                                    for a CPU
#   docker build --tag cellbundle:cuda --build-arg VARIANT=cuda .      for NVIDIA GPUs
# The digest names one build of the image, for all processors; for another one: docker buildx imagetools inspect NAME:TAG
ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG VARIANT=cpu

FROM ${BASE} AS build
# The index of PyTorch's CPU wheels (PyTorch's page "Start locally" names it) makes the image several GB smaller. Without it come the
# wheels with CUDA libraries, which run on a CPU as well.
ARG TORCH_INDEX=""
WORKDIR /source
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY constraints.txt pyproject.toml setup.py README.md LICENSE ./
COPY scripts/cellbundle scripts/cellbundle
COPY bundles bundles
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "$TORCH_INDEX" ]; then \
        pip install --quiet --constraint constraints.txt --index-url "$TORCH_INDEX" torch torchvision; \
    fi; \
    pip install --quiet --constraint constraints.txt ".[serve]"

FROM ${BASE} AS cpu

FROM cpu AS cuda
# What the driver of the host puts into the container; PyTorch brings all other libraries along.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM ${VARIANT}
COPY --from=build /opt/venv /opt/venv
RUN useradd --uid 10001 --no-log-init --no-create-home --home-dir /nonexistent cellbundle \
    && install --directory --owner=cellbundle --group=cellbundle /var/cache/cellbundle
ENV PATH=/opt/venv/bin:$PATH \
    NUMBA_CACHE_DIR=/var/cache/cellbundle \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
# Compiles the kernels, so that a container starts at once, and shows that the image works.
RUN cellbundle predict "$(cellbundle list --paths cell_unet)/docs/example.png" --output warm --save labels,geojson,measurements \
    && rm -r warm
EXPOSE 5050
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 5050, timeout=4); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["cellbundle", "serve", "--host", "0.0.0.0"]
CMD ["--bundle", "cell_unet"]
