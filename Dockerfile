# docker build --tag ssl-backbones .                                                                  for CPUs
# docker build --tag ssl-backbones:cuda --build-arg WHEELS=https://download.pytorch.org/whl/cu130 .   for NVIDIA GPUs
# docker run --rm --ipc=host --user "$(id -u):$(id -g)" --volume "$PWD:/work" \
#   ssl-backbones pretrain resnet18_distilled.own --data images --out runs/mine
# With --ipc=host the processes that read images have room to hand them over; Docker gives them 64 MB. With --user the files
# that it leaves are yours. There is no compiler in it, which --compile would ask for.
FROM python:3.12-slim

# torch's wheels bring CUDA's libraries with them; the driver is the host's (docker run --gpus all).
ARG WHEELS=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
# The newest versions that pyproject.toml allows.
# hadolint ignore=DL3013
RUN pip install --index-url "$WHEELS" torch torchvision

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY ssl_backbones ssl_backbones
# hadolint ignore=DL3013
RUN pip install ".[eval,fast,heic]" && rm -rf /source

# Whoever is named by --user, known to the image or not, has a home to write to, and a name.
# Indices of images, and what comes from the Hub, lie beside the work and outlive the container.
ENV HOME=/tmp USER=user XDG_CACHE_HOME=/work/.cache
RUN useradd --uid 1000 user && mkdir /work && chown user /work
USER 1000
WORKDIR /work
ENTRYPOINT ["ssl-backbones"]
CMD ["--help"]
