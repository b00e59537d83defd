from enum import IntEnum

HEAD_SIZE_MAX: int
HEADERS_MAX: int
TARGET_SIZE_MAX: int
METHOD_SIZE_MAX: int
REQUEST_LINE_SIZE_MAX: int

Method = IntEnum("Method", {"GET": 0, "PUT": 1, "POST": 2, "DELETE": 3, "OPTIONS": 4, "HEAD": 5, "OTHER": 6})
HttpStatus = IntEnum(
    "HttpStatus",
    {
        "COMPLETE": 0,
        "INCOMPLETE": 1,
        "MALFORMED_REQUEST_LINE": 4000,
        "MALFORMED_HEADER": 4001,
        "INVALID_HOST": 4002,
        "INVALID_CONTENT_LENGTH": 4003,
        "INVALID_CONNECTION": 4004,
        "REPEATED_HEADER": 4006,
        "BODY_TOO_LARGE": 4130,
        "TARGET_TOO_LONG": 4140,
        "UNKNOWN_EXPECTATION": 4170,
        "HEAD_TOO_LARGE": 4310,
        "TOO_MANY_HEADERS": 4311,
        "HAS_TRANSFER_ENCODING": 5010,
        "UNSUPPORTED_VERSION": 5050,
    },
)

def parse_request_head(data: bytes, body_max: int, seen: int = 0) -> tuple[int, dict[str, int | bytes | bool | None] | None]: ...
def header_values(head: bytes, name: bytes) -> bytes: ...
def is_host(text: bytes) -> bool: ...
