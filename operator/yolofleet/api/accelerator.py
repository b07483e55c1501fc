"""Accelerators that pods claim by what they can, in the place of by their number."""

from typing import Annotated

from pydantic import Field

from yolofleet.api.base import ApiModel


class Accelerator(ApiModel):
    """Devices of one replica, by Dynamic Resource Allocation (resource.k8s.io/v1)."""

    device_class_name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        ),
    ] = Field(
        description="The DeviceClass, such as gpu.nvidia.com or mig.nvidia.com: kubectl get"
        " deviceclasses shows which there are."
    )
    count: Annotated[int, Field(ge=1, le=32)] = Field(
        default=1, description="How many devices a replica gets, all of one node."
    )
    selectors: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]], Field(max_length=8)
    ] = Field(
        default=[],
        description="What each device has to be, as CEL expressions that must all hold, such as"
        " device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0.",
    )
