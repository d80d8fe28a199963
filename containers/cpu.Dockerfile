# docker build -f containers/cpu.Dockerfile -t dlfd-dist:cpu .
FROM python:3.12-slim-bookworm
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/dlfd-dist
COPY . .
# constraints.txt pins every version; torch comes without CUDA from its own index.
RUN pip install -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch torchvision \
 && pip install -c constraints.txt '.[search]' \
 && useradd --create-home --uid 1000 dlfd
USER 1000
WORKDIR /home/dlfd
ENTRYPOINT ["dlfd"]
CMD ["doctor"]
