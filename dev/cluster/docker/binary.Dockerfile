# An image of one static program: `root/` holds it on the PATH under its own name, a link to it as
# /entrypoint, and the certificates it may need.
FROM scratch
ENV PATH=/usr/local/bin
COPY root/ /
# A number, so that a pod that must not run as root can be checked.
ARG USER_ID=0
USER ${USER_ID}
ENTRYPOINT ["/entrypoint"]
