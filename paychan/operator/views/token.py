"""What the token that is shown may do, so that the page offers nothing that would be refused."""

from ...settings.tokens import read_tokens
from ..answers import Answer, Request, json_answer
from ..context import Context
from .queries import read_query


async def shown(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/token."""
    read_query(request.query)
    scope = next((row.scope for row in read_tokens(context.config.operator.tokens_file) if row.name == request.who), "")
    return json_answer({"name": request.who, "scope": scope})
