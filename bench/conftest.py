"""In the suite the benches run once each, so that they do not rot; `pytest bench --benchmark-only` measures."""


def pytest_configure(config):
    if not (config.option.benchmark_only or config.option.benchmark_enable):
        config.option.benchmark_disable = True
