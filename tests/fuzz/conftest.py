"""How much is tried: the same 10,000 examples in every run of the suite, or others each time.

make fuzz                                                     an hour, by hand
pytest tests/fuzz --hypothesis-profile other                  another 10,000
"""

from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("same", derandomize=True, database=None, **COMMON)
settings.register_profile("other", derandomize=False, **COMMON)


def pytest_configure(config):
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("same")


settings.load_profile("same")
