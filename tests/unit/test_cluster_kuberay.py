"""KubeRay's own manifests, as the local cluster gets them."""

import yaml

from cluster.kuberay import NAMESPACE, adapted

STATED = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: kuberay-operator, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kuberay-operator}
subjects: [{kind: ServiceAccount, name: kuberay-operator, namespace: default}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kuberay-operator, namespace: default}
spec:
  template:
    spec:
      containers:
      - name: kuberay-operator
        command: [/manager]
        image: quay.io/kuberay/operator:v1.5.1
        resources: {limits: {cpu: 100m}}
"""


def test_all_of_it_is_in_one_namespace_and_the_manager_has_the_processor_it_needs() -> None:
    namespace, account, binding, deployment = yaml.safe_load_all(adapted(STATED, "built:1"))
    assert (namespace["kind"], namespace["metadata"]) == ("Namespace", {"name": NAMESPACE})
    assert account["metadata"]["namespace"] == NAMESPACE
    assert "namespace" not in binding["metadata"]
    assert binding["subjects"][0]["namespace"] == NAMESPACE
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["command"]) == ("built:1", ["/entrypoint"])
    assert "cpu" not in container["resources"]["limits"]


def test_where_images_are_pulled_it_is_the_released_one() -> None:
    *_, deployment = yaml.safe_load_all(adapted(STATED, ""))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["command"]) == (
        "quay.io/kuberay/operator:v1.5.1",
        ["/manager"],
    )
