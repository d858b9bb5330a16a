"""The gate: who may use which route, and on which port. The door asks it for the hot routes, FastAPI for the others."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.routing import BaseRoute, Match

from service.access.access import Access
from service.access.keys import Role

DOCS_PATHS = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
METRICS_PATH = "/metrics"


class Gate:
    """Lets requests through."""

    def __init__(
        self, access: Access, admin_port: int, docs: bool, metrics: bool, routes: Sequence[BaseRoute] = ()
    ) -> None:
        """Take the keys; the port of the admin routes, 0: the public one; whether that one has docs and metrics; all routes."""
        self._access, self._admin_port = access, admin_port
        self._admin_routes = [route for route in routes if ADMIN in getattr(route, "dependencies", ())]
        self._hidden = frozenset(() if docs else DOCS_PATHS) | frozenset(() if metrics else (METRICS_PATH,))

    def check(self, scope: Any, role: Role) -> None:
        """Let a request pass that needs a role.

        Raises:
            Unauthenticated, Forbidden, RateLimited: as `Access.check`.
        """
        self._access.check(scope["headers"], role, time.monotonic())

    def hides(self, scope: Any) -> bool:
        """Whether the public port does not have this route, though the admin port may; asked before a body is read."""
        if self._is_admin_port(scope):
            return False
        # Starlette's patterns end with `$`, which matches before a closing line break, too.
        if scope["path"].removesuffix("\n") in self._hidden:
            return True
        return bool(self._admin_port) and any(route.matches(scope)[0] is Match.FULL for route in self._admin_routes)

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
