"""FastAPI's bare route: what no service on it can be faster than."""

from fastapi import FastAPI

from service.addresses import ALIVE

app = FastAPI()


@app.get(ALIVE)
async def answer() -> dict[str, str]:
    """Nothing but the route."""
    return {"status": "ok"}
