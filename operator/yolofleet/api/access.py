"""Who may ask a detector, who may talk to its pods, and whom they may talk to."""

from collections.abc import Iterator
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from yolofleet.api.base import ApiModel, FreeForm, Rule

_ORIGIN = "^[a-z][-a-z0-9+.]*://([-a-z0-9_.]+|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?$"
_UNSAID = "^(http://.*:80|https://.*:443)$"  # browsers leave these ports out


_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_CIDR = (
    f"^(({_BYTE}[.]){{3}}{_BYTE}/(3[0-2]|[12]?[0-9])"
    "|[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$"
)
_FORM = "^([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]*)/[0-9]{1,3}$"
"""Of IPv6, and of the many there may be in `except`, only the form: what else is wrong with one the
webhook says, or the API server of the NetworkPolicy. CEL has isCIDR from Kubernetes 1.31 on."""
Cidr = Annotated[str, Field(max_length=49)]


class Isolation(StrEnum):
    """What the detector's NetworkPolicy holds off."""

    RESTRICTED = "Restricted"
    INGRESS_ONLY = "IngressOnly"
    NONE = "None"


class Protocol(StrEnum):
    """The protocols that a NetworkPolicy knows."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class IpBlock(ApiModel):
    """Addresses, as in a NetworkPolicy."""

    rules = (
        Rule(
            f"self.cidr.matches('{_CIDR}')",
            "spec.access: cidr of an ipBlock must be an address and how many bits of it count, as"
            " 10.0.0.0/8 (at most /32), 192.0.2.7/32 or fd00::/8 (at most /128)",
            ".cidr",
            "self.cidr",
        ),
        Rule(
            f"!has(self.except) || self.except.all(each, each.matches('{_FORM}'))",
            "spec.access: each entry of except of an ipBlock must be an address and how many bits"
            " of it count, as 10.1.0.0/16, and lie in cidr",
            ".except",
        ),
    )

    cidr: Cidr = Field(description="The addresses: 10.0.0.0/8, fd00::/8.")
    except_: Annotated[list[Cidr], Field(max_length=32)] | None = Field(
        default=None, alias="except", description="Those of them that are not meant."
    )


class Peer(ApiModel):
    """Pods or addresses, as in a NetworkPolicy."""

    rules = (
        Rule(
            "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
            "spec.access: a peer is an ipBlock, or a podSelector, a namespaceSelector or both"
            " (namespaceSelector: {} stands for every namespace)",
        ),
    )

    pod_selector: FreeForm | None = Field(
        default=None,
        description="Pods of the detector's namespace, or of those that namespaceSelector names.",
    )
    namespace_selector: FreeForm | None = Field(
        default=None, description="Namespaces by label; {} for all of them."
    )
    ip_block: IpBlock | None = Field(
        default=None, description="Addresses. Not for pods, whose addresses change."
    )


class PortOf(ApiModel):
    """A port of a peer."""

    port: Annotated[int, Field(ge=1, le=65_535)] = Field(description="Its number.")
    protocol: Protocol = Field(
        default=Protocol.TCP, description="TCP, UDP or SCTP; TCP unless given."
    )


class Reach(ApiModel):
    """Peers and ports that the pods may connect to."""

    rules = (
        Rule(
            "(has(self.to) && size(self.to) > 0) || (has(self.ports) && size(self.ports) > 0)",
            "spec.access.allowTo: an entry needs `to`, `ports` or both; to allow everything, set"
            " spec.access.networkPolicy to IngressOnly",
        ),
    )

    to: Annotated[list[Peer], Field(max_length=16)] = Field(
        default=[], description="The peers. Empty: any address."
    )
    ports: Annotated[list[PortOf], Field(max_length=16)] = Field(
        default=[], description="Their ports. Empty: any port."
    )


class Jwt(ApiModel):
    """Tokens of one issuer."""

    rules = (
        Rule(
            "self.jwksUri.matches('^(https://[^/]|http://[-a-z0-9]+[.][-a-z0-9]+[.]svc"
            "([.]cluster[.]local)?(:[0-9]+)?/)')",
            "spec.access.jwt.jwksUri: must be https://, or http:// to a Service of the cluster"
            " (http://NAME.NAMESPACE.svc:PORT/PATH): whoever can change the keys on their way can"
            " let anybody in",
            ".jwksUri",
            "self.jwksUri",
        ),
        Rule(
            "size(self.audiences) > 0",
            "spec.access.jwt.audiences: name at least one; without, a token that the issuer made"
            " for any other service would be let in",
            ".audiences",
        ),
    )

    issuer: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="What tokens must name as their issuer (`iss`), to the letter."
    )
    jwks_uri: Annotated[str, Field(min_length=1, max_length=2048)] = Field(
        description="Where the issuer publishes its keys (JWKS); `jwks_uri` of its"
        " /.well-known/openid-configuration. The NetworkPolicy admits connections to its port."
    )
    audiences: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]], Field(max_length=32)
    ] = Field(default=[], description="Of these a token must name one (`aud`). At least one.")


SecretName = Annotated[str, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
SecretKey = Annotated[str, Field(max_length=253, pattern="^[-._a-zA-Z0-9]+$")]


class ApiKeys(ApiModel):
    """Keys that are kept in a Secret."""

    secret_name: SecretName = Field(
        description="A Secret of the detector's namespace. The operator never reads it; pods wait"
        " until it is there."
    )
    key: SecretKey = Field(
        default="keys",
        description="Its key that holds the list: on each line a name, a key (or sha256: and its"
        " digest in hex) and, if wanted, the images a second that this client may send; `#` at its"
        " start or after a blank begins a comment. A change is seen without a restart, about a"
        " minute later.",
    )


class ShadowKey(ApiModel):
    """The key by which revisions of one detector know each other; it is kept in a Secret."""

    secret_name: SecretName = Field(
        description="A Secret of the detector's namespace. The operator never reads it. Pods start"
        " without it; then no shadow is sent, and a release is not judged by one."
    )
    key: SecretKey = Field(
        default="key",
        description="Its key that holds 16 characters or more, which nobody else knows. A change is"
        " seen without a restart, about a minute later.",
    )


class FramesKey(ApiModel):
    """The key of the pictures on which two revisions differ most; it is kept in a Secret."""

    secret_name: SecretName = Field(
        description="A Secret of the detector's namespace. The operator never reads it. Pods start"
        " without it; then no picture is kept."
    )
    key: SecretKey = Field(
        default="key",
        description="Its key that holds 16 characters or more, which open nothing else. A change is"
        " seen without a restart, about a minute later.",
    )


Origins = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=253)]],
    Field(max_length=32),
    AfterValidator(sorted),  # in whatever order: the same pods
]


class Guard(ApiModel):
    """Who may ask. It is part of a revision, because the server reads it when it starts."""

    jwt: Jwt | None = Field(
        default=None,
        description="Tokens let in, as `Authorization: Bearer`: RS256 to RS512 and ES256 to ES512.",
    )
    api_keys: ApiKeys | None = Field(
        default=None,
        description="Keys let in, as `Authorization: Bearer`, `X-Api-Key`, or the password that a"
        " browser asks for. With neither jwt nor apiKeys everybody may ask; with both, either is"
        " enough. Health checks are open in any case. A change makes a new revision.",
    )
    shadow_key: ShadowKey | None = Field(
        default=None,
        description="What the shadow shows to the revision on trial, in the place of a caller's"
        " credentials, and what tells its copies from requests. Needed for a shadow where jwt or"
        " apiKeys are asked for; make one with `kubectl create secret generic NAME"
        " --from-literal=key=$(openssl rand -hex 32)`. A change makes a new revision.",
    )
    frames_key: FramesKey | None = Field(
        default=None,
        description="Who shows it sees the pictures that rollout.analysis.keepFrames keeps, in"
        " which people may be seen, on the page of the stable revision's pods. It is asked for"
        " where everybody may ask, too, and no key or token of a client does. Make one with"
        " `kubectl create secret generic NAME --from-literal=key=$(openssl rand -hex 32)`. A change"
        " makes a new revision: its pods have the key, and show what they keep once they are the"
        " stable ones.",
    )
    metrics_open: bool = Field(
        default=True,
        description="true: /metrics asks nobody for credentials, so that Prometheus can scrape it;"
        " allowFrom says who reaches it. false: it asks as everything else does; no PodMonitor is"
        " made, and your own scrape configuration brings a key.",
    )
    cors_origins: Origins = Field(
        default=[],
        description="Sites whose pages may ask from a browser and read the answers (CORS), by their"
        " origins: https://app.example.com, http://localhost:3000. They may also open streams, and"
        " use credentials that the browser has for the detector. * alone stands for every page,"
        " which brings a key of its own or is nobody: the browser gives it no credentials, and it"
        " opens streams only where everybody may ask. Empty: only the detector's own page. A change"
        " makes a new revision.",
    )


class Access(Guard):
    """Who may ask, who may talk to the pods, and whom they may talk to."""

    rules = (
        Rule(
            f"self.corsOrigins.all(o, o == '*' || o.matches('{_ORIGIN}')"
            f" && !o.matches('{_UNSAID}'))",
            "spec.access.corsOrigins: an origin is scheme://host or scheme://host:port as browsers"
            " write it, in small letters; leave out paths, :80 of http and :443 of https",
            ".corsOrigins",
        ),
        Rule(
            "size(self.corsOrigins) < 2 || !self.corsOrigins.exists(o, o == '*')",
            "spec.access.corsOrigins: * stands for all origins; leave out the others, or name each",
            ".corsOrigins",
        ),
        Rule(
            "self.metricsOpen || has(self.jwt) || has(self.apiKeys)",
            "spec.access.metricsOpen: has no effect while everybody may ask; add jwt or apiKeys, or"
            " remove it",
            ".metricsOpen",
        ),
        Rule(
            "self.networkPolicy != 'None' || size(self.allowFrom) + size(self.allowTo) == 0",
            "spec.access.networkPolicy: is None, so allowFrom and allowTo have no effect; remove"
            " them, or set it to Restricted",
            ".networkPolicy",
        ),
        Rule(
            "self.networkPolicy != 'IngressOnly' || size(self.allowTo) == 0",
            "spec.access.allowTo: has no effect with networkPolicy IngressOnly, which restricts no"
            " outgoing connection; remove it, or set networkPolicy to Restricted",
            ".allowTo",
        ),
    )

    network_policy: Isolation = Field(
        default=Isolation.RESTRICTED,
        description="Restricted: pods accept connections to the ports that their containers declare"
        " and make them to DNS, to the ports of every URL in their settings (the model's above"
        " all), to other pods of the detector and to what allowTo adds; when podTemplate adds"
        " containers, whose needs nobody can tell, they may connect to anything unless allowTo is"
        " given; never, unless allowTo names them, to link-local addresses, where clouds hand out"
        " the node's credentials. IngressOnly: only the first half. None: no NetworkPolicy is made."
        " Without a network plug-in that enforces policies none of this has an effect.",
    )
    allow_from: Annotated[list[Peer], Field(max_length=32)] = Field(
        default=[],
        description="Who may connect, besides the detector's own pods. Empty: anybody. Name your"
        " gateway's namespace and that of Prometheus, which scrapes the serving port.",
    )
    allow_to: Annotated[list[Reach], Field(max_length=32)] = Field(
        default=[], description="What else the pods may connect to."
    )

    @property
    def guard(self) -> Guard:
        """Return the part that pods depend on."""
        return Guard(
            jwt=self.jwt,
            api_keys=self.api_keys,
            shadow_key=self.shadow_key,
            frames_key=self.frames_key,
            metrics_open=self.metrics_open,
            cors_origins=self.cors_origins,
        )


def wrong_blocks(access: Access) -> Iterator[str]:
    """Say what no NetworkPolicy could hold, and rules do not see: they cannot count addresses."""
    lists = {"allowFrom": access.allow_from}
    for number, reach in enumerate(access.allow_to):
        lists[f"allowTo[{number}].to"] = reach.to
    for of, peers in lists.items():
        for number, peer in enumerate(peers):
            if peer.ip_block:
                yield from _wrong_with(peer.ip_block, f"spec.access.{of}[{number}].ipBlock")


def _wrong_with(block: IpBlock, path: str) -> Iterator[str]:
    try:
        whole = ip_network(block.cidr, strict=False)
    except ValueError as error:
        yield f"{path}.cidr: {error}; write it as 10.0.0.0/8 or fd00::/8"
        return
    for number, cidr in enumerate(block.except_ or ()):
        try:
            part = ip_network(cidr, strict=False)
        except ValueError as error:
            yield f"{path}.except[{number}]: {error}; write it as 10.1.0.0/16 or fd00:1::/32"
            continue
        inside = part.version == whole.version and part.network_address in whole
        if not inside or part.prefixlen <= whole.prefixlen:
            yield f"{path}.except[{number}]: {cidr} is not a part of {block.cidr}; remove it"
