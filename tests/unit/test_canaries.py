"""Each canary has the fault that it is named for, as `analysis` would count it."""

import pytest

from canaries import kept, make

BAD = {
    "blind": lambda told: told["kept"] == 0 and told["blind"] == 1,
    "biased": lambda told: told["kept"] > 0.97 and told["added"] > 0.5,
    "swapped": lambda told: 0.7 < told["kept"] < 0.9 and told["blind"] < 0.05,
    "lossy": lambda told: 0.6 < told["kept"] < 0.85,
    "small-blind": lambda told: told["kept_small"] == 0 and told["kept"] > 0.1,
    "low-res": lambda told: told["kept"] < 0.5 and told["kept_small"] < told["kept"],
    "noisy": lambda told: told["kept"] > 0.97 and told["added"] < 0.1,
}


@pytest.mark.parametrize("name", BAD)
def test_a_canary_is_what_it_is_called(name, tmp_path):
    told = kept(make(name, tmp_path), pictures=24)
    assert BAD[name](told), told
