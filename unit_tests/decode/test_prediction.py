"""Every decoder refuses what is no prediction."""

import numpy as np
import pytest

from cellbundle.decode.flows import decode_flows
from cellbundle.decode.hover import decode_hover
from cellbundle.errors import ArrayError


@pytest.mark.parametrize("decode", [decode_flows, decode_hover])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 8, 9), "f4"), ((4, 8, 9), "f4"), ((1, 3, 8, 9), "f4"), ((8, 9), "f4"), ((3, 8, 9), "i4"), ((3, 8, 9), "?")],
)
def test_bad_predictions_are_refused(shape, dtype, decode):
    prediction = np.zeros(shape, dtype)
    with pytest.raises(ArrayError, match=r"\(3, H, W\) floating point") as caught:
        decode(prediction)
    assert f"{shape} dtype {prediction.dtype}" in str(caught.value)
