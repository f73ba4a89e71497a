# syntax=docker/dockerfile:1
# olm on NVIDIA's TensorRT image, for a machine that has the GPU.
#
#   docker build -t olm .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" -v olm-cache:/cache \
#     olm compress model.onnx fast.onnx --speedup 1.3 --calib images/ --preset imagenet \
#     --backend tensorrt --device cuda:0 --precision fp16
#
# 25.06-py3 is Ubuntu 24.04 with Python 3.12, CUDA 12.9 and TensorRT 10.11, installed for the system's Python.  For
# another one: docker build --build-arg BASE=nvcr.io/nvidia/tensorrt:TAG, and for CUDA 13 other bindings, see below.
ARG BASE=nvcr.io/nvidia/tensorrt:25.06-py3

# The wheel is built apart, so that neither the sources nor the build tools are in the image.
FROM ${BASE} AS wheel
# A base image may hold pip to versions of its own, which are not those of the locks.
ENV PIP_CONSTRAINT="" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/build.txt requirements/build.txt
RUN python3 -m venv --system-site-packages --without-pip /build \
 && /build/bin/python -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY onnx_layermerge onnx_layermerge
COPY cli cli
RUN /build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${BASE}
ENV PIP_CONSTRAINT="" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The environment sees the system's packages, so that TensorRT is the image's own: neither a lock nor an extra that is
# installed here names it.  Everything else comes from the committed locks; container.txt has the driver bindings of the
# image's CUDA 12 (cuda-python 13 goes with CUDA 13).
COPY requirements/run.txt requirements/images.txt requirements/container.txt /setup/requirements/
RUN python3 -m venv --system-site-packages --without-pip /opt/olm \
 && /opt/olm/bin/python -m pip install --require-hashes \
      -r /setup/requirements/run.txt -r /setup/requirements/images.txt -r /setup/requirements/container.txt
COPY --from=wheel /wheels /setup/wheels
RUN /opt/olm/bin/python -m pip install --no-deps /setup/wheels/*.whl \
 && rm -r /setup \
 && useradd --create-home --uid 10001 olm \
 && install --directory --mode 1777 /cache /data
# Latency tables go to /cache and files are looked for in /data, whoever --user says the process is.
ENV PATH=/opt/olm/bin:$PATH XDG_CACHE_HOME=/cache
USER olm
WORKDIR /data
ENTRYPOINT ["olm"]
CMD ["--help"]
