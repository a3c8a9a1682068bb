# Two images. `service` (the default) runs the API, beat and the workers that need no vLLM; `serve` is the
# same with vLLM in an environment of its own, for workers that serve models and for a teacher's server.
#   docker build --target service .
#   docker build --target serve .        x86-64 with an NVIDIA GPU; large, it holds vLLM
FROM python:3.11-slim AS base
WORKDIR /retort
RUN useradd --create-home --uid 1000 retort && mkdir /data /models && chown retort: /data /models
COPY requirements ./requirements
# A GPU's torch is the index's own: TORCH=torch==2.13.0 and an empty TORCH_FROM.
ARG TORCH_FROM="--index-url https://download.pytorch.org/whl/cpu"
ARG TORCH=torch==2.13.0+cpu
# Torch first, with what that build needs; then complete lists, of which pip must resolve nothing.
RUN pip install --no-cache-dir ${TORCH_FROM} ${TORCH} \
 && pip install --no-cache-dir --no-deps -r requirements/main.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e . -e ./lowrank
ENV RETORT_DATA_DIR=/data HF_HOME=/models PYTHONUNBUFFERED=1
EXPOSE 8700

FROM base AS serve
# vLLM compiles kernels where it runs.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG VLLM=vllm==0.32.0
RUN python -m venv /opt/vllm \
 && /opt/vllm/bin/pip install --no-cache-dir ${VLLM} \
 && /opt/vllm/bin/pip install --no-cache-dir --no-deps ./lowrank
ENV RETORT_VLLM_PYTHON=/opt/vllm/bin/python VLLM_NO_USAGE_STATS=1
USER retort

FROM base AS service
USER retort
