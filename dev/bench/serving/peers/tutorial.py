"""FastAPI and the public YOLO package, as the tutorials write it: a form, Pillow, one call."""

import io
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from ultralytics import YOLO

app = FastAPI()
model = YOLO(sys.argv[1])


@app.post("/predict")
async def predict(file: UploadFile = File(...)) -> dict[str, Any]:  # noqa: B008 (the tutorials' way)
    """Answer with the boxes."""
    image = Image.open(io.BytesIO(await file.read()))
    (result,) = model.predict(image, verbose=False)
    boxes = result.boxes
    return {
        "detections": [
            {"class": result.names[int(kind)], "confidence": score, "box": box}
            for box, score, kind in zip(
                boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True
            )
        ]
    }


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]))
