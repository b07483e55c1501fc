"""Whatever users name and clusters have, in any order: who is served by a route goes on to be."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.conftest import World  # a state machine cannot ask for fixtures

from yolofleet.api.detector import Provider
from yolofleet.routers.choice import ROUTERS

ISTIOS, EDGE, NOWHERE = ["istio-system/public", "istio-system/inner"], "edge/public", "edge/pubilc"
ABSENT = {
    Provider.ISTIO: frozenset({EDGE, NOWHERE}),
    Provider.GATEWAY: frozenset({*ISTIOS, NOWHERE}),
}
MODELS = [{"uri": f"https://models/{n}.onnx"} for n in range(3)]
TRAFFIC = st.fixed_dictionaries(
    {
        "provider": st.sampled_from(["auto", "istio", "gateway"]),
        "gateways": st.sampled_from([[each] for each in (*ISTIOS, EDGE, NOWHERE)]),
        "hosts": st.sampled_from([["a.example.com"], ["b.example.com"]]),
    }
)


class Ways(RuleBasedStateMachine):
    """A detector on Istio's ingress; then anything, with a reconcile after each."""

    @initialize()
    def start(self):
        self.world = World()
        self.world.absent_for = ABSENT
        self.world.edit(traffic={"hosts": ["a.example.com"], "gateways": ISTIOS[:1]})
        self.world.settle()
        assert self._leads()

    @rule(traffic=TRAFFIC)
    def route(self, traffic):
        self.world.edit(traffic=traffic)

    @rule(there=st.booleans(), accepts=st.booleans())
    def gateways_api(self, there, accepts):
        self.world.gateway, self.world.accepts = there, accepts
        if not accepts and (route := self.world.children.get(("HTTPRoute", "gate"))):
            route.pop("status", None)

    @rule(suspended=st.booleans())
    def suspend(self, suspended):
        self.world.edit(suspend=suspended)

    @rule(model=st.sampled_from(MODELS))
    def release(self, model):
        self.world.edit(model=model)

    @rule()
    def pods_run(self):
        self.world.run_pods()

    @invariant()
    def who_is_served_goes_on_to_be(self):
        before = self._leads()
        self.world.reconcile()
        after = self._leads()
        assert after or not before, "no route serves any more"
        assert all(sum(weights.values()) == 100 for weights in after)
        led = {name for weights in after for name, weight in weights.items() if weight}
        names = {self.world.selected()} if led == {"gate"} else led
        assert any(self.world.replicas().get(name) for name in names), (names, after)

    def _leads(self):
        """Return the weights of each route by which somebody serves."""
        world, found = self.world, []
        route = world.children.get(("VirtualService", "gate"))
        if route and not set(route["spec"]["gateways"]) <= ABSENT[Provider.ISTIO]:
            found.append(ROUTERS[Provider.ISTIO].leads(route["spec"]))
        if (route := world.children.get(("HTTPRoute", "gate"))) and world.gateway:
            parents = (route.get("status") or {}).get("parents") or ()
            if [each["parentRef"] for each in parents] == route["spec"]["parentRefs"]:
                found.append(ROUTERS[Provider.GATEWAY].leads(route["spec"]))
        return found


TestWays = Ways.TestCase
TestWays.settings = settings(max_examples=25, stateful_step_count=20)
