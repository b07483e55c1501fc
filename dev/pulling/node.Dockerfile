# The node that is built here, made to pass for kind's own where one is pulled: containerd asks a
# mirror for both registries, and the network that kind would install is there already.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN printf '[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n' \
      >> /etc/containerd/config.toml \
    && sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml \
    && for registry in docker.io registry.k8s.io; do \
      mkdir -p "/etc/containerd/certs.d/${registry}" \
      && printf '[host."http://192.0.2.1"]\n  capabilities = ["pull", "resolve"]\n' \
        > "/etc/containerd/certs.d/${registry}/hosts.toml" || exit 1; \
    done \
    && mkdir -p /kind/manifests \
    && printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: network-is-there, namespace: kube-system}\n' \
      > /kind/manifests/default-cni.yaml
