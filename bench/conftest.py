"""In the suite the benches run once each, so they do not rot; `pytest bench --benchmark-only` measures, and lists nothing else."""


def pytest_configure(config):
    options = config.option
    if not (options.benchmark_only or options.benchmark_enable):
        options.benchmark_disable = True
    options.benchmark_timer = "time.thread_time"  # as V is measured
    options.benchmark_disable_gc = True  # what pytest keeps is no part of a payment


def pytest_ignore_collect(collection_path, config):
    """Leave the tests of the benches out of a measurement: they would be listed as skipped."""
    return True if config.option.benchmark_only and collection_path.name.startswith("test_") else None


def pytest_terminal_summary(terminalreporter):
    from bench import one_payment  # not before it is needed: it signs hundreds of payments

    if one_payment.rows:
        terminalreporter.section("one payment, CPU time; V is one raw libsecp256k1 verification")
        terminalreporter.write_line("\n".join(one_payment.summary()))
