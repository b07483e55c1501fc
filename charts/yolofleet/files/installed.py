"""What `helm test` runs: the operator says it is ready, and the API server serves YoloDetectors."""

import json
import ssl
import sys
import time
import urllib.request

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
DEADLINE_S = 60


def answer(url: str, **options: object) -> bytes:
    """GET `url`, again and again until it answers; the last error ends the test."""
    give_up = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5, **options) as response:  # type: ignore[arg-type]
                return bytes(response.read())
        except OSError as error:
            if time.monotonic() > give_up:
                sys.exit(f"FAILED: {url}: {error}")
            time.sleep(1)


def main(operator: str) -> None:
    """Ask both; exit with a message at the first that does not answer."""
    answer(f"http://{operator}:8080/readyz")
    print("the operator is ready")
    with open(f"{ACCOUNT}/token", encoding="utf-8") as file:
        token = file.read()
    request = urllib.request.Request(
        "https://kubernetes.default.svc/apis/yolofleet.io/v1alpha1",
        headers={"Authorization": f"Bearer {token}"},
    )
    tls = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    with urllib.request.urlopen(request, timeout=10, context=tls) as response:
        kinds = {resource["kind"] for resource in json.load(response)["resources"]}
    if "YoloDetector" not in kinds:
        sys.exit(f"FAILED: yolofleet.io/v1alpha1 serves {sorted(kinds)}, not YoloDetector")
    print("the API server serves YoloDetector")


if __name__ == "__main__":
    main(sys.argv[1])
