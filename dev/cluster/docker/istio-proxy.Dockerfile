# Istio's proxy: upstream Envoy, the agent that configures it, and the agent's bootstrap template.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY envoy pilot-agent /usr/local/bin/
COPY envoy_bootstrap.json /var/lib/istio/envoy/envoy_bootstrap_tmpl.json
# The pod runs as istio's user without a root file system of its own to write to.
RUN mkdir -p /etc/istio/proxy && chown -R 1337:1337 /etc/istio /var/lib/istio
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/pilot-agent"]
