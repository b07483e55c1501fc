"""A YOLOv8 on ONNX Runtime as a careful engineer writes it: what all peers but the first share.

libjpeg-turbo, one resize into a padded canvas, one conversion into a preallocated tensor, the
column maximum before anything else, and OpenCV's suppression on the few boxes that are left.
"""

import os
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import simplejpeg
from numpy.typing import NDArray

SIZE, STRIDE, GREY = 640, 32, 114
CONFIDENCE, IOU, MOST = 0.25, 0.7, 300

cv2.setNumThreads(1)


class Model:
    """A session that several threads may enter."""

    def __init__(self, path: str, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        # Spinning threads take the cores from whoever decodes meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.square = self._session.get_inputs()[0].shape[2] == SIZE

    def prepare(self, encoded: bytes) -> tuple[NDArray[np.float32], tuple[float, int, int]]:
        """Decode and letterbox a JPEG: planes (3, H, W) of 0 to 1, and the way back."""
        image = simplejpeg.decode_jpeg(encoded, "BGR")
        height, width = image.shape[:2]
        gain = min(SIZE / height, SIZE / width)
        inner_w, inner_h = round(width * gain), round(height * gain)
        pad_w, pad_h = SIZE - inner_w, SIZE - inner_h
        if not self.square:
            pad_w, pad_h = pad_w % STRIDE, pad_h % STRIDE
        left, top = round(pad_w / 2 - 0.1), round(pad_h / 2 - 0.1)
        canvas = np.full((inner_h + pad_h, inner_w + pad_w, 3), GREY, np.uint8)
        inner = canvas[top : top + inner_h, left : left + inner_w]
        cv2.resize(image, (inner_w, inner_h), dst=inner, interpolation=cv2.INTER_LINEAR)
        planes = np.empty((3, *canvas.shape[:2]), np.float32)
        np.multiply(canvas[..., ::-1].transpose(2, 0, 1), np.float32(1 / 255), out=planes)
        return planes, (gain, left, top)

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run planes (N, 3, H, W); the answer is (N, 84, places)."""
        output: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return output

    def detections(
        self, output: NDArray[np.float32], fit: tuple[float, int, int]
    ) -> list[dict[str, Any]]:
        """Turn one picture's output (84, places) into boxes in its pixels."""
        columns = output[:, output[4:].max(axis=0) > CONFIDENCE]
        if not columns.size:
            return []
        classes = columns[4:].argmax(axis=0)
        scores = columns[4:].max(axis=0)
        corners = columns[:2] - columns[2:4] / 2
        apart = np.concatenate((corners + classes * 2 * SIZE, columns[2:4])).T
        kept = cv2.dnn.NMSBoxes(apart.tolist(), scores.tolist(), CONFIDENCE, IOU)[:MOST]
        gain, left, top = fit
        x, y = (corners - np.array([[left], [top]])) / gain
        width, height = columns[2:4] / gain
        return [
            {
                "class": int(classes[i]),
                "score": float(scores[i]),
                "box": [float(x[i]), float(y[i]), float(x[i] + width[i]), float(y[i] + height[i])],
            }
            for i in kept
        ]

    def detect(self, encoded: bytes) -> list[dict[str, Any]]:
        """Do all of it for one picture."""
        planes, fit = self.prepare(encoded)
        return self.detections(self.infer(planes[None])[0], fit)
