"""The gate: who may use which route, and on which port. The door asks it for the hot routes, FastAPI for the others."""

import time
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.access.access import Access
from service.access.keys import Role

DOCS_PATHS = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
METRICS_PATH = "/metrics"


class Gate:
    """Lets requests through."""

    def __init__(self, access: Access, admin_port: int, docs: bool, metrics: bool) -> None:
        """Take the keys; the port of the admin routes, 0: the public one; whether that one has docs and metrics."""
        self._access, self._admin_port = access, admin_port
        self._hidden = frozenset(() if docs else DOCS_PATHS) | frozenset(() if metrics else (METRICS_PATH,))

    def check(self, scope: Any, role: Role) -> None:
        """Let a request pass that needs a role.

        Raises:
            Unauthenticated, Forbidden, RateLimited: as `Access.check`.
            HTTPException: 404, an admin route on the public port.
        """
        if role == "admin" and self._admin_port and not self._is_admin_port(scope):
            raise HTTPException(404)
        self._access.check(scope["headers"], role, time.monotonic())

    def hides(self, scope: Any) -> bool:
        """Whether the public port does not have this path, though the admin port may."""
        # Starlette's patterns end with `$`, which matches before a closing line break, too.
        return scope["path"].removesuffix("\n") in self._hidden and not self._is_admin_port(scope)

    def _is_admin_port(self, scope: Any) -> bool:
        return bool(self._admin_port) and scope["server"][1] == self._admin_port


# Only for OpenAPI, so that people can enter a key at /docs.
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))]
_Header = Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))]


def _needs(role: Role) -> Any:
    def check(request: Request, _bearer: _Bearer, _header: _Header) -> None:
        request.state.gate.check(request.scope, role)

    return Depends(check)


READ, WRITE, ADMIN = _needs("read"), _needs("write"), _needs("admin")
