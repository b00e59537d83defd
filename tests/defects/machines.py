"""Known ways to lose money between the machines of a cluster."""

from .kinds import Break

PORT, TLS = "paychan/server/doors/peer_port.py", "paychan/rpc/peer_tls.py"
TRIED = "tests/unit/server/doors/test_peer_port.py"
SETTINGS = "tests/unit/settings/test_cluster.py"

MACHINES = (
    Break(
        ("N1",),
        "whoever reaches the port is believed as a worker is: what he says of a funding output opens a channel",
        TLS,
        "context.verify_mode = ssl.CERT_REQUIRED",
        "context.verify_mode = ssl.CERT_REQUIRED if context is client else ssl.CERT_NONE",
        (f"{TRIED}::test_nothing_is_answered_to_a_stranger_and_it_is_logged_once",),
    ),
    Break(
        ("N1",),
        "a version of TLS is spoken that is weaker than it need be",
        TLS,
        "context.minimum_version = ssl.TLSVersion.TLSv1_3",
        "context.minimum_version = ssl.TLSVersion.TLSv1_2",
        (f"{TRIED}::test_nothing_is_answered_to_a_stranger_and_it_is_logged_once",),
    ),
    Break(
        ("N2",),
        "any certificate of the cluster answers for any machine: payments go to whoever stands in the way with one",
        TLS,
        "client.check_hostname = True",
        "client.check_hostname = False",
        (
            f"{TRIED}::test_a_certificate_that_is_no_good_is_refused_and_logged_once",
            f"{SETTINGS}::test_a_bad_section_is_refused_by_name",
        ),
    ),
    Break(
        ("N3",),
        "two versions of the frames talk to each other, and one reads a value where the other wrote a length",
        PORT,
        "if version != VERSION:",
        "if False:",
        (
            f"{TRIED}::test_another_version_is_as_good_as_away_until_both_are_new",
            "tests/process/test_machines.py::test_another_version_of_the_frames_is_answered_503_until_both_are_new",
        ),
    ),
    Break(
        ("N4",),
        "a host without a certificate keeps the machines of the cluster apart with connections that say nothing",
        PORT,
        "return is_flood or ",
        "return ",
        (f"{TRIED}::test_who_hangs_in_the_handshake_is_dropped_and_who_floods_is_turned_away",),
    ),
    Break(
        ("N5",),
        "the key that a worker is known by to the other machines may be read by others",
        "paychan/settings/cluster.py",
        "if mode & (stat.S_IWGRP | stat.S_IRWXO):",
        "if False:",
        (f"{SETTINGS}::test_a_key_that_is_open_to_others_is_refused",),
    ),
)
