import subprocess
import sys

import pytest

CODE = """
import sys, time
start = time.process_time()
import data
print(time.process_time() - start)
heavy = {"torch", "transformers", "datasets", "pyarrow", "align", "reasoning_gym"}
print(*sorted(heavy & set(sys.modules)))
data.Arithmetic(), data.resolve("gsm8k")
print(*sorted(heavy & set(sys.modules)))
"""


@pytest.mark.alone
def test_importing_and_naming_sources_is_quick_and_loads_no_heavy_package():
    taken = []
    for _ in range(3):  # the machine may be busy
        ran = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
        )
        seconds, loaded, later = ran.stdout.split("\n")[:3]
        assert loaded == later == ""
        taken.append(float(seconds))
    assert min(taken) < 0.2
