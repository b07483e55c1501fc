"""What a CPU says of itself, recorded, and the precision that follows from it."""

from pathlib import Path

import pytest

from yoloserve.engine.backends import openvino
from yoloserve.engine.backends.openvino import HINTS, OpenVino
from yoloserve.engine.starting import choose_precision
from yoloserve.settings import BackendName, PrecisionName

# /proc/cpuinfo of Linux; on ARM a name of the core is not in it.
ARM = """\
processor\t: 0
BogoMIPS\t: {bogomips}
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""
CORTEX_A72 = ARM.format(bogomips="108.00", part="0xd08", features="fp asimd evtstrm crc32 cpuid")
NEOVERSE_N1 = ARM.format(
    bogomips="243.75",
    part="0xd0c",
    features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
    "dcpop asimddp ssbs",
)
NEOVERSE_V1 = ARM.format(
    bogomips="2100.00",
    part="0xd40",
    features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt "
    "fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca "
    "pacg dcpodp svei8mm svebf16 i8mm bf16 dgh rng",
)
X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n\n"
CASCADE_LAKE = X86.format(flags="fpu sse2 avx avx2 f16c avx512f avx512bw avx512vl avx512_vnni")
SAPPHIRE_RAPIDS = X86.format(
    flags="fpu sse2 avx avx2 f16c avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile "
    "amx_int8"
)

FP32, FP16, BF16 = PrecisionName.FP32, PrecisionName.FP16, PrecisionName.BF16


@pytest.mark.parametrize(
    ("recorded", "best"),
    [
        pytest.param(CORTEX_A72, FP32, id="Cortex-A72"),
        pytest.param(NEOVERSE_N1, FP16, id="Neoverse N1"),
        pytest.param(NEOVERSE_V1, FP16, id="Neoverse V1, which has bf16 the runtime does not use"),
        pytest.param(CASCADE_LAKE, FP32, id="Cascade Lake"),
        pytest.param(SAPPHIRE_RAPIDS, BF16, id="Sapphire Rapids, whose fp16 is no gain"),
        pytest.param("", FP32, id="a CPU that says nothing"),
    ],
)
def test_a_cpu_computes_in_what_it_says_it_has_instructions_for(
    recorded: str, best: PrecisionName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(recorded * 2)  # two of them
    flags = openvino.cpu_flags(cpuinfo)
    monkeypatch.setattr(openvino, "cpu_flags", lambda: flags)
    native = OpenVino.precisions()
    assert choose_precision(PrecisionName.AUTO, native, BackendName.OPENVINO) is best
    assert {FP32, PrecisionName.INT8} <= set(native)
    assert set(native) - {PrecisionName.INT8} <= set(HINTS)


def test_where_there_is_no_such_file_nothing_is_known(tmp_path: Path) -> None:
    assert openvino.cpu_flags(tmp_path / "cpuinfo") == set()
