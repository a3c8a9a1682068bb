# The service and its workers: everything but the teacher's server, which has an image of its own.
FROM python:3.11-slim
WORKDIR /retort
RUN useradd --create-home retort && mkdir /data && chown retort /data
COPY requirements ./requirements
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH=torch==2.13.0+cpu
RUN pip install --no-cache-dir --index-url ${TORCH_INDEX} ${TORCH} \
 && pip install --no-cache-dir -r requirements/main.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e . -e ./lowrank
USER retort
ENV RETORT_DATA_DIR=/data
EXPOSE 8700
