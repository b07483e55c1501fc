# A Redis for the local cluster: Debian's, on the image that the product's images start from.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
USER 65532
ENTRYPOINT ["redis-server"]
