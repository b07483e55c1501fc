# kind's node, without the images that its control plane runs: `node_image.py` adds those.
# `files/` comes from kind's own module; the steps below are those of its Dockerfile, with Debian's
# containerd, runc and CNI plugins in place of builds from their repositories.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        systemd systemd-sysv conntrack iptables nftables iproute2 ethtool kmod libseccomp2 pigz \
        procps jq curl hostname util-linux mount containerd runc containernetworking-plugins \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete \
    && rm -f /lib/systemd/system/multi-user.target.wants/* \
        /etc/systemd/system/*.wants/* \
        /lib/systemd/system/local-fs.target.wants/* \
        /lib/systemd/system/sockets.target.wants/*udev* \
        /lib/systemd/system/sockets.target.wants/*initctl* \
        /lib/systemd/system/basic.target.wants/* \
    && echo "ReadKMsg=no" >> /etc/systemd/journald.conf
COPY files/ /
COPY 10-ptp.conflist /etc/cni/net.d/
# kind's units call containerd by the path where kind's own build puts it.
RUN ln -s /usr/bin/containerd /usr/bin/ctr /usr/bin/containerd-shim-runc-v2 /usr/local/bin/ \
    && mkdir -p /opt/cni /etc/kubernetes/manifests \
    && ln -s /usr/lib/cni /opt/cni/bin \
    && systemctl enable kubelet.service containerd.service undo-mount-hacks.service \
    && systemctl mask systemd-binfmt.service \
    && ctr oci spec \
        | jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}]' \
        | jq 'del(.process.rlimits)' > /etc/containerd/cri-base.json
ARG PAUSE_IMAGE
ARG KUBERNETES_VERSION
RUN sed -i "s|sandbox_image = .*|sandbox_image = \"${PAUSE_IMAGE}\"|" /etc/containerd/config.toml \
    && echo "${KUBERNETES_VERSION}" > /kind/version
COPY kubeadm kubelet kubectl /usr/bin/
ENV container=docker
# systemd stops on this, and executes itself anew on SIGTERM.
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
