# docker build -f containers/cuda.Dockerfile -t dlfd-dist:cuda .
# docker run --gpus all --shm-size 2g dlfd-dist:cuda doctor
FROM python:3.12-slim-bookworm
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
# Read by the NVIDIA container toolkit, which brings the driver; torch's wheel brings CUDA and NCCL.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /opt/dlfd-dist
COPY . .
RUN pip install -c constraints.txt torch torchvision \
 && pip install -c constraints.txt '.[search]' \
 && useradd --create-home --uid 1000 dlfd
USER 1000
WORKDIR /home/dlfd
ENTRYPOINT ["dlfd"]
CMD ["doctor"]
