"""HTTP in, one call, HTTP out."""

import sys

# FastAPI asks of each type whether it is a model of pydantic 1, and to know it imports all of that.
sys.modules["pydantic.v1"] = None  # type: ignore[assignment]
