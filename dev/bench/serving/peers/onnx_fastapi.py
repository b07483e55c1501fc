"""FastAPI and ONNX Runtime, done carefully: a raw body, a thread for each core, orjson."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from bench.serving.peers.careful import Model

app = FastAPI()
cores = len(os.sched_getaffinity(0))
model = Model(sys.argv[1])
pool = ThreadPoolExecutor(cores)


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Answer with the boxes."""
    body = await request.body()
    found = await asyncio.get_running_loop().run_in_executor(pool, model.detect, body)
    return Response(orjson.dumps({"detections": found}), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=False)
