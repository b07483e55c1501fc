"""LitServe with the careful model, in batches of 8 that wait 5 ms for company."""

import sys
from typing import Any

import litserve
import numpy as np
from fastapi import UploadFile

from bench.serving.peers.careful import Model


class Api(litserve.LitAPI):
    """The steps as LitServe names them."""

    def setup(self, device: str) -> None:  # noqa: ARG002 (there is one)
        """Load the network, in the worker's process."""
        self.model = Model(sys.argv[1])

    def decode_request(self, request: UploadFile) -> Any:
        """Read the picture of a form."""
        return self.model.prepare(request.file.read())

    def batch(self, inputs: list[Any]) -> Any:
        """Stack what was read."""
        return np.stack([planes for planes, _ in inputs]), [fit for _, fit in inputs]

    def predict(self, x: Any) -> Any:
        """Run the network."""
        planes, fits = x
        return list(zip(self.model.infer(planes), fits, strict=True))

    def unbatch(self, output: Any) -> Any:
        """Give each request its own."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Answer with the boxes."""
        return {"detections": self.model.detections(*output)}


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=8, batch_timeout=0.005), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
