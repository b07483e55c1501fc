"""Of two detectors of which one could be a revision of the other, the younger is told."""

from yolofleet.api.names import revision_name
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.defaults import Defaults

DEFAULTS = Defaults(image_cpu="a", image_torch="b", image_gpu="c")


def detector(name, uid, created, namespace="shop", version="1"):
    metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": version}
    return {"metadata": metadata | {"creationTimestamp": created}, "spec": {}}


def namesake(cache, name):
    raw = cache.detector(f"shop/{name}")
    return cache.elsewhere(f"shop/{name}", raw, DEFAULTS).namesake


def test_the_younger_of_two_is_told_whichever_has_the_longer_name():
    cache = Cache()
    cache.put(kinds.DETECTOR, detector("gate", "1", "2030-01-02"))
    cache.put(kinds.DETECTOR, detector("gate-7c9f1b2a", "2", "2030-01-03"))
    cache.put(kinds.DETECTOR, detector("gate-7c9f1b2b", "3", "2030-01-01"))
    cache.put(kinds.DETECTOR, detector("gate-7c9f1b2a", "4", "2030-01-01", namespace="yard"))
    cache.put(kinds.DETECTOR, detector("gate-north", "5", "2030-01-03"))
    assert namesake(cache, "gate-7c9f1b2a") == "gate"
    assert namesake(cache, "gate") == "gate-7c9f1b2b"
    assert namesake(cache, "gate-7c9f1b2b") == ""
    assert namesake(cache, "gate-north") == ""


def test_names_that_are_shortened_are_compared_as_revisions_have_them():
    cache = Cache()
    long = "g" * 60
    cache.put(kinds.DETECTOR, detector(long, "1", "2030-01-01"))
    cache.put(kinds.DETECTOR, detector(revision_name(long, "7c9f1b2a"), "2", "2030-01-02"))
    assert namesake(cache, revision_name(long, "7c9f1b2a")) == long


def test_when_one_goes_the_other_looks_again_and_is_told_no_more():
    cache = Cache()
    cache.put(kinds.DETECTOR, detector("gate", "1", "2030-01-01"))
    cache.put(kinds.DETECTOR, detector("gate-7c9f1b2a", "2", "2030-01-02"))
    assert cache.routes.stirred() == {"shop/gate"}
    cache.remove(kinds.DETECTOR, "1", 5)
    assert cache.routes.stirred() == {"shop/gate-7c9f1b2a"}
    assert namesake(cache, "gate-7c9f1b2a") == ""


def test_a_successor_of_the_same_name_is_not_forgotten_with_the_first():
    cache = Cache()
    cache.put(kinds.DETECTOR, detector("gate-7c9f1b2a", "2", "2030-01-02"))
    cache.put(kinds.DETECTOR, detector("gate", "1", "2030-01-01"))
    cache.put(kinds.DETECTOR, detector("gate", "3", "2030-01-01", version="7"))
    cache.remove(kinds.DETECTOR, "1", 6)
    assert namesake(cache, "gate-7c9f1b2a") == "gate"


def test_the_status_says_so_and_the_detector_serves_on(world):
    world.namesake = "gate-7c9f1b2a"
    world.settle()
    told = world.status().condition("NameClash")
    assert told.status == "True"
    assert "gate-7c9f1b2a could be the name of a revision of the detector gate" in told.message
    assert world.status().condition("Released").status == "True"
    world.namesake = ""
    world.settle()
    assert world.status().condition("NameClash") is None
