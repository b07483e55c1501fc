"""A bare control plane for tests and benchmarks: etcd, kube-apiserver, kube-controller-manager.

No kubelet and no scheduler: Deployments make ReplicaSets, these make pods, and the pods wait until
`FakeKubelet` says what becomes of them. It is ready in seconds and needs no rights on the machine.
"""
