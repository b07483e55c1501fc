"""Host names: what no route may answer to, in the same words as the API server's rules."""

import pytest

from yolofleet.api.hosts import gateway_name, normal, wrong_with

PUBLIC = ["istio-system/public"]


@pytest.mark.parametrize(
    "host",
    [
        "http://a.example.com", "a.example.com:80", "a.example.com/x", "c_c.example.com",
        "a..example.com", "", ".", "-a.example.com", "a-.example.com", f"{'a' * 64}.example.com",
        "a.*.example.com", "*a.example.com", "10.0.0.1", "1", "2001:db8::1", "[::1]",
        "a b.example.com", "a.example.com\n", "tür.example.com", "a.example.com..",
    ],
)  # fmt: skip
def test_what_is_no_dns_name_is_wrong_everywhere(host):
    assert "must be a DNS name" in wrong_with(host, PUBLIC)


@pytest.mark.parametrize(
    "host",
    [
        "payments.shop.svc.cluster.local", "payments.shop.svc", "payments.shop.SVC.",
        "payments.shop.svc.k8s.example.com", "*.svc.cluster.local", "*.local", "printer.local",
    ],
)  # fmt: skip
def test_names_of_the_cluster_are_wrong_everywhere(host):
    assert "names of the cluster" in wrong_with(host, PUBLIC)
    assert wrong_with(host, [])


@pytest.mark.parametrize("host", ["*", "*.example.com", "payments"])
def test_wide_and_short_names_are_for_gateways_alone(host):
    assert not wrong_with(host, PUBLIC)
    for meshed in ([], ["mesh"], [*PUBLIC, "mesh"]):
        assert "inside the mesh" in wrong_with(host, meshed)


@pytest.mark.parametrize(
    "host",
    [
        "gate.example.com", "GATE.Example.com", "xn--tr-wia.example.com", "gate.localhost",
        "svc.example.com", "local.example.com", "1.example.com", "a.b1", f"{'a' * 63}.example.com",
    ],
)  # fmt: skip
def test_names_of_ones_own_are_right_everywhere(host):
    assert not wrong_with(host, PUBLIC)
    assert not wrong_with(host, [])


def test_a_name_has_at_most_253_characters():
    assert not wrong_with(".".join(["a" * 61] * 4) + ".abcde", PUBLIC)
    assert "253" in wrong_with(".".join(["a" * 61] * 4) + ".abcdefg", PUBLIC)


def test_capitals_a_dot_at_the_end_and_short_names_of_gateways_make_no_difference():
    assert normal("GATE.Example.com.") == normal("gate.example.com")
    assert gateway_name("public", "shop") == gateway_name("shop/public", "yard")
    assert gateway_name("mesh", "shop") == "mesh"
